"""One extraction level of CGC and PLE."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from lplmtl import _checks
from lplmtl.layers import mixture
from lplmtl.types import Array


class ExtractionLevel(nn.Module):
  """Shared and task-specific experts, mixed by one gate per task.

  Level j of PLE (Tang et al. 2020, eq. 5 and 6). The specific experts E_k of
  task k read that task's input g_{k,j-1}; the shared experts E_s read
  g_{s,j-1}:

      g_{k,j} = softmax(W_k g_{k,j-1}) [E_k ; E_s]
      g_{s,j} = softmax(W_s g_{s,j-1}) [E_1 ; ... ; E_T ; E_s]

  Parameters: `specific_experts_<task>`, `shared_experts`, `gate_<task>` and,
  with `shared_gate`, `shared_gate`.

  Attributes:
    task_names: T names.
    expert: template of an expert.
    num_specific: number of task-specific experts, >= 0, per task.
    num_shared: number of shared experts, >= 1.
    shared_gate: whether a level above needs g_{s,j}.
    gate_body: template of the module below each gate's kernel, or None.
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
      train: whether dropout is active.

    Returns:
      (task_outputs, shared_output, gate_weights): `{task: [B, H]}`, `[B, H]` or
      None, and `{task or 'shared': {pool: [B, E_p]}}`.
    """
    names = self.task_names
    specific = {name: f'specific_experts_{name}' for name in names}
    pools = [
      mixture.Pool(specific[name], count, task_inputs[name])
      for name, count in zip(names, self.num_specific, strict=True)
      if count
    ]
    pools.append(mixture.Pool('shared_experts', self.num_shared, shared_input))
    gates = [
      mixture.Gate(
        f'gate_{name}', task_inputs[name], (specific[name], 'shared_experts')
      )
      for name in names
    ]
    if self.shared_gate:
      all_pools = tuple(pool.name for pool in pools)
      gates.append(mixture.Gate('shared_gate', shared_input, all_pools))
    mixed, weights = mixture.mix(
      self, self.expert, pools, gates, train=train, gate_body=self.gate_body
    )
    keys = (*names, 'shared')[: len(gates)]
    outputs = dict(zip(keys, mixed, strict=True))
    shared_output = outputs.pop('shared', None)
    return outputs, shared_output, dict(zip(keys, weights, strict=True))


def specific_counts(
  counts: Any, num_tasks: int, num_levels: int, least: int = 0
) -> tuple[tuple[int, ...], ...]:
  """Expands `num_specific` to `[N][T]`: a number per level and task.

  Args:
    counts: a number; a tuple with one number per task; or, if any of its
      entries is a tuple, a tuple with a number or such a tuple per level.
    num_tasks: T.
    num_levels: N.
    least: smallest number allowed.

  Raises:
    ValueError: `counts` is none of these.
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
      f'one for each of {num_tasks} tasks, or a tuple of such tuples, one for '
      f'each of {num_levels} levels; found {counts!r}'
    )
  return rows


def level_counts(
  counts: Any, num_levels: int, name: str = 'num_shared', least: int = 1
) -> tuple[int, ...]:
  """Expands a number, or a tuple with one number per level, to N numbers.

  Raises:
    ValueError: `counts` is neither.
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
  """Returns whether a parameter of extraction levels serves several tasks.

  Every level but the last has a shared gate. A specific expert below the last
  level reaches the other tasks through the shared gate of its level; a task's
  gate reaches them through the specific experts of the level above, if that
  level has a shared gate.

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
  """Returns the number if a path begins with `level_<number>`, else None."""
  kind, _, number = path[0].partition('_')
  return int(number) if kind == 'level' else None
