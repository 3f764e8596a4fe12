"""What each operation of a program is in ONNX.

As in `reader`, values have an axis of rows in front of the shape of one row;
constants have not, and sizes of 1 are repeated.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl.export import nodes, onnx_graph
from lplmtl.export.nodes import Node
from lplmtl.export.onnx_graph import TYPES, Graph
from lplmtl.export.program import Program

_SAME = {
  'add': 'Add',
  'subtract': 'Sub',
  'multiply': 'Mul',
  'divide': 'Div',
  'quotient': 'Div',  # of whole numbers, rounded towards 0
  'maximum': 'Max',
  'minimum': 'Min',
  'power': 'Pow',
  'negative': 'Neg',
  'absolute': 'Abs',
  'sign': 'Sign',
  'floor': 'Floor',
  'ceil': 'Ceil',
  'sqrt': 'Sqrt',
  'exp': 'Exp',
  'log': 'Log',
  'tanh': 'Tanh',
  'sin': 'Sin',
  'cos': 'Cos',
  'erf': 'Erf',
  'logistic': 'Sigmoid',
  'less': 'Less',
  'less_equal': 'LessOrEqual',
  'equal': 'Equal',
  'logical_and': 'And',
  'logical_or': 'Or',
  'logical_not': 'Not',
  'where': 'Where',
}
_REDUCTIONS = {
  'sum': 'ReduceSum',
  'prod': 'ReduceProd',
  'max': 'ReduceMax',
  'min': 'ReduceMin',
}

Rule = Callable[[Graph, Node, Sequence[str]], str]


def outputs(
  graph: Graph,
  program: Program,
  names: Mapping[str, str],
) -> dict[str, str]:
  """Adds a program, and returns the values of its outputs, `[N, K]`.

  Args:
    graph: is extended.
    program: what to add.
    names: `{input: value}`, `[N, ...]`.
  """
  rows = graph.add('Shape', next(iter(names.values())), start=0, end=1)
  used = nodes.order(list(program.outputs.values()))
  found = {
    id(x): graph.add('Unsqueeze', names[name], graph.constant([1]))
    for name, x in program.inputs.items()
    if x in used
  }
  for node in used:
    if node.kind == 'constant':
      found[id(node)] = graph.constant(node.data)
    elif node.kind == 'concatenate':
      found[id(node)] = _concatenate(graph, node, found, rows)
    elif node.kind != 'input':
      operands = [found[id(x)] for x in node.operands]
      found[id(node)] = _scaled(graph, node, found) or _operation(
        graph, node, operands
      )
  return {
    task: _repeated(graph, x, found[id(x)], rows)
    if x.kind == 'constant'
    else found[id(x)]
    for task, x in program.outputs.items()
  }


def _operation(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  kind, options = node.kind, node.options
  if kind in _SAME:
    return graph.add(_SAME[kind], *operands)
  if kind in _REDUCTIONS:
    axes = graph.constant(options['axis'], np.int64)
    return graph.add(_REDUCTIONS[kind], *operands, axes, keepdims=0)
  return _RULES[kind](graph, node, operands)


def _scaled(graph: Graph, node: Node, found: Mapping[int, str]) -> str:
  """Adds a product with codes, or embeddings that are codes, times a scale.

  DequantizeLinear takes one scale, or one for each column of a matrix. Returns
  no name for what is neither; other scales are multiplied as in `reader`.
  """
  if node.kind != 'multiply' or node.operands[1].data is None:
    return ''
  x, scale = node.operands
  is_one = scale.shape == ()
  if not x.operands or x.operands[-1].dtype != 'int8':
    return ''
  operands = [found[id(y)] for y in x.operands]
  if x.kind == 'astype' and is_one:
    return _dequantized(graph, operands[0], scale.data)
  if x.kind == 'matmul' and (is_one or scale.shape == (1, x.shape[-1])):
    return _product(graph, x, operands[0], np.asarray(scale.data).ravel())
  return ''


def _product(graph: Graph, node: Node, x: str, scale: Any = 1) -> str:
  """Adds the product of x with codes times scales."""
  codes = np.asarray(node.operands[1].data)
  # A third axis, as onnxruntime (1.32) turns a product with a dequantised
  # matrix into MatMulNBits, which rounds x to 8 bits: errors of 1 %.
  codes = codes.reshape(-1, *codes.shape[-2:])
  weights = _dequantized(graph, graph.constant(codes), scale)
  return graph.add('MatMul', x, weights)


def _dequantized(graph: Graph, codes: str, scale: Any = 1) -> str:
  """Adds codes times a scale; codes are `[P, M, K]` if there are K scales."""
  scales = np.float32(scale)
  if scales.size > 1:
    return graph.add('DequantizeLinear', codes, graph.constant(scales), axis=2)
  one = graph.constant(scales.reshape(()))
  # Without a zero, onnxruntime (1.32) takes codes for unsigned where it puts
  # another pair behind a reshape, and negative ones become 0.
  zero = graph.constant(0, np.int8)
  return graph.add('DequantizeLinear', codes, one, zero)


def _matmul(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  if node.operands[1].dtype == 'int8':
    return _product(graph, node, operands[0])
  return graph.add('MatMul', *operands)


def _repeated(graph: Graph, node: Node, name: str, rows: str) -> str:
  """Adds the axis of rows to a constant."""
  sizes = graph.constant(node.shape, np.int64)
  shape = graph.add('Concat', rows, sizes, axis=0)
  return graph.add('Expand', name, shape)


def _concatenate(
  graph: Graph, node: Node, found: Mapping[int, str], rows: str
) -> str:
  parts = [
    _repeated(graph, x, found[id(x)], rows)
    if x.kind == 'constant'
    else found[id(x)]
    for x in node.operands
  ]
  return graph.add('Concat', *parts, axis=node.options['axis'])


def _not_equal(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  return graph.add('Not', graph.add('Equal', *operands))


def _remainder(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  return graph.add('Mod', *operands, fmod=1)  # with the sign of the first


def _isfinite(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  infinity = graph.constant(np.inf, np.float32)
  return graph.add('Less', graph.add('Abs', *operands), infinity)


def _cast(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  if node.operands[0].dtype == 'int8':
    return _dequantized(graph, *operands)
  return graph.add('Cast', *operands, to=TYPES[node.dtype])


def _gather(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  return graph.add('Gather', *operands, axis=0)


def _reshape(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  shape = graph.constant((0, *node.shape), np.int64)  # 0: as it is
  return graph.add('Reshape', *operands, shape)


def _transpose(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  rank = len(node.shape) + 1
  order = [0, *(axis + rank for axis in node.options['axes'])]
  return graph.add('Transpose', *operands, perm=order)


def _broadcast(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  shape = graph.constant((1, *node.shape), np.int64)  # 1: as many as there are
  return graph.add('Expand', *operands, shape)


def _slice(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  options = node.options
  stop = options['stop']
  if stop is None:  # backwards, to the first one
    stop = np.iinfo(np.int64).min
  settings = options['start'], stop, options['axis'], options['step']
  constants = [graph.constant([n], np.int64) for n in settings]
  return graph.add('Slice', *operands, *constants)


def _cumsum(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  axis = graph.constant(node.options['axis'], np.int64)
  return graph.add('CumSum', *operands, axis)


def _sort(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  size = graph.constant([node.shape[-1]], np.int64)
  return graph.add('TopK', *operands, size, num_results=2, largest=0)


def _log1p(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  return onnx_graph.log1p(graph, operands[0], node.dtype)


def _expm1(graph: Graph, node: Node, operands: Sequence[str]) -> str:
  return onnx_graph.expm1(graph, operands[0], node.dtype)


_RULES: dict[str, Rule] = {
  'not_equal': _not_equal,
  'remainder': _remainder,
  'isfinite': _isfinite,
  'astype': _cast,
  'matmul': _matmul,
  'gather': _gather,
  'reshape': _reshape,
  'transpose': _transpose,
  'broadcast': _broadcast,
  'slice': _slice,
  'cumsum': _cumsum,
  'sort': _sort,
  'log1p': _log1p,
  'expm1': _expm1,
}
