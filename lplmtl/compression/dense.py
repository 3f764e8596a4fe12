"""The model to be compressed: its seeds, what it predicts and depends on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lplmtl import _checks
from lplmtl.compression import (
  calibration,
  distillation,
  encoders,
  merging,
)
from lplmtl.compression.merging import Sensitivity
from lplmtl.tables import Tables
from lplmtl.types import Batch, PyTree, Task

# Rows that tell how much the losses depend on each value: with more, merging
# takes longer, and rare values that they add hardly matter.
_ROWS = 1 << 17

Outputs = Mapping[str, np.ndarray]


class Rows(NamedTuple):
  """Rows and those outputs that came with them.

  Attributes:
    batch: ordinary labels.
    given: `{task: [N, ..., K]}`, of other teachers, from
      `distillation.with_teacher`.
  """

  batch: Batch
  given: Outputs


def read(tasks: Sequence[Task], batch: Any, name: str) -> Rows:
  """Separates labels from what teachers have predicted.

  Raises:
    ValueError: `batch` is no Batch, has no rows, or lacks a task's labels.
  """
  calibration.check_rows(batch, name)
  labels, given = {}, {}
  where: dict[str, Any] = dict(batch.where or {})
  for task in (task for task in tasks if task.name in batch.labels):
    found = batch.labels[task.name]
    if isinstance(found, Mapping):
      distillation.check_form(found)
      given[task.name] = np.asarray(found['soft'])
      known = np.asarray(found['known'], bool)
      if not known.all():
        where[task.name] = known
      found = found['hard']
    labels[task.name] = found
  batch = batch._replace(labels=labels, where=where or None)
  calibration.check_labels(tasks, batch, name)
  return Rows(batch, given)


def seeds(model: Any, params: PyTree, features: PyTree) -> list[PyTree]:
  """Returns the parameters of each seed.

  Args:
    model: any model.
    params: its parameters, with or without a leading axis of seeds.
    features: that it reads.

  Raises:
    ValueError: they are the parameters of another model.
  """
  if not calibration.has_seeds(model, params, features):
    return [params]
  # JAX would compile a program for each shape.
  params = jax.device_get(params)
  count = len(jax.tree.leaves(params)[0])
  return [jax.tree.map(lambda x, i=i: x[i], params) for i in range(count)]


def sensitivity(
  tables: Tables, model: Any, params: Sequence[PyTree], batch: Batch
) -> Sensitivity:
  """Returns that of an ensemble: what its members lose on average.

  Vectors of the members stand side by side, their matrices along a diagonal.
  Of many rows, some at equal distances are taken.
  """
  step = -(-_checks.num_rows(batch.features) // _ROWS)
  some = jax.tree.map(lambda x: np.asarray(x)[::step], batch)
  found = [merging.sensitivity(tables, model, one, some) for one in params]
  if len(found) == 1:
    return found[0]
  names = found[0].curvature
  return Sensitivity(
    np.concatenate([one.vectors for one in found], axis=1),
    {name: _diagonal([one.curvature[name] for one in found]) for name in names},
    {
      name: float(np.mean([one.losses[name] for one in found]))
      for name in names
    },
    found[0].counts,
  )


def _diagonal(matrices: Sequence[np.ndarray]) -> np.ndarray:
  """Returns `[V, S D, S D]`, the mean of quadratic forms of S vectors."""
  count, (values, size, _) = len(matrices), matrices[0].shape
  found = np.zeros((values, count * size, count * size))
  for i, matrix in enumerate(matrices):
    part = slice(i * size, (i + 1) * size)
    found[:, part, part] = matrix / count
  return found


def check(tables: Tables, model: Any, rows: Sequence[Rows]) -> None:
  """Raises ValueError unless the rows are those of the model's encoder."""
  encoder = encoders.check_tables(tables, model)
  for name, one in zip(('data', 'validation'), rows, strict=True):
    encoder.check_features(one.batch.features, f'{name}.features')
