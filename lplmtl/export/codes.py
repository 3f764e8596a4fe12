"""Weights of few bits stay whole numbers: products take codes, scales follow.

A graph moves and joins the weights of a quantised model, so what is `codes *
scale` is found by its numbers, in each column of a matrix or row of a table.
"""

import dataclasses
import itertools
import operator
from typing import Any, NamedTuple

import jax
import numpy as np

from lplmtl.compression.integers import Integers
from lplmtl.export import nodes
from lplmtl.export.nodes import Node
from lplmtl.export.program import Program
from lplmtl.types import PyTree

_MOST = 127  # the largest code of int8
FEW = 64  # numbers: of fewer, scales and further code take more bytes
_MOST_PARTS = 8  # of a matrix, some of whose columns are codes


def with_codes(program: Program, frozen: PyTree) -> Program:
  """Returns a program whose constants are codes where weights are few bits.

  A product with a matrix becomes one with codes, times a scale for each output
  (or input); a row of a table is multiplied by its scale. Sums are rounded at
  other places than before, so that predictions differ in the last digits.

  Args:
    program: of the parameters that `quantization.thaw` returns.
    frozen: what `quantization.freeze` returned; with nothing quantised, the
      program is returned as it is.

  Example:
    >>> import jax.numpy as jnp
    >>> import lplmtl
    >>> from lplmtl import export, tasks
    >>> from lplmtl.compression import Quantized, Scheme, quantization
    >>> model = Quantized(lplmtl.SharedBottom((tasks.binary('buy'),)), Scheme())
    >>> x = jnp.ones((3, 8))
    >>> params = jax.jit(model.init)(jax.random.key(0), x)['params']
    >>> frozen = quantization.freeze(model, params)
    >>> program = export.trace(model.model, quantization.thaw(frozen), x)
    >>> program = with_codes(program, frozen)  # what trace(model, ...) does
    >>> [c.dtype for c in program.constants if c.data.size > 300]
    ['int8', 'int8']
  """
  scales = scales_of(frozen)
  if not scales.size:
    return program
  found: dict[int, Node] = {}
  tables: dict[int, _Table | None] = {}
  for node in nodes.order(list(program.outputs.values())):
    operands = [found[id(x)] for x in node.operands]
    result = None
    if node.kind == 'matmul' and _is_large(operands[1]):
      result = _product(operands[0], operands[1], scales)
    if node.kind == 'gather' and _is_large(operands[0]):
      name = id(operands[0])
      if name not in tables:
        tables[name] = _table(operands[0], scales)
      table = tables[name]
      if table:
        result = nodes.reshape(_rows(table, operands[1]), node.shape)
    found[id(node)] = result or _with_operands(node, operands)
  outputs = {task: found[id(x)] for task, x in program.outputs.items()}
  return dataclasses.replace(program, outputs=outputs)


def _with_operands(node: Node, operands: list[Node]) -> Node:
  if all(map(operator.is_, node.operands, operands)):
    return node
  return dataclasses.replace(node, operands=tuple(operands))


def scales_of(frozen: PyTree) -> np.ndarray:
  """Returns all scales of what `quantization.freeze` returned, largest first.

  Args:
    frozen: a pytree with Integers; None has none.
  """
  is_leaf = lambda leaf: isinstance(leaf, Integers)  # noqa: E731
  found = [
    leaf.scale.ravel()
    for leaf in jax.tree.leaves(frozen, is_leaf=is_leaf)
    if is_leaf(leaf)
  ]
  return np.unique(np.concatenate(found))[::-1] if found else np.zeros(0)


def split(vectors: np.ndarray, scales: np.ndarray) -> tuple[Any, Any]:
  """Returns codes and scales whose products are vectors, to the bit.

  Args:
    vectors: float32 `[..., K]`.
    scales: to try, float32.

  Returns:
    int8 `[..., K]`, and float32 `[...]`: 0 where no scale fits.
  """
  rows = vectors.reshape(-1, vectors.shape[-1])
  codes = np.zeros(rows.shape, np.int8)
  scale = np.zeros(len(rows), np.float32)
  for one in scales:
    (left,) = np.nonzero(scale == 0)
    whole = np.rint(rows[left] / one)
    is_same = (whole * one == rows[left]) & (np.abs(whole) <= _MOST)
    fits = is_same.all(axis=1)
    codes[left[fits]] = whole[fits]
    scale[left[fits]] = one
  return codes.reshape(vectors.shape), scale.reshape(vectors.shape[:-1])


