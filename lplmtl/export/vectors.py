"""Rows to test an exported model with: ordinary, missing, unseen, extreme."""

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl.export.reader import canonical

_FAR = 20  # standard deviations
_MAX_LOG = 80  # exp(80) is 5e34: packed models hold raw numbers as float32


def of_encoding(
  encoding: Mapping[str, Any], num_rows: int = 64, seed: int = 0
) -> dict[Any, list[Any]]:
  """Returns raw columns that take every turn of the encoding.

  Args:
    encoding: from `rows.to_data`.
    num_rows: N.
    seed: of the draws.

  Returns:
    `{column: [N] values}`: texts of the vocabulary, with and without blanks
    around them, of none, and missing; numbers on both sides of edges and on
    them, far away, and missing where that is allowed; dates likewise.
  """
  rng = np.random.default_rng(seed)
  columns: dict[Any, list[Any]] = {}
  for category in [*encoding['categories'], *encoding['hashed']]:
    texts = sorted(category.get('ids', ['a', 'b', 'c']))
    lost = ('nan', *encoding['missing'])
    is_whole = all(t.lstrip('-').isdigit() for t in texts if t not in lost)
    unseen = ['-77', '987654'] if is_whole else ['never seen', 'x?"\\', 'Ø']
    padded = [f' {text} ' for text in texts if canonical(text) == text]
    some = [*texts, *texts, *padded, *unseen, None]
    columns[category['name']] = [
      some[i] for i in rng.integers(0, len(some), num_rows)
    ]
  for column in encoding['numbers']:
    if 'part' in column:
      continue
    mean, std = column['mean'], column['std']
    some = mean + std * rng.normal(size=num_rows) * 2
    # Further out, rounding of scores moves probabilities by more than 1e-5.
    some[3:5] = mean + std * _FAR * np.array([-1, 1])[: len(some[3:5])]
    if column['log']:
      some = np.sign(some) * np.expm1(np.minimum(np.abs(some), _MAX_LOG))
    values: list[Any] = some.tolist()
    for i, edge in enumerate(column['edges'][: num_rows // 4]):
      below = float(np.nextafter(edge, -np.inf))
      values[3 * i] = (edge, below, edge + 1e-9)[i % 3]
    values[1 % num_rows] = 0.0
    if column['fill'] is not None:
      values[2 % num_rows] = None
    columns[column['name']] = values
  for date in encoding['dates']:
    columns[date['name']] = _dates(date, encoding, rng, num_rows)
  return columns


def _dates(
  date: Mapping[str, Any],
  encoding: Mapping[str, Any],
  rng: np.random.Generator,
  num_rows: int,
) -> list[Any]:
  """Returns texts of dates near those of training, and far away."""
  form = date['format']
  days = [
    column
    for column in encoding['numbers']
    if column.get('date') == date['name'] and column['part'] == 'days'
  ]
  mean, std = (days[0]['mean'], days[0]['std']) if days else (0.0, 1.0)
  some = mean + std * rng.normal(size=num_rows) * 2
  some[3:5] = mean + std * _FAR * np.array([-1, 1])[: len(some[3:5])]
  # Years of two digits are from 1969 on, and some libraries write no 0999.
  first, last = ('1970', '2068') if '%y' in form else ('1000', '9999')
  times = np.datetime64(date['origin'], 's') + np.rint(some * 86400).astype(
    'timedelta64[s]'
  )
  times = np.clip(times, *np.array([first, last], 'datetime64[s]'))
  found: list[Any] = [
    f'{time:{form}}' if form else _iso(time, i)
    for i, time in enumerate(times.tolist())
  ]
  if not date['is_required']:
    found[2 % num_rows] = None
  return found


def _iso(time: datetime.datetime, i: int) -> str:
  """Returns a time in one of several forms, the i-th."""
  ends = ('', '', 'Z', '+05:30', '-11', '.25', '.125-00:30')
  if i % 3 == 0:
    return time.date().isoformat()
  return time.isoformat(sep=' T'[i % 2]) + ends[i % len(ends)]
