"""The values of rows: finite, in range, and in the dtypes of JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks, losses
from lplmtl.types import Batch, PyTree, Task

_NOT_FINITE = 'values that are not finite'


def check(tasks: Sequence[Task], batch: Batch, name: str) -> None:
  """Checks the values of all rows.

  Args:
    tasks: T tasks.
    batch: from `arrays.read_columns`.
    name: what to call it in messages.

  Raises:
    ValueError: a value is not finite, a label is outside the range of its task,
      a weight is negative, or a task has no label.
  """
  num_rows = _checks.num_rows(batch.features)
  _check_features(batch.features, f'{name}.features')
  if isinstance(batch.weights, Mapping):
    for key, values in batch.weights.items():
      where = f'{name}.weights[{key!r}]'
      _check_weights(np.asarray(values), where, num_rows)
  elif batch.weights is not None:
    _check_weights(np.asarray(batch.weights), f'{name}.weights', num_rows)
  for task in tasks:
    _check_labels(task, batch, name)


def check_piece(tasks: Sequence[Task], batch: Batch, name: str) -> set[str]:
  """Checks the values of a piece of the rows, as `check` does of all.

  Args:
    tasks: T tasks.
    batch: at least one row, from `arrays.read_columns`.
    name: what to call it in messages.

  Returns:
    The names of the tasks of which some row has a label.

  Raises:
    ValueError: a value is not finite, a label is outside the range of its task,
      or a weight is negative.
  """
  _check_features(batch.features, f'{name}.features')
  for weights in jax.tree.leaves(batch.weights):
    if not (np.isfinite(weights) & (weights >= 0)).all():
      raise ValueError(
        f'{name}.weights must be finite numbers >= 0, found '
        f'{np.min(weights)} to {np.max(weights)}'
      )
  labelled = set()
  for task in tasks:
    mask = _mask(task, batch, name)
    for leaf in jax.tree.leaves(batch.labels[task.name]):
      labels = np.asarray(leaf if mask is None else leaf[mask])
      if labels.size:
        labelled.add(task.name)
        _check_label_values(task, labels, name)
  return labelled


def _check_features(features: PyTree, name: str) -> None:
  leaves = jax.tree_util.tree_flatten_with_path(features)[0]
  # A table without numbers has numbers [N, 0] beside its categories.
  is_empty = not any(leaf.size for _, leaf in leaves)
  for path, leaf in leaves:
    where = f'{name}{jax.tree_util.keystr(path)}'
    if is_empty or not len(leaf):
      raise ValueError(
        f'{where} must have at least one row and one column, found shape '
        f'{leaf.shape}'
      )
    if problem := _problem(leaf):
      raise ValueError(f'{where} holds {problem}')


def _check_weights(weights: np.ndarray, name: str, num_rows: int) -> None:
  limits = jnp.finfo(jnp.float32)
  fits = weights.ndim == 1 and (weights >= 0).all()
  if fits:
    # XLA flushes denormal numbers, those below `tiny`, to 0.
    total, most = weights.sum(dtype=np.float64), weights.max()
    fits = total <= limits.max and most >= limits.tiny
  if not fits:
    raise ValueError(
      f'{name} must be [{num_rows}] numbers >= 0, not all of them 0, whose '
      f'sum fits in float32; found shape {weights.shape}, from '
      f'{weights.min()} to {weights.max()}'
    )


def _check_labels(task: Task, batch: Batch, name: str) -> None:
  mask = _mask(task, batch, name)
  weights = losses.row_weights(batch, task.name)
  counts = np.ones(1) if weights is None else np.asarray(weights)
  if mask is not None and weights is not None:
    counts = counts[np.asarray(mask)]
  for leaf in jax.tree.leaves(batch.labels[task.name]):
    labels = np.asarray(leaf if mask is None else leaf[mask])
    if not labels.size:
      raise ValueError(
        f'task {task.name!r} has no label in {name}: drop the task, or use '
        'other rows'
      )
    if not counts.any():
      raise ValueError(
        f'every row of {name} with a label for task {task.name!r} has weight '
        '0: drop the task, or use other weights'
      )
    _check_label_values(task, labels, name)


def _mask(task: Task, batch: Batch, name: str) -> Any:
  mask = (batch.where or {}).get(task.name)
  if mask is not None and (mask.ndim != 1 or mask.dtype != bool):
    raise ValueError(
      f'{name}.where[{task.name!r}] must be [N] bool, found {mask.dtype} of '
      f'shape {mask.shape}'
    )
  return mask


def _check_label_values(task: Task, labels: np.ndarray, name: str) -> None:
  if (problem := _problem(labels)) == _NOT_FINITE:
    raise ValueError(
      f'the labels of task {task.name!r} in {name} are not all finite: mark '
      'the rows without a label in Batch.where'
    )
  if problem:
    raise ValueError(
      f'the labels of task {task.name!r} in {name} are {problem}'
    )
  if task.label_range is not None:
    _check_range(task, labels, name)


def _check_range(task: Task, labels: np.ndarray, name: str) -> None:
  low, high = task.label_range or (-np.inf, np.inf)
  if task.num_outputs > 1 and (labels % 1 != 0).any():
    raise ValueError(
      f'the labels of task {task.name!r} in {name} must be class numbers, '
      f'found {labels[labels % 1 != 0][0]}'
    )
  if labels.min() < low or labels.max() > high:
    raise ValueError(
      f'the labels of task {task.name!r} in {name} must be from {low} to '
      f'{high}, found {labels.min()} to {labels.max()}'
    )


def _problem(values: Any) -> str:
  """Describes what is wrong with numbers in JAX's dtypes; '' if nothing is.

  Without `jax_enable_x64` JAX stores float64 as float32 and int64 as int32.
  """
  values = np.asarray(values)
  dtype = _dtype(values)
  if not values.size or jnp.issubdtype(dtype, jnp.bool_):
    return ''
  if jnp.issubdtype(dtype, jnp.integer):
    low, high = values.min(), values.max()
    limits = np.iinfo(dtype)
    if low >= limits.min and high <= limits.max:
      return ''
    return f'numbers from {low} to {high}, too large for {dtype}: use floats'
  if np.isfinite(_cast(values, dtype)).all():
    return ''
  if np.isfinite(values).all():
    return f'numbers too large for {dtype}: scale them'
  return _NOT_FINITE


def canonical(tree: PyTree) -> PyTree:
  """Casts arrays to the dtypes in which JAX stores them."""
  return jax.tree.map(
    lambda x: x if isinstance(x, jax.Array) else _cast(x, _dtype(x)), tree
  )


def _dtype(values: Any) -> Any:
  return jax.dtypes.canonicalize_dtype(values.dtype)


def _cast(values: np.ndarray, dtype: Any) -> np.ndarray:
  with np.errstate(over='ignore', invalid='ignore'):
    return values.astype(dtype, copy=False)
