"""Parts of dates in an ONNX graph, which takes seconds since 1970 in UTC."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl.export import reader
from lplmtl.export.onnx_graph import TYPES, Graph

_DAY = 86400.0
# The years 1 to 9999.
_FIRST, _LAST = (
  float(np.datetime64(text, 's').astype(int))
  for text in ('0001-01-01', '9999-12-31T23:59:59')
)


def seconds(
  date: Mapping[str, Any], raw: Any, missing: Collection[str]
) -> np.ndarray:
  """Returns raw dates as `[N]` float64, NaN where one is missing.

  Args:
    date: of `rows.to_data`.
    raw: `[N]` values.
    missing: texts that stand for a missing value.

  Raises:
    ValueError: a value is no date, or is missing where training had none.
  """
  times, _ = reader.read_dates(date, raw, missing)
  found = times.astype(np.int64) / 1e6
  return np.where(np.isnat(times), np.nan, found)


def without_lost(
  graph: Graph, x: str, dates: Sequence[Mapping[str, Any]], missing: Any
) -> str:
  """Returns dates `[N, D]` in seconds, NaN for those that stand for a missing
  one.
  """
  nan = graph.constant(np.nan)
  for text in sorted(missing):
    times = [reader.date_of(text, date['format']) for date in dates]
    if any(times):
      lost = np.array(times, 'datetime64[us]')
      values = np.where(np.isnat(lost), np.nan, lost.astype(np.int64) / 1e6)
      is_lost = graph.add('Equal', x, graph.constant(values))
      x = graph.add('Where', is_lost, nan, x)
  return x


def readable(graph: Graph, x: str) -> str:
  """Returns which dates `[N, D]` are missing or lie in the years 1 to 9999."""
  is_late = graph.add('GreaterOrEqual', x, graph.constant(_FIRST))
  is_early = graph.add('Less', x, graph.constant(_LAST + 1))
  is_date = graph.add('And', is_late, is_early)
  return graph.add('Or', is_date, graph.add('IsNaN', x))


def parts(
  graph: Graph, x: str, dates: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
  """Returns `{part: float64 [N, D]}` of dates in seconds.

  NaN stays NaN. The year and the month come from the days since a first of
  March, as leap days are then the last ones (Hinnant, "chrono-Compatible
  Low-Level Date Algorithms").

  Args:
    graph: is extended.
    x: `[N, D]`.
    dates: of `rows.to_data`.
  """
  origins = [np.datetime64(date['origin'], 's').astype(int) for date in dates]
  since = graph.add('Sub', x, graph.constant(origins, float))
  day = _quotient(graph, x, _DAY)
  # Of a time just before midnight, the quotient may be rounded up.
  early = _quotient(graph, _rest(graph, x, day, _DAY), _DAY)
  day = _with(graph, 'Add', day, early)
  shifted = _with(graph, 'Add', day, 719468)  # days since 0000-03-01
  era = _quotient(graph, shifted, 146097)  # of 400 years
  of_era = _rest(graph, shifted, era, 146097)
  leaps = of_era
  for length, kind in ((1460, 'Sub'), (36524, 'Add'), (146096, 'Sub')):
    leaps = _with(graph, kind, leaps, _quotient(graph, of_era, length))
  year = _quotient(graph, leaps, 365)
  of_year = _rest(graph, of_era, year, 365)
  for length, kind in ((4, 'Sub'), (100, 'Add')):
    of_year = _with(graph, kind, of_year, _quotient(graph, year, length))
  fives = _with(graph, 'Add', _with(graph, 'Mul', of_year, 5), 2)
  march = _quotient(graph, fives, 153)  # months since March
  is_next = graph.add('GreaterOrEqual', march, graph.constant(10.0))
  is_next = graph.add('Cast', is_next, to=TYPES['float64'])
  month = _with(graph, 'Add', march, 3)
  month = _rest(graph, month, is_next, 12)
  year = _with(graph, 'Add', year, _with(graph, 'Mul', era, 400))
  monday = _with(graph, 'Add', day, 3)  # 1970-01-01 was a Thursday
  return {
    'days': _with(graph, 'Div', since, _DAY),
    'year': graph.add('Add', year, is_next),
    'month': month,
    'weekday': _rest(graph, monday, _quotient(graph, monday, 7), 7),
    'hour': _quotient(graph, _rest(graph, x, day, _DAY), 3600),
  }


def _with(graph: Graph, kind: str, x: str, y: float | str) -> str:
  other = y if isinstance(y, str) else graph.constant(float(y))
  return graph.add(kind, x, other)


def _quotient(graph: Graph, x: str, y: float) -> str:
  """Returns the floor of x / y."""
  return graph.add('Floor', _with(graph, 'Div', x, y))


def _rest(graph: Graph, x: str, quotient: str, y: float) -> str:
  """Returns what is left of x."""
  return graph.add('Sub', x, _with(graph, 'Mul', quotient, y))
