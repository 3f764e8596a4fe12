"""Rows on which pruning measures what a parameter or a unit is worth."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks, losses
from lplmtl.types import Array, Batch, PyTree


def read(model: Any, params: PyTree, batch: Batch) -> Batch:
  """Returns the calibration rows as arrays.

  Raises:
    ValueError: these are no model, parameters and rows, there are no rows, or a
      task has no label in any of them.
  """
  _checks.check_call(model, params)
  if not isinstance(batch, Batch):
    raise ValueError(
      'calibration rows must be a lplmtl.Batch with features and labels, found '
      f'{type(batch).__name__}'
    )
  if not _checks.num_rows(batch.features):
    raise ValueError('expected at least one calibration row, found none')
  batch = jax.tree.map(jnp.asarray, batch)
  totals = losses.row_totals(model.tasks, batch)
  for task, total in zip(model.tasks, np.asarray(totals), strict=True):
    if task.name not in batch.labels or not total > 0:
      raise ValueError(
        f'no calibration row has a label for task {task.name!r}: take rows '
        'that have, or more of them'
      )
  return batch


def check_criterion(criterion: Any, offered: tuple[str, ...]) -> None:
  """Raises ValueError unless a criterion is one of those offered."""
  if criterion not in offered:
    raise ValueError(f'criterion must be one of {offered}, found {criterion!r}')


def losses_of(model: Any, params: PyTree, batch: Batch) -> Array:
  """Returns the loss of each task, `[T]`, without dropout and penalties."""
  predictions, _ = _checks.model_outputs(
    model.apply({'params': params}, batch.features)
  )
  return losses.task_losses(model.tasks, predictions, batch)[0]
