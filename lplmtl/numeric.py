"""Numbers: read, filled in where missing, scaled and binned.

NumPy only.
"""

import dataclasses
import functools
import numbers
from typing import Any

import numpy as np

from lplmtl import _knots, _quantiles, _tables_checks
from lplmtl import columns as raw
from lplmtl.columns import Column, Factor, RowError

# The largest distance from the mean, in standard deviations, of a number that
# can be encoded. Stacked feature crosses multiply up to four of them, and the
# largest float32 is 3e38: 1e9 leaves room, 1e10 does not. Real data lie nearer.
FURTHEST = 1e9
# The largest logarithm of a count that is predicted: exp(80) is 5e34.
MAX_LOG_RATE = 80.0
# A relative spread below this counts as constant: rounding leaves about 1e-16.
_CONSTANT = 1e-14
_WORDS = {'true': 1.0, 'false': 0.0}  # as a column of 1 and 0 has been saved
_NUMBERS = (int, float, bool, np.floating, np.integer, np.bool_)
_TIMES = (np.datetime64, np.timedelta64)


@dataclasses.dataclass(frozen=True)
class Numeric:
  """How one numeric column is scaled and binned.

  Attributes:
    log: whether `sign(x) log(1 + |x|)` is applied before standardisation.
    mean: mean over the training rows that have a number, after the logarithm.
    std: standard deviation likewise; 1 if the column varies by rounding only.
    edges: inner edges of its bins, in the column's own unit; empty for no bins.
    fill: what a missing number counts as, the median of the training rows, in
      the column's own unit; None if missing numbers are refused.
    flag: whether a further column tells which numbers were missing.
    interpolate: whether its place among the edges is encoded, not its bin.
    only_bins: whether its bin alone is encoded, not the scaled number.
  """

  log: bool
  mean: float
  std: float
  edges: tuple[float, ...] = ()
  fill: float | None = None
  flag: bool = False
  interpolate: bool = False
  only_bins: bool = False

  def scale(self, values: np.ndarray) -> np.ndarray:
    """Returns `[N]` float64, standardised by the mean and std of training."""
    with np.errstate(all='ignore'):  # `encode` checks the result
      return (maybe_log(values, self.log) - self.mean) / self.std

  def position(self, scaled: np.ndarray) -> np.ndarray:
    """Returns where encoded numbers lie among the E edges, from 0 to E + 1.

    The ends lie a standard deviation outside: extremes may be outliers.
    """
    return self._knots(scaled)

  @functools.cached_property
  def _knots(self) -> _knots.Knots:
    edges = self.scale(np.asarray(self.edges))
    return _knots.Knots(np.array([edges[0] - 1, *edges, edges[-1] + 1]))

  def fill_in(self, name: Any, values: np.ndarray) -> np.ndarray:
    """Returns `[N]` float64 without NaN.

    Raises:
      RowError: a number is missing, and `fill` is None.
    """
    is_missing = np.isnan(values)
    if not is_missing.any():
      return values
    if self.fill is None:
      raise missing_number(name, is_missing)
    return np.where(is_missing, self.fill, values)

  def encode(self, name: Any, values: np.ndarray) -> np.ndarray:
    """Returns `[N]` float64, scaled.

    Args:
      name: of the column, for messages.
      values: `[N]` float64 without NaN.

    Raises:
      RowError: a number is further than FURTHEST from the mean.
    """
    scaled = self.scale(values)
    is_near = np.abs(scaled) <= FURTHEST
    if not is_near.all():
      row = int(np.argmin(is_near))
      raise RowError(
        name,
        row,
        f'must lie within {FURTHEST:g} standard deviations of the mean; found '
        f'{values[row]:g} ({scaled[row]:.1e} away)',
      )
    return scaled


