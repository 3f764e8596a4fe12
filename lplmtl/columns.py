"""Raw columns: values of any dtype in one canonical form.

NumPy only. A column is a list, an array, a pandas column of any dtype, or a
`Factor`.
"""

import datetime
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

MISSING = 'nan'
_MISSING = frozenset({'', 'None', 'nan', 'NaN', 'NaT', '<NA>'})
# How Python prints a float that is a whole number: 753.0, but not 0753.0.
_WHOLE_FLOAT = re.compile(r'-?(?:0|[1-9]\d*)\.0')
# How Python prints floats from 1e16 on, and NumPy, depending on its release,
# those of 16 and 32 bits from 1e3 or 1e6 on.
_SCIENTIFIC = re.compile(r'-?\d(?:\.\d*[1-9])?e[+-]\d\d+')
_TIME = re.compile(
  r'(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d+))?([+-]\d\d:\d\d)?'
)

# With more values per row than this, it takes less time to sort the rows than
# to look at all values.
_FEW = 8


class Factor(NamedTuple):
  """A column of repeated values, each of which is stored once.

  Attributes:
    codes: `[N]` int, the index of each row's value in `values`.
    values: the distinct values.
  """

  codes: np.ndarray
  values: np.ndarray

  def take(self, rows: np.ndarray) -> 'Factor':
    """Returns the column restricted to `rows`, with the same values."""
    return Factor(self.codes[rows], self.values)


Column = Factor | Any  # Any: [N] strings or numbers, or a list of them


class RowError(ValueError):
  """A value that cannot be encoded.

  Attributes:
    column: the name of its column.
    row: its row, counted from 0.
    complaint: what is wrong with it.
    cure: what to do if that is no slip but how the column is, or ''.
  """

  def __init__(self, column: Any, row: int, complaint: str, cure: str = ''):
    super().__init__(
      f'column {column!r} {complaint} in row {row} (counted from 0)'
      f'{cure and ": "}{cure}'
    )
    self.column, self.row = column, row
    self.complaint, self.cure = complaint, cure


def first_of(rows: np.ndarray) -> str:
  """Returns how many rows have a value like the first one, if several do.

  Args:
    rows: `[N]` bool.
  """
  n = int(rows.sum())
  return f' (the first of {n:,} such values)' if n > 1 else ''


def canonical(text: str) -> str:
  """Returns the canonical text of a category, whatever its dtype or source.

  Surrounding blanks are stripped; whole numbers lose `.0` (a column of integers
  becomes one of floats as soon as a value is missing) and their exponent; ISO
  times lose trailing zeros and become UTC; missing values (None, NaN, NaT, NA,
  blank or masked ones) all become `nan`. Any other text is kept: `01` is not
  `1`, and `true` is not `True`. This includes durations, whose text depends on
  their unit (`1 days`, `24 hours`): convert them to numbers in one unit first.

  Args:
    text: `str(value)` for any value.
  """
  text = text.strip()
  if text in _MISSING:
    return MISSING
  # What each of the three patterns needs is looked for first: most texts have
  # none of it.
  if 'e' in text and _SCIENTIFIC.fullmatch(text) and math.isfinite(float(text)):
    number = float(text)
    return str(int(number) if number.is_integer() else number)
  if text.endswith('.0') and _WHOLE_FLOAT.fullmatch(text):
    text = text[:-2]
    return '0' if text == '-0' else text
  time = _TIME.fullmatch(text) if ':' in text else None
  if time:
    day, clock, fraction, offset = time.groups()
    if offset:
      try:
        utc = datetime.datetime.fromisoformat(f'{day}T{clock}{offset}')
        day, clock = str(utc.astimezone(datetime.UTC))[:19].split()
      except (ValueError, OverflowError):
        return text
    fraction = (fraction or '').rstrip('0')
    if fraction:
      return f'{day}T{clock}.{fraction}'
    return day if clock == '00:00:00' else f'{day}T{clock}'
  return text


def texts_of(name: Any, column: Column) -> tuple[np.ndarray, Sequence[str]]:
  """Returns a column of categories as `([N] int codes, distinct texts)`.

  The texts come from `str` and are not yet canonical.

  Raises:
    ValueError: the column is not `[N]`, or a code is out of range.
  """
  column = plain(column)
  if isinstance(column, Factor):
    codes, values = used_values(name, column)
    return codes, _texts(values)
  if np.ma.is_masked(column):
    check_shape(name, column)
    column = list(column)
  # As objects: NumPy would turn all numbers in a list into floats if one is.
  array = np.asarray(column, None if hasattr(column, 'dtype') else object)
  check_shape(name, array)
  if array.dtype != object:
    values, codes = np.unique(array, return_inverse=True)
    return codes, _texts(values)
  # Not np.unique, which would pad all texts to the length of the longest.
  code_of: dict[str, int] = {}
  codes = np.fromiter(
    (code_of.setdefault(text_of(value), len(code_of)) for value in array),
    np.intp,
    len(array),
  )
  return codes, list(code_of)


