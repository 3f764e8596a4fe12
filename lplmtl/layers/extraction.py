"""One extraction level of CGC and PLE."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from lplmtl import _checks
from lplmtl.layers import mixture
from lplmtl.types import Array


class ExtractionLevel(nn.Module):
  """Shared and task-specific experts, mixed by one gate a task.

  Level j of PLE (Tang et al. 2020, eq. 5 and 6). The specific experts E_k of
  task k read that task's input g_{k,j-1}, the shared experts E_s read
  g_{s,j-1}:

      g_{k,j} = softmax(W_k g_{k,j-1}) [E_k ; E_s]
      g_{s,j} = softmax(W_s g_{s,j-1}) [E_1 ; ... ; E_T ; E_s]

  Parameters: `specific_experts_<task>`, `shared_experts`, `gate_<task>` and,
  with `shared_gate`, `shared_gate`.

  Attributes:
    task_names: T names.
    expert: template of an expert.
    num_specific: experts of each task alone, >= 0, one number a task.
    num_shared: experts of all tasks, >= 1.
    shared_gate: whether a level above needs g_{s,j}.
    gate_body: template of what stands below each gate's kernel, or None.
  """

  task_names: tuple[str, ...]
  expert: nn.Module
  num_specific: tuple[int, ...]
  num_shared: int
  shared_gate: bool
  gate_body: nn.Module | None = None

  @nn.compact
  def __call__(
    self,
    task_inputs: Mapping[str, Array],
    shared_input: Array,
    *,
    train: bool = False,
  ) -> tuple[dict[str, Array], Array | None, dict[str, mixture.Weights]]:
    """Extracts one level.

    Args:
      task_inputs: `{task: [B, ...]}`.
      shared_input: `[B, ...]`.
      train: whether dropout acts.

    Returns:
      (task_outputs, shared_output, gate_weights): `{task: [B, H]}`, `[B, H]` or
      None, and `{task or 'shared': {pool: [B, E_p]}}`.
    """
    names = self.task_names
    own = {name: f'specific_experts_{name}' for name in names}
    pools = [
      mixture.Pool(own[name], count, task_inputs[name])
      for name, count in zip(names, self.num_specific, strict=True)
      if count
    ]
    pools.append(mixture.Pool('shared_experts', self.num_shared, shared_input))
    selectors = [
      mixture.Selector(
        f'gate_{name}', task_inputs[name], (own[name], 'shared_experts')
      )
      for name in names
    ]
    if self.shared_gate:
      everything = tuple(pool.name for pool in pools)
      selectors.append(
        mixture.Selector('shared_gate', shared_input, everything)
      )
    mixed, weights = mixture.mix(
      self, self.expert, pools, selectors, train=train, gate_body=self.gate_body
    )
    keys = (*names, 'shared')[: len(selectors)]
    outputs = dict(zip(keys, mixed, strict=True))
    shared_output = outputs.pop('shared', None)
    return outputs, shared_output, dict(zip(keys, weights, strict=True))


def specific_counts(
  counts: Any, num_tasks: int, num_levels: int, least: int = 0
) -> tuple[tuple[int, ...], ...]:
  """What `num_specific` says, written out: `[N][T]`.

  Args:
    counts: a number; or a tuple with one for each task; or, where one of its
      entries is a tuple, a tuple with such a number or tuple for each level.
    num_tasks: T.
    num_levels: N.
    least: the smallest number that makes sense.

  Raises:
    ValueError: anything else.
  """
  is_nested = _is_tuple(counts) and any(map(_is_tuple, counts))
  levels = counts if is_nested else (counts,) * num_levels
  rows = tuple(tuple(x) if _is_tuple(x) else (x,) * num_tasks for x in levels)
  if (
    len(rows) != num_levels
    or any(len(row) != num_tasks for row in rows)
    or any(not _checks.is_whole_number(n, least) for row in rows for n in row)
  ):
    raise ValueError(
      f'num_specific must be a whole number of at least {least}, a tuple with '
      f'one for each of {num_tasks} tasks, or a tuple of such tuples with one '
      f'for each of {num_levels} levels; found {counts!r}'
    )
  return rows


def level_counts(
  counts: Any, num_levels: int, name: str = 'num_shared', least: int = 1
) -> tuple[int, ...]:
  """A number for all N levels, or a tuple with one for each, written out.

  Raises:
    ValueError: anything else.
  """
  row = tuple(counts) if _is_tuple(counts) else (counts,) * num_levels
  if len(row) != num_levels or any(
    not _checks.is_whole_number(n, least) for n in row
  ):
    raise ValueError(
      f'{name} must be a whole number of at least {least}, or a tuple with one '
      f'for each of {num_levels} levels; found {counts!r}'
    )
  return row


def _is_tuple(value: Any) -> bool:
  return isinstance(value, tuple | list)


def is_shared(path: tuple[str, ...], num_levels: int) -> bool:
  """Whether a parameter of extraction levels serves more than one task.

  With a shared gate at every level but the last, a specific expert below the
  last reaches the other tasks through that gate, and a task's gate does so
  through the specific experts above it that have one.

  Args:
    path: names from the top of an architecture's parameters down to a leaf.
    num_levels: N levels, the last without a shared gate.
  """
  if path[0] == 'encoder':
    return True
  level = level_of(path)
  if level is None:
    return False
  if path[1].removeprefix('hidden_') in ('shared_experts', 'shared_gate'):
    return True
  is_gate = path[1].removeprefix('hidden_').startswith('gate_')
  return level + is_gate < num_levels - 1


def level_of(path: tuple[str, ...]) -> int | None:
  """The number in the `level_<number>` that a path begins with, if it does."""
  kind, _, number = path[0].partition('_')
  return int(number) if kind == 'level' else None
