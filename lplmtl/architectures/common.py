"""What every architecture does before and after its own idea."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from lplmtl import experts, towers
from lplmtl.types import Array, Task


def encode(encoder: nn.Module | None, features: Any, *, train: bool) -> Array:
  """Applies the encoder; without one, the features are the input."""
  if encoder is None:
    return features
  return experts.call(encoder, features, train=train)


def task_names(tasks: Sequence[Task]) -> tuple[str, ...]:
  """The names of the tasks, in their order; each may stand only once."""
  names = tuple(task.name for task in tasks)
  if not names or len(set(names)) < len(names) or 'shared' in names:
    raise ValueError(
      "tasks need different names, none of them 'shared', and at least one "
      f'task; found {names}'
    )
  return names


def predict(
  tasks: Sequence[Task],
  tower: nn.Module,
  inputs: Mapping[str, Array],
  *,
  train: bool,
) -> dict[str, Array]:
  """One tower a task, `tower_<task>`: `{task: [B, H]} -> {task: [B, K]}`."""
  predictions = {}
  for task in tasks:
    body = experts.fresh(tower)
    module = towers.Tower(body, task.num_outputs, name=f'tower_{task.name}')
    predictions[task.name] = module(inputs[task.name], train=train)
  return predictions


def check_levels(levels: Any) -> None:
  """`levels` must be a tuple of expert templates, one per level."""
  is_tuple = isinstance(levels, tuple | list) and len(levels) > 0
  if not is_tuple or not all(isinstance(x, nn.Module) for x in levels):
    raise ValueError(
      '`levels` must hold one expert template per level, such as '
      f'(MLP((64,)), MLP((64,))); found {levels!r}'
    )


Predictions = tuple[dict[str, Array], dict[str, Any]]
