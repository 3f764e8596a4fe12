"""Loops over the numbers of values, in C99."""

import string as letters
import types
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl.export import c_memory, c_text
from lplmtl.export.c_memory import Memory
from lplmtl.export.nodes import Node


class Values(NamedTuple):
  """How code refers to values.

  Attributes:
    memory: the plan.
    names: `{id(node): C expression}` of constants and inputs.
    float16s: ids of constants that are stored as float16.
    runs: `{id: ends}` of constants that are stored as runs of a number.
  """

  memory: Memory
  names: dict[int, str]
  float16s: Collection[int] = ()
  runs: Mapping[int, np.ndarray] = types.MappingProxyType({})

  def at(self, node: Node, index: str = '0') -> str:
    """Returns the expression of one number."""
    if node.data is not None and _is_one(node.data):
      return c_text.number(node.data.flat[0], node.dtype)
    base, start = self._base(node)
    place = plus(start, index)
    origin = id(c_memory.source(node)[0])
    if origin in self.runs:
      place = f'run_at({place}, {base}_ends, {len(self.runs[origin])})'
    number = f'{base}[{place}]'
    return f'of_float16({number})' if origin in self.float16s else number

  def pointer(self, node: Node) -> str:
    """Returns the address of the first number."""
    base, start = self._base(node)
    return f'{base} + {start}' if start else base

  def _base(self, node: Node) -> tuple[str, int]:
    origin, start = c_memory.source(node)
    if id(origin) in self.names:
      return self.names[id(origin)], start
    offset = self.memory.offsets[id(origin)]
    return c_memory.arena(origin), start + offset


def _is_one(data: np.ndarray) -> bool:
  """Returns whether an array holds the same number everywhere."""
  return (
    bool(data.size) and data.tobytes() == data.size * data.flat[0].tobytes()
  )


def loops(sizes: Sequence[int], body: Sequence[str]) -> list[str]:
  """Returns nested loops over i, j, k, ..., of one statement each."""
  names = indices(len(sizes))
  lines = [
    f'{"  " * depth}for (int {name} = 0; {name} < {size}; {name}++)'
    for depth, (name, size) in enumerate(zip(names, sizes, strict=True))
  ]
  indent = '  ' * len(sizes)
  if len(body) == 1:
    return [*lines, indent + body[0]]
  if lines:
    lines[-1] += ' {'
    end = ['  ' * (len(sizes) - 1) + '}']
    return [*lines, *(indent + line for line in body), *end]
  return list(body)


def indices(count: int) -> str:
  """Returns the names of loop variables: i, j, k, ..."""
  return letters.ascii_lowercase[8 : 8 + count]


def index(sizes: Sequence[int], steps: Sequence[int]) -> str:
  """Returns the index of a number, the sum of loop variables by steps."""
  names = indices(len(sizes))
  parts = [
    name if step == 1 else f'{step} * {name}'
    for name, step in zip(names, steps, strict=True)
    if step
  ]
  return ' + '.join(parts) or '0'


def steps_of(shape: Sequence[int]) -> list[int]:
  """Returns by how much the index grows along each axis; 0 for sizes of 1."""
  steps, step = [], 1
  for size in reversed(shape):
    steps.append(step if size > 1 else 0)
    step *= size
  return steps[::-1]


def joined(
  shape: Sequence[int], every: Sequence[Sequence[int]]
) -> tuple[list[int], list[list[int]]]:
  """Joins axes along which all operands advance alike.

  Args:
    shape: of the loops.
    every: steps of each operand along each axis.

  Returns:
    The sizes of fewer loops, and the steps of each operand.
  """
  sizes: list[int] = []
  found: list[list[int]] = [[] for _ in every]
  for axis, size in enumerate(shape):
    if size == 1:
      continue
    now = [steps[axis] for steps in every]
    is_same = sizes and all(
      old[-1] == step * size for old, step in zip(found, now, strict=True)
    )
    if is_same:
      sizes[-1] *= size
      for old, step in zip(found, now, strict=True):
        old[-1] = step
    else:
      sizes.append(size)
      for old, step in zip(found, now, strict=True):
        old.append(step)
  return sizes, found


def copy(
  shape: Sequence[int], target: tuple[Any, ...], origin: tuple[Any, ...]
) -> list[str]:
  """Returns loops that copy numbers.

  Args:
    shape: of what is copied.
    target: what makes the expression of a number from an index, the steps, and
      the first index.
    origin: likewise.
  """
  sizes, steps = joined(shape, [target[1], origin[1]])
  to, source = (
    at(plus(start, index(sizes, one)))
    for (at, _, start), one in zip((target, origin), steps, strict=True)
  )
  return loops(sizes, [f'{to} = {source};'])


def plus(start: int, index: str) -> str:
  """Returns the index of a number that many further."""
  first, _, rest = index.partition(' + ')
  if first.isdigit():
    start, index = start + int(first), rest
  if not index:
    return str(start)
  return f'{start} + {index}' if start else index


def numbers(node: Node, values: Values, start: int = 0) -> tuple[Any, ...]:
  """Returns how to refer to the numbers of a value, as `copy` takes it."""
  return (lambda i: values.at(node, i)), steps_of(node.shape), start
