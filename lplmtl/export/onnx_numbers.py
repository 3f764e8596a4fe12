"""The nodes of an ONNX graph that encode numbers and dates.

All together, as `[N, M]`: a node for each step, not for each column. They are
float64 until they are scaled, as timestamps need its digits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl.export import onnx_dates, onnx_graph, reader
from lplmtl.export.onnx_graph import TYPES, Graph

# `{(column, 'number' or 'date'): input}`.
Names = Mapping[tuple[Any, str], str]


def encode(
  graph: Graph, names: Names, encoding: Mapping[str, Any]
) -> tuple[list[str], list[str], str]:
  """Adds the encoding of numbers and dates, of which there are some.

  Args:
    graph: is extended.
    names: of the inputs.
    encoding: from `rows.to_data`.

  Returns:
    Numbers and flags, float64; bins, int64; and whether a row can be read, bool
    `[N, 1]`.
  """
  return _numbers(graph, *_values(graph, names, encoding), encoding)


def _values(
  graph: Graph, names: Names, encoding: Mapping[str, Any]
) -> tuple[str, str, str]:
  """Returns numbers and parts of dates, and what is known of the dates.

  Returns:
    float64 `[N, M]`, NaN where one is missing; which dates are missing, bool
    `[N, D]`; and which can be read, likewise. A name is empty if there are
    none.
  """
  x, dates = (
    _beside(graph, [name for (_, one), name in names.items() if one == kind])
    for kind in ('number', 'date')
  )
  nan = graph.constant(np.nan)
  for value in sorted(reader.missing_numbers(encoding['missing'])):
    if x:
      is_value = graph.add('Equal', x, graph.constant(value))
      x = graph.add('Where', is_value, nan, x)
  if not dates:
    return x, '', ''
  named = encoding['dates']
  dates = onnx_dates.without_lost(graph, dates, named, encoding['missing'])
  found = onnx_dates.parts(graph, dates, named)
  parts = {
    part: value
    for part, value in found.items()
    if any(c.get('part') == part for c in encoding['numbers'])
  }
  order = [('', column) for column, kind in names if kind == 'number']
  order += [(part, date['name']) for part in parts for date in named]
  wanted = [
    order.index((c.get('part', ''), c.get('date', c['name'])))
    for c in encoding['numbers']
  ]
  if wanted:
    joined = _beside(graph, [*filter(None, [x]), *parts.values()])
    x = graph.add('Gather', joined, graph.constant(wanted, np.int64), axis=1)
  lost = graph.add('IsNaN', dates)
  return x, lost, onnx_dates.readable(graph, dates)


def _beside(graph: Graph, names: Sequence[str]) -> str:
  """Returns columns side by side; no name if there are none."""
  if len(names) < 2:
    return ''.join(names)
  return graph.add('Concat', *names, axis=1)


def _numbers(
  graph: Graph, x: str, lost: str, readable: str, encoding: Mapping[str, Any]
) -> tuple[list[str], list[str], str]:
  """Returns numbers, bins, and whether rows are readable.

  Args:
    graph: is extended.
    x: from `_values`.
    lost: which dates are missing, likewise.
    readable: which dates can be read, likewise.
    encoding: from `rows.to_data`.
  """
  columns = encoding['numbers']
  number = TYPES['float64']
  flags = [date['flag'] for date in encoding['dates']]
  of_dates = graph.add('Cast', lost, to=number) if any(flags) else ''
  of_dates = _picked(graph, of_dates, flags)
  if not columns:
    return list(filter(None, [of_dates])), [], _all(graph, readable)
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
  readable = _beside(graph, list(filter(None, [is_near, readable])))
  flag = graph.add('Cast', is_missing, to=number)
  parts = [
    _picked(graph, scaled, [c['is_scaled'] for c in columns]),
    _picked(graph, flag, [c['flag'] for c in columns]),
    of_dates,
    _positions(graph, scaled, columns),
  ]
  found = list(filter(None, parts)), _bins(graph, x, columns)
  return *found, _all(graph, readable)


def _all(graph: Graph, x: str) -> str:
  """Returns whether all of `[N, M]` are true, `[N, 1]`."""
  counts = graph.add('Cast', x, to=TYPES['int32'])
  fewest = graph.add('ReduceMin', counts, graph.constant([1]), keepdims=1)
  return graph.add('Cast', fewest, to=TYPES['bool'])


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
