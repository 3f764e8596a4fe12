"""Runs what is alike for many tasks as one operation.

A loop over tasks in a traced program takes longer to compile the more tasks
there are. Tasks of a kind (equal functions and shapes) are stacked instead, and
mapped over.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl.types import PyTree

# Up to so many equal operations stay as they are: few compile fast, and the
# fastest step for few tasks is the one without copies into stacks.
FEW = 8


def each(
  fn: Callable[..., PyTree],
  calls: Sequence[tuple[Any, ...]],
  keys: Sequence[Hashable],
  *,
  alone: Callable[..., PyTree] | None = None,
  in_turn: bool = False,
) -> list[PyTree]:
  """Returns the results of N calls, of which those of a kind run at once.

  Args:
    fn: `(position, *arguments) -> result`, pytrees of arrays. Of several calls
      that run at once, it is given the first position, and arguments without
      the axis that it is mapped over.
    calls: the arguments of each call. One that is the same object in all calls
      of a kind is not copied.
    keys: of each call; calls with equal keys are of a kind. Their arguments
      must have equal shapes.
    alone: what to call instead of `fn` for a kind with few calls.
    in_turn: whether calls of a kind run one after the other, as one loop, be
      they few or many.
  """
  alone = alone or fn
  few = 1 if in_turn else FEW
  results: list[PyTree] = [None] * len(calls)
  for positions in groups(keys):
    if len(positions) <= few:
      found = [alone(i, *calls[i]) for i in positions]
    else:
      found = unstack(_at_once(fn, calls, positions, in_turn), len(positions))
    for position, result in zip(positions, found, strict=True):
      results[position] = result
  return results


def together(
  fn: Callable[..., PyTree],
  calls: Sequence[tuple[Any, ...]],
  keys: Sequence[Hashable],
) -> PyTree:
  """Returns the results of `each`, stacked on a leading axis."""
  outputs, order = [], []
  for positions in groups(keys):
    order += positions
    if len(positions) <= FEW:
      outputs.append(stack([fn(i, *calls[i]) for i in positions]))
    else:
      outputs.append(_at_once(fn, calls, positions))
  if len(outputs) == 1:
    return outputs[0]
  joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *outputs)
  if order == sorted(order):
    return joined
  return jax.tree.map(lambda x: x[np.argsort(order)], joined)


def _at_once(
  fn: Callable[..., PyTree],
  calls: Sequence[tuple[Any, ...]],
  positions: Sequence[int],
  in_turn: bool = False,
) -> PyTree:
  """Returns the stacked results of calls that are of a kind."""
  first, count = positions[0], len(positions)
  columns = list(zip(*(calls[i] for i in positions), strict=True))
  is_same = [all(x is column[0] for x in column) for column in columns]
  arguments = [
    column[0] if same else stack(column)
    for column, same in zip(columns, is_same, strict=True)
  ]
  one = functools.partial(fn, first)
  if in_turn and not all(is_same):
    mapped = [x for x, same in zip(arguments, is_same, strict=True) if not same]

    def next_one(own: list[PyTree]) -> PyTree:
      rest = iter(own)
      return one(
        *(
          x if same else next(rest)
          for x, same in zip(arguments, is_same, strict=True)
        )
      )

    return jax.lax.map(next_one, mapped)
  axes = tuple(None if same else 0 for same in is_same)
  return jax.vmap(one, axes, axis_size=count)(*arguments)


def groups(keys: Sequence[Hashable]) -> list[list[int]]:
  """Returns the positions of equal keys, in order of first occurrence.

  Example:
    >>> groups(['a', 'b', 'a'])
    [[0, 2], [1]]
  """
  found: dict[Hashable, list[int]] = {}
  for i, key in enumerate(keys):
    found.setdefault(key, []).append(i)
  return list(found.values())


def shapes(tree: PyTree) -> Hashable:
  """Returns the structure of a pytree, its shapes and its dtypes."""
  leaves, structure = jax.tree.flatten(tree)
  return structure, tuple((jnp.shape(x), jnp.result_type(x)) for x in leaves)


def identity(value: Any) -> Hashable:
  """Returns the value if it can be compared by `==`, else its identity."""
  try:
    hash(value)
  except TypeError:
    return id(value)
  return value


def stack(trees: Sequence[PyTree], axis: int = 0) -> PyTree:
  """Stacks pytrees of equal shapes on a new axis, the first by default."""
  return jax.tree.map(lambda *leaves: _stack(leaves, axis), *trees)


def _stack(leaves: Sequence[Any], axis: int) -> Any:
  if all(isinstance(x, np.ndarray | np.generic) for x in leaves):
    return np.stack(leaves, axis)
  # All at once: in JAX 0.7, `jnp.stack` joins 16 arrays at a time, and the last
  # of them would be no operations like the others.
  rows = [jax.lax.expand_dims(jnp.asarray(x), (axis,)) for x in leaves]
  return jax.lax.concatenate(rows, axis)


def unstack(tree: PyTree, count: int) -> list[PyTree]:
  """Returns the `count` pytrees that `stack` stacks."""
  leaves, structure = jax.tree.flatten(tree)
  parts = [jnp.unstack(x) for x in leaves]
  return [
    jax.tree.unflatten(structure, [part[i] for part in parts])
    for i in range(count)
  ]
