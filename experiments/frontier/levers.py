"""The family of levers: the recipe at a budget, without one part at a time.

What no longer fits is made smaller by the recipe itself, which merges more
values: all rows but the unmerged one have equal bytes.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.comparison import winner
from experiments.frontier import net
from experiments.frontier.options import LEVERS
from experiments.frontier.plan import Plan
from experiments.frontier.points import Point, Scored
from experiments.frontier.teacher import NETWORK, TREES, Teacher
from lplmtl import compression
from lplmtl.compression import distillation, student
from lplmtl.compression import recipe as compressing
from lplmtl.compression.lessons import Lesson
from lplmtl.compression.recipe_settings import Recipe
from lplmtl.types import Task

_SHORT = 10  # times fewer steps
# Labels are overfitted in the time that a teacher's outputs take: as many
# times fewer steps as are best on the validation rows, at the better rate.
_FEWER_STEPS, _LOWER_RATES = (1, 4, 8), (1, 4)
_EVERYTHING = 2**31 - 1  # bytes


class Lever(NamedTuple):
  """The recipe without one part.

  Attributes:
    recipes: of which the best by the validation rows counts.
    teacher: the member of the teacher that teaches alone; None for all.
    is_merged: whether values are merged to reach the budget.
  """

  recipes: tuple[Recipe, ...]
  teacher: str | None = None
  is_merged: bool = True


def points(plan: Plan, teacher: Teacher) -> list[Point]:
  """Returns a point per budget and lever."""
  network = teacher.network
  tasks = network.data.tasks
  recipe = Recipe(num_steps=plan.net_steps)
  # Once, whichever point comes first.
  lesson = functools.cache(lambda: net.lesson(teacher, recipe))
  return [
    Point(
      f'{name} {budget}',
      LEVERS,
      {
        'teacher': teacher.inputs,
        'seeds': list(network.seeds),
        'recipes': [net.settings(one, tasks) for one in lever.recipes],
        'taught_by': lever.teacher,
        'is_merged': lever.is_merged,
        # The budget of the point itself is None: levers have no knee.
        'budget': budget,
      },
      network.data,
      functools.partial(_make, lesson, teacher, lever, budget),
      num_fits=len(network.seeds) * len(lever.recipes),
    )
    for budget in plan.budgets
    for name, lever in _levers(recipe, tasks, budget).items()
    if lever.teacher is None or len(teacher.alone[lever.teacher]) == len(tasks)
  ]


def _levers(
  recipe: Recipe, tasks: Sequence[Task], budget: int
) -> dict[str, Lever]:
  """Returns `{name of the row: lever}`, the whole recipe first."""
  offered = student.offered(tasks)
  sizes = [one for least, one in offered if least <= budget][-1]

  def changed(**changes: Any) -> Lever:
    return Lever((dataclasses.replace(recipe, **changes),))

  def floats(bits: int) -> Lever:
    scheme = dataclasses.replace(
      sizes.scheme, scale_bits=bits, vector_bits=bits
    )
    return changed(sizes=dataclasses.replace(sizes, scheme=scheme))

  labels = tuple(
    dataclasses.replace(
      recipe,
      share=0.0,
      num_steps=max(1, recipe.num_steps // fewer),
      learning_rate=recipe.learning_rate / lower,
    )
    for fewer in _FEWER_STEPS
    for lower in _LOWER_RATES
  )
  smallest = dataclasses.replace(sizes, embed_dim=1)
  return {
    'recipe': Lever((recipe,)),
    'labels alone': Lever(labels),
    'network as teacher': Lever((recipe,), NETWORK),
    'LightGBM as teacher': Lever((recipe,), TREES),
    'rounded afterwards': changed(rounded=False),
    'nothing merged': changed(sizes=smallest)._replace(is_merged=False),
    f'1/{_SHORT} of the steps': changed(
      num_steps=max(1, recipe.num_steps // _SHORT)
    ),
    'float16 scales, biases': floats(16),
    'float32 scales, biases': floats(32),
  }


def _make(
  lesson: Callable[[], Lesson], teacher: Teacher, lever: Lever, budget: int
) -> Scored:
  """Returns the best of a lever's networks, one per seed.

  Raises:
    BudgetError: the budget cannot be reached.
    TeacherError: the teacher is no better than a constant.
  """
  network = teacher.network
  keys = jax.vmap(jax.random.key)(jnp.array(network.seeds))
  found = [
    compressing.from_lesson(
      keys,
      _taught(lesson(), lever, recipe, teacher),
      budget if lever.is_merged else _EVERYTHING,
      recipe,
    )
    for recipe in lever.recipes
  ]
  return net.scored(max(found, key=_quality), network.data)


def _taught(
  lesson: Lesson, lever: Lever, recipe: Recipe, teacher: Teacher
) -> Lesson:
  """Returns the lesson of another teacher, or without one."""
  data = teacher.network.data
  if not recipe.share:
    return lesson._replace(data=data.train)
  if lever.teacher is None:
    return lesson
  outputs = teacher.alone[lever.teacher]
  return lesson._replace(
    data=distillation.with_teacher(data.tasks, data.train, outputs)
  )


def _quality(found: compression.Compressed) -> float:
  """Returns the mean over tasks and seeds of the primary metric."""
  means = jax.tree.map(lambda x: {'mean': float(np.mean(x))}, found.validation)
  return winner.mean_quality({'validation': means})
