"""Turns the fields of a CSV file into columns, whatever blocks they come in.

A column is `[N]` float64, with NaN for missing numbers, if all of its texts are
plain numbers. Otherwise it is a Factor of texts. A number in a column of texts
has the text that a column of numbers would give it (`1.50` is `1.5`), so that
the same text is the same value in any block, file or column.
"""

import contextlib
import math
import mmap
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.datasets.tables.fields import Bytes, Fields
from lplmtl import columns as raw
from lplmtl.columns import Column, Factor

# A plain number, as programs write it. A code is not one: neither 007 nor +49,
# 12e4 (perhaps hexadecimal), or more digits than float64 tells apart.
_PLAIN = re.compile(
  r'-?(?:0|[1-9]\d{0,14})?(?:\.\d*)?(?:(?<=[\d.])e[+-]\d{2,3})?', re.ASCII
)
_IN_NUMBERS = np.isin(np.arange(256), [0, *b'0123456789+-.,e '])
# From so many texts of a column on, those of a block in which most texts differ
# are not looked up.
_MANY = 2**13
_WIDE = 64  # bytes: arrays of longer texts may be mostly empty
_LARGE = 2**22  # bytes; half a large page may be left empty
_TRIED = 100  # texts that are tried as numbers before the next ones are


class Rows:
  """An array that grows.

  Its memory comes from the operating system and goes back there. That of many
  arrays that grow side by side would stay in the process, in pieces.
  """

  def __init__(self, first: np.ndarray | None = None):
    self.size = 0
    self._array: np.ndarray = np.empty(0)
    if first is not None:
      self.extend(first)

  def extend(self, more: np.ndarray) -> None:
    """Appends values; the dtype becomes one that holds all."""
    size, dtype = self.size + len(more), more.dtype
    if self.size:
      dtype = np.promote_types(self._array.dtype, dtype)
    if size > len(self._array) or dtype != self._array.dtype:
      # Twice the size, so that few values are copied often. Pages that are not
      # written to take no memory.
      new = _space(max(size, 2 * self.size, 1), dtype)
      new[: self.size] = self.array()
      self._array = new
    self._array[self.size : size] = more
    self.size = size

  def array(self) -> np.ndarray:
    """Returns the values so far."""
    return self._array[: self.size]


