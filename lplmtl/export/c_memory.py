"""Where the values of a program lie in memory while it runs."""

import itertools
import math
from typing import NamedTuple

from lplmtl.export.nodes import Node
from lplmtl.export.program import Program

ELEMENTWISE = frozenset(
  """
  add subtract multiply divide quotient remainder maximum minimum power negative
  absolute sign floor ceil sqrt exp log expm1 log1p tanh sin cos erf logistic
  isfinite less less_equal equal not_equal logical_and logical_or logical_not
  where astype
  """.split()
)


class Memory(NamedTuple):
  """A plan.

  Attributes:
    offsets: `{id(node): offset}` of each value with memory of its own, in the
      numbers of its arena.
    sizes: `{arena: numbers}`; floats have one arena, whole and Boolean numbers
      the other.
    inlined: ids of nodes that are computed where they are used, as part of one
      expression.
  """

  offsets: dict[int, int]
  sizes: dict[str, int]
  inlined: frozenset[int]


def arena(node: Node) -> str:
  """Returns `floats` or `integers`."""
  return 'floats' if node.dtype == 'float32' else 'integers'


def source(node: Node) -> tuple[Node, int]:
  """Returns the node whose memory a view reads, and where it begins there."""
  start = 0
  while is_view(node):
    if node.kind == 'slice':
      axis = node.options['axis'] % len(node.shape)
      start += node.options['start'] * math.prod(node.shape[axis + 1 :])
    node = node.operands[0]
  return node, start


def is_view(node: Node) -> bool:
  """Returns whether a value is part of another one, without a copy."""
  if node.kind == 'slice':
    axis = node.options['axis'] % len(node.shape)
    is_dense = node.options['step'] == 1 or node.shape[axis] == 1
    return is_dense and math.prod(node.shape[:axis]) == 1
  return node.kind == 'reshape'


def plan(program: Program) -> Memory:
  """Finds memory for each value from when it is computed to its last use."""
  operations = program.operations
  outputs = {id(source(x)[0]) for x in program.outputs.values()}
  inlined = frozenset(_inlined(operations, outputs))
  last = dict.fromkeys(outputs, len(operations))
  for time, node in enumerate(operations):
    if id(node) not in inlined:
      for x in leaves(node, inlined):
        last[id(source(x)[0])] = max(last.get(id(source(x)[0]), 0), time)
  offsets: dict[int, int] = {}
  sizes = {'floats': 0, 'integers': 0}
  alive: list[tuple[str, int, int, int]] = []  # arena, start, end, last use
  for time, node in enumerate(operations):
    if is_view(node) or id(node) in inlined:
      continue
    kind, size = arena(node), math.prod(node.shape)
    # What is last read by this operation stays: a product, say, writes its
    # first results before it has read all operands.
    alive = [one for one in alive if one[3] >= time]
    start = _first_gap([one[1:3] for one in alive if one[0] == kind], size)
    alive.append((kind, start, start + size, last.get(id(node), time)))
    offsets[id(node)] = start
    sizes[kind] = max(sizes[kind], start + size)
  return Memory(offsets, sizes, inlined)


def leaves(node: Node, inlined: frozenset[int]) -> list[Node]:
  """Returns the operands of the expression that computes a node."""
  return list(
    itertools.chain.from_iterable(
      leaves(x, inlined) if id(x) in inlined else [x] for x in node.operands
    )
  )


def _inlined(operations: list[Node], outputs: set[int]) -> list[int]:
  users: dict[int, list[Node]] = {}
  for node in operations:
    for x in node.operands:
      users.setdefault(id(x), []).append(node)
  return [
    id(x)
    for x in operations
    if x.kind in ELEMENTWISE
    and id(x) not in outputs
    and len(users[id(x)]) == 1
    and users[id(x)][0].kind in ELEMENTWISE
    and users[id(x)][0].shape == x.shape
  ]


def _first_gap(taken: list[tuple[int, int]], size: int) -> int:
  start = 0
  for low, high in sorted(taken):
    if start + size <= low:
      break
    start = max(start, high)
  return start
