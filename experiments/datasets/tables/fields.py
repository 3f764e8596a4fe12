"""The fields of a column in a block of a CSV file, as bytes.

Finds the numbers among them, and tells different ones apart, with NumPy.
"""

import dataclasses
from typing import Protocol

import numpy as np

MARGIN = 16  # zeros around a text, so that two words fit before any field
DIGITS = 15  # so many decimal digits are exact in float64
_IN_NUMBERS = np.isin(np.arange(256), [0, *b'0123456789+-.,e '])
_WORD = 8
_WIDTH = 2 * _WORD  # bytes: a sign, a point and almost all digits
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio


class Fields(Protocol):
  """The fields of a column, in the order of its rows.

  Attributes:
    is_coded: whether the different ones are known, so that it takes less time
      to look at each of these than at the field of each row.
  """

  @property
  def is_coded(self) -> bool: ...

  def __len__(self) -> int:
    """Returns N."""

  def skip(self, rows: int) -> 'Fields':
    """Returns them without the first rows."""

  def texts(self) -> list[str]:
    """Returns what stands in each."""

  def numbers(
    self, point: str, missing: tuple[str, ...]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Parses plain numbers; see `values`.

    Args:
      point: the decimal point.
      missing: texts that mean "missing", which may be taken for numbers.

    Returns:
      `[N]` float64, NaN for what is missing, and `[N]` bool: whether that is
      the field's number. Other fields may be numbers, too.
    """

  def distinct(self) -> tuple[np.ndarray, 'Fields']:
    """Returns `[N]` codes, and the different fields."""

  def as_bytes(self) -> 'Bytes':
    """Returns the same fields as bytes."""


@dataclasses.dataclass(frozen=True)
class Bytes:
  """Fields as parts of a text.

  Attributes:
    text: uint8, UTF-8, with MARGIN zeros at either end.
    starts: `[N]` int, where each field begins in `text`.
    ends: `[N]`, where it ends.
    doubled: `[N]` bool, fields in which each quote stands twice; None if there
      are none.
  """

  text: np.ndarray
  starts: np.ndarray
  ends: np.ndarray
  doubled: np.ndarray | None = None
  is_coded = False

  def __len__(self) -> int:
    return len(self.starts)

  def take(self, rows: np.ndarray | slice) -> 'Bytes':
    """Returns the fields of some rows."""
    doubled = None if self.doubled is None else self.doubled[rows]
    return Bytes(self.text, self.starts[rows], self.ends[rows], doubled)

  def skip(self, rows: int) -> 'Bytes':
    """See `Fields`."""
    return self.take(slice(rows, None))

  def texts(self) -> list[str]:
    """See `Fields`."""
    text = self.text.data
    texts = [
      str(text[start:end], 'utf-8')
      for start, end in zip(
        self.starts.tolist(), self.ends.tolist(), strict=True
      )
    ]
    if self.doubled is not None:
      for i in np.flatnonzero(self.doubled).tolist():
        texts[i] = texts[i].replace('""', '"')
    return texts

  def numbers(
    self, point: str, missing: tuple[str, ...]
  ) -> tuple[np.ndarray, np.ndarray]:
    """See `Fields`."""
    return parse(self.text, self.starts, self.ends, point)

  def distinct(self) -> tuple[np.ndarray, 'Bytes']:
    """See `Fields`."""
    codes, rows = factorize(self.text, self.starts, self.ends)
    return codes, self.take(rows)

  def as_bytes(self) -> 'Bytes':
    """See `Fields`."""
    return self


def parse(
  text: np.ndarray, starts: np.ndarray, ends: np.ndarray, point: str
) -> tuple[np.ndarray, np.ndarray]:
  """Parses decimal numbers of up to 16 bytes, correctly rounded.

  Digits and a power of ten are exact in float64, and so their quotient is the
  float64 that is nearest to the number (Clinger 1990).

  Args:
    text: uint8, with MARGIN bytes before the first field.
    starts: `[N]`, where the fields begin.
    ends: `[N]`, where they end.
    point: the decimal point.

  Returns:
    `[N]` float64, NaN for empty fields, and `[N]` bool: whether that is the
    field's number. Other fields may be numbers, too: with blanks, longer ones,
    or ones with an exponent.
  """
  size = ends - starts
  # Columns of texts are left as soon as possible: by their first letters.
  some = text[starts[:100][size[:100] > 0]]
  if len(some) and not _IN_NUMBERS[some].any():
    return np.zeros(len(size)), np.zeros(len(size), bool)
  # `[width, N]`, the last bytes of each field: rows are places, from the left.
  width = _WORD if size.max(initial=0) <= _WORD else _WIDTH
  bytes_ = np.concatenate(
    [_word(text, ends - back) for back in range(width, 0, -_WORD)]
  )
  place = np.arange(width, dtype=np.uint8)[:, None]
  powers = 10.0 ** np.arange(width)[::-1]
  inside = place >= np.maximum(width - size, 0).astype(np.uint8)
  digits = bytes_ - np.uint8(48)  # below zero wraps around
  is_digit = (digits < 10) & inside
  is_point = (bytes_ == ord(point)) & inside
  is_minus = text[starts] == ord('-')
  digits *= is_digit
  num_digits = is_digit.sum(0, np.uint8)
  num_points = is_point.sum(0, np.uint8)
  total = powers @ digits.astype(np.float64)
  decimals = np.zeros(len(size), np.uint8)
  if num_points.any():
    at = (is_point * place).sum(0, np.uint8)
    has_point = num_points == 1
    decimals = np.where(has_point, width - 1 - at, 0).astype(np.uint8)
    digits *= place > at
    after = powers @ digits.astype(np.float64)
    # The digits before the point stand one place too far to the left.
    total = np.where(has_point, (total - after) / 10 + after, total)
  before = num_digits - decimals
  leading = text[starts + is_minus] == 48
  is_plain = (
    (size <= width)
    & (size == num_digits + num_points + is_minus.astype(np.uint8))
    & (num_points <= 1)
    & (num_digits > 0)
    & (num_digits <= DIGITS)
    & ~(leading & (before > 1))
  )
  values = total / powers[::-1][decimals]
  np.negative(values, out=values, where=is_minus)
  is_empty = size == 0
  values[is_empty] = np.nan
  return values, is_plain | is_empty


def factorize(
  text: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Tells different fields apart.

  Args:
    text: uint8, with MARGIN bytes after the last field.
    starts: `[N]`, where the fields begin.
    ends: `[N]`, where they end.

  Returns:
    `[N]` codes, and for each code the first row that has it.
  """
  import pandas as pd  # takes 0.3 s, wasted if the cache has the columns

  size = ends - starts
  words = [_uint64(text)[starts] & _MASKS[np.minimum(size, _WORD)]]
  for at in range(_WORD, int(size.max(initial=0)), _WORD):
    # Fields that have ended are read from the margin, as zeros.
    place = np.where(size > at, starts + at, 0)
    left = np.minimum(np.maximum(size - at, 0), _WORD)
    words.append(_uint64(text)[place] & _MASKS[left])
  key = words[0]
  for word in words[1:]:
    key = (key ^ (key >> np.uint64(29))) * _MIX + word
  codes, _ = pd.factorize(key)
  first = np.empty(codes.max(initial=-1) + 1, np.int64)
  first[codes[::-1]] = np.arange(len(codes))[::-1]
  if len(words) > 1:
    same = all((word == word[first][codes]).all() for word in words)
    if not same:  # two texts with one key, once in 2**64 pairs
      stacked = np.stack(words, 1)
      _, first, codes = np.unique(
        stacked, axis=0, return_index=True, return_inverse=True
      )
  return codes.reshape(-1), first


# `_MASKS[n]` keeps the first n bytes of a little-endian word.
_MASKS = np.array([2 ** (8 * n) - 1 for n in range(_WORD + 1)], np.uint64)


def _uint64(text: np.ndarray) -> np.ndarray:
  """Returns the little-endian word that begins at each byte."""
  return np.ndarray((len(text) - _WORD + 1,), '<u8', text, strides=(1,))


def _word(text: np.ndarray, starts: np.ndarray) -> np.ndarray:
  """Returns the 8 bytes from each start, `[8, N]`."""
  words = _uint64(text)[starts]
  return np.ascontiguousarray(words.view(np.uint8).reshape(-1, _WORD).T)
