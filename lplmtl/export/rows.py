"""Encoder tables as plain data, for programs that encode raw rows.

What is missing, unseen or merged means the same as in `lplmtl.tables`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl import vocabulary
from lplmtl.compression.recoding import one_row as features
from lplmtl.numeric import FURTHEST, Numeric
from lplmtl.tables import Tables


def check(inputs: Mapping[str, Any], tables: Tables) -> None:
  """Raises ValueError unless a program reads what the tables encode.

  Args:
    inputs: of the program, arrays or nodes with a shape `[1, ...]`.
    tables: the tables.
  """
  expected = {name: x.shape for name, x in features(tables).items()}
  found = {name: tuple(x.shape) for name, x in inputs.items()}
  if found != expected:
    raise ValueError(
      f'the tables encode a row as {expected}, the model reads {found}: pass '
      'the tables that the model was trained with'
    )


def to_data(tables: Tables) -> dict[str, Any]:
  """Returns what `reader.encode` needs, as lists and dicts.

  Returns:
    `columns`, the raw ones; `missing`, further texts of missing values;
    `furthest`, see `numeric.FURTHEST`; and, in the order of the encoded arrays:

    - `categories`: `name`, `ids` of all texts that have one, in canonical form
      or as stored, and `unseen`, the id of all others;
    - `numbers`: `name`, the fields of `Numeric`, `is_scaled`, whether the
      scaled number is encoded, and `knots`, the scaled numbers among which its
      place is (none unless it is interpolated; `edges` are empty then); of a
      part of a date, also `date`, the column, and `part`;
    - `hashed`: `name` and `size`, the number of buckets;
    - `dates`: `name`, `format`, `origin` and `flag` of `Date`, and
      `is_required`, whether it may not be missing.

  Raises:
    ValueError: `tables` are something else.
  """
  if not isinstance(tables, Tables):
    raise ValueError(
      'tables must be what lplmtl.tables.fit returns, found '
      f'{type(tables).__name__}'
    )
  parts = {
    f'{name}.{part}': {'date': name, 'part': part}
    for name, date in tables.dates.items()
    for part in date.parts
  }
  return {
    'columns': list(tables.columns),
    'missing': list(tables.missing),
    'furthest': FURTHEST,
    'categories': [_category(tables, name) for name in tables.vocabularies],
    'numbers': [
      {**_number(name, n), **parts.get(name, {})}
      for name, n in tables.numerics.items()
    ],
    'hashed': [{'name': k, 'size': n} for k, n in tables.hashed.items()],
    'dates': [
      {
        'name': name,
        'format': date.format,
        'origin': date.origin,
        'flag': date.flag,
        'is_required': any(
          tables.numerics[f'{name}.{part}'].fill is None for part in date.parts
        ),
      }
      for name, date in tables.dates.items()
    ],
  }


def _category(tables: Tables, name: Any) -> dict[str, Any]:
  values = tables.vocabularies[name]
  new = tables.merged.get(name, range(len(values) + 1))
  known = vocabulary.lookup(values, tables.missing, name in tables.booleans)
  return {
    'name': name,
    'ids': {text: int(new[i]) for text, i in known.items() if i},
    'unseen': int(new[vocabulary.UNSEEN]),
  }


def _number(name: Any, scaler: Numeric) -> dict[str, Any]:
  edges = [float(edge) for edge in scaler.edges]
  knots: list[float] = []
  if scaler.interpolate:
    scaled = scaler.scale(np.asarray(edges))
    # As in `Numeric.position`: the ends lie a standard deviation outside.
    knots = [scaled[0] - 1, *scaled.tolist(), scaled[-1] + 1]
  return {
    'name': name,
    'log': scaler.log,
    'mean': float(scaler.mean),
    'std': float(scaler.std),
    'edges': [] if scaler.interpolate else edges,
    'knots': [float(knot) for knot in knots],
    'fill': scaler.fill,
    'flag': scaler.flag,
    'is_scaled': not scaler.only_bins,
  }
