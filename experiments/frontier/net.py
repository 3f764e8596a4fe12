"""The family of small networks: the recipe at every budget."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.datasets.base import Data
from experiments.frontier import dense, models
from experiments.frontier.dense import Trained
from experiments.frontier.options import NET
from experiments.frontier.plan import Plan
from experiments.frontier.points import Point, Scored
from experiments.frontier.teacher import Teacher
from lplmtl import compression
from lplmtl.compression import (
  cost,
  distillation,
  lessons,
  packing,
  quantization,
  recoding,
  student,
)
from lplmtl.compression import recipe as compressing
from lplmtl.compression.lessons import Lesson
from lplmtl.tables import Tables
from lplmtl.types import Batch, Task


def points(plan: Plan, teacher: Teacher) -> list[Point]:
  """Returns a point per budget."""
  network = teacher.network
  recipe = compression.Recipe(num_steps=plan.net_steps)
  # Once, whichever budget comes first.
  asked = functools.cache(lambda: lesson(teacher, recipe))
  return [
    Point(
      name,
      NET,
      {
        'teacher': teacher.inputs,
        'seeds': list(network.seeds),
        **settings(recipe, network.data.tasks),
      },
      network.data,
      functools.partial(_make, asked, recipe, network, budget),
      budget,
      len(network.seeds),
    )
    for name, budget in zip(names(plan), plan.budgets, strict=True)
  ]


def names(plan: Plan) -> list[str]:
  """Returns the names of the rows, one per budget."""
  return [f'{NET} {budget}' for budget in plan.budgets]


def settings(
  recipe: compression.Recipe, tasks: Sequence[Task]
) -> dict[str, Any]:
  """Returns the settings of a recipe and the sizes it offers, JSON data."""
  sizes = [
    (least, dataclasses.asdict(one)) for least, one in student.offered(tasks)
  ]
  return {'recipe': dataclasses.asdict(recipe), 'sizes': sizes}


def lesson(teacher: Teacher, recipe: compression.Recipe) -> Lesson:
  """Returns what networks of all sizes learn from.

  Raises:
    TeacherError: the teacher is no better than a constant.
  """
  network, data = teacher.network, teacher.network.data
  return lessons.prepare(
    network.model,
    network.params,
    data.tables,
    distillation.with_teacher(data.tasks, data.train, teacher.trees),
    data.validation,
    recipe,
  )


def recoded(data: Data, tables: Tables) -> Data:
  """Returns rows of `data` as merged tables encode them."""

  def recode(rows: Batch) -> Batch:
    features = recoding.recode(rows.features, data.tables, tables)  # type: ignore[arg-type]
    return rows._replace(features=features)

  return data._replace(
    train=recode(data.train),
    validation=recode(data.validation),
    test=recode(data.test),
    tables=tables,
  )


def scored(found: compression.Compressed, data: Data) -> Scored:
  """Returns students of several seeds with their outputs.

  Args:
    found: what `compress` returns.
    data: the rows as the model that was compressed reads them.
  """
  small = recoded(data, found.tables)
  stored: Any = found.packed
  seeds = [quantization.thaw(packing.unpack(packed)) for packed in stored]
  model = found.model.model  # whose parameters are rounded for good
  validation, test = dense.predict(model, dense.stack(seeds), small)
  return Scored(
    [found.num_bytes] * len(seeds),
    found.parts,
    validation,
    test,
    cost.count_parameters(seeds[0]),
    dense.multiply_adds(model, seeds[0], small),
  )


def _make(
  asked: Callable[[], Lesson],
  recipe: compression.Recipe,
  network: Trained,
  budget: int,
) -> Scored:
  """Returns networks of at most `budget` bytes, one per seed of a network.

  Raises:
    BudgetError: the budget cannot be reached; see `merging`.
    TeacherError: the teacher is no better than a constant.
  """
  keys = jax.vmap(jax.random.key)(jnp.array(network.seeds))
  found = compressing.from_lesson(keys, asked(), budget, recipe)
  kept = models.Kept(found.model, found.params, found.tables)
  return scored(found, network.data)._replace(kept=models.to_arrays(kept))
