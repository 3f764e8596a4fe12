"""Products, look-ups and copies as C99."""

import math
from collections.abc import Sequence

from lplmtl.export import c_constants, c_loops
from lplmtl.export.c_loops import Values
from lplmtl.export.nodes import Node


def _matmul(node: Node, values: Values) -> list[str]:
  x, y = node.operands
  if len(y.shape) == 2 and len(x.shape) == 2:
    return [_product(values, node, x, y, ('', '', ''))]
  (p, m, k), n = node.shape[0:1] + x.shape[-2:], y.shape[-1]
  rows = -(-k // 2) if c_constants.is_halves(y) else k
  shifts = [
    '' if len(z.shape) < 3 else f' + {step} * i'
    for z, step in ((x, m * k), (y, rows * n), (node, m * n))
  ]
  return c_loops.loops([p], [_product(values, node, x, y, shifts)])


def _product(
  values: Values, node: Node, x: Node, y: Node, shifts: Sequence[str]
) -> str:
  (m, k), n = x.shape[-2:], y.shape[-1]
  places = [
    values.pointer(z) + shift
    for z, shift in zip((x, y, node), shifts, strict=True)
  ]
  name = 'product'
  if y.dtype == 'int8':
    name = 'product_of_codes'
    if c_constants.is_halves(y):
      name = 'product_of_halves'
  return f'{name}({", ".join(places)}, {m}, {k}, {n});'


def _gather(node: Node, values: Values) -> list[str]:
  table, ids = node.operands
  count, width = math.prod(ids.shape), math.prod(table.shape[1:])
  row = values.at(ids, 'i')
  copied = f'{values.at(node, c_loops.index([count, width], [width, 1]))} = '
  place = f'{width} * {row} + j' if width > 1 else row
  if width == 1:
    copied = f'{values.at(node, "i")} = '
  sizes = [count, width] if width > 1 else [count]
  found = values.at(table, place)
  name = values.names[id(table)]
  if c_constants.is_halves(table):
    column = 'j' if width > 1 else 0
    found = f'half_at({name}, {row}, {column}, {width})'
  return c_loops.loops(sizes, [f'{copied}{found};'])


def _concatenate(node: Node, values: Values) -> list[str]:
  axis = node.options['axis'] % len(node.shape)
  inner = math.prod(node.shape[axis + 1 :])
  lines, start = [], 0
  whole = c_loops.steps_of(node.shape)
  for x in node.operands:
    to = [s if n > 1 else 0 for s, n in zip(whole, x.shape, strict=True)]
    at = c_loops.numbers(node, values)[0]
    lines += c_loops.copy(x.shape, (at, to, start), c_loops.numbers(x, values))
    start += x.shape[axis] * inner
  return lines


def _slice(node: Node, values: Values) -> list[str]:
  x = node.operands[0]
  axis = node.options['axis'] % len(x.shape)
  steps = c_loops.steps_of(x.shape)
  first = node.options['start'] * math.prod(x.shape[axis + 1 :])
  steps[axis] *= node.options['step']
  origin = (c_loops.numbers(x, values)[0], steps, first)
  return c_loops.copy(node.shape, c_loops.numbers(node, values), origin)


def _transpose(node: Node, values: Values) -> list[str]:
  x = node.operands[0]
  steps = c_loops.steps_of(x.shape)
  moved = [steps[axis] for axis in node.options['axes']]
  origin = (c_loops.numbers(x, values)[0], moved, 0)
  return c_loops.copy(node.shape, c_loops.numbers(node, values), origin)


def _broadcast(node: Node, values: Values) -> list[str]:
  x = node.operands[0]
  return c_loops.copy(
    node.shape, c_loops.numbers(node, values), c_loops.numbers(x, values)
  )


def _cumsum(node: Node, values: Values) -> list[str]:
  axis = node.options['axis'] % len(node.shape)
  step = math.prod(node.shape[axis + 1 :])
  lines = c_loops.copy(
    node.shape,
    c_loops.numbers(node, values),
    c_loops.numbers(node.operands[0], values),
  )
  sizes = [math.prod(node.shape[:axis]), node.shape[axis] - 1, step]
  steps = [node.shape[axis] * step, step, 1]
  here = c_loops.index(sizes, steps)
  after, before = (
    values.at(node, c_loops.plus(step, here)),
    values.at(node, here),
  )
  return [*lines, *c_loops.loops(sizes, [f'{after} += {before};'])]


def _sort(node: Node, values: Values) -> list[str]:
  """Bubbles: there are few classes."""
  size = node.shape[-1]
  lines = c_loops.copy(
    node.shape,
    c_loops.numbers(node, values),
    c_loops.numbers(node.operands[0], values),
  )
  sizes = [math.prod(node.shape[:-1]), size, size - 1]
  low = values.at(node, c_loops.index(sizes, [size, 0, 1]))
  high = values.at(node, c_loops.plus(1, c_loops.index(sizes, [size, 0, 1])))
  swap = [
    f'const float low = smaller({low}, {high});',
    f'{high} = larger({low}, {high});',
    f'{low} = low;',
  ]
  return [*lines, *c_loops.loops(sizes, swap)]


STATEMENTS = {
  'matmul': _matmul,
  'gather': _gather,
  'concatenate': _concatenate,
  'slice': _slice,
  'transpose': _transpose,
  'broadcast': _broadcast,
  'cumsum': _cumsum,
  'sort': _sort,
}
