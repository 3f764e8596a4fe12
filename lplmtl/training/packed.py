"""Pytrees with leaves for many tasks, as a few arrays."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax

from lplmtl import _alike
from lplmtl.training import merged
from lplmtl.types import Array, PyTree


class Packing:
  """Which leaves of a pytree are stacked: those that only differ in the task.

  Their paths are equal except for the name of a task, as in `tower_click` and
  `tower_buy`, and so are their shapes.

  Attributes:
    groups: the positions of the leaves in each array; those of a group follow
      the order of the tasks.
  """

  def __init__(self, tree: PyTree, task_names: Sequence[str]):
    numbers = {name: i for i, name in enumerate(task_names)}
    leaves, self._structure = jax.tree_util.tree_flatten_with_path(tree)
    paths = [_without_task(path, numbers) for path, _ in leaves]
    kinds = _alike.groups(
      [
        (kind, _alike.shapes(leaf))
        for (kind, _), (_, leaf) in zip(paths, leaves, strict=True)
      ]
    )
    self.groups: list[list[int]] = []
    for kind in kinds:
      if len(kind) > _alike.FEW:
        self.groups.append(sorted(kind, key=lambda i: paths[i][1]))
      else:
        self.groups += [[i] for i in kind]

  @property
  def packs(self) -> bool:
    """Whether there are stacked leaves at all."""
    return any(len(group) > 1 for group in self.groups)

  def pack(self, tree: PyTree) -> list[Array]:
    """Returns one array per group."""
    leaves = jax.tree.leaves(tree)
    return [
      leaves[group[0]]
      if len(group) == 1
      else _alike.stack([leaves[i] for i in group])
      for group in self.groups
    ]

  def unpack(self, arrays: Sequence[Array]) -> PyTree:
    """Returns what `pack` packed."""
    leaves: dict[int, Array] = {}
    for group, array in zip(self.groups, arrays, strict=True):
      parts = [array] if len(group) == 1 else merged.parts(array)
      leaves |= zip(group, parts, strict=True)
    return jax.tree.unflatten(
      self._structure, [leaves[i] for i in range(len(leaves))]
    )


def over(
  step: Callable[..., Any],
  program: Any,
  of_state: Packing,
  of_batch: Packing,
  metrics: PyTree,
) -> Callable[[list[Array], list[Array]], Any]:
  """Returns a step from a packed state to the next one.

  The states of models for many tasks have many equal leaves. With one operation
  for all of them, the program compiles in a fraction of the time.
  """
  # Effects, such as what is printed to debug, keep their order.
  if not of_state.packs or program.effects:

    def plain(state: list[Array], batch: list[Array]) -> Any:
      new, metrics = step(of_state.unpack(state), of_batch.unpack(batch))
      return of_state.pack(new), metrics

    return plain
  start = sum(map(len, of_state.groups))
  inputs = [
    *of_state.groups,
    *([start + i for i in g] for g in of_batch.groups),
  ]
  count, structure = len(jax.tree.leaves(metrics)), jax.tree.structure(metrics)
  outputs = [*of_state.groups, *([start + i] for i in range(count))]

  def merged_step(state: list[Array], batch: list[Array]) -> Any:
    found = merged.evaluate(program, [*state, *batch], inputs, outputs)
    return found[:-count], jax.tree.unflatten(structure, found[-count:])

  return merged_step


def _without_task(
  path: Sequence[Any], numbers: Mapping[str, int]
) -> tuple[Hashable, int]:
  """Returns a path without the name of a task, and the task's number or -1."""
  parts, found = [], -1
  for part in path:
    key = getattr(part, 'key', part)
    name = _task(key, numbers) if isinstance(key, str) else None
    if name is None:
      parts.append(str(part))
    else:
      parts.append(key.removesuffix(name))
      found = numbers[name]
  return tuple(parts), found


def _task(key: str, numbers: Mapping[str, int]) -> str | None:
  """Returns the task for which a part of a model is named: `<part>_<task>`."""
  while key not in numbers:
    _, separator, key = key.partition('_')
    if not separator:
      return None
  return key
