"""Trains students; and measures anew what matters, when few values are left."""

import contextlib
import dataclasses
from typing import Any

import jax
import optax

from lplmtl import _checks, balancing
from lplmtl.compression import (
  dense,
  distillation,
  links,
  merging,
  quantization,
  recoding,
  student,
)
from lplmtl.compression.lessons import Lesson
from lplmtl.compression.recipe_settings import Recipe
from lplmtl.compression.student import Sizes
from lplmtl.tables import Tables
from lplmtl.training.fit import FitResult, fit
from lplmtl.types import Array, Task

# The share of steps in which the learning rate rises from 0.
_WARM_UP = 0.05
# Merging goes by the second order, one column at a time, which misleads where
# most of what a model reads disappears: of two columns that say the same, each
# seems to be worth little. With fewer ids than `_FEW`, a network of `_STAGE`
# ids tells what matters among those (512 bytes of census66k: income .9542, not
# .9519; with 200 ids, seeds differ by more).
_FEW, _STAGE = 200, 250
_WIDE = Sizes(4, 8, 16)


def train(
  key: Array, lesson: Lesson, tables: Tables, sizes: Sizes, recipe: Recipe
) -> FitResult:
  """Trains a student on the rows of a lesson, coded anew.

  Args:
    key: see `recipe.compress`.
    lesson: what it learns from.
    tables: merged ones of the lesson.
    sizes: of the student.
    recipe: settings.
  """
  tasks = lesson.tasks
  if recipe.share:
    tasks = tuple(_distilled(task, recipe) for task in tasks)
  model: Any = student.make(tasks, tables, sizes)
  if recipe.rounded:
    model = quantization.Quantized(model, sizes.scheme)
  features = recoding.recode(lesson.data.features, lesson.tables, tables)
  count = _checks.num_rows(features)
  batch_size = min(recipe.batch_size, count)
  num_epochs = -(-recipe.num_steps // (count // batch_size))
  steps = num_epochs * (count // batch_size)
  rate = optax.warmup_cosine_decay_schedule(
    0, recipe.learning_rate, int(_WARM_UP * steps), steps
  )
  return fit(
    key,
    model,
    optax.adamw(rate, weight_decay=recipe.weight_decay),
    # Weights that are learned follow losses, and of some tasks nearly all is
    # learned: on diamonds, `uncertainty` gave price (R² .98) fifty times the
    # weight of cut, whose accuracy fell from .80 to .75 (4 kB).
    balancing.static(lesson.weights),
    lesson.data._replace(features=features),
    batch_size=batch_size,
    num_epochs=num_epochs,
  )


def fit_tables(
  key: Array,
  lesson: Lesson,
  budget: int,
  options: list[tuple[int, student.Bytes]],
  recipe: Recipe,
) -> tuple[Tables, Sizes]:
  """Merges values until a student fits a budget, in two stages if few are left.

  Args:
    key: one, or `[S]`; the first is used.
    lesson: of all values.
    budget: bytes.
    options: see `student.fit_tables`.
    recipe: settings of training, which is half as long for a stage.

  Raises:
    BudgetError: see `student.fit_tables`.
  """
  merged, sizes = student.fit_tables(
    lesson.tables, lesson.found, budget, options
  )
  few = sum(merged.tables.num_categories) < _FEW
  if few and sum(lesson.tables.num_categories) > _STAGE:
    first = key[0] if key.ndim else key
    staged = _stage(jax.random.fold_in(first, 1), lesson, recipe)
    # Its last column may be another one, of some bytes more than the budget.
    with contextlib.suppress(merging.BudgetError):
      merged, sizes = student.fit_tables(
        staged.tables, staged.found, budget, options
      )
  return merged.tables, sizes


def _stage(key: Array, lesson: Lesson, recipe: Recipe) -> Lesson:
  """Returns the lesson with `_STAGE` ids, and how much matters each of them."""
  tables = merging.merge_by(lesson.tables, lesson.found, num_ids=_STAGE).tables
  steps = -(-recipe.num_steps // 2)
  recipe = dataclasses.replace(recipe, num_steps=steps, rounded=False)
  params = train(key, lesson, tables, _WIDE, recipe).state.params
  rows = dense.read(lesson.tasks, lesson.data, 'data').batch
  features = recoding.recode(rows.features, lesson.tables, tables)
  found = dense.sensitivity(
    tables,
    student.make(lesson.tasks, tables, _WIDE),
    [params],
    rows._replace(features=features),
  )
  return lesson._replace(tables=tables, found=found)


def _distilled(task: Task, recipe: Recipe) -> Task:
  is_softened = links.of(task).kind in ('decisions', 'classes')
  temperature = recipe.temperature if is_softened else 1.0
  return distillation.distilled(
    task, share=recipe.share, temperature=temperature
  )
