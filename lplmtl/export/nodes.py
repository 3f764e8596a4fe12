"""The intermediate form: a graph of some 45 operations on one row.

Functions that make nodes keep the graph small as they go: what depends on
constants only becomes a constant, by the NumPy functions of `reader`, and
operations that change nothing disappear.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl.export import reader

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
  """A value of the program, and the operation that computes it.

  Attributes:
    kind: `input`, `constant`, or a name of `reader.OPS`.
    shape: of the value for one row, as JAX traced it with B = 1.
    dtype: `float32`, `int32`, `bool`, or `int8` of codes.
    operands: of the operation.
    options: its settings. Axes count from the end, as in the reader there is an
      axis of rows in front.
    data: the value of a constant.
  """

  kind: str
  shape: Shape
  dtype: str
  operands: tuple['Node', ...] = ()
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  data: np.ndarray | None = None


def dtype_name(dtype: Any) -> str:
  """Returns the dtype in which a value is computed: floats are float32."""
  kind = np.dtype(dtype).kind
  # bfloat16, which NumPy does not know by itself, has the kind V.
  names = {'f': 'float32', 'V': 'float32', 'b': 'bool', 'i': 'int32'}
  return names.get(kind, 'int32')


def constant(data: Any) -> Node:
  """Returns a constant."""
  array = np.asarray(data)
  array = np.asarray(array, dtype_name(array.dtype), order='C')
  return Node('constant', array.shape, str(array.dtype), data=array)


def make(
  kind: str,
  operands: Sequence[Node],
  shape: Shape,
  dtype: str,
  /,
  **options: Any,
) -> Node:
  """Returns the node of an operation, a constant if its operands are."""
  values = [x.data for x in operands if x.data is not None]
  if operands and len(values) == len(operands):
    with np.errstate(all='ignore'):
      found = np.asarray(reader.OPS[kind](*values, **options))
    return constant(found.astype(dtype).reshape(shape))
  return Node(kind, tuple(shape), dtype, tuple(operands), options)


# `x op neutral` is x; both ways round if the operation commutes.
_NEUTRAL = {
  'add': 0,
  'subtract': 0,
  'multiply': 1,
  'divide': 1,
  'quotient': 1,
  'maximum': -math.inf,
  'minimum': math.inf,
}
_COMMUTES = ('add', 'multiply', 'maximum', 'minimum')


def elementwise(
  kind: str, operands: Sequence[Node], shape: Shape, dtype: str
) -> Node:
  """Returns the node of an elementwise operation; sizes of 1 are repeated."""
  operands = [_unspread(x) for x in operands]
  spread = np.broadcast_shapes(*(x.shape for x in operands))
  if kind in _NEUTRAL:
    x, y = operands
    if _is(y, _NEUTRAL[kind]) and x.shape == shape:
      return x
    if kind in _COMMUTES and _is(x, _NEUTRAL[kind]) and y.shape == shape:
      return y
  if spread == shape:
    return make(kind, operands, shape, dtype)
  return broadcast(make(kind, operands, spread, dtype), shape)


def _is(x: Node, value: float) -> bool:
  return x.data is not None and x.shape == () and bool(x.data == value)


def _unspread(x: Node) -> Node:
  """Returns a node without the repetitions that the operation makes anyway."""
  if x.kind == 'broadcast':
    return x.operands[0]
  if x.data is not None and x.data.size and (x.data == x.data.flat[0]).all():
    return constant(x.data.flat[0])
  return x


def reshape(x: Node, shape: Shape) -> Node:
  """Returns the same numbers in another shape."""
  shape = tuple(shape)
  if x.kind == 'reshape':
    x = x.operands[0]
  if x.shape == shape:
    return x
  rank = len(x.shape)
  return make('reshape', [x], shape, x.dtype, rank=rank, shape=shape)


def broadcast(x: Node, shape: Shape) -> Node:
  """Repeats axes of size 1; leading axes are added."""
  shape = tuple(shape)
  x = reshape(x, (1,) * (len(shape) - len(x.shape)) + x.shape)
  if x.shape == shape:
    return x
  return make('broadcast', [x], shape, x.dtype, shape=shape)


def transpose(x: Node, order: Sequence[int]) -> Node:
  """Permutes the axes."""
  shape = tuple(x.shape[i] for i in order)
  real = [i for i in order if x.shape[i] > 1]
  if real == sorted(real):  # only axes of size 1 move
    return reshape(x, shape)
  axes = tuple(i - len(order) for i in order)
  return make('transpose', [x], shape, x.dtype, axes=axes)


def concatenate(parts: Sequence[Node], axis: int) -> Node:
  """Joins nodes along an axis; those without numbers are left out."""
  found: list[Node] = []
  for x in parts:
    if found and _follows(x, found[-1], axis):  # a cut of the same node
      first = found.pop().options['start']
      x = cut(x.operands[0], axis, first, x.options['stop'])
    found.append(x)
  parts = [x for x in found if x.shape[axis]] or found[:1]
  if len(parts) == 1:
    return parts[0]
  rank = len(parts[0].shape)
  size = sum(x.shape[axis] for x in parts)
  shape = (*parts[0].shape[:axis], size, *parts[0].shape[axis + 1 :])
  options = {'axis': axis - rank, 'rank': rank}
  return make('concatenate', parts, shape, parts[0].dtype, **options)


def _follows(x: Node, before: Node, axis: int) -> bool:
  """Returns whether two cuts are neighbours in a node."""
  place = axis - len(x.shape)
  return (
    x.kind == before.kind == 'slice'
    and x.operands[0] is before.operands[0]
    and x.options['axis'] == before.options['axis'] == place
    and x.options['step'] == before.options['step'] == 1
    and x.options['start'] == before.options['stop']
  )


def cut(x: Node, axis: int, start: int, stop: int, step: int = 1) -> Node:
  """Returns `x[..., start:stop:step, ...]`; steps may be negative."""
  size = len(range(start, stop, step))
  if (start, size, step) == (0, x.shape[axis], 1):
    return x
  rank = len(x.shape)
  if x.kind == 'concatenate' and x.options['axis'] == axis - rank and step == 1:
    ends = [0, *itertools.accumulate(y.shape[axis] for y in x.operands)]
    found = [
      cut(y, axis, max(start - first, 0), min(stop, end) - first)
      for y, first, end in zip(x.operands, ends, ends[1:], strict=False)
      if first < stop and start < end
    ]
    return concatenate(found, axis)
  is_cut = x.kind == 'slice' and x.options['axis'] == axis - rank
  if is_cut and step == x.options['step'] == 1:
    first, x = x.options['start'], x.operands[0]
    return cut(x, axis, first + start, first + stop)
  shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
  end = stop if stop >= 0 else None
  options = {'axis': axis - rank, 'start': start, 'stop': end, 'step': step}
  return make('slice', [x], shape, x.dtype, **options)


def reduce(kind: str, x: Node, axes: Sequence[int]) -> Node:
  """Returns the `sum`, `prod`, `max` or `min` over axes."""
  kept = [n for i, n in enumerate(x.shape) if i not in axes]
  if all(x.shape[i] == 1 for i in axes):
    return reshape(x, tuple(kept))
  rank = len(x.shape)
  axis = tuple(i - rank for i in axes)
  return make(kind, [x], tuple(kept), x.dtype, axis=axis)


def matmul(x: Node, y: Node) -> Node:
  """Returns `[P, M, K] @ [P, K, N]`; P is left out if it is 1.

  Columns of zeros in constant weights are left out, and zeros put in their
  place afterwards: `layers.mixture` pads the kernels of gates with them.
  Weights stand on the right, if they can: a form needs one kind of product.
  """
  shape = (*x.shape[:-1], y.shape[-1])
  if x.data is not None and y.data is None and y.shape[-1] == 1:
    row = reshape(y, (*y.shape[:-2], 1, y.shape[-2]))
    weights = constant(x.data.swapaxes(-1, -2))
    return reshape(matmul(row, weights), shape)
  if y.data is not None and x.data is None and y.data.ndim == 2:
    used = np.any(y.data, axis=0)
    if not used.all():
      narrow = matmul(x, constant(y.data[:, used])) if used.any() else None
      return _widened(narrow, used, shape)
  return make('matmul', [x, y], shape, x.dtype)


def _widened(narrow: Node | None, used: Any, shape: Shape) -> Node:
  """Puts columns of zeros where columns were not used."""
  parts, place = [], 0
  for is_used, group in itertools.groupby(used.tolist()):
    size = len(list(group))
    if is_used and narrow is not None:
      parts.append(cut(narrow, len(shape) - 1, place, place + size))
      place += size
    else:
      parts.append(constant(np.zeros((*shape[:-1], size), np.float32)))
  return concatenate(parts, len(shape) - 1)


def gather(table: Node, ids: Node) -> Node:
  """Returns the rows of a table, `[V, ...]`; ids are clipped to 0 to V - 1."""
  shape = (*ids.shape, *table.shape[1:])
  if ids.data is not None and table.data is None:
    rows = ids.data.ravel().clip(0, table.shape[0] - 1).tolist()
    parts = [cut(table, 0, i, i + 1) for i in rows]
    return reshape(concatenate(parts, 0), shape)
  last = table.shape[0] - 1
  low = elementwise('maximum', [ids, constant(np.int32(0))], ids.shape, 'int32')
  high = constant(np.int32(last))
  ids = elementwise('minimum', [low, high], ids.shape, 'int32')
  return make('gather', [table, ids], shape, table.dtype)


def order(outputs: Sequence[Node]) -> list[Node]:
  """Returns all nodes that outputs need, each after its operands."""
  found: dict[int, Node] = {}
  # A stack, as a deep network would exceed Python's limit of recursion.
  waiting = list(reversed(outputs))
  while waiting:
    node = waiting[-1]
    missing = [x for x in node.operands if id(x) not in found]
    if missing and id(node) not in found:
      waiting += reversed(missing)
    else:
      found.setdefault(id(waiting.pop()), node)
  return list(found.values())
