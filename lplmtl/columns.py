"""Raw columns: categories in one canonical form, finite numbers, and bins.

NumPy only. A column is a list, an array, a pandas column of any dtype, or a
`Factor`.
"""

import numbers
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

MISSING = 'nan'
_MISSING = frozenset({'', 'None', 'nan', 'NaN', 'NaT', '<NA>'})
# How Python prints a float that is a whole number: 753.0, but not 0753.0.
_WHOLE_FLOAT = re.compile(r'-?(?:0|[1-9]\d*)\.0')
# How Python prints floats from 1e16 on, all of which are whole numbers.
_LARGE_FLOAT = re.compile(r'-?\d(?:\.\d+)?e\+\d+')
_TIME = re.compile(r'(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d+))?')


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
  """A number that cannot be encoded.

  Attributes:
    column: the name of its column.
    row: its row, counted from 0.
    complaint: what is wrong with it.
  """

  def __init__(self, column: Any, row: int, complaint: str):
    super().__init__(f'column {column!r} {complaint} in row {row}')
    self.column, self.row, self.complaint = column, row, complaint


def canonical(text: str) -> str:
  """Returns the canonical text of a category, whatever its dtype or source.

  Surrounding blanks are stripped; whole numbers lose `.0` (a column of integers
  becomes one of floats as soon as a value is missing) and their exponent; ISO
  times lose trailing zeros; missing values (None, NaN, NaT, NA, blank or masked
  ones) all become `nan`. Any other text is kept: `01` is not `1`, and `true` is
  not `True`. This includes durations, whose text depends on their unit
  (`1 days`, `24 hours`): convert them to numbers in one unit first.

  Args:
    text: `str(value)` for any value.
  """
  text = text.strip()
  if text in _MISSING:
    return MISSING
  if _WHOLE_FLOAT.fullmatch(text):
    text = text[:-2]
    return '0' if text == '-0' else text
  if _LARGE_FLOAT.fullmatch(text) and repr(float(text)) == text:
    return str(int(float(text)))
  time = _TIME.fullmatch(text)
  if time:
    day, clock, fraction = time.groups()
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
  if isinstance(column, Factor):
    codes, values = _codes(name, column), column.values
    if len(values) > len(codes):  # a few rows taken from a large table
      used, codes = np.unique(codes, return_inverse=True)
      values = values[used]
    return codes, [_text(value) for value in values]
  if np.ma.is_masked(column):
    _check_shape(name, column)
    column = list(column)
  # As objects: NumPy would turn all numbers in a list into floats if one is.
  array = np.asarray(column, None if hasattr(column, 'dtype') else object)
  _check_shape(name, array)
  if array.dtype != object:
    values, codes = np.unique(array, return_inverse=True)
    return codes, [_text(value) for value in values]
  # Not np.unique, which would pad all texts to the length of the longest.
  code_of: dict[str, int] = {}
  codes = np.fromiter(
    (code_of.setdefault(_text(value), len(code_of)) for value in array),
    np.intp,
    len(array),
  )
  return codes, list(code_of)


def numbers_of(name: Any, column: Column) -> np.ndarray:
  """Returns a numeric column as `[N]` float64.

  Raises:
    ValueError: the column is not `[N]` numbers; RowError if one is not finite.
  """
  source = column.values if isinstance(column, Factor) else column
  try:
    array = source if np.ma.isMaskedArray(source) else np.asarray(source)
    if array.dtype.kind == 'c':
      raise TypeError('these are complex')
    is_time = array.dtype.kind in ('m', 'M')
    # Masked numbers become NaN, which is rejected below.
    values = np.ma.filled(array.astype(np.float64), np.nan)
  except (ValueError, TypeError, OverflowError) as error:
    raise ValueError(f'column {name!r} must hold numbers: {error}') from error
  if is_time:
    raise ValueError(
      f'column {name!r} must hold numbers, found times ({array.dtype}): make '
      'them numbers in one unit, such as days since a date, '
      "(column - np.datetime64('2000-01-01')) / np.timedelta64(1, 'D')"
    )
  _check_shape(name, values)
  if isinstance(column, Factor):
    values = values[_codes(name, column)]
  if not np.isfinite(values).all():
    row = int(np.argmin(np.isfinite(values)))
    raise RowError(name, row, f'must hold finite numbers; found {values[row]}')
  return values


