"""Splits rows, and parses their numbers, with PyArrow, where it is installed.

PyArrow takes less time, but takes `007` for a number, names no line, and lets
pass some of what is wrong. At any doubt `split` leaves the rows, and `numbers`
the fields, to NumPy, so that columns and complaints are the same.

Needs PyArrow: import this module through `sources.with_pyarrow`.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow
from pyarrow import compute, csv

from experiments.datasets.tables.fields import DIGITS, MARGIN, Bytes
from experiments.datasets.tables.splitting import MAX_CELL, Block

_MINUS, _POINT, _ZERO, _NINE = b'-.09'
_BOM = b'\xef\xbb\xbf'
_TEXT = pyarrow.string()
_CODED = pyarrow.dictionary(pyarrow.int32(), _TEXT)
_SHARED = 4  # rows per field from which fields are looked up


class Splitter:
  """Splits rows; see `blocks.Split`.

  Args:
    are_coded: whether the fields of a column are looked up while they are
      split, column by column.
  """

  def __init__(self, are_coded: Sequence[bool] = ()):
    self._are_coded = are_coded

  def after(self, first: Block) -> 'Splitter':
    """Has columns looked up in whose first block fields repeat."""
    distinct = [len(column.distinct()[1]) for column in first]
    rows = len(first[0])
    return Splitter([_SHARED * number < rows for number in distinct])

  def __call__(
    self, content: bytes, separator: str, num_fields: int
  ) -> Block | None:
    """Returns the columns of whole rows."""
    # PyArrow ends lines at single carriage returns, and skips a mark.
    has_single = b'\r' in content and content.replace(b'\r\n', b'').count(b'\r')
    if has_single or content.startswith(_BOM):
      return None
    if not num_fields:
      header = content[: content.find(b'\n')]
      if b'"' in header:
        return None
      num_fields = header.count(separator.encode()) + 1
    table = self._read(content, separator, num_fields)
    if table is None or not table.num_rows:
      return None
    columns = [_fields(column.chunk(0)) for column in table.columns]
    # A quote in a field may have been two.
    longest = max(column.longest() for column in columns)
    return None if 2 * longest + 2 > MAX_CELL else columns

  def _read(
    self, content: bytes, separator: str, num_fields: int
  ) -> pyarrow.Table | None:
    names = [str(k) for k in range(num_fields)]
    types = [_CODED if is_coded else _TEXT for is_coded in self._are_coded]
    types = types or [_TEXT] * num_fields
    has_quotes = b'"' in content  # without, it takes less time
    try:
      return csv.read_csv(
        pyarrow.BufferReader(content),
        csv.ReadOptions(
          use_threads=False, block_size=len(content) + 1, column_names=names
        ),
        csv.ParseOptions(
          delimiter=separator,
          quote_char='"' if has_quotes else False,
          newlines_in_values=has_quotes,
        ),
        csv.ConvertOptions(
          check_utf8=False,
          column_types=dict(zip(names, types, strict=True)),
          null_values=[''],
          strings_can_be_null=True,
        ),
      )
    except pyarrow.ArrowException:  # a row of another length, say
      return None


def _fields(array: pyarrow.Array) -> 'Strings | Coded':
  if isinstance(array, pyarrow.StringArray):
    return Strings(array)
  codes, values = _values(array.indices, np.int32), array.dictionary
  if array.null_count:
    codes = np.where(_are_known(array.indices), codes, len(values))
    values = pyarrow.concat_arrays([values, pyarrow.nulls(1, _TEXT)])
  return Coded(codes, Strings(values))


class Strings:
  """Fields in memory of PyArrow; see `fields.Fields`."""

  is_coded = False

  def __init__(self, array: pyarrow.StringArray):
    self._array = array  # empty texts are null

  def __len__(self) -> int:
    return len(self._array)

  def skip(self, rows: int) -> 'Strings':
    """Returns them without the first rows."""
    return Strings(self._array[rows:])

  def take(self, rows: np.ndarray) -> 'Strings':
    """Returns the fields of some rows."""
    return Strings(self._array.take(_integers(rows)))

  def texts(self) -> list[str]:
    """Returns what stands in each."""
    return [text or '' for text in self._array.to_pylist()]

  def longest(self) -> int:
    """Returns the length of the longest in bytes."""
    return int(np.diff(self._offsets()).max(initial=0))

  def numbers(
    self, point: str, missing: tuple[str, ...]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers, and which of the fields they are."""
    found = self._cast(missing) if point == '.' else None
    if found is None:
      return self.as_bytes().numbers(point, missing)
    return found, np.ones(len(found), bool)

  def distinct(self) -> tuple[np.ndarray, 'Strings']:
    """Returns `[N]` codes, and the different fields."""
    found = self._array.dictionary_encode(null_encoding='encode')
    return _values(found.indices, np.int32), Strings(found.dictionary)

  def as_bytes(self) -> Bytes:
    """Returns a copy with zeros at either end."""
    offsets = self._offsets()
    margin = np.zeros(MARGIN, np.uint8)
    data = self._data()[offsets[0] : offsets[-1]]
    offsets = offsets.astype(np.int64) - int(offsets[0]) + MARGIN
    text = np.concatenate([margin, data, margin])
    return Bytes(text, offsets[:-1], offsets[1:])

  def _offsets(self) -> np.ndarray:
    first, offsets = self._array.offset, self._array.buffers()[1]
    every = np.frombuffer(offsets, np.int32)
    return every[first : first + len(self._array) + 1]

  def _data(self) -> np.ndarray:
    data = self._array.buffers()[2]
    return np.frombuffer(data or b'', np.uint8)

  def _cast(self, missing: tuple[str, ...]) -> np.ndarray | None:
    """Returns numbers if all are surely plain; see `values`."""
    array = self._array
    try:
      numbers = array.cast(pyarrow.float64())
    except pyarrow.ArrowInvalid:
      is_missing = compute.is_in(array, _strings(missing))
      if not compute.any(is_missing).as_py():
        return None
      none = pyarrow.nulls(1, pyarrow.string())[0]
      return Strings(compute.replace_with_mask(array, is_missing, none))._cast(
        ()
      )
    values = _values(numbers, np.float64)
    if numbers.null_count:
      values = np.where(_are_known(numbers), values, np.nan)
    is_large = np.abs(values) >= 10**DIGITS
    return None if is_large.any() or self._have_codes() else values

  def _have_codes(self) -> bool:
    """Whether a sign, an exponent or a zero at the beginning tells a code."""
    offsets, data = self._offsets(), self._data()
    inside = data[offsets[0] : offsets[-1]]
    if not len(inside):
      return False
    if inside.min() < _MINUS or inside.max() > _NINE:
      return True
    starts = np.minimum(offsets[:-1], len(data) - 1)
    starts += data[starts] == _MINUS
    is_longer = offsets[1:] > starts + 1
    zeros = np.flatnonzero(
      is_longer & (data.take(starts, mode='clip') == _ZERO)
    )
    return bool((data[starts[zeros] + 1] != _POINT).any())