def _texts(values: np.ndarray) -> list[str]:
  """Returns the text of each value."""
  if values.dtype.kind == 'S':  # as `text_of` does, in a third of the time
    return [b.decode('utf-8', 'backslashreplace') for b in values.tolist()]
  return [text_of(value) for value in values]


def plain(column: Any) -> Column:
  """Returns a pandas column of a dtype of its own as a Factor or an array.

  Categoricals become factors, times with a zone UTC, and integers with missing
  values objects, as floats cannot hold integers above 2^53. Other columns are
  returned as they are.
  """
  dtype = getattr(column, 'dtype', None)
  if dtype is None or isinstance(dtype, np.dtype):
    return column
  if hasattr(dtype, 'categories'):
    data = getattr(column, 'array', column)
    codes, values = np.asarray(data.codes), plain(data.categories)
    if isinstance(values, Factor) or not (codes < 0).any():
      return Factor(codes, np.asarray(values))
    # One by one: as objects, NumPy turns times into integers.
    known = np.array([*np.asarray(values), None], object)
    return Factor(np.where(codes < 0, len(known) - 1, codes), known)
  if hasattr(dtype, 'tz') and hasattr(column, 'to_numpy'):
    return column.to_numpy(f'datetime64[{dtype.unit}]')
  if getattr(dtype, 'kind', '') in ('i', 'u') and hasattr(column, 'isna'):
    has_missing = column.isna().any()
    return column.to_numpy(object if has_missing else dtype.numpy_dtype)
  return column


def used_values(name: Any, factor: Factor) -> tuple[np.ndarray, np.ndarray]:
  """Returns `(codes, values)`, without the values that no row has."""
  codes, values = codes_of(name, factor), np.asarray(factor.values)
  if len(values) > _FEW * len(codes):
    used, codes = np.unique(codes, return_inverse=True)
    return codes, values[used]
  is_used = np.zeros(len(values), bool)
  is_used[codes] = True
  if is_used.all():
    return codes, values
  return (np.cumsum(is_used, dtype=np.int32) - 1)[codes], values[is_used]


def values_of(column: np.ndarray | Factor) -> np.ndarray:
  """Returns the values of a column, each once if it is a Factor."""
  return column.values if isinstance(column, Factor) else column


def with_values(
  column: np.ndarray | Factor, values: np.ndarray
) -> np.ndarray | Factor:
  """Returns a column with others in place of `values_of` it."""
  return Factor(column.codes, values) if isinstance(column, Factor) else values


def spread(column: np.ndarray | Factor) -> np.ndarray:
  """Returns the value of each row, `[N]`."""
  return column.values[column.codes] if isinstance(column, Factor) else column


def codes_of(name: Any, factor: Factor) -> np.ndarray:
  """Returns the codes of a factor, each of which points at a value.

  Raises:
    ValueError: they are no whole numbers, or out of range.
  """
  codes, size = np.asarray(factor.codes), len(factor.values)
  check_shape(name, codes)
  if codes.size and codes.dtype.kind not in 'iu':
    raise ValueError(
      f'column {name!r}: the codes of a Factor, its first argument, must be '
      f'whole numbers, found {codes.dtype}'
    )
  if np.ma.is_masked(factor.codes):
    raise ValueError(
      f'column {name!r}: found masked codes in a Factor; give missing values '
      'a value of their own'
    )
  if not codes.size:
    return codes.astype(np.intp)  # an empty list becomes floats
  if not 0 <= codes.min() <= codes.max() < size:
    raise ValueError(
      f'column {name!r}: the codes of a Factor with {size} values must be '
      f'from 0 to {size - 1}, found {codes.min()} to {codes.max()}; give '
      'missing values a value of their own'
    )
  return codes


def common_length(columns: Iterable[Column]) -> int:
  """Returns N for columns `[N]`.

  Raises:
    ValueError: there is no column, or lengths differ.
  """
  lengths = {
    len(column.codes if isinstance(column, Factor) else column)
    for column in columns
  }
  if not lengths:
    raise ValueError('expected at least one column, found none')
  if len(lengths) > 1:
    raise ValueError(
      f'all columns must have the same number of rows, found {sorted(lengths)}'
    )
  return lengths.pop()


def check_shape(name: Any, array: np.ndarray) -> None:
  """Raises ValueError unless a column is `[N]`."""
  if array.ndim != 1:
    raise ValueError(
      f'column {name!r} must be a list or [N] array of values, found shape '
      f'{array.shape}; for a single row, write a list of one value'
    )


def text_of(value: Any) -> str:
  """Returns `str(value)`; bytes are decoded, masked values are None."""
  if isinstance(value, bytes):
    return value.decode('utf-8', 'backslashreplace')
  return str(None if value is np.ma.masked else value)
