"""Encoder tables as JSON data."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lplmtl import _tables_checks, hashing
from lplmtl.dates import PARTS, Date
from lplmtl.numeric import Numeric


def to_json(tables: Any) -> dict[str, Any]:
  """Returns plain data.

  Fields that are empty are left out, so that tables that do without them are
  the same data in all releases.
  """
  data: dict[str, Any] = {
    'vocabularies': _named(
      {k: list(v) for k, v in tables.vocabularies.items()}
    ),
    'numerics': _named(
      {k: _numeric_data(v) for k, v in tables.numerics.items()}
    ),
  }
  others = {
    'booleans': list(tables.booleans),
    'dates': _named({k: _date_data(v) for k, v in tables.dates.items()}),
    'hashed': _named(dict(tables.hashed)),
    'missing': list(tables.missing),
    'merged': _named({k: list(v) for k, v in tables.merged.items()}),
  }
  return data | {name: value for name, value in others.items() if value}


def fields(data: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields of Tables from the output of `to_json`.

  Raises:
    KeyError, TypeError, ValueError: it is something else.
  """
  found: dict[str, Any] = {
    'vocabularies': {
      k: _texts('a vocabulary', v) for k, v in _pairs(data['vocabularies'])
    },
    'numerics': {k: _numeric(**v) for k, v in _pairs(data['numerics'])},
    'booleans': tuple(data.get('booleans', ())),
    'dates': {k: _date(**v) for k, v in _pairs(data.get('dates', {}))},
    'hashed': {k: _size(v) for k, v in _pairs(data.get('hashed', {}))},
    'missing': _texts('missing', data.get('missing', ())),
    'merged': {k: tuple(v) for k, v in _pairs(data.get('merged', {}))},
  }
  needed = [
    *((name, 'vocabularies') for name in found['booleans']),
    *(
      (f'{name}.{part}', 'numerics')
      for name, date in found['dates'].items()
      for part in date.parts
    ),
  ]
  for name, field in needed:
    if name not in found[field]:
      raise ValueError(f'column {name!r} must be one of the {field}')
  for name, ids in found['merged'].items():
    _tables_checks.check_merged(name, ids, found['vocabularies'].get(name))
  return found


def kind(value: Any) -> Any:
  """Returns what to call a value in a message."""
  return list(value) if isinstance(value, Mapping) else type(value).__name__


def _numeric_data(scaler: Numeric) -> dict[str, Any]:
  data = {**dataclasses.asdict(scaler), 'edges': list(scaler.edges)}
  if scaler.fill is None:
    del data['fill']
  if not scaler.flag:
    del data['flag']
  for name in ('interpolate', 'only_bins'):
    if not data[name]:
      del data[name]
  return data


def _numeric(
  log: Any,
  mean: Any,
  std: Any,
  edges: Any,
  fill: Any = None,
  flag: Any = False,
  interpolate: Any = False,
  only_bins: Any = False,
) -> Numeric:
  is_finite = np.isfinite([mean, std, *edges]).all()
  if not (isinstance(log, bool) and is_finite and std > 0):
    raise ValueError(
      'a numeric column needs log (a bool) and finite mean, std > 0 and edges, '
      f'found {log!r}, {mean!r}, {std!r} and {edges!r}'
    )
  is_number = fill is None or np.isfinite(fill)
  if not (isinstance(flag, bool) and is_number) or (flag and fill is None):
    raise ValueError(
      'a numeric column has a finite fill for missing numbers, or none and no '
      f'flag (a bool); found {fill!r} and {flag!r}'
    )
  if not isinstance(interpolate, bool) or (interpolate and not edges):
    raise ValueError(
      'interpolate (a bool) needs edges to lie between, found '
      f'{interpolate!r} and {edges!r}'
    )
  if not isinstance(only_bins, bool) or (only_bins and interpolate):
    raise ValueError(
      'only_bins (a bool) needs bins, which an interpolated number does not '
      f'have; found {only_bins!r}'
    )
  return Numeric(
    log, mean, std, tuple(edges), fill, flag, interpolate, only_bins
  )


def _date_data(date: Date) -> dict[str, Any]:
  data = {**dataclasses.asdict(date), 'parts': list(date.parts)}
  if not date.flag:
    del data['flag']
  return data


def _date(format: Any, parts: Any, origin: Any, flag: Any = False) -> Date:
  parts = _texts('parts of a date', parts)
  is_known = set(parts) <= set(PARTS) and isinstance(format, str)
  if not is_known or not isinstance(flag, bool):
    raise ValueError(
      f'a date needs a format, parts from {PARTS} and a flag (a bool), found '
      f'{format!r}, {parts!r} and {flag!r}'
    )
  if np.isnat(np.datetime64(origin)):
    raise ValueError(f'the origin of a date must be a date, found {origin!r}')
  return Date(format, parts, origin, flag)


def _size(size: Any) -> int:
  is_int = isinstance(size, int) and not isinstance(size, bool)
  if not is_int or not 1 <= size <= hashing.MOST_BUCKETS:
    raise ValueError(
      f'a number of buckets must be from 1 to {hashing.MOST_BUCKETS:,}, found '
      f'{size!r}'
    )
  return size


def _texts(name: str, values: Any) -> tuple[str, ...]:
  if isinstance(values, str) or not all(isinstance(v, str) for v in values):
    raise ValueError(f'{name} must be a list of strings, found {values!r}')
  return tuple(values)


def _named(columns: dict[Any, Any]) -> Any:
  """Returns a dict, or pairs if a name is an integer: JSON keys are strings."""
  if all(isinstance(name, str) for name in columns):
    return columns
  return [[name, value] for name, value in columns.items()]


def _pairs(columns: Any) -> Iterable[tuple[Any, Any]]:
  return columns.items() if isinstance(columns, Mapping) else columns
