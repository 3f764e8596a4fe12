"""What a model reads, for people and clients: kinds of columns, an example."""

import datetime
import math
from typing import Any

from lplmtl import columns as raw
from lplmtl.tables import Tables


def columns(tables: Tables) -> list[dict[str, Any]]:
  """Returns the name, kind and an example of each raw column."""
  return [
    {
      'name': str(name),
      'kind': _kind(tables, name),
      'may_be_null': _may_be_missing(tables, name),
      'example': value,
    }
    for name, value in example(tables).items()
  ]


def example(tables: Tables) -> dict[Any, Any]:
  """Returns an ordinary row, `{column: JSON value}`."""
  return {name: _value(tables, name) for name in tables.columns}


def _kind(tables: Tables, name: Any) -> str:
  if name in tables.numerics:  # perhaps a category as well
    return 'number'
  if name in tables.dates:
    return 'date'
  return 'boolean' if name in tables.booleans else 'category'


def _may_be_missing(tables: Tables, name: Any) -> bool:
  """Whether a missing value can be encoded; a category always can."""
  numbers = [name] if name in tables.numerics else []
  if name in tables.dates:
    numbers = [f'{name}.{part}' for part in tables.dates[name].parts]
  return all(tables.numerics[one].fill is not None for one in numbers)


def _value(tables: Tables, name: Any) -> Any:
  kind = _kind(tables, name)
  if kind == 'number':
    return _number(tables, name)
  if kind == 'date':
    origin = datetime.datetime.fromisoformat(tables.dates[name].origin)
    form = tables.dates[name].format
    return origin.strftime(form) if form else tables.dates[name].origin
  if kind == 'boolean':
    return True
  values = tables.vocabularies.get(name, ())
  known = {raw.MISSING, *tables.missing}
  return next((text for text in values if text not in known), 'any text')


def _number(tables: Tables, name: Any) -> float:
  """Returns the median of the training rows, or else their mean."""
  scaler = tables.numerics[name]
  x = scaler.fill
  if x is None:
    mean = scaler.mean
    x = math.copysign(math.expm1(abs(mean)), mean) if scaler.log else mean
  x = float(f'{x:.6g}')
  return int(x) if x.is_integer() else x
