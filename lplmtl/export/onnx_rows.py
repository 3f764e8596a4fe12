"""Raw rows as inputs of an ONNX graph, and the nodes that encode them.

An input is a raw column `[N, 1]`: texts for categories, float64 for numbers.
Numbers are encoded together, as `[N, M]`: a node for each step, not for each
column. They are float64 until they are scaled, as timestamps need its digits.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl.export import onnx_graph, reader
from lplmtl.export.onnx_graph import TYPES, Graph

_WHOLE = re.compile(r'0|-?[1-9]\d*')


class Input(NamedTuple):
  """An input: a raw column, once as a category and once as a number.

  Attributes:
    name: of the input.
    column: the raw one.
    is_text: whether it is a category.
  """

  name: str
  column: Any
  is_text: bool


def inputs(encoding: Mapping[str, Any]) -> list[Input]:
  """Returns the inputs, categories first.

  They have the names of their columns, but for a category that is also read as
  a number: `name_category`.

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
  numbers = [column['name'] for column in encoding['numbers']]
  found = [
    Input(f'{name}_category' if name in numbers else f'{name}', name, True)
    for name in (column['name'] for column in encoding['categories'])
  ] + [Input(f'{name}', name, False) for name in numbers]
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
  """
  known = {c['name']: c['ids'] for c in encoding['categories']}
  found = {}
  for one in inputs(encoding):
    raw = columns[one.column]
    if one.is_text:
      texts = map(reader.text_of, raw)
      ids = known[one.column]
      some = [t if t in ids else reader.canonical(t) for t in texts]
      values = np.array(some, object)
    else:
      missing = set(encoding['missing'])
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
  if encoding['numbers']:
    names = [one.name for one in every if not one.is_text]
    x = names[0]
    if len(names) > 1:
      x = graph.add('Concat', *names, axis=1)
    numeric, bins, readable = _numbers(graph, x, encoding)
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


def _numbers(
  graph: Graph, x: str, encoding: Mapping[str, Any]
) -> tuple[list[str], list[str], str]:
  """Returns numbers, bins, and whether rows are readable, from `[N, M]`."""
  columns = encoding['numbers']
  nan = graph.constant(np.nan)
  for value in sorted(reader.missing_numbers(encoding['missing'])):
    is_value = graph.add('Equal', x, graph.constant(value))
    x = graph.add('Where', is_value, nan, x)
  is_missing = graph.add('IsNaN', x)
  fills = [c['fill'] for c in columns]
  if any(fill is not None for fill in fills):
    fill = [np.nan if fill is None else fill for fill in fills]
    x = graph.add('Where', is_missing, graph.constant(fill, float), x)
  scaled = _scaled(graph, x, columns)
  # NaN fails, so that missing numbers without a fill are not readable.
  furthest = [
    encoding['furthest'] if c['is_scaled'] else np.finfo(float).max
    for c in columns
  ]
  is_near = graph.add(
    'LessOrEqual', graph.add('Abs', scaled), graph.constant(furthest, float)
  )
  counts = graph.add('Cast', is_near, to=TYPES['int32'])
  fewest = graph.add('ReduceMin', counts, graph.constant([1]), keepdims=1)
  readable = graph.add('Cast', fewest, to=TYPES['bool'])
  flag = graph.add('Cast', is_missing, to=TYPES['float64'])
  parts = [
    _picked(graph, scaled, [c['is_scaled'] for c in columns]),
    _picked(graph, flag, [c['flag'] for c in columns]),
    _positions(graph, scaled, columns),
  ]
  return list(filter(None, parts)), _bins(graph, x, columns), readable


def _scaled(graph: Graph, x: str, columns: Sequence[Mapping[str, Any]]) -> str:
  is_log = [column['log'] for column in columns]
  if any(is_log):
    size = onnx_graph.log1p(graph, graph.add('Abs', x), 'float64')
    log = graph.add('Mul', graph.add('Sign', x), size)
    x = graph.add('Where', graph.constant(is_log), log, x)
  mean, std = (
    graph.constant([column[name] for column in columns], float)
    for name in ('mean', 'std')
  )
  return graph.add('Div', graph.add('Sub', x, mean), std)


def _picked(graph: Graph, x: str, which: Sequence[Any]) -> str:
  """Returns some columns of `[N, M]`; no name if there are none."""
  places = np.flatnonzero(which)
  if len(places) in (0, len(which)):
    return x if len(places) else ''
  return graph.add('Gather', x, graph.constant(places, np.int64), axis=1)


def _positions(
  graph: Graph, scaled: str, columns: Sequence[Mapping[str, Any]]
) -> str:
  """Returns places among knots, `[N, C]`: the sum of the parts passed."""
  knots = [column['knots'] for column in columns]
  picked = _picked(graph, scaled, list(map(bool, knots)))
  if not picked:
    return ''
  starts = _padded([some[:-1] for some in knots if some])
  widths = _padded([np.diff(some) for some in knots if some], 1.0)
  last = graph.constant([2])
  distance = graph.add(
    'Sub', graph.add('Unsqueeze', picked, last), graph.constant(starts)
  )
  # Knots may coincide after scaling: those are passed at once.
  widths = np.maximum(widths, np.finfo(float).tiny)
  part = graph.add('Div', distance, graph.constant(widths))
  limits = graph.constant(0.0), graph.constant(1.0)
  return graph.add(
    'ReduceSum', graph.add('Clip', part, *limits), last, keepdims=0
  )


def _bins(
  graph: Graph, x: str, columns: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Returns how many edges numbers reach, int64 `[N, C]`."""
  edges = [column['edges'] for column in columns]
  picked = _picked(graph, x, list(map(bool, edges)))
  if not picked:
    return []
  some = graph.constant(_padded([one for one in edges if one]))
  last = graph.constant([2])
  picked = graph.add('Unsqueeze', picked, last)
  is_above = graph.add('GreaterOrEqual', picked, some)
  counts = graph.add('Cast', is_above, to=TYPES['int64'])
  return [graph.add('ReduceSum', counts, last, keepdims=0)]


def _padded(lists: Sequence[Any], filler: float = np.inf) -> np.ndarray:
  """Returns lists as rows of a matrix, which infinity, never reached, fills."""
  found = np.full((len(lists), max(map(len, lists))), filler)
  for row, values in zip(found, lists, strict=True):
    row[: len(values)] = values
  return found
