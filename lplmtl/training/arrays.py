"""Reads rows as arrays of numbers, or explains in one line why it cannot."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.training import values
from lplmtl.types import Batch, PyTree, Task

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
  batch = read_columns(tasks, batch, name)
  values.check(tasks, batch, name)
  return values.canonical(batch)


def read_columns(tasks: Sequence[Task], batch: Batch, name: str) -> Batch:
  """Reads rows as arrays without a look at their values.

  Args:
    tasks: T tasks.
    batch: the rows.
    name: what to call them in messages.

  Raises:
    ValueError: the numbers of rows differ, masks or weights name an unknown
      task, or a task has no labels.
  """
  batch = read_arrays(batch, name)
  names = [task.name for task in tasks]
  _check_names(batch.where, f'{name}.where', names)
  if isinstance(batch.weights, Mapping):
    _check_names(batch.weights, f'{name}.weights', names)
  for task in tasks:
    if not jax.tree.leaves(batch.labels.get(task.name)):
      raise ValueError(
        f'{name}: no label for task {task.name!r}; found {sorted(batch.labels)}'
      )
  return batch


def read_arrays(batch: Batch, name: str) -> Batch:
  """Reads rows as arrays, whatever the tasks; see `read_columns`."""
  batch = read_labels(batch, name)
  num_rows = _checks.num_rows(batch.features)
  features = read(batch.features, f'{name}.features', num_rows)
  return batch._replace(features=features)


def read_like(
  batch: Batch, example: Batch, name: str, num_rows: int | None = None
) -> Batch:
  """Reads some rows of a source, without a look at their values.

  Args:
    batch: the rows.
    example: other rows of the source, in JAX's dtypes.
    name: what to call them in messages.
    num_rows: how many there must be; None for any number.

  Returns:
    The rows, in JAX's dtypes.

  Raises:
    ValueError: their number, structure, shapes or dtypes are others.
  """
  batch = values.canonical(read_arrays(batch, name))
  check_like(batch, example, name, 'the example of its source')
  count = _checks.num_rows(batch.features)
  if num_rows not in (None, count):
    raise ValueError(f'{name} must have {num_rows} rows, found {count}')
  return batch


def check_like(batch: Batch, other: Batch, name: str, others: str) -> None:
  """Raises ValueError unless rows have the arrays of other rows.

  Args:
    batch: the rows.
    other: what they must be like: in structure, shapes and dtypes.
    name: what to call `batch` in messages.
    others: what to call `other`.
  """
  found, expected = _forms(batch), _forms(other)
  for part in sorted(expected | found):
    if found.get(part) != expected.get(part):
      raise ValueError(
        f'{name} must be like {others}: expected '
        f'{expected.get(part, "nothing")} at {part}, found '
        f'{found.get(part, "nothing")}'
      )


def _forms(tree: PyTree) -> dict[str, str]:
  """Describes arrays, such as `{'.features': 'float32[N, 3]'}`."""

  def form(x: Any) -> str:
    return f'{x.dtype}[{", ".join(map(str, ("N", *x.shape[1:])))}]'

  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path): form(x) for path, x in leaves}


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


def _check_names(
  by_task: Mapping[str, Any] | None, name: str, tasks: Sequence[str]
) -> None:
  unknown = sorted(set(by_task or {}) - set(tasks), key=str)
  if unknown:
    raise ValueError(
      f'{name} names {unknown}, which are not tasks; the tasks are {tasks}'
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
