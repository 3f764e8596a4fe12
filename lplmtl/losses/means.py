"""Means of losses over the rows that have a label, by task."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lplmtl import _alike, _checks
from lplmtl.types import Array, Batch, Task


def masked_mean(
  values: Array,
  where: Array | None = None,
  weights: Array | None = None,
  total: Array | None = None,
) -> tuple[Array, Array]:
  """Returns the weighted mean of the rows that count: `sum(w v) / sum(w)`.

  This is how PLE's joint loss (Tang et al. 2020) normalises each task over its
  own sample space.

  Args:
    values: `[B]` float; rows under `where == False` must be finite.
    where: `[B]` bool, or None for all rows.
    weights: `[B]` float >= 0, or None for ones.
    total: the `sum(w)` to divide by if these rows are part of a larger batch,
      or None to sum the weights of these rows.

  Returns:
    (mean, present), scalars: present is False, and the mean 0, if no row
    counts.

  Example:
    >>> import jax.numpy as jnp
    >>> values = jnp.array([1.0, 3.0, 8.0])
    >>> mean, present = masked_mean(values, jnp.array([True, True, False]))
    >>> float(mean), bool(present)
    (2.0, True)
  """
  weights = _effective_weights(values, where, weights)
  if total is None:
    total = jnp.sum(weights)
  present = total > 0
  mean = jnp.sum(weights * values) / jnp.where(present, total, 1)
  return mean, present


def _effective_weights(
  values: Array, where: Array | None, weights: Array | None
) -> Array:
  if weights is None:
    weights = jnp.ones_like(values)
  weights = weights.astype(values.dtype)
  return weights if where is None else jnp.where(where, weights, 0)


def row_weights(batch: Batch, task: str) -> Any:
  """Returns the weights of the rows for a task, `[B]`; None for ones."""
  if isinstance(batch.weights, Mapping):
    return batch.weights.get(task)
  return batch.weights


def row_totals(tasks: Sequence[Task], batch: Batch) -> Array:
  """Returns `[T]` float32, the total weight of the labelled rows per task."""
  ones = jnp.ones(_checks.num_rows(batch.features), jnp.float32)

  def total(_: int, where: Array | None, weights: Array | None) -> Array:
    return jnp.sum(_effective_weights(ones, where, weights))

  calls = [_counted(batch, task.name) for task in tasks]
  return _alike.together(total, calls, [_alike.shapes(call) for call in calls])


def task_losses(
  tasks: Sequence[Task],
  predictions: Any,
  batch: Batch,
  totals: Array | None = None,
) -> tuple[Array, Array]:
  """Returns each task's mean loss over its own labelled rows.

  Several tasks of a kind, which have equal losses and shapes, are computed as
  one, by `jax.vmap`.

  Args:
    tasks: T tasks; the result is in their order.
    predictions: `{task: [B, ..., K]}`.
    batch: see `lplmtl.types.Batch`.
    totals: `[T]`, the `row_totals` of a larger batch, if these rows are part of
      one: the losses of its parts then sum to the loss of the whole batch.

  Returns:
    (losses, present): `[T]` float32, 0 for a task without a label in the batch,
    and `[T]` bool, True for tasks with at least one.

  Raises:
    ValueError: a label or a prediction is missing, or shapes do not match.
  """
  for task in tasks:
    for kind, given in (('label', batch.labels), ('prediction', predictions)):
      if task.name not in given:
        raise ValueError(
          f'no {kind} for task {task.name!r}; found {sorted(given)}'
        )
  calls: list[tuple[Any, ...]] = [
    (predictions[name], batch.labels[name], *_counted(batch, name))
    for name in (task.name for task in tasks)
  ]

  def one(number: int, *call: Any) -> tuple[Array, Array]:
    return _task_loss(tasks[number], *call)

  if totals is not None:
    each_total = _alike.unstack(totals, len(tasks))
    calls = [
      (*call, total) for call, total in zip(calls, each_total, strict=True)
    ]
  keys = [
    (_alike.identity(task.loss_fn), _alike.shapes(call))
    for task, call in zip(tasks, calls, strict=True)
  ]
  return _alike.together(one, calls, keys)


def _task_loss(
  task: Task,
  predictions: Array,
  labels: Any,
  where: Array | None,
  weights: Array | None,
  total: Array | None = None,
) -> tuple[Array, Array]:
  # Masked before the loss: a NaN masked after it would still make the gradient
  # NaN, as 0 * NaN is NaN.
  labels = mask_labels(labels, where)
  try:
    values = task.loss_fn(predictions, labels)
  except ValueError as error:
    raise ValueError(f'task {task.name!r}: {error}') from error
  if values.ndim != 1:
    raise ValueError(
      f'task {task.name!r}: loss_fn must return one value per row, [B]; '
      f'found shape {values.shape}'
    )
  return masked_mean(values.astype(jnp.float32), where, weights, total)


def _counted(batch: Batch, task: str) -> tuple[Array | None, Array | None]:
  """Returns the mask and the weights of the rows for a task."""
  return (batch.where or {}).get(task), row_weights(batch, task)


def mask_labels(labels: Any, where: Array | None) -> Any:
  """Replaces missing labels with 0; `where` is `[B]` bool or None."""
  if where is None:
    return labels
  return jax.tree.map(
    lambda x: jnp.where(where.reshape(where.shape + (1,) * (x.ndim - 1)), x, 0),
    labels,
  )
