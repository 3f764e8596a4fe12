"""What every architecture does before and after its own idea."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from lplmtl.layers import modules, towers
from lplmtl.types import Array, Batch, Task

Predictions = tuple[dict[str, Array], dict[str, Any]]
# A template for the bodies of all towers, or a tuple with one for each task.
Tower = Any


class Mixture(nn.Module):
  """A model whose experts' outputs are all that its tasks share, but for gates.

  A subclass has `_apply`, which returns the outputs, or the predictions from
  given outputs or from its own.
  """

  def __call__(self, features: Any, *, train: bool = False) -> Predictions:
    """Returns `({task: [B, K] logits}, {'gates': one dict for its level})`."""
    return self._apply(features, None, train=train)

  def represent(self, features: Any, *, train: bool = False) -> Array:
    """`[B, E, H]`, the outputs of the experts."""
    return self._apply(features, None, train=train, only_experts=True)

  def predict(
    self, representation: Array, features: Any, *, train: bool = False
  ) -> Predictions:
    """The predictions from `represent(features)`; the gates read features."""
    return self._apply(features, representation, train=train)

  def _apply(
    self,
    features: Any,
    outputs: Array | None,
    *,
    train: bool,
    only_experts: bool = False,
  ) -> Any:
    raise NotImplementedError


def encode(encoder: nn.Module | None, features: Any, *, train: bool) -> Array:
  """Applies the encoder; without one, the features are the input."""
  if encoder is None:
    return features
  return modules.map_rows(encoder, features, train=train)


def task_names(tasks: Sequence[Task]) -> tuple[str, ...]:
  """The names of the tasks, in their order; each may stand only once."""
  if not isinstance(tasks, tuple | list) or any(
    not isinstance(task, Task) for task in tasks
  ):
    raise ValueError(
      'tasks must be a tuple of lplmtl.Task, such as '
      f"(tasks.binary('click'),); found {tasks!r}"
    )
  names = tuple(task.name for task in tasks)
  reserved = {'shared', 'shared_experts'}
  if not names or len(set(names)) < len(names) or reserved & set(names):
    raise ValueError(
      "tasks need different names, none of them 'shared' or 'shared_experts', "
      f'and at least one task; found {names}'
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
    body = modules.fresh(template)
    module = towers.Tower(body, task.num_outputs, name=f'tower_{task.name}')
    predictions[task.name] = module(inputs[task.name], train=train)
  return predictions


def own_copy(
  module: nn.Module, template: Any, name: str, x: Any, *, train: bool
) -> Any:
  """Applies a copy of a template that is called `name`; None passes x on."""
  if template is None:
    return x
  copy = modules.fresh(template).clone(parent=module, name=name)
  return modules.map_rows(copy, x, train=train)


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
  """The names of tasks in a chain, which must be binary and at least two.

  A chain multiplies probabilities, one logit each. A task says that its labels
  are such by its `label_range`.
  """
  names = task_names(tasks)
  wrong = [
    task.name
    for task in tasks
    if task.num_outputs != 1 or task.label_range != (0, 1)
  ]
  if len(names) < 2 or wrong:
    raise ValueError(
      'a chain needs two or more binary tasks in the order in which they '
      f'happen, such as click and buy; found {names}'
      + (
        f', of which {wrong[0]!r} is not binary (num_outputs=1 and '
        'label_range=(0, 1), as lplmtl.tasks.binary has them)'
        if wrong
        else ''
      )
    )
  return names


def check_chain_labels(tasks: Sequence[Task], batch: Batch, name: str) -> None:
  """Refuses rows in which a step happened that the one before it did not.

  Raises:
    ValueError: the tasks stand in another order than they happen in, or are no
      chain.
  """
  masks = batch.where or {}
  for before, after in itertools.pairwise(task.name for task in tasks):
    wrong = (np.asarray(batch.labels[after]) > 0) & (
      np.asarray(batch.labels[before]) == 0
    )
    for task in (before, after):
      if task in masks:
        wrong = wrong & np.asarray(masks[task])
    if wrong.any():
      raise ValueError(
        f'{int(wrong.sum()):,} of the {len(wrong):,} rows of {name} have '
        f'{after!r} without {before!r}, which stands before it in the chain: '
        'give the tasks in the order in which they happen'
      )


def serves_later_tasks(tasks: Sequence[Task], path: tuple[str, ...]) -> bool:
  """Whether a parameter of a chain belongs to all tasks, or to an early one."""
  last = tasks[-1].name
  return path[0] == 'encoder' or path[0].partition('_')[2] != last


def check_levels(levels: Any) -> None:
  """`levels` must be a tuple of expert templates, one per level."""
  is_tuple = isinstance(levels, tuple | list) and len(levels) > 0
  if not is_tuple or not all(isinstance(x, nn.Module) for x in levels):
    found = levels
    if isinstance(levels, nn.Module):
      found = f'one {type(levels).__name__}'
    raise ValueError(
      '`levels` must hold one expert template per level, such as '
      f'(MLP((64,)), MLP((64,))); found {found}'
    )


def check_weight(name: str, value: Any, least: float = 0.0) -> None:
  """Refuses a number below `least`; what is traced passes."""
  if isinstance(value, jax.Array | np.ndarray | np.generic):
    return
  if not isinstance(value, int | float) or not value >= least:
    raise ValueError(
      f'{name} must be a number of at least {least}, found {value!r}'
    )
