"""The family of small networks: the recipe at every budget."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.frontier import dense
from experiments.frontier.dense import Trained
from experiments.frontier.plan import NET, Plan
from experiments.frontier.points import Point, Scored
from experiments.frontier.teacher import Teacher
from lplmtl import compression
from lplmtl.compression import cost, distillation, lessons, recoding
from lplmtl.compression import recipe as compressing
from lplmtl.compression.lessons import Lesson


def points(plan: Plan, teacher: Teacher) -> list[Point]:
  """Returns a point per budget."""
  seeds, steps = teacher.network.seeds, plan.net_steps
  recipe = compression.Recipe(num_steps=steps)
  # Once, whichever budget comes first.
  lesson = functools.cache(lambda: _lesson(teacher, recipe))
  return [
    Point(
      f'{NET} {budget}',
      NET,
      {'teacher': teacher.inputs, 'seeds': list(seeds), 'steps': steps},
      teacher.network.data,
      functools.partial(_make, lesson, recipe, teacher.network, budget),
      budget,
      len(seeds),
    )
    for budget in plan.budgets
  ]


def _lesson(teacher: Teacher, recipe: compression.Recipe) -> Lesson:
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


def _make(
  lesson: Callable[[], Lesson],
  recipe: compression.Recipe,
  network: Trained,
  budget: int,
) -> Scored:
  """Returns networks of at most `budget` bytes, one per seed of a network.

  Raises:
    BudgetError: the budget cannot be reached; see `merging`.
    TeacherError: the teacher is no better than a constant.
  """
  data, seeds = network.data, network.seeds
  keys = jax.vmap(jax.random.key)(jnp.array(seeds))
  found = compressing.from_lesson(keys, lesson(), budget, recipe)

  def recoded(split: str) -> Any:
    features = getattr(data, split).features
    return recoding.recode(features, data.tables, found.tables)

  small = data._replace(
    validation=data.validation._replace(features=recoded('validation')),
    test=data.test._replace(features=recoded('test')),
  )
  validation, test = dense.predict(found.model, found.params, small)
  first = jax.tree.map(lambda x: x[0], found.params)
  return Scored(
    [found.num_bytes] * len(seeds),
    found.parts,
    validation,
    test,
    cost.count_parameters(first),
    dense.multiply_adds(found.model, first, small),
  )
