"""What students learn from: the teacher's outputs, and what matters to it."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lplmtl.compression import dense, distillation, teachers
from lplmtl.compression.dense import Outputs, Rows
from lplmtl.compression.merging import Sensitivity
from lplmtl.compression.recipe_settings import Recipe
from lplmtl.tables import Tables
from lplmtl.training import arrays, evaluation
from lplmtl.types import Batch, PyTree, Task

Metrics = dict[str, dict[str, Any]]


class Lesson(NamedTuple):
  """What students of all sizes learn from.

  Attributes:
    tasks: of the model.
    tables: that encoded the rows.
    found: how much the losses depend on each value.
    data: training rows, with the teacher's outputs as labels if any.
    validation: ordinary rows.
    teacher: its metrics.
    dense: those of the model.
    weights: of the tasks' losses; see `Recipe.weights`.
  """

  tasks: tuple[Task, ...]
  tables: Tables
  found: Sensitivity
  data: Batch
  validation: Batch
  teacher: Metrics
  dense: Metrics
  weights: tuple[float, ...]


def prepare(
  model: Any,
  params: PyTree,
  tables: Tables,
  data: Batch,
  validation: Batch,
  recipe: Recipe,
) -> Lesson:
  """Checks the arguments of `recipe.compress`, and asks the teacher.

  Arguments and errors are those of `compress`.
  """
  tasks = tuple(model.tasks)
  names = [task.name for task in tasks]
  factors = recipe.weights or {}
  for name in factors:
    if name not in names:
      raise ValueError(
        f'recipe.weights names the task {name!r}; those of the model are '
        f'{names}'
      )
  rows = [
    dense.read(tasks, arrays.read_labels(batch, name), name)
    for name, batch in (('data', data), ('validation', validation))
  ]
  dense.check(tables, model, rows)
  members = dense.seeds(model, params, rows[0].batch.features)
  own = [predict(model, members, one.batch.features) for one in rows]
  taught = [
    teach(tasks, outputs, one.given)
    for outputs, one in zip(own, rows, strict=True)
  ]
  validation = rows[1].batch
  *metrics, teacher = measure(tasks, [*own[1], taught[1]], validation)
  train = rows[0].batch
  if recipe.share:
    check_teacher(tasks, taught[1], own[1], rows[1])
    train = distillation.with_teacher(tasks, train, taught[0])
  return Lesson(
    tasks,
    tables,
    dense.sensitivity(tables, model, members, rows[0].batch),
    train,
    validation,
    teacher,
    mean(metrics),
    tuple(
      factors.get(task.name, 1.0) * _weight(task, rows[0].batch)
      for task in tasks
    ),
  )


def _weight(task: Task, data: Batch) -> float:
  where = (data.where or {}).get(task.name)
  loss = teachers.constant_loss(task, data.labels[task.name], where)
  # Where all labels are equal, probabilities are clipped at 1e-7 from them.
  return 1 / loss if loss > 1e-6 else 1.0


def predict(
  model: Any, params: Sequence[PyTree], features: PyTree
) -> list[dict[str, np.ndarray]]:
  """Returns `{task: [N, ..., K]}` of each seed."""
  return [
    jax.device_get(evaluation.predict(model, one, features)) for one in params
  ]


def teach(
  tasks: Sequence[Task], own: Sequence[Outputs], given: Outputs
) -> dict[str, np.ndarray]:
  """Returns the teacher's outputs, `{task: [N, ..., K]}`.

  The mean prediction of the seeds, and the mean of that and another teacher's.
  """
  found = {}
  for task in tasks:
    outputs = teachers.ensemble_logits(task, [one[task.name] for one in own])
    if task.name in given:
      outputs = teachers.ensemble_logits(task, [outputs, given[task.name]])
    found[task.name] = outputs
  return found


class _Given:
  """A model whose features are its predictions."""

  def __init__(self, tasks: Sequence[Task]):
    self.tasks = tasks

  def apply(self, variables: Any, features: Any) -> Any:
    """Returns the features."""
    return features, {}


def measure(
  tasks: Sequence[Task], outputs: Sequence[Outputs], batch: Batch
) -> list[Metrics]:
  """Returns `{task: {metric: float}}` of each of several models."""
  model: Any = _Given(tasks)
  evaluate = jax.jit(evaluation.make_eval_step(model, tasks))
  found = [evaluate({}, batch._replace(features=one)) for one in outputs]
  return jax.tree.map(float, found)


def mean(found: Sequence[Metrics]) -> Metrics:
  """Returns the mean of each metric."""
  return jax.tree.map(lambda *values: float(np.mean(values)), *found)


def check_teacher(
  tasks: Sequence[Task], taught: Outputs, own: Sequence[Outputs], rows: Rows
) -> None:
  """Checks the teacher on validation rows.

  Raises:
    ValueError: it is no better than a constant.

  Warns:
    UserWarning: by its loss as well as its primary metric, it is worse than the
      model alone; by one of them, a good teacher may be.
  """
  batch, given = rows
  for task in tasks:
    labels = batch.labels[task.name]
    where = (batch.where or {}).get(task.name)
    both = teachers.check_teacher(task, taught[task.name], labels, where=where)
    if task.name not in given:
      continue
    outputs = [one[task.name] for one in own]
    alone = teachers.check_teacher(
      task, teachers.ensemble_logits(task, outputs), labels, where=where
    )
    if all(
      (alone[name] < both[name]) == (name == 'loss')
      and alone[name] != both[name]
      for name in both
    ):
      found = ', '.join(
        f'{name} {both[name]:.4f} in place of {alone[name]:.4f}'
        for name in both
      )
      warnings.warn(
        f'task {task.name!r}: the teacher that came with the rows makes the '
        f'predictions of the model worse ({found}): leave it out',
        stacklevel=4,
      )