def fit(
  name: Any,
  column: np.ndarray | Factor,
  *,
  log: bool,
  num_bins: int,
  fill: bool,
) -> Numeric:
  """Fits a scaler on training rows.

  Args:
    name: of the column, for messages.
    column: `[N]` float64, or a Factor of these, NaN where missing.
    log: see Numeric.
    num_bins: the maximum number of bins, or 0 for none.
    fill: whether missing numbers are filled in; they are refused otherwise.

  Raises:
    ValueError: there are no rows; RowError if a number is missing and `fill` is
      False, or if one is too large to scale.
  """
  values = raw.spread(column)
  _tables_checks.check_rows(name, values)
  is_missing = np.isnan(values)
  has_missing = bool(is_missing.any())
  if has_missing and not fill:
    raise missing_number(name, is_missing)
  present = values[~is_missing] if has_missing else values
  if not len(present):  # such as in a small fold: the flag says it all
    return Numeric(log, 0.0, 1.0, fill=0.0, flag=True)
  scaler = _scaler(name, values, present, log)
  factor = column if isinstance(column, Factor) else None
  counted = factor and _quantiles.counted_once(*factor)
  if not counted:  # where there is a copy already, without another one
    present = present if has_missing else present.copy()
    present.sort()
    counted = _quantiles.counted(present)
  distinct, counts = counted
  return dataclasses.replace(
    scaler,
    edges=_quantiles.edges(distinct, counts, num_bins) if num_bins else (),
    fill=_quantiles.median(distinct, counts) if fill else None,
    flag=has_missing,
  )


def _scaler(
  name: Any, values: np.ndarray, present: np.ndarray, log: bool
) -> Numeric:
  scaled = maybe_log(present, log)
  largest = largest_of(name, values, scaled)
  with np.errstate(all='ignore'):
    mean, std = float(scaled.mean()), float(scaled.std())
  if not np.isfinite([mean, std]).all():
    raise _too_large(name, values)
  return scaler(log, mean, std, largest)


def scaler(log: bool, mean: float, std: float, largest: float) -> Numeric:
  """Returns a scaler without edges, for numbers of at most this size."""
  varies = std > _CONSTANT * largest
  return Numeric(log, mean, std if varies else 1.0)


def largest_of(name: Any, values: np.ndarray, scaled: np.ndarray) -> float:
  """Returns the size of the largest number after the logarithm.

  Raises:
    RowError: it is beyond float32, and would leave the others of its column
      indistinguishable after scaling.
  """
  largest = float(max(-scaled.min(), scaled.max()))
  if not largest <= float(np.finfo(np.float32).max):
    raise _too_large(name, values)
  return largest


def _too_large(name: Any, values: np.ndarray) -> RowError:
  row = int(np.nanargmax(np.abs(values)))
  return RowError(
    name, row, f'holds a number too large to scale; found {values[row]:g}'
  )


def maybe_log(values: np.ndarray, log: bool) -> np.ndarray:
  """Returns `sign(x) log(1 + |x|)` if asked for, or the values."""
  return np.sign(values) * np.log1p(np.abs(values)) if log else values


def numbers_of(name: Any, column: Column) -> np.ndarray:
  """Returns a numeric column without missing numbers as `[N]` float64.

  Raises:
    ValueError: the column is not `[N]` numbers; RowError if one is not finite.
  """
  values = read(name, column)
  is_missing = np.isnan(values)
  if is_missing.any():
    raise missing_number(name, is_missing)
  return values


def missing_number(name: Any, is_missing: np.ndarray) -> RowError:
  """Returns the error for the first missing number, `[N]` bool."""
  row = int(np.argmax(is_missing))
  return RowError(name, row, 'must hold finite numbers; found nan')


def read(
  name: Any, column: Column, missing: frozenset[str] = frozenset()
) -> np.ndarray:
  """Returns a numeric column as `[N]` float64, NaN where a number is missing.

  Arguments and errors are those of `parse`.
  """
  return raw.spread(parse(name, column, missing))


