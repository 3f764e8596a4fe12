"""The family of small networks: the recipe at every budget."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.frontier import dense
from experiments.frontier.plan import NET, Plan
from experiments.frontier.points import Point, Scored
from experiments.frontier.teacher import Teacher
from lplmtl import compression
from lplmtl.compression import cost, distillation, recoding


def points(plan: Plan, teacher: Teacher) -> list[Point]:
  """Returns a point per budget."""
  seeds, steps = teacher.network.seeds, plan.net_steps
  return [
    Point(
      f'{NET} {budget}',
      NET,
      {'teacher': teacher.inputs, 'seeds': list(seeds), 'steps': steps},
      teacher.network.data,
      functools.partial(make, teacher, budget, seeds, steps),
      budget,
      len(seeds),
    )
    for budget in plan.budgets
  ]


def make(
  teacher: Teacher, budget: int, seeds: Sequence[int], num_steps: int
) -> Scored:
  """Returns networks of at most `budget` bytes, one per seed.

  Raises:
    BudgetError: the budget cannot be reached; see `merging`.
    TeacherError: the teacher is no better than a constant.
  """
  network, data = teacher.network, teacher.network.data
  found = compression.compress(
    jax.vmap(jax.random.key)(jnp.array(seeds)),
    network.model,
    network.params,
    data.tables,
    distillation.with_teacher(data.tasks, data.train, teacher.trees),
    validation=data.validation,
    budget=budget,
    recipe=compression.Recipe(num_steps=num_steps),
  )

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
