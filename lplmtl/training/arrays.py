"""Rows as arrays of numbers, or a line that says why they are none."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.types import Batch, PyTree, Task

_NOT_FINITE = 'values that are not finite'
# By a column's kind of numbers, where its dtype is none of NumPy's.
_NUMPY = {'b': bool, 'i': np.int64, 'u': np.uint64, 'f': np.float64}


def read_batch(tasks: Sequence[Task], batch: Batch, name: str) -> Batch:
  """The rows as arrays; refuses those that could only train a wrong model.

  Inside a program a row number out of range is clipped and a label out of range
  gives a loss that means nothing, so `fit` looks at the arrays on the host.

  Args:
    tasks: T tasks.
    batch: all rows; leaves are arrays, or columns that `read` takes.
    name: what to call them.

  Returns:
    The batch, its leaves NumPy or JAX arrays.

  Raises:
    ValueError: different numbers of rows, values that are not finite, labels
      that a task does not know, a mask of no task, weights below 0.
  """
  batch = read_labels(batch, name)
  num_rows = _checks.num_rows(batch.features)
  features = read(batch.features, f'{name}.features', num_rows)
  batch = batch._replace(features=features)
  _check_features(batch.features, f'{name}.features')
  names = [task.name for task in tasks]
  strange = sorted(set(batch.where or {}) - set(names))
  if strange:
    raise ValueError(
      f'{name}.where names {strange}, which are no tasks; the tasks are {names}'
    )
  if batch.weights is not None:
    _check_weights(np.asarray(batch.weights), f'{name}.weights', num_rows)
  for task in tasks:
    if not jax.tree.leaves(batch.labels.get(task.name)):
      raise ValueError(
        f'{name}: no label for task {task.name!r}; found {sorted(batch.labels)}'
      )
    _check_labels(task, batch, name)
  return _canonical(batch)


def read_labels(batch: Any, name: str) -> Batch:
  """A batch whose labels, masks and weights are arrays; fit for jit.

  Raises:
    ValueError: no Batch, or what `read` refuses.
  """
  if not isinstance(batch, Batch):
    raise ValueError(
      f'{name} must be a lplmtl.Batch(features, labels), found '
      f'{type(batch).__name__}'
    )
  for field in ('labels', 'where'):
    found = getattr(batch, field)
    is_left_out = field == 'where' and found is None
    if not (is_left_out or isinstance(found, Mapping)):
      raise ValueError(
        f'{name}.{field} must be a dict of arrays by the names of tasks, '
        f'found {type(found).__name__}'
      )
  num_rows = _checks.num_rows(batch.features)
  others = Batch(
    None, dict(batch.labels), dict(batch.where or {}) or None, batch.weights
  )
  return read(others, name, num_rows)._replace(features=batch.features)


def _check_features(features: PyTree, name: str) -> None:
  for path, leaf in jax.tree_util.tree_flatten_with_path(features)[0]:
    where = f'{name}{jax.tree_util.keystr(path)}'
    if not leaf.size:
      raise ValueError(
        f'{where} must have at least one row and one column, found shape '
        f'{leaf.shape}'
      )
    if problem := _complaint(leaf):
      raise ValueError(f'{where} holds {problem}')


def _check_weights(weights: np.ndarray, name: str, num_rows: int) -> None:
  limits = jnp.finfo(jnp.float32)
  fits = weights.ndim == 1 and (weights >= 0).all()
  if fits:
    # In float32 what is below `tiny` counts as 0.
    total, most = weights.sum(dtype=np.float64), weights.max()
    fits = total <= limits.max and most >= limits.tiny
  if not fits:
    raise ValueError(
      f'{name} must be [{num_rows}] numbers >= 0, not all of them 0, and their '
      f'sum a float32; found shape {weights.shape}, from {weights.min()} to '
      f'{weights.max()}'
    )


def _check_labels(task: Task, batch: Batch, name: str) -> None:
  mask = (batch.where or {}).get(task.name)
  if mask is not None and (mask.ndim != 1 or mask.dtype != bool):
    raise ValueError(
      f'{name}.where[{task.name!r}] must be [N] bool, found {mask.dtype} of '
      f'shape {mask.shape}'
    )
  counts = np.ones(1) if batch.weights is None else np.asarray(batch.weights)
  if mask is not None and batch.weights is not None:
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
        f'every row of {name} with a label for task {task.name!r} has the '
        'weight 0: drop the task, or use other weights'
      )
    if (problem := _complaint(labels)) == _NOT_FINITE:
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


def read(tree: PyTree, name: str, num_rows: int) -> PyTree:
  """NumPy or JAX arrays in the place of columns of whatever kind.

  Columns of pandas, of its own integers and bools too, and what else NumPy
  reads become NumPy arrays; a missing number becomes NaN.

  Args:
    tree: a pytree of columns, `[N, ...]`.
    name: what to call it.
    num_rows: N.

  Raises:
    ValueError: what holds no numbers (text, categories, times), or not of so
      many rows; sparse and masked arrays, data frames and lists.
  """

  def read_one(path: Any, leaf: Any) -> Any:
    return _read(leaf, f'{name}{jax.tree_util.keystr(path)}', num_rows)

  return jax.tree_util.tree_map_with_path(read_one, tree, is_leaf=_is_sparse)


def _read(leaf: Any, name: str, num_rows: int) -> Any:
  kind = type(leaf).__name__
  if _is_sparse(leaf):
    raise ValueError(f'{name} is sparse ({kind}): hand over its .todense()')
  if hasattr(leaf, 'columns'):
    raise ValueError(
      f'{name} is a table ({kind}): hand over numbers, '
      "frame.to_numpy('float32'), or encode its columns with lplmtl.tables"
    )
  if not hasattr(leaf, 'dtype') or not getattr(leaf, 'ndim', 1):
    raise ValueError(
      f'{name} must be part of an array, found {kind}: hand over np.array(...) '
      'instead of a list'
    )
  if np.ma.isMaskedArray(leaf) and np.ma.is_masked(leaf):
    raise ValueError(
      f'{name} has masked values: hand over its .data, and ~mask as '
      'Batch.where if these are labels'
    )
  if not isinstance(leaf, jax.Array):
    leaf = _column(leaf, name)
  if leaf.shape[:1] != (num_rows,):
    raise ValueError(
      f'{name} must have the {num_rows} rows of the features, found shape '
      f'{leaf.shape}'
    )
  kinds = (jnp.bool_, jnp.integer, jnp.floating)
  is_number = any(jnp.issubdtype(leaf.dtype, known) for known in kinds)
  if not is_number or leaf.dtype.kind == 'm':  # a length of time is an integer
    raise ValueError(f'{name} must hold numbers, found {leaf.dtype}')
  return leaf


def _is_sparse(leaf: Any) -> bool:
  return hasattr(leaf, 'todense')


def _column(leaf: Any, name: str) -> np.ndarray:
  dtype = leaf.dtype
  if hasattr(dtype, 'categories'):
    raise ValueError(
      f'{name} holds categories: hand over their numbers, such as .cat.codes'
    )
  try:
    kind = getattr(dtype, 'kind', '')
    if isinstance(dtype, np.dtype) or kind not in _NUMPY:
      return np.asarray(leaf)
    if leaf.isna().any():
      return leaf.to_numpy(dtype=np.float64, na_value=np.nan)
    return leaf.to_numpy(dtype=_NUMPY[kind])
  except (TypeError, ValueError, RuntimeError, AttributeError) as error:
    raise ValueError(
      f'{name} ({type(leaf).__name__}) must be an array of numbers: {error}'
    ) from error


def _complaint(values: Any) -> str:
  """What is wrong with numbers once JAX holds them; '' where nothing is.

  Without `jax_enable_x64` JAX takes float64 as float32 and int64 as int32.
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
    return f'numbers from {low} to {high}, too large for {dtype}: take floats'
  if np.isfinite(_cast(values, dtype)).all():
    return ''
  if np.isfinite(values).all():
    return f'numbers too large for {dtype}: scale them'
  return _NOT_FINITE


def _canonical(tree: PyTree) -> PyTree:
  """Arrays in the dtypes that JAX holds."""
  return jax.tree.map(
    lambda x: x if isinstance(x, jax.Array) else _cast(x, _dtype(x)), tree
  )


def _dtype(values: Any) -> Any:
  return jax.dtypes.canonicalize_dtype(values.dtype)


def _cast(values: np.ndarray, dtype: Any) -> np.ndarray:
  with np.errstate(over='ignore', invalid='ignore'):
    return values.astype(dtype, copy=False)
