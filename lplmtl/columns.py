"""Raw columns: categories as text in one form, finite numbers, their bins.

NumPy alone. A column is a list, an array, a pandas column of any dtype, or a
`Factor`.
"""

import numbers
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

MISSING = 'nan'
_MISSING = frozenset({'', 'None', 'nan', 'NaN', 'NaT', '<NA>'})
# How Python writes a whole number of a float: 753.0, but not the text 0753.0.
_WHOLE = re.compile(r'-?(?:0|[1-9]\d*)\.0')
# And a float from 1e16 on, all of which are whole.
_LARGE = re.compile(r'-?\d(?:\.\d+)?e\+\d+')
_TIME = re.compile(r'(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d+))?')


class Factor(NamedTuple):
  """A column of repeated values, stored once each.

  Attributes:
    codes: `[N]` int, the position of each row's value in `values`.
    values: the different values.
  """

  codes: np.ndarray
  values: np.ndarray

  def take(self, rows: np.ndarray) -> 'Factor':
    """The column of some rows only, with the same values."""
    return Factor(self.codes[rows], self.values)


Column = Factor | Any  # else: [N] strings or numbers, or a list of them


class RowError(ValueError):
  """A number that cannot be encoded.

  Attributes:
    column: its name.
    row: from 0.
    complaint: what is wrong with it.
  """

  def __init__(self, column: Any, row: int, complaint: str):
    super().__init__(f'column {column!r} {complaint} in row {row}')
    self.column, self.row, self.complaint = column, row, complaint


def canonical(text: str) -> str:
  """The one form of a category, whatever dtype or file it comes from.

  Blanks around it do not count; a whole number has no `.0` (a column of
  integers becomes one of floats as soon as a value is missing) and no exponent;
  an ISO time has no zeros at its end; missing values (None, NaN, NaT, NA,
  blank, masked ones) are all `nan`. All other texts stay as they are: `01` is
  not `1`, `true` is not `True`. So do lengths of time, whose text depends on
  their unit (`1 days`, `24 hours`): make them numbers of one unit first.

  Args:
    text: `str(value)` of any value.
  """
  text = text.strip()
  if text in _MISSING:
    return MISSING
  if _WHOLE.fullmatch(text):
    text = text[:-2]
    return '0' if text == '-0' else text
  if _LARGE.fullmatch(text) and repr(float(text)) == text:
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
  """A column of categories as `([N] int codes, different texts)`.

  The texts are those of `str`, not yet in their one form.

  Raises:
    ValueError: not one value a row, or codes that point nowhere.
  """
  if isinstance(column, Factor):
    codes, values = _codes(name, column), column.values
    if len(values) > len(codes):  # a few rows of a large table
      used, codes = np.unique(codes, return_inverse=True)
      values = values[used]
    return codes, [_text(value) for value in values]
  if np.ma.is_masked(column):
    _check_shape(name, column)
    column = list(column)
  # NumPy would make the numbers of a list floats as soon as one of them is.
  array = np.asarray(column, None if hasattr(column, 'dtype') else object)
  _check_shape(name, array)
  if array.dtype != object:
    values, codes = np.unique(array, return_inverse=True)
    return codes, [_text(value) for value in values]
  # Not np.unique, for which all texts would be made as long as the longest.
  found: dict[str, int] = {}
  codes = np.fromiter(
    (found.setdefault(_text(value), len(found)) for value in array),
    np.intp,
    len(array),
  )
  return codes, list(found)


def numbers_of(name: Any, column: Column) -> np.ndarray:
  """`[N]` float64 of a numeric column.

  Raises:
    ValueError: not one number a row; RowError where one is not finite.
  """
  source = column.values if isinstance(column, Factor) else column
  try:
    # Under a mask is no number: NaN, and refused below.
    found = source if np.ma.isMaskedArray(source) else np.asarray(source)
    if found.dtype.kind == 'c':
      raise TypeError('these are complex')
    times = found.dtype.kind in ('m', 'M')
    values = np.ma.filled(found.astype(np.float64), np.nan)
  except (ValueError, TypeError, OverflowError) as error:
    raise ValueError(f'column {name!r} must hold numbers: {error}') from error
  if times:
    raise ValueError(
      f'column {name!r} holds times ({found.dtype}), whose numbers depend on '
      'their unit: expected numbers, such as the days since a date, '
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
  """Inner edges of bins that hold about equally many rows.

  A value that alone fills a bin (census columns are mostly 0) gets one of its
  own and does not use up the other bins, as in LightGBM's histograms: plain
  quantiles of such a column would all be the same number.

  Args:
    values: `[N]` float.
    num_bins: at most so many bins, >= 2.

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
      # Before a spike a bin may end at half its size.
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
      f'column {name!r}: the codes of a Factor must be whole numbers, its '
      f'first argument, found {codes.dtype}'
    )
  if np.ma.is_masked(factor.codes):
    raise ValueError(
      f'column {name!r}: some codes of a Factor are masked; missing values '
      'want a value of their own'
    )
  if not codes.size:
    return codes.astype(np.intp)  # of an empty list floats
  if not 0 <= codes.min() <= codes.max() < size:
    raise ValueError(
      f'column {name!r}: the codes of a Factor with {size} values must lie '
      f'from 0 to {size - 1}, found {codes.min()} to {codes.max()}; missing '
      'values want a value of their own'
    )
  return codes


def check_columns(name: str, columns: Any) -> None:
  """Refuses what is no dict of columns."""
  if not hasattr(columns, 'items'):  # a dict, or a data frame
    raise ValueError(
      f'{name} must be a dict of columns by their names, found '
      f'{type(columns).__name__}'
    )


def check_names(name: str, names: Any, known: list[Any]) -> None:
  """Refuses a text, which would be searched for letters, and unknown names."""
  is_some = isinstance(names, Collection) and not isinstance(names, str)
  if not is_some or any(one not in known for one in names):
    raise ValueError(
      f'{name} must be a tuple of some of the numeric columns {known}; found '
      f'{names!r}'
    )


def check_rows(name: Any, rows: np.ndarray) -> None:
  """Refuses a column without rows."""
  if not len(rows):
    raise ValueError(
      f'column {name!r} has no rows: tables are fitted on training rows'
    )


def column_name(name: Any) -> str | int:
  """A name that JSON gives back."""
  if isinstance(name, str):
    return str(name)
  if isinstance(name, numbers.Integral) and not isinstance(name, bool):
    return int(name)
  raise ValueError(
    f'columns must be named by strings or integers, found {name!r}'
  )


def common_length(columns: Iterable[Any]) -> int:
  """N of columns `[N]`.

  Raises:
    ValueError: there is no column, or their lengths differ.
  """
  lengths = {len(column) for column in columns}
  if not lengths:
    raise ValueError('tables need at least one column, found none')
  if len(lengths) > 1:
    raise ValueError(
      f'all columns need the same number of rows, found {sorted(lengths)}'
    )
  return lengths.pop()


def _check_shape(name: Any, array: np.ndarray) -> None:
  if array.ndim != 1:
    raise ValueError(
      f'column {name!r} must be a list or [N] array of values, found shape '
      f'{array.shape}: a single row is a list of one'
    )


def _text(value: Any) -> str:
  if isinstance(value, bytes):
    return value.decode(errors='backslashreplace')
  return str(None if value is np.ma.masked else value)