def _is_large(x: Node) -> bool:
  return x.data is not None and x.dtype == 'float32' and x.data.size >= FEW


def _codes(data: np.ndarray) -> Node:
  return Node('constant', data.shape, 'int8', data=np.ascontiguousarray(data))


def _times(x: Node, scale: np.ndarray) -> Node:
  return nodes.elementwise(
    'multiply', [x, nodes.constant(scale)], x.shape, 'float32'
  )


def _product(x: Node, y: Node, scales: np.ndarray) -> Node | None:
  """Returns `x @ y` by codes; None if y has none."""
  data = np.asarray(y.data)
  codes, scale = split(data.swapaxes(-1, -2), scales)
  codes, scale = codes.swapaxes(-1, -2), scale[..., None, :]
  if scale.all():
    return _times(_matmul(x, codes), scale)
  if data.ndim == 2 and scale.any():
    return _by_columns(x, data, codes, scale)
  codes, scale = split(data, scales)  # of a transposed matrix
  if scale.all():
    return _matmul(_times(x, scale[..., None, :]), codes)
  return None


def _matmul(x: Node, codes: np.ndarray) -> Node:
  shape = (*x.shape[:-1], codes.shape[-1])
  return nodes.make('matmul', [x, _codes(codes)], shape, 'float32')


def _by_columns(
  x: Node, data: np.ndarray, codes: np.ndarray, scale: np.ndarray
) -> Node | None:
  """Returns the product where some columns are codes, side by side."""
  is_code = scale[0] > 0
  ends = [0, *np.flatnonzero(np.diff(is_code)) + 1, len(is_code)]
  if len(ends) > _MOST_PARTS:
    return None
  parts = []
  for start, end in itertools.pairwise(ends):
    columns = slice(start, end)
    if is_code[start]:
      part = _times(_matmul(x, codes[:, columns]), scale[:, columns])
    else:
      part = nodes.matmul(x, nodes.constant(data[:, columns]))
    parts.append(part)
  return nodes.concatenate(parts, len(x.shape) - 1)


class _Table(NamedTuple):
  """The rows of a table of embeddings.

  Attributes:
    codes: of its first rows, as many as are codes, int8 `[V, E]`.
    scale: of these rows, float32, or of groups of rows.
    groups: the place of each row's scale, int32 `[V]`; None if all have one.
    floats: the other rows; None if there are none.
  """

  codes: Node
  scale: Node
  groups: Node | None
  floats: Node | None


def _table(table: Node, scales: np.ndarray) -> _Table | None:
  """Returns the codes of a table; None if its first rows have none."""
  data = np.asarray(table.data)
  codes, scale = split(data.reshape(len(data), -1), scales)
  count = int(np.append(np.flatnonzero(scale == 0), len(scale))[0])
  if not count:
    return None
  each, groups = np.unique(scale[:count], return_inverse=True)
  return _Table(
    _codes(codes[:count]),
    nodes.constant(each),
    nodes.constant(groups) if len(each) > 1 else None,
    nodes.constant(data[count:].reshape(-1, codes.shape[1]))
    if count < len(data)
    else None,
  )


def _rows(table: _Table, ids: Node) -> Node:
  """Returns the rows that ids name, `[..., E]`."""
  count, width = table.codes.shape
  first = ids
  if table.floats is not None:
    last = nodes.constant(np.int32(count - 1))
    first = nodes.elementwise('minimum', [ids, last], ids.shape, 'int32')
  shape, column = (*ids.shape, width), (*ids.shape, 1)
  rows = nodes.make('gather', [table.codes, first], shape, 'int8')
  rows = nodes.make('astype', [rows], shape, 'float32', dtype='float32')
  scale = table.scale
  if table.groups is not None:
    places = nodes.make('gather', [table.groups, first], ids.shape, 'int32')
    scale = nodes.make('gather', [scale, places], ids.shape, 'float32')
    scale = nodes.reshape(scale, column)
  rows = nodes.elementwise('multiply', [rows, scale], shape, 'float32')
  if table.floats is None:
    return rows
  end = nodes.constant(np.int32(count))
  others = nodes.elementwise('subtract', [ids, end], ids.shape, 'int32')
  others = nodes.gather(table.floats, others)
  is_code = nodes.elementwise('less', [ids, end], ids.shape, 'bool')
  is_code = nodes.reshape(is_code, column)
  return nodes.elementwise('where', [is_code, rows, others], shape, 'float32')
