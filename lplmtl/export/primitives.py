"""What each primitive of JAX is in the intermediate form."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lplmtl.export import nodes
from lplmtl.export.nodes import Node

Found = Node | Sequence[Node] | None
Rule = Callable[[Any, Sequence[Node]], Found]

# Of the same name, or nearly, in NumPy.
_ELEMENTWISE = {
  'add': 'add',
  'add_any': 'add',
  'sub': 'subtract',
  'mul': 'multiply',
  'div': 'divide',
  'rem': 'remainder',
  'max': 'maximum',
  'min': 'minimum',
  'pow': 'power',
  'neg': 'negative',
  'abs': 'absolute',
  'sign': 'sign',
  'floor': 'floor',
  'ceil': 'ceil',
  'sqrt': 'sqrt',
  'exp': 'exp',
  'log': 'log',
  'expm1': 'expm1',
  'log1p': 'log1p',
  'tanh': 'tanh',
  'sin': 'sin',
  'cos': 'cos',
  'erf': 'erf',
  'logistic': 'logistic',
  'is_finite': 'isfinite',
  'lt': 'less',
  'le': 'less_equal',
  'eq': 'equal',
  'ne': 'not_equal',
  'and': 'logical_and',
  'or': 'logical_or',
  'not': 'logical_not',
}
_REDUCTIONS = {
  'reduce_sum': 'sum',
  'reduce_prod': 'prod',
  'reduce_max': 'max',
  'reduce_min': 'min',
}
_SAME = (
  'stop_gradient', 'copy', 'optimization_barrier', 'sharding_constraint',
  'pvary',
)  # fmt: skip


def convert(equation: Any, operands: Sequence[Node]) -> Found:
  """Returns what an equation computes; None if its primitive is unknown."""
  name = equation.primitive.name
  if name in _ELEMENTWISE:
    return _elementwise(_ELEMENTWISE[name], equation, operands)
  if name in _REDUCTIONS:
    x, axes = operands[0], equation.params['axes']
    return nodes.reduce(_REDUCTIONS[name], x, axes)
  if name in _SAME:
    return list(operands)
  rule = _RULES.get(name)
  return None if rule is None else rule(equation, operands)


def _elementwise(
  kind: str, equation: Any, operands: Sequence[Node]
) -> Node | None:
  out = equation.outvars[0].aval
  is_whole = np.dtype(out.dtype).kind in 'iu'
  if is_whole and kind == 'divide':
    kind = 'quotient'
  # Bits of whole numbers, and the remainder of floats.
  if kind in ('logical_and', 'logical_or', 'logical_not') and is_whole:
    return None
  if kind == 'remainder' and not is_whole:
    return None
  return nodes.elementwise(
    kind, operands, out.shape, nodes.dtype_name(out.dtype)
  )


def _swapped(kind: str) -> Rule:
  def rule(equation: Any, operands: Sequence[Node]) -> Node | None:
    return _elementwise(kind, equation, operands[::-1])

  return rule


def _square(equation: Any, operands: Sequence[Node]) -> Node:
  return _times(operands[0], operands[0])


def _times(x: Node, y: Node) -> Node:
  return nodes.elementwise('multiply', [x, y], x.shape, x.dtype)


def _integer_pow(equation: Any, operands: Sequence[Node]) -> Node:
  x, power = operands[0], equation.params['y']
  one = nodes.constant(np.ones((), x.dtype))
  result = x if power else nodes.broadcast(one, x.shape)
  for _ in range(abs(power) - 1):
    result = _times(result, x)
  if power >= 0:
    return result
  return nodes.elementwise('divide', [one, result], x.shape, x.dtype)


def _rsqrt(equation: Any, operands: Sequence[Node]) -> Node:
  x = operands[0]
  root = nodes.elementwise('sqrt', [x], x.shape, x.dtype)
  one = nodes.constant(np.float32(1))
  return nodes.elementwise('divide', [one, root], x.shape, x.dtype)


def _erfc(equation: Any, operands: Sequence[Node]) -> Node:
  x, one = operands[0], nodes.constant(np.float32(1))
  error = nodes.elementwise('erf', [x], x.shape, x.dtype)
  return nodes.elementwise('subtract', [one, error], x.shape, x.dtype)


def _clamp(equation: Any, operands: Sequence[Node]) -> Node:
  low, x, high = operands
  x = nodes.elementwise('maximum', [x, low], x.shape, x.dtype)
  return nodes.elementwise('minimum', [x, high], x.shape, x.dtype)


def _select(equation: Any, operands: Sequence[Node]) -> Node | None:
  which, *cases = operands
  if which.dtype != 'bool':
    return None
  no, yes = cases
  return nodes.elementwise('where', [which, yes, no], no.shape, no.dtype)


def _cast(equation: Any, operands: Sequence[Node]) -> Node:
  new, x = np.dtype(equation.params['new_dtype']), operands[0]
  dtype = nodes.dtype_name(new)
  if x.data is not None:  # rounds, if these are floats of 16 bits
    return nodes.constant(x.data.astype(new))
  if x.dtype == dtype:
    return x
  return nodes.make('astype', [x], x.shape, dtype, dtype=dtype)


def _reduce_precision(equation: Any, operands: Sequence[Node]) -> Found:
  # Of parameters, JAX rounds; what is computed for a row stays float32.
  return operands[0] if operands[0].data is None else None


def _reshape(equation: Any, operands: Sequence[Node]) -> Node | None:
  is_permuted = equation.params.get('dimensions') is not None
  if is_permuted and equation.primitive.name == 'reshape':
    return None
  return nodes.reshape(operands[0], equation.outvars[0].aval.shape)


def _broadcast(equation: Any, operands: Sequence[Node]) -> Node:
  x, shape = operands[0], equation.params['shape']
  axes = equation.params['broadcast_dimensions']
  places = dict(zip(axes, x.shape, strict=True))
  x = nodes.reshape(x, tuple(places.get(i, 1) for i in range(len(shape))))
  return nodes.broadcast(x, shape)


def _transpose(equation: Any, operands: Sequence[Node]) -> Node:
  return nodes.transpose(operands[0], equation.params['permutation'])


def _concatenate(equation: Any, operands: Sequence[Node]) -> Node:
  return nodes.concatenate(operands, equation.params['dimension'])


def _stack(equation: Any, operands: Sequence[Node]) -> Node:
  axis = equation.params['axis']
  shape = equation.outvars[0].aval.shape
  one = (*shape[:axis], 1, *shape[axis + 1 :])
  return nodes.concatenate([nodes.reshape(x, one) for x in operands], axis)


def _unstack(equation: Any, operands: Sequence[Node]) -> list[Node]:
  axis = equation.params['axis']
  return [
    nodes.reshape(nodes.cut(operands[0], axis, i, i + 1), output.aval.shape)
    for i, output in enumerate(equation.outvars)
  ]


def _split(equation: Any, operands: Sequence[Node]) -> list[Node]:
  axis = equation.params['axis']
  ends = [0, *itertools.accumulate(map(int, equation.params['sizes']))]
  return [
    nodes.cut(operands[0], axis, start, stop)
    for start, stop in itertools.pairwise(ends)
  ]


def _slice(equation: Any, operands: Sequence[Node]) -> Node:
  params, x = equation.params, operands[0]
  steps = params['strides'] or (1,) * len(x.shape)
  starts, stops = params['start_indices'], params['limit_indices']
  for axis in range(len(x.shape)):
    x = nodes.cut(x, axis, starts[axis], stops[axis], steps[axis])
  return x


def _dynamic_slice(equation: Any, operands: Sequence[Node]) -> Node | None:
  x, *starts = operands
  if any(start.data is None for start in starts):
    return None
  for axis, size in enumerate(equation.params['slice_sizes']):
    first = min(max(int(starts[axis].data), 0), x.shape[axis] - size)  # type: ignore[arg-type]
    x = nodes.cut(x, axis, first, first + size)
  return x


def _rev(equation: Any, operands: Sequence[Node]) -> Node:
  x = operands[0]
  for axis in equation.params['dimensions']:
    x = nodes.cut(x, axis, x.shape[axis] - 1, -1, -1)
  return x


def _pad(equation: Any, operands: Sequence[Node]) -> Node | None:
  x, value = operands
  for axis, (low, high, inside) in enumerate(equation.params['padding_config']):
    if inside or min(low, high) < 0:
      return None
    for size, is_first in ((low, True), (high, False)):
      shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
      if size:
        edge = nodes.broadcast(value, shape)
        x = nodes.concatenate([edge, x] if is_first else [x, edge], axis)
  return x


def _iota(equation: Any, operands: Sequence[Node]) -> Node:
  out = equation.outvars[0].aval
  axis = equation.params['dimension']
  counts = np.arange(out.shape[axis]).astype(nodes.dtype_name(out.dtype))
  shape = [n if i == axis else 1 for i, n in enumerate(out.shape)]
  return nodes.constant(np.broadcast_to(counts.reshape(shape), out.shape))


def _cumsum(equation: Any, operands: Sequence[Node]) -> Node | None:
  x, axis = operands[0], equation.params['axis']
  if equation.params['reverse']:
    return None
  axis -= len(x.shape)
  return nodes.make('cumsum', [x], x.shape, x.dtype, axis=axis)


def _sort(equation: Any, operands: Sequence[Node]) -> Node | None:
  x, axis = operands[0], equation.params['dimension']
  if len(operands) > 1 or axis != len(x.shape) - 1:
    return None
  return nodes.make('sort', [x], x.shape, x.dtype, axis=-1)


def _dot_general(equation: Any, operands: Sequence[Node]) -> Node:
  x, y = operands
  contracted, batched = equation.params['dimension_numbers']
  (x_sum, y_sum), (x_batch, y_batch) = contracted, batched
  x_rest = [i for i in range(len(x.shape)) if i not in (*x_sum, *x_batch)]
  y_rest = [i for i in range(len(y.shape)) if i not in (*y_sum, *y_batch)]
  size = lambda node, axes: math.prod(node.shape[i] for i in axes)  # noqa: E731
  p, k = size(x, x_batch), size(x, x_sum)
  batch = (p,) if p > 1 else ()
  x = nodes.reshape(
    nodes.transpose(x, [*x_batch, *x_rest, *x_sum]),
    (*batch, size(x, x_rest), k),
  )
  y = nodes.reshape(
    nodes.transpose(y, [*y_batch, *y_sum, *y_rest]),
    (*batch, k, size(y, y_rest)),
  )
  return nodes.reshape(nodes.matmul(x, y), equation.outvars[0].aval.shape)


def _gather(equation: Any, operands: Sequence[Node]) -> Node | None:
  """Rows along one axis; what `jnp.take` and indexing by an array trace to."""
  table, ids = operands
  if table.data is not None and ids.data is not None:
    return None  # JAX fills in what ids out of range name
  numbers = equation.params['dimension_numbers']
  axes, sizes = numbers.start_index_map, equation.params['slice_sizes']
  is_whole = all(
    size == (1 if i in axes else table.shape[i]) for i, size in enumerate(sizes)
  )
  is_plain = len(axes) == 1 and numbers.collapsed_slice_dims == axes
  is_known = table.data is not None or ids.data is not None
  if numbers.operand_batching_dims or not (is_whole and is_plain and is_known):
    return None
  others = [i for i in range(len(table.shape)) if i != axes[0]]
  ids = nodes.reshape(ids, ids.shape[:-1])
  found = nodes.gather(nodes.transpose(table, [*axes, *others]), ids)
  of_ids = iter(range(len(ids.shape)))
  of_rows = iter(range(len(ids.shape), len(found.shape)))
  order = [
    next(of_rows) if i in numbers.offset_dims else next(of_ids)
    for i in range(len(found.shape))
  ]
  return nodes.transpose(found, order)


_RULES: dict[str, Rule] = {
  'gt': _swapped('less'),
  'ge': _swapped('less_equal'),
  'square': _square,
  'integer_pow': _integer_pow,
  'rsqrt': _rsqrt,
  'erfc': _erfc,
  'clamp': _clamp,
  'select_n': _select,
  'convert_element_type': _cast,
  'reduce_precision': _reduce_precision,
  'reshape': _reshape,
  'squeeze': _reshape,
  'broadcast_in_dim': _broadcast,
  'transpose': _transpose,
  'concatenate': _concatenate,
  'stack': _stack,
  'unstack': _unstack,
  'split': _split,
  'slice': _slice,
  'dynamic_slice': _dynamic_slice,
  'rev': _rev,
  'pad': _pad,
  'iota': _iota,
  'cumsum': _cumsum,
  'sort': _sort,
  'dot_general': _dot_general,
  'gather': _gather,
}