class Coded:
  """Fields many of which are the same; see `fields.Fields`.

  Args:
    codes: `[N]` int32.
    values: the different fields.
  """

  is_coded = True

  def __init__(self, codes: np.ndarray, values: Strings):
    self._codes, self._values = codes, values

  def __len__(self) -> int:
    return len(self._codes)

  def skip(self, rows: int) -> Strings:
    """Returns them without the first rows."""
    return self._spread().skip(rows)

  def texts(self) -> list[str]:
    """Returns what stands in each."""
    return self._spread().texts()

  def longest(self) -> int:
    """Returns the length of the longest in bytes."""
    return self._values.longest()

  def numbers(
    self, point: str, missing: tuple[str, ...]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers, and which of the fields they are."""
    found, are_numbers = self._values.numbers(point, missing)
    return found[self._codes], are_numbers[self._codes]

  def distinct(self) -> tuple[np.ndarray, Strings]:
    """Returns `[N]` codes, and the different fields."""
    return self._codes, self._values

  def as_bytes(self) -> Bytes:
    """Returns a copy with zeros at either end."""
    return self._spread().as_bytes()

  def _spread(self) -> Strings:
    return self._values.take(self._codes)


# PyArrow has what follows, too, but first imports pandas: 0.4 s and 40 MB
# that reading does not need.


def _strings(texts: tuple[str, ...]) -> pyarrow.StringArray:
  """Returns an array of texts."""
  encoded = [text.encode() for text in texts]
  offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
  return pyarrow.StringArray.from_buffers(
    len(texts), pyarrow.py_buffer(offsets), pyarrow.py_buffer(b''.join(encoded))
  )


def _integers(values: np.ndarray) -> pyarrow.Int32Array:
  """Returns an array of int32."""
  return pyarrow.Int32Array.from_buffers(
    pyarrow.int32(), len(values), [None, pyarrow.py_buffer(values)]
  )


def _values(array: pyarrow.Array, dtype: type[np.number]) -> np.ndarray:
  """Returns numbers; any, where they are null."""
  every = np.frombuffer(array.buffers()[1], dtype)
  return every[array.offset : array.offset + len(array)]


def _are_known(array: pyarrow.Array) -> np.ndarray:
  """Returns which values of an array with nulls are not null."""
  bits = np.frombuffer(array.buffers()[0], np.uint8)
  every = np.unpackbits(
    bits, count=array.offset + len(array), bitorder='little'
  )
  return every[array.offset :].view(bool)
