"""What `fit` looks at before it starts: arguments, and rows on the host."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import types
from lplmtl.types import Batch, Task


def check_data(tasks: Sequence[Task], batch: Batch, name: str) -> None:
  """Refuses rows that could only train a wrong model.

  Inside a program a row number out of range is clipped and a label out of range
  gives a loss that means nothing, so `fit` looks at the arrays on the host.

  Args:
    tasks: T tasks.
    batch: all rows; leaves are arrays.
    name: what to call them.

  Raises:
    ValueError: different numbers of rows, values that are not finite, labels
      that a task does not know, a mask of no task, weights below 0.
  """
  if not isinstance(batch, Batch):
    raise ValueError(
      f'{name} must be a lplmtl.Batch(features, labels), found '
      f'{type(batch).__name__}'
    )
  num_rows = types.num_rows(batch.features)
  for path, leaf in jax.tree_util.tree_flatten_with_path(batch)[0]:
    where = f'{name}{jax.tree_util.keystr(path)}'
    if not hasattr(leaf, 'dtype'):
      raise ValueError(
        f'{where} must be part of an array, found {type(leaf).__name__}: hand '
        'over np.array(...) instead of a list'
      )
    if jnp.shape(leaf)[:1] != (num_rows,):
      raise ValueError(
        f'{where} must have the {num_rows} rows of the features, found shape '
        f'{jnp.shape(leaf)}'
      )
    if not np.issubdtype(leaf.dtype, np.number) and leaf.dtype != bool:
      raise ValueError(f'{where} must hold numbers, found {leaf.dtype}')
    if path[0] == _FEATURES and not np.isfinite(leaf).all():
      raise ValueError(f'{where} holds values that are not finite')
  masks = batch.where or {}
  names = [task.name for task in tasks]
  if set(masks) - set(names):
    raise ValueError(
      f'{name}.where names {sorted(set(masks) - set(names))}, which are no '
      f'tasks; the tasks are {names}'
    )
  if batch.weights is not None:
    weights = np.asarray(batch.weights)
    if weights.ndim != 1 or not (weights >= 0).all() or not weights.any():
      raise ValueError(
        f'{name}.weights must be [{num_rows}] numbers >= 0, not all of them 0; '
        f'found shape {weights.shape}, from {weights.min()} to {weights.max()}'
      )
  for task in tasks:
    if task.name not in batch.labels:
      raise ValueError(
        f'{name}: no label for task {task.name!r}; found {sorted(batch.labels)}'
      )
    _check_labels(task, batch, name)


_FEATURES = jax.tree_util.GetAttrKey('features')


def _check_labels(task: Task, batch: Batch, name: str) -> None:
  mask = (batch.where or {}).get(task.name)
  if mask is not None and (np.ndim(mask) != 1 or mask.dtype != bool):
    raise ValueError(
      f'{name}.where[{task.name!r}] must be [N] bool, found {mask.dtype} of '
      f'shape {np.shape(mask)}'
    )
  for leaf in jax.tree.leaves(batch.labels[task.name]):
    labels = np.asarray(leaf if mask is None else leaf[mask])
    if not np.isfinite(labels).all():
      raise ValueError(
        f'the labels of task {task.name!r} in {name} are not all finite: mark '
        'the rows without a label in Batch.where'
      )
    if not labels.size:
      raise ValueError(
        f'task {task.name!r} has no label in {name}: drop the task, or use '
        'other rows'
      )
    if task.label_range is None:
      continue
    low, high = task.label_range
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


def check_tasks(model: Any, tasks: Sequence[Task], batches: Any) -> None:
  """Refuses tasks that are not the model's, and rows that it cannot learn.

  Args:
    model: its `tasks`, if it has any, must be those to be trained; its
      `check_labels`, if it has one, looks at every batch.
    tasks: T tasks.
    batches: `{name: Batch or None}`.
  """
  names = [task.name for task in tasks]
  own = [getattr(task, 'name', task) for task in getattr(model, 'tasks', tasks)]
  if not names or set(own) != set(names):
    raise ValueError(f'tasks must be those of the model, {own}; found {names}')
  for name, batch in batches.items():
    if batch is not None and hasattr(model, 'check_labels'):
      model.check_labels(batch, name)


def check_arguments(
  key: Any, model: Any, optimizer: Any, balancer: Any, hyperparams: Any
) -> None:
  """Refuses a key, a model, an optimiser or a balancer that is none."""
  is_key = isinstance(key, jax.Array) and jnp.issubdtype(
    key.dtype, jax.dtypes.prng_key
  )
  if not is_key or key.ndim > 1:
    raise ValueError(
      'key must be one typed key, jax.random.key(seed), or a vector of them; '
      f'found {key!r}'
    )
  parts = (
    ('model', model, 'apply', 'an architecture'),
    ('optimizer', optimizer, 'update', 'optax.adam(1e-3)'),
    ('balancer', balancer, 'update', 'balancing.equal()'),
  )
  makers = 0
  for name, value, other, example in parts:
    if hasattr(value, 'init') and hasattr(value, other):
      continue
    makers += 1
    if hyperparams is None or not callable(value):
      raise ValueError(
        f'{name} must be a pair of functions, init and {other}, such as '
        f'{example} (a function that makes it needs hyperparams, and found '
        f'{"none" if hyperparams is None else "some"}); found {value!r}'
      )
  if hyperparams is not None and not makers:
    raise ValueError(
      'hyperparams need a function that makes the model, the optimizer or the '
      "balancer from them, such as lambda h: optax.adam(h['rate']); found none"
    )
  for path, leaf in jax.tree_util.tree_flatten_with_path(hyperparams)[0]:
    if jnp.shape(leaf) != key.shape:
      raise ValueError(
        f'hyperparams{jax.tree_util.keystr(path)} must be an array of the '
        f'shape of the keys, {key.shape}; found {jnp.shape(leaf)}'
      )


def check_sizes(
  num_rows: int,
  batch_size: int,
  num_epochs: int,
  eval_every: int,
  patience: int | None,
  validation: Batch | None,
) -> None:
  """Refuses numbers of rows, epochs and evaluations that make no sense."""
  for name, value in (
    ('batch_size', batch_size), ('num_epochs', num_epochs),
    ('eval_every', eval_every), ('patience', patience),
  ):  # fmt: skip
    if value is not None and not isinstance(value, int | np.integer):
      raise ValueError(f'{name} must be a whole number, found {value!r}')
  if patience is not None and validation is None:
    raise ValueError('patience needs validation rows, found none')
  if not 1 <= batch_size <= num_rows:
    raise ValueError(
      f'batch_size must be from 1 to the number of training rows, {num_rows}; '
      f'found {batch_size}'
    )
  if min(num_epochs, eval_every, 1 if patience is None else patience) < 1:
    raise ValueError(
      'num_epochs, eval_every and patience must be at least 1, found '
      f'{num_epochs}, {eval_every} and {patience}'
    )
