"""Turns the fields of a CSV file into columns, whatever blocks they come in.

A column is `[N]` float64, with NaN for missing numbers, if all of its texts are
plain numbers. Otherwise it is a Factor of texts. A number in a column of texts
has the text that a column of numbers would give it (`1.50` is `1.5`), so that
the same text is the same value in any block, file or column.
"""

import math
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from experiments.datasets.tables.blocks import Block
from lplmtl import columns as raw
from lplmtl.columns import Column, Factor

# A plain number, as programs write it. A code is not one: neither 007 nor +49,
# 12e4 (perhaps hexadecimal), or more digits than float64 tells apart.
_PLAIN = re.compile(
  r'-?(?:0|[1-9]\d{0,14})?(?:\.\d*)?(?:(?<=[\d.])e[+-]\d{2,3})?', re.ASCII
)
_IN_NUMBERS = np.isin(np.arange(256), [0, *b'0123456789+-.,e '])
_DIGITS = 15  # so many decimal digits are exact in float64
_WORD = 8
_WIDTH = 2 * _WORD  # bytes: a sign, a point and almost all digits
# From so many texts of a column on, those of a block in which most texts differ
# are not looked up.
_MANY = 2**16
_WIDE = 64  # bytes: arrays of longer texts may be mostly empty
_TRIED = 100  # texts that are tried as numbers before the next ones are
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio


class Growing:
  """One column as it grows.

  Args:
    missing: texts that mean "missing" in a column of numbers.
    point: the decimal point.
  """

  def __init__(self, missing: Collection[str], point: str = '.'):
    self._missing = {'', *missing}
    self._point = point
    self._blocks: list[np.ndarray] = []  # float64, or codes
    self._texts: list[str] = []
    self._code_of: dict[str, int] = {}  # also of texts before `_normal`
    # Texts of a column with so many that most are new: they get codes without
    # being looked up, and may get several.
    self._further: list[np.ndarray] = []
    self._num_texts = 0

  def add(self, block: Block, column: int) -> None:
    """Adds the rows of a block."""
    # After the first text, numbers are texts, too.
    values = None if self._num_texts else self._numbers(block, column)
    if values is None:
      codes = self._codes(block, column)
      values = codes.astype(np.min_scalar_type(self._num_texts))
    self._blocks.append(values)

  def finish(self) -> Column:
    """Returns the whole column; the object is of no use afterwards."""
    if not self._num_texts:
      column = np.concatenate(self._blocks)
      self._blocks.clear()  # other columns are yet to be finished
      return column
    blocks = [self._as_codes(block) for block in self._blocks]
    self._blocks.clear()
    code_type = np.min_scalar_type(self._num_texts)
    codes = np.concatenate(blocks, dtype=code_type, casting='unsafe')
    texts = np.array(self._texts, object)
    self._code_of.clear()
    self._texts.clear()
    if self._further:
      encoded = np.array([text.encode() for text in texts])
      texts = np.concatenate([encoded, *self._further])
      self._further.clear()
    return Factor(codes, texts)

  def _coded(self, texts: Sequence[str]) -> np.ndarray:
    """Returns the codes of texts; new ones get the next codes."""
    codes: list[Any] = list(map(self._code_of.get, texts))
    if None in codes:
      codes = [
        self._code(text) if code is None else code
        for text, code in zip(texts, codes, strict=True)
      ]
      self._num_texts = len(self._texts)
    return np.array(codes, np.int32)

  def _code(self, text: str) -> int:
    normal = self._normal(text)
    code = self._code_of.setdefault(normal, len(self._texts))
    if code == len(self._texts):
      self._texts.append(normal)
    self._code_of[text] = code
    return code

  def _as_codes(self, block: np.ndarray) -> np.ndarray:
    if block.dtype != np.float64:
      return block
    codes, texts = as_factor(block)
    if not self._further:
      return self._coded(texts.tolist())[codes]
    first = self._num_texts
    self._append(np.array([text.encode() for text in texts]))
    return (first + codes).astype(np.int32)

  def _append(self, texts: np.ndarray) -> None:
    self._further.append(texts)
    self._num_texts += len(texts)

  def _numbers(self, block: Block, column: int) -> np.ndarray | None:
    """Returns the numbers of a block; None if one of its fields is a text."""
    values, is_number = parse(
      block.text, block.starts[column], block.ends[column], self._point
    )
    others = np.flatnonzero(~is_number)
    for some in np.split(others, range(_TRIED, len(others), _TRIED)):
      cells = [cell.strip() for cell in block.cells(column, some)]
      found = [
        np.nan if cell in self._missing else self._number(cell)
        for cell in cells
      ]
      if None in found:
        return None
      values[some] = found
    return values

  def _number(self, text: str) -> float | None:
    if self._point != '.':
      text = text.replace('.', ' ').replace(self._point, '.')
    if not _PLAIN.fullmatch(text) or not any(map(str.isdigit, text)):
      return None
    number = float(text)
    return number if math.isfinite(number) else None

  def _codes(self, block: Block, column: int) -> np.ndarray:
    """Returns the block's codes; adds the texts that are new."""
    starts, ends = block.starts[column], block.ends[column]
    codes, rows = factorize(block.text, starts, ends)
    are_many = self._further or (
      self._num_texts > _MANY and 2 * len(rows) > len(codes)
    )
    if are_many and (texts := self._bytes(block, column, rows)) is not None:
      first = self._num_texts
      self._append(texts)
      return first + codes.astype(np.int32)
    if self._further:
      first = self._num_texts
      cells = [self._normal(t).encode() for t in block.cells(column, rows)]
      self._append(np.array(cells))
      return first + codes.astype(np.int32)
    return self._coded(block.cells(column, rows))[codes]

  def _bytes(
    self, block: Block, column: int, rows: np.ndarray
  ) -> np.ndarray | None:
    """Returns fields as an array of bytes; None if that might change them."""
    starts, ends = block.starts[column, rows], block.ends[column, rows]
    size = ends - starts
    width = max(int(size.max()), 1)
    if width > _WIDE or block.doubled is not None:
      return None
    windows = np.lib.stride_tricks.sliding_window_view(
      np.concatenate([block.text, np.zeros(width, np.uint8)]), width
    )
    found = windows[starts] * (np.arange(width) < size[:, None])
    may_differ = (found == ord(self._point)) | (found == ord('e'))
    if (may_differ.any(1) & _IN_NUMBERS[found].all(1)).any():  # see `_normal`
      return None
    texts = found.astype(np.uint8).view(f'S{width}')[:, 0]
    return None if (texts == b'-0').any() else texts

  def _normal(self, text: str) -> str:
    # Other plain numbers are as they should be.
    if self._point in text or 'e-' in text or 'e+' in text or text == '-0':
      number = self._number(text.strip())
      return text if number is None else as_text(number)
    return text


def as_factor(numbers: np.ndarray) -> Factor:
  """Returns numbers as they stand in a column of texts."""
  distinct, codes = np.unique(numbers, return_inverse=True)
  texts = ['' if np.isnan(x) else as_text(x) for x in distinct.tolist()]
  return Factor(codes, np.array(texts, object))


def as_text(number: float) -> str:
  """Returns the text of a number in a column of texts."""
  return raw.canonical(repr(number))


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
    & (num_digits <= _DIGITS)
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
