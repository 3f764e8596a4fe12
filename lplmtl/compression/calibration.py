"""Rows on which compression measures what a parameter or a value is worth."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks, losses
from lplmtl.compression import leaves
from lplmtl.types import Array, Batch, PyTree, Task


def read(model: Any, params: PyTree, batch: Batch) -> Batch:
  """Returns the calibration rows as arrays.

  Raises:
    ValueError: these are no model, parameters and rows, the parameters are not
      the model's or of several seeds, there are no rows, or a task has no label
      in any of them.
  """
  _checks.check_call(model, params)
  check_rows(batch)
  check_params(model, params, batch.features)
  check_labels(model.tasks, batch)
  return jax.tree.map(jnp.asarray, batch)


def check_rows(batch: Any, name: str = 'batch') -> None:
  """Raises ValueError unless there are rows.

  Args:
    batch: what should be a Batch.
    name: of the argument.
  """
  if not isinstance(batch, Batch):
    raise ValueError(
      f'{name} must be a lplmtl.Batch of rows and labels, found '
      f'{type(batch).__name__}'
    )
  if not _checks.num_rows(batch.features):
    raise ValueError(f'{name} must have at least one row, found none')


def check_labels(
  tasks: Sequence[Task], batch: Batch, name: str = 'batch'
) -> None:
  """Raises ValueError unless some row has a label of each task.

  Args:
    tasks: of the model.
    batch: its rows, with ordinary labels.
    name: of the argument.
  """
  totals = np.asarray(losses.row_totals(tasks, batch))
  for task, total in zip(tasks, totals, strict=True):
    if task.name not in batch.labels:
      raise ValueError(
        f'{name} has no labels of task {task.name!r}; found '
        f'{sorted(batch.labels)}'
      )
    if not total > 0:
      raise ValueError(
        f'no row of {name} has a label of task {task.name!r} that counts: add '
        'rows that do, or take a model without this task'
      )


def check_params(model: Any, params: PyTree, features: PyTree) -> None:
  """Raises ValueError unless parameters are the model's, of one seed."""
  if has_seeds(model, params, features):
    raise ValueError(
      'expected parameters of one seed, found an axis of seeds: take those of '
      'one, such as jax.tree.map(lambda x: x[0], params)'
    )


def has_seeds(model: Any, params: PyTree, features: PyTree) -> bool:
  """Returns whether a model's parameters have a leading axis of seeds.

  Args:
    model: any model.
    params: its parameters.
    features: that it reads.

  Raises:
    ValueError: they are the parameters of another model.
  """
  _checks.check_call(model, params)
  row = jax.tree.map(lambda x: jnp.asarray(x[:1]), features)
  expected = leaves.names(
    jax.eval_shape(model.init, jax.random.key(0), row)['params']
  )
  found = leaves.names(params)
  kind = type(model).__name__
  for name in (*expected, *found):
    if name not in found or name not in expected:
      has = 'lack' if name in expected else 'have'
      raise ValueError(
        f'the parameters are not those of this {kind}, of which they {has} '
        f'{name}: pass the model that they were trained with'
      )
  axes = {np.ndim(found[n]) - len(expected[n].shape) for n in expected}
  is_stack = axes == {1}
  for name, like in expected.items():
    shape = np.shape(found[name])
    if shape[is_stack:] != like.shape or axes - {0, 1}:
      raise ValueError(
        f'the parameters are not those of this {kind}: {name} must be '
        f'{like.shape}, after an axis of seeds if there is one; found {shape}'
      )
  return is_stack


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
