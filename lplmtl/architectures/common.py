"""What every architecture does before and after its own idea."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from lplmtl import experts, towers
from lplmtl.types import Array, Task

Predictions = tuple[dict[str, Array], dict[str, Any]]
# A template for the bodies of all towers, or a tuple with one for each task.
Tower = Any


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
  tower: Tower,
  inputs: Mapping[str, Array],
  *,
  train: bool,
) -> dict[str, Array]:
  """One tower a task, `tower_<task>`: `{task: [B, H]} -> {task: [B, K]}`.

  The template is one for all tasks, or a tuple with one for each, in order.
  """
  templates = (
    tower if isinstance(tower, tuple | list) else (tower,) * len(tasks)
  )
  if len(templates) != len(tasks):
    raise ValueError(
      'tower must be one template for all tasks, or a tuple with one for each '
      f'of {[task.name for task in tasks]}; found {len(templates)}'
    )
  predictions = {}
  for task, template in zip(tasks, templates, strict=True):
    body = experts.fresh(template)
    module = towers.Tower(body, task.num_outputs, name=f'tower_{task.name}')
    predictions[task.name] = module(inputs[task.name], train=train)
  return predictions


def own_copy(
  module: nn.Module, template: Any, name: str, x: Any, *, train: bool
) -> Any:
  """Applies a copy of a template that is called `name`; None passes x on."""
  if template is None:
    return x
  copy = experts.fresh(template).clone(parent=module, name=name)
  return experts.call(copy, x, train=train)


def own_trunks(module: Any, features: Any, *, train: bool) -> dict[str, Array]:
  """`{task: [B, H]}` by an encoder and a trunk of each task's own.

  They are copies of the templates `encoder` and `bottom` of the calling module,
  called `encoder_<task>` and `bottom_<task>`.
  """
  hidden = {}
  for name in task_names(module.tasks):
    x = features
    for part in ('encoder', 'bottom'):
      template = getattr(module, part)
      x = own_copy(module, template, f'{part}_{name}', x, train=train)
    hidden[name] = x
  return hidden


def check_chain(tasks: Sequence[Task]) -> tuple[str, ...]:
  """The names of tasks in a chain, which must be binary and at least two."""
  names = task_names(tasks)
  wrong = [task.name for task in tasks if task.num_outputs != 1]
  wrong += [task.name for task in tasks if task.is_regression]
  if len(names) < 2 or wrong:
    raise ValueError(
      'a chain needs two or more binary tasks in the order in which they '
      f'happen, such as click and buy; found {names}'
      + (f', of which {wrong[0]!r} is not binary' if wrong else '')
    )
  return names


def serves_later_tasks(tasks: Sequence[Task], path: tuple[str, ...]) -> bool:
  """Whether a parameter of a chain belongs to all tasks, or to an early one."""
  last = tasks[-1].name
  return path[0] == 'encoder' or path[0].partition('_')[2] != last


def check_levels(levels: Any) -> None:
  """`levels` must be a tuple of expert templates, one per level."""
  is_tuple = isinstance(levels, tuple | list) and len(levels) > 0
  if not is_tuple or not all(isinstance(x, nn.Module) for x in levels):
    raise ValueError(
      '`levels` must hold one expert template per level, such as '
      f'(MLP((64,)), MLP((64,))); found {levels!r}'
    )
