"""The recipe: from a trained model to a student of so many bytes, in one call.

    small = compress(key, model, params, tables, data, validation=validation,
                     budget=1536)
    lplmtl.predict(small.model, small.params, small.tables.encode(columns))
    checkpoint.save('small', small.model, small.params, small.tables)

Values that hardly matter to the losses are merged (`merging`) until a small
network fits the budget (`student`). It learns from the model's predictions
(`distillation`), computing with rounded parameters (`quantization`), which are
then packed (`packing`).
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from lplmtl import _checks
from lplmtl.compression import (
  learning,
  lessons,
  merging,
  packing,
  quantization,
  recoding,
  student,
)
from lplmtl.compression.lessons import Lesson
from lplmtl.compression.packing import Packed
from lplmtl.compression.recipe_settings import Recipe, Within
from lplmtl.compression.student import Sizes
from lplmtl.tables import Tables
from lplmtl.types import Array, Batch, PyTree

# The budgets that `Within` tries double in so many steps: a step is then a
# difference in AUC that seeds hide.
_STEPS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Compressed:
  """What `compress` returns; with several keys, arrays have a leading S axis.

  Attributes:
    model: a Quantized model of the tasks.
    params: of `model`, float32, see `quantization.settle`: freezing them again,
      also after `checkpoint.save`, gives the bytes of `packed`.
    tables: that encode its inputs.
    packed: what a device stores; a tuple of S with several keys.
    num_bytes: of `packed`, of each seed.
    parts: these bytes by part, see `cost.count_bytes`.
    validation: `{task: {metric: [S] or float}}` of the students, no row of
      which has been used for any choice, unless the budget was `Within`.
    teacher: `{task: {metric: float}}` of what they learnt from.
    dense: likewise of the compressed model, the mean over its seeds.
    sizes: of the student.
    dropped: the raw columns that it does not read.
    history: of `fit`.
  """

  model: Any
  params: PyTree
  tables: Tables
  packed: Packed | tuple[Packed, ...]
  num_bytes: int
  parts: dict[str, int]
  validation: dict[str, dict[str, Any]]
  teacher: dict[str, dict[str, float]]
  dense: dict[str, dict[str, float]]
  sizes: Sizes
  dropped: tuple[Any, ...]
  history: list[dict[str, Any]]


_RECIPE = Recipe()


def compress(
  key: Array,
  model: Any,
  params: PyTree,
  tables: Tables,
  data: Batch,
  *,
  validation: Batch,
  budget: int | Within = 1536,
  recipe: Recipe = _RECIPE,
) -> Compressed:
  """Compresses a model to a budget of bytes, or to the fewest that suffice.

  The student is a shared-bottom network with one low-rank cross layer; its
  bytes are all data that a device needs to score a raw row.

  Args:
    key: one random key, or `[S]` of them for S students at once.
    model: any model with a TabularEncoder, the teacher.
    params: its parameters; with a leading axis of seeds, their mean prediction
      teaches, which is better.
    tables: that encode its inputs: categories and numbers, best with bins,
      without `interpolate`.
    data: the training rows, encoded by `tables`. If
      `distillation.with_teacher` has added the outputs of another teacher, such
      as LightGBM's, the mean prediction of both teaches.
    validation: rows that the teachers have not seen, for checks and metrics.
    budget: bytes at most, or Within.
    recipe: see Recipe.

  Returns:
    Compressed.

  Raises:
    ValueError: the parameters or the tables are not those of the model, there
      are no rows, a task has no label among them, the teacher is no better than
      a constant, the tables cannot be packed, or the budget cannot be reached.

  Warns:
    UserWarning: the other teacher makes the model's predictions worse.
  """
  if not isinstance(recipe, Recipe):
    raise ValueError(f'recipe must be a Recipe, found {recipe!r}')
  if not isinstance(budget, Within) and not _checks.is_whole_number(budget):
    raise ValueError(
      'budget must be a whole number of bytes, or Within(tolerance); found '
      f'{budget!r}'
    )
  lesson = lessons.prepare(model, params, tables, data, validation, recipe)
  if isinstance(budget, Within):
    return _search(key, lesson, budget, recipe)
  return from_lesson(key, lesson, int(budget), recipe)


def from_lesson(
  key: Array, lesson: Lesson, budget: int, recipe: Recipe
) -> Compressed:
  """Returns what `compress` does for one of several budgets.

  Args:
    key: see `compress`.
    lesson: what `lessons.prepare` has returned, once for all budgets.
    budget: bytes at most.
    recipe: that of the lesson.

  Raises:
    BudgetError: the budget cannot be reached; see `merging`.
  """
  tables, chosen = learning.fit_tables(
    key, lesson, budget, _options(lesson, recipe), recipe
  )
  result = learning.train(key, lesson, tables, chosen, recipe)
  model = student.make(lesson.tasks, tables, chosen)
  rounds = quantization.Quantized(model, chosen.scheme)
  last = jax.device_get(result.state.params)
  seeds = [last]
  if key.ndim:
    seeds = [jax.tree.map(lambda x, i=i: x[i], last) for i in range(len(key))]
  seeds = [quantization.settle(rounds, one) for one in seeds]
  frozen = [quantization.freeze(rounds, one) for one in seeds]
  packed = tuple(
    packing.pack(one, tables, hash_bits=recipe.hash_bits, row=recipe.row)
    for one in frozen
  )
  thawed = [quantization.thaw(one) for one in frozen]
  params = jax.tree.map(lambda *leaves: np.stack(leaves), *seeds)
  validation = _measure(lesson, model, thawed, tables)
  if not key.ndim:
    params, validation = jax.tree.map(lambda x: x[0], (params, validation))
  return Compressed(
    model=rounds,
    params=params,
    tables=tables,
    packed=packed if key.ndim else packed[0],
    num_bytes=packed[0].num_bytes,
    parts=packed[0].parts,
    validation=validation,
    teacher=lesson.teacher,
    dense=lesson.dense,
    sizes=chosen,
    dropped=tuple(
      name for name in lesson.tables.columns if name not in tables.columns
    ),
    history=result.history,
  )


def _options(lesson: Lesson, recipe: Recipe) -> list[tuple[int, student.Bytes]]:
  """Returns the students to choose from; see `student.fit_tables`."""
  offered = student.offered(lesson.tasks)
  if recipe.sizes is not None:
    offered = ((0, recipe.sizes),)
  counted = recipe.hash_bits, recipe.row
  return [
    (start, student.costs(lesson.tasks, sizes, *counted))
    for start, sizes in offered
  ]


def _measure(
  lesson: Lesson, model: Any, seeds: list[PyTree], tables: Tables
) -> dict[str, dict[str, Any]]:
  """Returns `{task: {metric: [S]}}` on the validation rows."""
  rows = lesson.validation
  features = recoding.recode(rows.features, lesson.tables, tables)
  outputs = lessons.predict(model, seeds, features)
  found = lessons.measure(lesson.tasks, outputs, rows)
  return jax.tree.map(lambda *values: np.array(values), *found)


def _search(
  key: Array, lesson: Lesson, within: Within, recipe: Recipe
) -> Compressed:
  """Bisects the budgets between `least` and `most`."""
  ratio = 2 ** (1 / _STEPS)
  count = math.ceil(math.log(within.most / within.least, ratio))
  budgets = [round(within.least * ratio**i) for i in range(count)]
  budgets.append(within.most)
  best, gaps = None, {}
  low, high = 0, len(budgets)
  while low < high:
    middle = (low + high) // 2
    try:
      found = from_lesson(key, lesson, budgets[middle], recipe)
    except merging.BudgetError:
      low = middle + 1
      continue
    gaps = _gaps(lesson, found)
    if max(gaps.values()) <= within.tolerance:
      best, high = found, middle
    else:
      low = middle + 1
  if best is None:
    raise ValueError(
      f'no student of at most {within.most} bytes is within '
      f'{within.tolerance:g} of the model; the largest is below it by '
      f'{_rounded(gaps)}: allow more bytes or a larger tolerance, or train '
      'longer (Recipe.num_steps)'
    )
  return best


def _gaps(lesson: Lesson, found: Compressed) -> dict[str, float]:
  """Returns by how much the primary metric of each task is below the model's.

  A metric that the validation rows do not define is not compared.
  """
  gaps = {}
  for task in lesson.tasks:
    name = next(iter(task.metric_fns), 'loss')
    sign = -1 if name == 'loss' else 1
    old = lesson.dense[task.name][name]
    gap = sign * (old - float(np.mean(found.validation[task.name][name])))
    gaps[task.name] = 0.0 if math.isnan(gap) else gap
  return gaps


def _rounded(gaps: dict[str, float]) -> str:
  return ', '.join(f'{gap:.4f} ({name})' for name, gap in gaps.items())
