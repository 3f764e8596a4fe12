"""Raw rows as inputs of an ONNX graph, and the nodes that encode them.

An input is a raw column `[N, 1]`: texts for categories, float64 for numbers,
and for dates, which are seconds since 1970.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl.export import onnx_dates, onnx_numbers, reader
from lplmtl.export.onnx_graph import TYPES, Graph

_WHOLE = re.compile(r'0|-?[1-9]\d*')


class Input(NamedTuple):
  """An input: a raw column, once for each way in which it is read.

  Attributes:
    name: of the input.
    column: the raw one.
    kind: `category`, `number` or `date`.
  """

  name: str
  column: Any
  kind: str


def inputs(encoding: Mapping[str, Any]) -> list[Input]:
  """Returns the inputs: categories, numbers, dates.

  They have the names of their columns, but for a category that is also read as
  a number, `name_category`, and a date that is also something else,
  `name_date`.

  Args:
    encoding: from `rows.to_data`.

  Raises:
    ValueError: there are hashed columns, for which ONNX has no operator, or two
      columns have one name as text.
  """
  if encoding['hashed']:
    raise ValueError(
      'ONNX cannot hash texts, as the columns '
      f'{[column["name"] for column in encoding["hashed"]]} need: use another '
      'form, or export without tables, for encoded rows'
    )
  categories = [column['name'] for column in encoding['categories']]
  numbers = [c['name'] for c in encoding['numbers'] if 'part' not in c]
  dates = [date['name'] for date in encoding['dates']]
  others = {*categories, *numbers}
  found = [
    Input(f'{n}_category' if n in numbers else f'{n}', n, 'category')
    for n in categories
  ]
  found += [Input(f'{name}', name, 'number') for name in numbers]
  found += [
    Input(f'{n}_date' if n in others else f'{n}', n, 'date') for n in dates
  ]
  names = [one.name for one in found]
  if len(set(names)) < len(names) or '' in names:
    raise ValueError(f'columns need different names as text, found {names}')
  return found


def feed(
  encoding: Mapping[str, Any], columns: Mapping[Any, Any]
) -> dict[str, np.ndarray]:
  """Returns raw columns as the arrays that a runtime takes.

  Args:
    encoding: from `rows.to_data`.
    columns: `{column: [N] values}`, as for `reader.predict`.

  Returns:
    `{input: [N, 1]}`: texts in canonical form, and float64; infinite if a value
    is no number.

  Raises:
    ValueError: a value is no date.
  """
  missing = set(encoding['missing'])
  dates = {date['name']: date for date in encoding['dates']}
  known = {c['name']: c['ids'] for c in encoding['categories']}
  found = {}
  for one in inputs(encoding):
    raw = columns[one.column]
    if one.kind == 'category':
      texts = map(reader.text_of, raw)
      ids = known[one.column]
      some = [t if t in ids else reader.canonical(t) for t in texts]
      values = np.array(some, object)
    elif one.kind == 'date':
      values = onnx_dates.seconds(dates[one.column], raw, missing)
    else:
      values = np.array([reader.number_of(x, missing) for x in raw])
    found[one.name] = values.reshape(-1, 1)
  return found


def encode(
  graph: Graph, encoding: Mapping[str, Any]
) -> tuple[dict[str, str], str]:
  """Adds the encoding of the inputs.

  Args:
    graph: is extended.
    encoding: from `rows.to_data`.

  Returns:
    `({feature: value}, readable)`: what a program reads, and whether a row can
    be read, bool `[N, 1]`; empty if all can.
  """
  every = inputs(encoding)
  ids = [
    _ids(graph, one.name, category)
    for one, category in zip(every, encoding['categories'], strict=False)
  ]
  numeric: list[str] = []
  readable = ''
  if encoding['numbers'] or encoding['dates']:
    named = {
      (one.column, one.kind): one.name
      for one in every
      if one.kind != 'category'
    }
    numeric, bins, readable = onnx_numbers.encode(graph, named, encoding)
    ids += bins
  first = every[0].name
  return {
    'categories': _joined(graph, ids, 'int32', first),
    'numeric': _joined(graph, numeric, 'float32', first),
  }, readable


def _joined(graph: Graph, parts: Sequence[str], dtype: str, first: str) -> str:
  """Returns parts side by side; `[N, 0]` if there are none."""
  if not parts:
    rows = graph.add('Shape', first, start=0, end=1)
    shape = graph.add('Concat', rows, graph.constant([0]), axis=0)
    return graph.add('Expand', graph.constant(np.zeros((1, 1), dtype)), shape)
  x = graph.add('Concat', *parts, axis=1) if len(parts) > 1 else parts[0]
  return graph.add('Cast', x, to=TYPES[dtype])


def _ids(graph: Graph, name: str, category: Mapping[str, Any]) -> str:
  known = with_aliases(category['ids']) or {'': category['unseen']}
  return graph.add(
    'LabelEncoder',
    name,
    domain='ai.onnx.ml',
    keys_strings=list(known),
    values_int64s=list(known.values()),
    default_int64=category['unseen'],
  )


def with_aliases(ids: Mapping[str, int]) -> dict[str, int]:
  """Returns ids of texts, of other forms too that mean the same.

  ONNX compares texts as they are. Added are those of missing values, and whole
  numbers with `.0`, as a column of floats has them.

  Args:
    ids: of canonical texts.

  Example:
    >>> with_aliases({'3': 1})
    {'3': 1, '3.0': 1}
  """
  found = dict(ids)
  for text, i in ids.items():
    if text == 'nan':
      for other in sorted(reader.MISSING):
        found.setdefault(other, i)
    elif _WHOLE.fullmatch(text):
      found.setdefault(f'{text}.0', i)
  return found
