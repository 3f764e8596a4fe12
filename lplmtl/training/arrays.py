"""Reads rows as arrays of numbers, or explains in one line why it cannot."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks, losses
from lplmtl.types import Batch, PyTree, Task

_NOT_FINITE = 'values that are not finite'
# NumPy types for columns of other libraries, by the kind of their dtype.
_NUMPY = {'b': bool, 'i': np.int64, 'u': np.uint64, 'f': np.float64}


def read_batch(tasks: Sequence[Task], batch: Batch, name: str) -> Batch:
  """Reads rows as arrays; rejects those that would train a wrong model.

  Inside a program an index out of range is clipped, and a label out of range
  gives a meaningless loss, so `fit` checks the arrays on the host.

  Args:
    tasks: T tasks.
    batch: all rows; leaves are arrays, or columns that `read` takes.
    name: what to call them in messages.

  Returns:
    The batch; its leaves are NumPy or JAX arrays.

  Raises:
    ValueError: the numbers of rows differ, a value is not finite, a label is
      outside the range of its task, masks or weights name an unknown task, or
      a weight is negative.
  """
  batch = read_labels(batch, name)
  num_rows = _checks.num_rows(batch.features)
  features = read(batch.features, f'{name}.features', num_rows)
  batch = batch._replace(features=features)
  _check_features(batch.features, f'{name}.features')
  names = [task.name for task in tasks]
  _check_names(batch.where, f'{name}.where', names)
  if isinstance(batch.weights, Mapping):
    _check_names(batch.weights, f'{name}.weights', names)
    for key, values in batch.weights.items():
      where = f'{name}.weights[{key!r}]'
      _check_weights(np.asarray(values), where, num_rows)
  elif batch.weights is not None:
    _check_weights(np.asarray(batch.weights), f'{name}.weights', num_rows)
  for task in tasks:
    if not jax.tree.leaves(batch.labels.get(task.name)):
      raise ValueError(
        f'{name}: no label for task {task.name!r}; found {sorted(batch.labels)}'
      )
    _check_labels(task, batch, name)
  return _canonical(batch)


def fill_up(batch: Batch, batch_size: int) -> Batch:
  """Appends rows of zeros up to a multiple of the batch size.

  No step reads them. Tables that differ by a few rows, such as the folds of a
  cross-validation, then have programs of the same shapes, which compile once.

  Args:
    batch: from `read_batch`. Arrays that are on a device already stay as they
      are.
    batch_size: B.
  """

  def fill(x: Any) -> Any:
    missing = -len(x) % batch_size
    if not missing or isinstance(x, jax.Array):
      return x
    return np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])

  return jax.tree.map(fill, batch)


def read_labels(batch: Any, name: str) -> Batch:
  """Reads labels, masks and weights as arrays; works under jit.

  Raises:
    ValueError: `batch` is not a Batch, or `read` rejects a leaf.
  """
  if not isinstance(batch, Batch):
    raise ValueError(
      f'{name} must be an lplmtl.Batch(features, labels), found '
      f'{type(batch).__name__}'
    )
  for field in ('labels', 'where'):
    by_task = getattr(batch, field)
    is_left_out = field == 'where' and by_task is None
    if not (is_left_out or isinstance(by_task, Mapping)):
      raise ValueError(
        f'{name}.{field} must be a dict from task names to arrays, found '
        f'{type(by_task).__name__}'
      )
  num_rows = _checks.num_rows(batch.features)
  weights = batch.weights
  if isinstance(weights, Mapping):
    weights = dict(weights) or None
  others = Batch(
    None, dict(batch.labels), dict(batch.where or {}) or None, weights
  )
  return read(others, name, num_rows)._replace(features=batch.features)


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


def _check_names(
  by_task: Mapping[str, Any] | None, name: str, tasks: Sequence[str]
) -> None:
  unknown = sorted(set(by_task or {}) - set(tasks), key=str)
  if unknown:
    raise ValueError(
      f'{name} names {unknown}, which are not tasks; the tasks are {tasks}'
    )


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
  mask = (batch.where or {}).get(task.name)
  if mask is not None and (mask.ndim != 1 or mask.dtype != bool):
    raise ValueError(
      f'{name}.where[{task.name!r}] must be [N] bool, found {mask.dtype} of '
      f'shape {mask.shape}'
    )
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


def read(tree: PyTree, name: str, num_rows: int) -> PyTree:
  """Reads columns of any kind as NumPy or JAX arrays.

  Columns of pandas, including its own integers and bools, and anything else
  that NumPy reads become NumPy arrays; a missing number becomes NaN.

  Args:
    tree: pytree of columns, `[N, ...]`.
    name: what to call it in messages.
    num_rows: N.

  Raises:
    ValueError: a column holds something other than numbers (such as text,
      categories or times), has a different number of rows, or is a sparse or
      masked array, a data frame or a list.
  """

  def read_one(path: Any, leaf: Any) -> Any:
    return _read(leaf, f'{name}{jax.tree_util.keystr(path)}', num_rows)

  return jax.tree_util.tree_map_with_path(read_one, tree, is_leaf=_is_sparse)


def _read(leaf: Any, name: str, num_rows: int) -> Any:
  kind = type(leaf).__name__
  if _is_sparse(leaf):
    raise ValueError(f'{name} is sparse ({kind}): pass its .todense()')
  if hasattr(leaf, 'columns'):
    raise ValueError(
      f'{name} is a table ({kind}): pass numbers, '
      "frame.to_numpy('float32'), or encode its columns with lplmtl.tables"
    )
  if not hasattr(leaf, 'dtype') or not getattr(leaf, 'ndim', 1):
    raise ValueError(
      f'{name} must be part of an array, found {kind}: pass np.array(...) '
      'instead of a list'
    )
  if np.ma.isMaskedArray(leaf) and np.ma.is_masked(leaf):
    raise ValueError(
      f'{name} has masked values: pass its .data, and ~mask as Batch.where if '
      'these are labels'
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
  # NumPy counts a timedelta as a kind of integer.
  if not is_number or leaf.dtype.kind == 'm':
    raise ValueError(f'{name} must hold numbers, found {leaf.dtype}')
  return leaf


def _is_sparse(leaf: Any) -> bool:
  return hasattr(leaf, 'todense')


def _column(leaf: Any, name: str) -> np.ndarray:
  dtype = leaf.dtype
  if hasattr(dtype, 'categories'):
    raise ValueError(
      f'{name} holds categories: pass their numbers, such as .cat.codes'
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


def _canonical(tree: PyTree) -> PyTree:
  """Casts arrays to the dtypes in which JAX stores them."""
  return jax.tree.map(
    lambda x: x if isinstance(x, jax.Array) else _cast(x, _dtype(x)), tree
  )


def _dtype(values: Any) -> Any:
  return jax.dtypes.canonicalize_dtype(values.dtype)


def _cast(values: np.ndarray, dtype: Any) -> np.ndarray:
  with np.errstate(over='ignore', invalid='ignore'):
    return values.astype(dtype, copy=False)