def bin_edges(values: np.ndarray, num_bins: int) -> tuple[float, ...]:
  """Returns the inner edges of bins with about the same number of rows.

  A value that is frequent enough to fill a bin (census columns are mostly 0)
  gets its own, and the remaining rows share the remaining bins, as in
  LightGBM's histograms: nearly all plain quantiles of such a column would be
  the same number.

  Args:
    values: `[N]` float.
    num_bins: the maximum number of bins, >= 2.

  Returns:
    Increasing edges, midway between neighbouring values; none for a constant.
  """
  distinct, counts = np.unique(values, return_counts=True)
  middles = (distinct[:-1] + distinct[1:]) / 2
  if len(distinct) <= num_bins:
    return tuple(middles.tolist())
  spikes = counts >= values.size / num_bins
  rows_left = int(counts[~spikes].sum())
  bins_left = max(num_bins - int(spikes.sum()), 1)
  edges, filled = [], 0
  for i, middle in enumerate(middles.tolist()):
    if spikes[i]:
      is_full = True
    else:
      filled += int(counts[i])
      # A spike ends the bin before it, which may then be only half full.
      share = 0.5 if spikes[i + 1] else 1.0
      is_full = filled >= share * rows_left / bins_left
      if is_full:
        rows_left, bins_left = rows_left - filled, max(bins_left - 1, 1)
    if is_full:
      edges.append(middle)
      filled = 0
  return tuple(edges[: num_bins - 1])


def _codes(name: Any, factor: Factor) -> np.ndarray:
  codes, size = np.asarray(factor.codes), len(factor.values)
  _check_shape(name, codes)
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


def check_columns(name: str, columns: Any) -> None:
  """Raises ValueError unless `columns` is a dict or a data frame."""
  if not hasattr(columns, 'items'):
    raise ValueError(
      f'{name} must be a dict from names to columns, found '
      f'{type(columns).__name__}'
    )


def check_names(name: str, names: Any, known: list[Any]) -> None:
  """Raises ValueError unless `names` is a collection of known names."""
  # A string is a collection, too: of characters.
  is_tuple = isinstance(names, Collection) and not isinstance(names, str)
  if not is_tuple or any(one not in known for one in names):
    raise ValueError(
      f'{name} must be a tuple of names of numeric columns, from {known}; '
      f'found {names!r}'
    )


def check_rows(name: Any, rows: np.ndarray) -> None:
  """Raises ValueError if a column has no rows."""
  if not len(rows):
    raise ValueError(
      f'column {name!r} must have at least one training row, found none'
    )


def column_name(name: Any) -> str | int:
  """Returns the name as a str or an int, which survive JSON.

  Raises:
    ValueError: it is neither.
  """
  if isinstance(name, str):
    return str(name)
  if isinstance(name, numbers.Integral) and not isinstance(name, bool):
    return int(name)
  raise ValueError(
    f'names of columns must be strings or integers, found {name!r}'
  )


def common_length(columns: Iterable[Any]) -> int:
  """Returns N for columns `[N]`.

  Raises:
    ValueError: there is no column, or lengths differ.
  """
  lengths = {len(column) for column in columns}
  if not lengths:
    raise ValueError('expected at least one column, found none')
  if len(lengths) > 1:
    raise ValueError(
      f'all columns must have the same number of rows, found {sorted(lengths)}'
    )
  return lengths.pop()


def _check_shape(name: Any, array: np.ndarray) -> None:
  if array.ndim != 1:
    raise ValueError(
      f'column {name!r} must be a list or [N] array of values, found shape '
      f'{array.shape}; for a single row, write a list of one value'
    )


def _text(value: Any) -> str:
  if isinstance(value, bytes):
    return value.decode(errors='backslashreplace')
  return str(None if value is np.ma.masked else value)
