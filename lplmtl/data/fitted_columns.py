"""What each column of a table adds up to, piece by piece."""

import dataclasses
from typing import Any

import numpy as np

from lplmtl import _quantiles, numeric, vocabulary
from lplmtl import dates as times_of
from lplmtl._tables_fit import Rules
from lplmtl.columns import Column
from lplmtl.data import sketch
from lplmtl.dates import Date
from lplmtl.numeric import Numeric

_ORIGIN = '1970-01-01'


class Categories:
  """The counts of a column's values.

  Without `min_count`, they are forgotten once there are more values than
  `max_vocabulary`: the column will be hashed.
  """

  def __init__(self, name: Any, rules: Rules):
    self._name, self._rules = name, rules
    self._counts: dict[str, int] = {}
    self._is_hashed = False

  def add(self, column: Column) -> None:
    """Adds rows."""
    if self._is_hashed:
      return
    found = vocabulary.count(self._name, column, self._rules.texts)
    for text, n in found.items():
      self._counts[text] = self._counts.get(text, 0) + n
    most = self._rules.max_vocabulary
    if self._rules.min_count == 1 and most and len(self._counts) > most:
      self._is_hashed, self._counts = True, {}

  def finish(self) -> tuple[str, ...] | None:
    """Returns the vocabulary, or None if the column is hashed."""
    values = vocabulary.frequent(self._counts, self._rules.min_count)
    most = self._rules.max_vocabulary
    if self._is_hashed or (most is not None and len(values) > most):
      return None
    return values


class Numbers:
  """Mean, spread and quantiles of a numeric column.

  Mean and standard deviation are those of all rows, except for rounding (Chan
  et al. 1983); quantiles are those of a sketch.
  """

  def __init__(self, name: Any, log: bool, fill: bool):
    self._name, self._log, self._fill = name, log, fill
    self._count, self._mean, self._squares = 0, 0.0, 0.0
    self._largest, self._has_missing = 0.0, False
    self._sketch = sketch.Sketch()

  def add(self, values: np.ndarray) -> None:
    """Adds rows, `[N]` float64, NaN where missing."""
    is_missing = np.isnan(values)
    if is_missing.any():
      self._has_missing = True
      if not self._fill:
        raise numeric.missing_number(self._name, is_missing)
    present = np.sort(values[~is_missing])
    if not len(present):
      return
    scaled = numeric.maybe_log(present, self._log)
    largest = numeric.largest_of(self._name, values, scaled)
    self._largest = max(self._largest, largest)
    n, mean = len(present), float(scaled.mean())
    squares = float(np.square(scaled - mean).sum())
    total, apart = self._count + n, mean - self._mean
    self._mean += apart * n / total
    self._squares += squares + apart**2 * self._count * n / total
    self._count = total
    self._sketch.add(*_quantiles.counted(present))

  def finish(self, num_bins: int, shift: float = 0.0) -> Numeric:
    """Returns the scaler, of values from which `shift` is subtracted."""
    if not self._count:
      return Numeric(self._log, 0.0, 1.0, fill=0.0, flag=True)
    std = float(np.sqrt(self._squares / self._count))
    scaler = numeric.scaler(self._log, self._mean - shift, std, self._largest)
    distinct, counts = self._sketch.summary()
    distinct = distinct - shift
    return dataclasses.replace(
      scaler,
      edges=_quantiles.edges(distinct, counts, num_bins) if num_bins else (),
      fill=_quantiles.median(distinct, counts) if self._fill else None,
      flag=self._has_missing,
    )


class Dates:
  """The parts of a column of dates."""

  def __init__(self, name: Any, form: str, fill: bool):
    self._name, self._form, self._fill = name, form, fill
    self._first: np.datetime64 | None = None
    self._flag = False
    self._ranges: dict[str, tuple[float, float]] = {}
    self._parts = {
      part: Numbers(f'{name}.{part}', False, fill) for part in times_of.PARTS
    }

  def add(self, times: np.ndarray) -> None:
    """Adds rows, `[N]` datetime64, NaT where missing."""
    if not self._fill:
      times_of.check_present(self._name, times)
    is_missing = np.isnat(times)
    self._flag |= bool(is_missing.any())
    if is_missing.all():
      return
    first = times[~is_missing].min()
    self._first = first if self._first is None else min(self._first, first)
    # Days count from the first one, which is not known yet.
    every = Date(self._form, times_of.PARTS, _ORIGIN)
    for part, values in every.numbers(times).items():
      low, high = np.nanmin(values), np.nanmax(values)
      old = self._ranges.get(part, (low, high))
      self._ranges[part] = min(old[0], low), max(old[1], high)
      self._parts[part].add(values)

  def finish(self, num_bins: int) -> tuple[Date, dict[str, Numeric]]:
    """Returns the date, and the scalers of the parts that vary."""
    if self._first is None:
      return Date(self._form, (), _ORIGIN, self._flag), {}
    origin = self._first.astype('datetime64[D]')
    days = float((origin - np.datetime64(_ORIGIN)) / np.timedelta64(1, 'D'))
    parts = tuple(
      part for part, (low, high) in self._ranges.items() if high > low
    )
    scalers = {
      f'{self._name}.{part}': dataclasses.replace(
        # One flag stands for all parts of a date.
        self._parts[part].finish(num_bins, days if part == 'days' else 0.0),
        flag=False,
      )
      for part in parts
    }
    return Date(self._form, parts, str(origin), self._flag), scalers