def _space(size: int, dtype: np.dtype) -> np.ndarray:
  """Returns `[size]` zeros in memory of their own."""
  num_bytes = size * dtype.itemsize
  if not hasattr(mmap, 'MAP_PRIVATE'):  # Windows
    return np.frombuffer(mmap.mmap(-1, num_bytes), dtype)
  # Memory that is not shared, in pages of 2 MB: the system clears it in a
  # seventh of the time.
  memory = mmap.mmap(-1, num_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
  if num_bytes >= _LARGE and hasattr(mmap, 'MADV_HUGEPAGE'):
    with contextlib.suppress(OSError):  # a kernel without large pages
      memory.madvise(mmap.MADV_HUGEPAGE)
  return np.frombuffer(memory, dtype)


class Looked(NamedTuple):
  """What a block of a column holds.

  Attributes:
    fields: of its rows.
    numbers: `[N]` float64, if they may all be numbers.
    coded: `[N]` codes and the different fields, if they are not.
  """

  fields: Fields
  numbers: np.ndarray | None
  coded: tuple[np.ndarray, Fields] | None


class Growing:
  """One column as it grows.

  Args:
    missing: texts that mean "missing" in a column of numbers.
    point: the decimal point.
  """

  def __init__(self, missing: Collection[str], point: str = '.'):
    self._missing = ('', *missing)
    self._point = point
    self._rows = Rows()  # float64, or codes
    self._texts: list[str] = []
    self._code_of: dict[str, int] = {}  # also of texts before `_normal`
    # Texts of a column with so many that most are new: they get codes without
    # being looked up, and may get several.
    self._further = Rows()
    self._num_texts = 0

  def look(self, fields: Fields) -> Looked:
    """Looks at a block; threads may look at several, in any order."""
    # After the first text, numbers are texts, too.
    values = None if self._num_texts else self._numbers(fields)
    coded = fields.distinct() if values is None else None
    return Looked(fields, values, coded)

  def add(self, looked: Looked) -> None:
    """Adds the rows of a block, in the order of the file."""
    fields, values, coded = looked
    if self._num_texts or values is None:
      if not self._num_texts and self._rows.size:
        codes, texts = as_factor(self._rows.array())
        self._rows = Rows(self._narrow(self._coded(texts.tolist())[codes]))
      values = self._codes(*(coded or fields.distinct()))
    self._rows.extend(values)

  def finish(self) -> Column:
    """Returns the whole column; the object is of no use afterwards."""
    rows = self._rows.array()
    if not self._num_texts:
      return rows
    if not self._further.size:
      return Factor(rows, np.array(self._texts, object))
    encoded = np.array([text.encode() for text in self._texts])
    return Factor(rows, np.concatenate([encoded, self._further.array()]))

  def _narrow(self, codes: np.ndarray) -> np.ndarray:
    return codes.astype(np.min_scalar_type(self._num_texts))

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

  def _append(self, texts: np.ndarray) -> None:
    self._further.extend(texts)
    self._num_texts += len(texts)

  def _numbers(self, fields: Fields) -> np.ndarray | None:
    """Returns the numbers of a block; None if one of its fields is a text."""
    if fields.is_coded:
      codes, distinct = fields.distinct()
      values = self._numbers(distinct)
      return None if values is None else values.take(codes)
    values, is_number = fields.numbers(self._point, self._missing)
    others = np.flatnonzero(~is_number)
    if not len(others):
      return values
    left = fields.as_bytes()
    for some in np.split(others, range(_TRIED, len(others), _TRIED)):
      cells = [text.strip() for text in left.take(some).texts()]
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

  def _codes(self, codes: np.ndarray, distinct: Fields) -> np.ndarray:
    """Returns the block's codes, narrow; adds the texts that are new."""
    has_further = self._further.size > 0
    are_many = has_further or (
      self._num_texts > _MANY and 2 * len(distinct) > len(codes)
    )
    if not are_many:
      return self._narrow(self._coded(distinct.texts())).take(codes)
    texts = self._bytes(distinct.as_bytes())
    if texts is None and not has_further:
      return self._narrow(self._coded(distinct.texts())).take(codes)
    if texts is None:
      cells = [self._normal(text).encode() for text in distinct.texts()]
      texts = np.array(cells)
    first = self._num_texts
    self._append(texts)
    return self._narrow(first + codes.astype(np.int32))

  def _bytes(self, fields: Bytes) -> np.ndarray | None:
    """Returns fields as an array of bytes; None if that might change them."""
    starts, size = fields.starts, fields.ends - fields.starts
    width = max(int(size.max()), 1)
    if width > _WIDE or fields.doubled is not None:
      return None
    if size.min() == width and (starts[1:] == fields.ends[:-1]).all():
      found = fields.text[starts[0] : fields.ends[-1]].reshape(-1, width)
    else:
      windows = np.lib.stride_tricks.sliding_window_view(
        np.concatenate([fields.text, np.zeros(width, np.uint8)]), width
      )
      found = windows[starts] * (np.arange(width) < size[:, None])
    may_differ = (found == ord(self._point)) | (found == ord('e'))
    some = found[may_differ.any(1)]
    if _IN_NUMBERS[some].all(1).any():  # see `_normal`
      return None
    texts = np.ascontiguousarray(found).view(f'S{width}')[:, 0]
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


def chained(columns: Sequence[Column]) -> Column:
  """Returns one column of the rows of several."""
  if not any(isinstance(column, Factor) for column in columns):
    return np.concatenate(columns)
  texts, codes, before = [], [], 0
  for column in columns:
    factor = column if isinstance(column, Factor) else as_factor(column)
    texts += [factor.values]
    codes += [factor.codes.astype(np.int64) + before]
    before += len(factor.values)
  # The same text may occur in several files.
  every = [
    str(t, 'utf-8') if isinstance(t, bytes) else t for v in texts for t in v
  ]
  code_of: dict[str, int] = {}
  new = np.array([code_of.setdefault(t, len(code_of)) for t in every])
  values = np.array(list(code_of), object)
  return Factor(new[np.concatenate(codes)], values)