def parse(
  name: Any, column: Column, missing: frozenset[str] = frozenset()
) -> np.ndarray | Factor:
  """Returns a numeric column as `[N]` float64, or a Factor as one of float64.

  Missing numbers are NaN, and values that no row has are left out. Texts are
  numbers if Python's `float` reads them, and `true` and `false` are 1
  and 0.

  Args:
    name: of the column, for messages.
    column: Factor or `[N]`.
    missing: canonical texts that stand for a missing number; those that are
      numbers (`-999`) do so in a column of numbers as well.

  Raises:
    ValueError: the column is not `[N]`, or holds times; RowError if a value is
      no number, or is infinite.
  """
  column, codes = raw.plain(column), None
  if isinstance(column, Factor):
    codes, column = raw.used_values(name, column)
  values, source = _floats(name, column, missing)
  is_bad = np.isinf(values)
  if is_bad.any():
    rows = is_bad if codes is None else is_bad[codes]
    row = int(np.argmax(rows))
    text = raw.text_of(source[row if codes is None else codes[row]])
    raise RowError(name, row, *_complaint(text, raw.first_of(rows)))
  return values if codes is None else Factor(codes, values)


def _complaint(text: str, others: str) -> tuple[str, str]:
  """Returns the complaint about a text, and what to do if there are others."""
  if _is_float(text) and np.isinf(float(text)):
    return f'must hold finite numbers; found {text:.60}{others}', ''
  cure = 'if they are no slips, train with the column as a category'
  return f'must hold numbers; found {text!r:.60}{others}', others and cure


def _floats(
  name: Any, column: Any, missing: frozenset[str]
) -> tuple[np.ndarray, Any]:
  """Returns `[N]` float64, infinite where a value is no number, and `column`
  as an array.
  """
  array = _array(name, column)
  is_numeric = array.dtype.kind in 'biuf' or all(
    issubclass(kind, _NUMBERS) for kind in set(map(type, array))
  )
  try:
    values = array.astype(np.float64, copy=False) if is_numeric else None
  except OverflowError:  # a large int
    values = None
  if values is None:
    known: dict[str, float] = {}
    values = np.fromiter(
      (_float(value, known, missing) for value in array),
      np.float64,
      len(array),
    )
  values = np.ma.filled(values, np.nan)  # masked numbers are missing
  sentinels = [float(text) for text in missing if _is_float(text)]
  if sentinels:
    values = np.where(np.isin(values, sentinels), np.nan, values)
  return values, array


def _array(name: Any, column: Any) -> np.ndarray:
  """Returns a column as `[N]` numbers or objects."""
  # A list as objects: NumPy would make texts of its numbers if one is a text.
  is_array = np.ma.isMaskedArray(column) or hasattr(column, 'dtype')
  array = np.asanyarray(column, None if is_array else object)
  raw.check_shape(name, array)
  if array.dtype.kind not in 'biufmM':
    array = array.astype(object, copy=False)
  kind = array.dtype
  if array.dtype == object:
    times = (v.dtype for v in array if isinstance(v, _TIMES))
    kind = next(times, kind)
  if kind.kind in 'mM':
    raise ValueError(
      f'column {name!r} must hold numbers, found times ({kind}): make '
      'them numbers in one unit, such as days since a date, '
      "(column - np.datetime64('2000-01-01')) / np.timedelta64(1, 'D')"
    )
  return array


def _float(
  value: Any, known: dict[str, float], missing: frozenset[str]
) -> float:
  """Returns a number, NaN if it is missing, or infinity if it is none.

  Args:
    value: any.
    known: the numbers of texts, which are added to.
    missing: as for `read`.
  """
  if isinstance(value, numbers.Number):
    try:
      return float(value)  # type: ignore[arg-type]  # complex: TypeError
    except (TypeError, OverflowError):
      return np.inf
  text = raw.text_of(value)
  if text not in known:
    known[text] = _number_of(text, missing)
  return known[text]


def _number_of(text: str, missing: frozenset[str]) -> float:
  if _is_float(text):
    return float(text)
  canonical = raw.canonical(text)
  if canonical == raw.MISSING or canonical in missing:
    return np.nan
  return _WORDS.get(canonical.lower(), np.inf)


def _is_float(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return '_' not in text  # 1_000 is a number in Python only
