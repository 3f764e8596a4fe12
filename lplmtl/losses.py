"""Losses of single rows, and their mean over the rows that have a label."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lplmtl import _checks
from lplmtl.types import Array, Batch, Task


def binary_cross_entropy(predictions: Array, labels: Array) -> Array:
  """Binary cross-entropy of a logit, in nats.

  Args:
    predictions: `[B, ..., 1]` logits.
    labels: `[B, ...]`, 0 or 1 (or a probability).

  Returns:
    `[B]` float32; further axes (pixels, words) are averaged.

  Raises:
    ValueError: the shapes do not fit.
  """
  _check('binary_cross_entropy', predictions, labels, num_outputs=1)
  logits = predictions[..., 0].astype(jnp.float32)
  targets = labels.astype(jnp.float32)
  return _rows(optax.sigmoid_binary_cross_entropy(logits, targets))


def softmax_cross_entropy(predictions: Array, labels: Array) -> Array:
  """Cross-entropy of K exclusive classes, in nats.

  Args:
    predictions: `[B, ..., K]` logits of at least two classes.
    labels: `[B, ...]` class numbers from 0 to K - 1 (their range cannot be
      checked inside jit).

  Returns:
    `[B]` float32; further axes are averaged.

  Raises:
    ValueError: the shapes do not fit, or there is one class, whose loss is
      always 0.
  """
  _check('softmax_cross_entropy', predictions, labels)
  if predictions.shape[-1] < 2:
    raise ValueError(
      'softmax_cross_entropy expects at least 2 classes, found predictions of '
      f"shape {predictions.shape}: the task's num_outputs is their number"
    )
  return _rows(
    optax.softmax_cross_entropy_with_integer_labels(
      predictions.astype(jnp.float32), labels.astype(jnp.int32)
    )
  )


def half_squared_error(predictions: Array, labels: Array) -> Array:
  """Half the squared error, `(prediction - label)^2 / 2`.

  With the half, uncertainty weighting needs one formula for all tasks; see
  `lplmtl.balancing.uncertainty_loss`.

  Args:
    predictions: `[B, ..., 1]`.
    labels: `[B, ...]` float, standardised by the caller where units differ.

  Returns:
    `[B]` float32; further axes are averaged.

  Raises:
    ValueError: the shapes do not fit.
  """
  _check('half_squared_error', predictions, labels, num_outputs=1)
  targets = labels.astype(jnp.float32)
  return _rows(optax.l2_loss(predictions[..., 0].astype(jnp.float32), targets))


def squared_error(predictions: Array, labels: Array) -> Array:
  """`(prediction - label)^2` without the half; see `half_squared_error`."""
  _check('squared_error', predictions, labels, num_outputs=1)
  return 2 * half_squared_error(predictions, labels)


def masked_mean(
  values: Array,
  where: Array | None = None,
  weights: Array | None = None,
  total: Array | None = None,
) -> tuple[Array, Array]:
  """Weighted mean of the rows that count: `sum(w v) / sum(w)`.

  PLE's joint loss (Tang et al. 2020) normalises every task over
  its own sample space in this way.

  Args:
    values: `[B]` float; rows under `where == False` must be finite.
    where: `[B]` bool, None for all rows.
    weights: `[B]` float >= 0, None for ones.
    total: the `sum(w)` to divide by, where these rows are a part of those that
      are averaged; None for their own.

  Returns:
    (mean, present): scalars; present is False, and the mean 0, where no row
    counts.

  Example:
    >>> import jax.numpy as jnp
    >>> values = jnp.array([1.0, 3.0, 8.0])
    >>> mean, present = masked_mean(values, jnp.array([True, True, False]))
    >>> float(mean), bool(present)
    (2.0, True)
  """
  scale = _scale(values, where, weights)
  if total is None:
    total = jnp.sum(scale)
  present = total > 0
  mean = jnp.sum(scale * values) / jnp.where(present, total, 1)
  return mean, present


def _scale(values: Array, where: Array | None, weights: Array | None) -> Array:
  scale = jnp.ones_like(values) if weights is None else weights
  scale = scale.astype(values.dtype)
  return scale if where is None else jnp.where(where, scale, 0)


def row_totals(tasks: Sequence[Task], batch: Batch) -> Array:
  """`[T]` float32, the weight of the rows that have a label for each task."""
  ones = jnp.ones(_checks.num_rows(batch.features), jnp.float32)
  masks = batch.where or {}
  return jnp.stack(
    [
      jnp.sum(_scale(ones, masks.get(task.name), batch.weights))
      for task in tasks
    ]
  )


def task_losses(
  tasks: Sequence[Task],
  predictions: Any,
  batch: Batch,
  totals: Array | None = None,
) -> tuple[Array, Array]:
  """The mean loss of each task over its own labelled rows.

  Args:
    tasks: T tasks; their order is the order of the result.
    predictions: `{task: [B, ..., K]}`.
    batch: see `lplmtl.types.Batch`.
    totals: `[T]`, the `row_totals` of a larger batch of which these rows are a
      part: the sum over the parts is then the loss of the whole.

  Returns:
    (losses, present): `[T]` float32, 0 for a task without a label in the batch,
    and `[T]` bool, True for the tasks with at least one.

  Raises:
    ValueError: a label or a prediction is missing, or shapes do not fit.
  """
  means, present = [], []
  for i, task in enumerate(tasks):
    for kind, found in (('label', batch.labels), ('prediction', predictions)):
      if task.name not in found:
        raise ValueError(
          f'no {kind} for task {task.name!r}; found {sorted(found)}'
        )
    where = (batch.where or {}).get(task.name)
    # Masked before the maths: a NaN that is masked after it still gives a NaN
    # gradient.
    labels = mask_labels(batch.labels[task.name], where)
    try:
      values = task.loss_fn(predictions[task.name], labels)
    except ValueError as error:
      raise ValueError(f'task {task.name!r}: {error}') from error
    if values.ndim != 1:
      raise ValueError(
        f'task {task.name!r}: loss_fn must return one value per row, [B]; '
        f'found shape {values.shape}'
      )
    mean, is_present = masked_mean(
      values.astype(jnp.float32),
      where,
      batch.weights,
      None if totals is None else totals[i],
    )
    means.append(mean)
    present.append(is_present)
  return jnp.stack(means), jnp.stack(present)


def mask_labels(labels: Any, where: Array | None) -> Any:
  """Puts a 0 where a row has no label; `where` is `[B]` bool or None."""
  if where is None:
    return labels
  return jax.tree.map(
    lambda x: jnp.where(where.reshape(where.shape + (1,) * (x.ndim - 1)), x, 0),
    labels,
  )


def _rows(values: Array) -> Array:
  return values.reshape(values.shape[0], -1).mean(axis=1)


def _check(
  name: str, predictions: Array, labels: Array, num_outputs: int | None = None
) -> None:
  last = 'K' if num_outputs is None else str(num_outputs)
  fits = predictions.shape[:-1] == labels.shape and (
    num_outputs in (None, predictions.shape[-1])
  )
  if not fits:
    raise ValueError(
      f'{name} expects predictions [B, ..., {last}] and labels [B, ...]; found '
      f'{predictions.shape} and {labels.shape}'
    )
