"""The arguments of `fit`, checked before it starts."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lplmtl.types import Aggregator, Balancer, Batch, PyTree, Source, Task


def without_tasks(
  model: Any, arguments: tuple[Any, Any, Any], surplus: Sequence[Any]
) -> tuple[Any, Any, Any]:
  """Returns (optimizer, balancer, data) of a call of `fit`.

  Release 0.1 passed the tasks before them; for one more release that order
  works, with a DeprecationWarning.

  Raises:
    ValueError: tasks other than the model's, or too many arguments.
  """
  tasks = arguments[0]
  is_old = isinstance(tasks, Sequence) and any(
    isinstance(task, Task) for task in tasks
  )
  if not is_old and not surplus:
    return arguments
  order = (
    'fit takes its tasks from model.tasks, fit(key, model, optimizer, '
    'balancer, data, ...): leave that argument out, and name all that follow '
    'data'
  )
  # A function of hyperparams has no tasks to compare with.
  if (
    not is_old
    or len(surplus) != 1
    or tuple(getattr(model, 'tasks', tasks)) != tuple(tasks)
  ):
    raise ValueError(order)
  warnings.warn(order, DeprecationWarning, stacklevel=3)
  return arguments[1], arguments[2], surplus[0]


def check_model_tasks(model: Any) -> None:
  """Raises ValueError unless a model has tasks with distinct names."""
  if not hasattr(model, 'tasks'):
    raise ValueError(
      'model must have a field `tasks`, a tuple of lplmtl.Task: add it to '
      f'{type(model).__name__}'
    )
  check_are_tasks(model.tasks)
  names = [task.name for task in model.tasks]
  if not names or len(set(names)) < len(names):
    raise ValueError(
      f'tasks must have distinct names, at least one; found {names}'
    )


def check_are_tasks(tasks: Any) -> None:
  """Raises ValueError unless `tasks` is a sequence of tasks."""
  if not isinstance(tasks, Sequence) or isinstance(tasks, str):
    raise ValueError(
      'tasks must be a tuple of lplmtl.Task, found '
      f'{type(tasks).__name__}: write (task,) for a single one'
    )
  for task in tasks:
    if not isinstance(task, Task):
      raise ValueError(
        "tasks must be a tuple of lplmtl.Task, such as tasks.binary('click'); "
        f'found {task!r} in it'
      )


def as_source(rows: Any, name: str) -> Source:
  """Returns rows that are no Batch as a source.

  Args:
    rows: the argument of `fit`.
    name: `data`, of which an epoch is trained on, or `validation`.

  Raises:
    ValueError: they are no source either, or their sizes are wrong.
  """
  parts = [part for part in vars(Source) if not part.startswith('_')]
  if isinstance(rows, type) or not all(hasattr(rows, part) for part in parts):
    raise ValueError(
      f'{name} must be an lplmtl.Batch(features, labels), or a source of rows '
      f'with {", ".join(parts)}; found {type(rows).__name__}'
    )
  source: Source = rows
  sizes = source.num_chunks, source.chunk_rows, source.num_shards
  if source.num_shards < 1 or source.num_rows < 1:
    raise ValueError(
      f'{name} needs at least one shard and one row, found '
      f'{source.num_shards} and {source.num_rows}'
    )
  if name == 'data' and (min(sizes) < 1 or sizes[1] % sizes[2]):
    raise ValueError(
      'a source to train on needs at least one chunk, whose rows are a '
      f'multiple of its shards; found {sizes[0]} chunks of {sizes[1]} rows and '
      f'{sizes[2]} shards'
    )
  return source


def check_batches(model: Any, data: Batch, validation: Batch | None) -> None:
  """Raises ValueError for rows that the model cannot read or learn from.

  Calls the model's `check_labels` and its encoder's `check_features`, if it has
  them.

  Args:
    model: see `fit`.
    data: the training rows, as arrays.
    validation: rows with features of the same shapes; or None.
  """
  shapes = _shapes(data.features)
  # Only for our architectures, which have a field `encoder`: a user's own model
  # may read features of any kind.
  if getattr(model, 'encoder', model) is None and (
    not hasattr(data.features, 'ndim') or data.features.ndim < 2
  ):
    raise ValueError(
      'data.features must be one array [N, D] for a model without an encoder, '
      f'found {shapes}: x[:, None] turns [N] into a column'
    )
  if validation is not None and _shapes(validation.features) != shapes:
    raise ValueError(
      f'validation.features must be like those of data, {shapes}, found '
      f'{_shapes(validation.features)}'
    )
  encoder = getattr(model, 'encoder', None)
  while encoder is not None:
    if hasattr(encoder, 'check_features'):
      encoder.check_features(data.features, 'data.features')
      if validation is not None:
        encoder.check_features(validation.features, 'validation.features')
    encoder = getattr(encoder, 'encoder', None)  # below a CrossNetwork
  if hasattr(model, 'check_labels'):
    model.check_labels(data, 'data')
    if validation is not None:
      model.check_labels(validation, 'validation')


def check_metrics(shapes: Any) -> None:
  """Raises ValueError unless every metric is a scalar per seed.

  Args:
    shapes: the shapes that the evaluation returns, `{task: {metric: [S]}}`.
  """
  for task, metrics in shapes.items():
    for metric, value in metrics.items():
      if len(value.shape) > 1:
        raise ValueError(
          f'the metric {metric!r} of task {task!r} must be a scalar, found '
          f'shape {value.shape[1:]}'
        )


def _shapes(features: PyTree) -> Any:
  """Describes features, such as `{'numeric': '[N, 3]'}`."""
  return jax.tree.map(
    lambda x: f'[{", ".join(map(str, ("N", *x.shape[1:])))}]', features
  )


def check_arguments(
  key: Any, model: Any, optimizer: Any, balancer: Any, hyperparams: Any
) -> None:
  """Raises ValueError for an argument of `fit` that has the wrong type."""
  is_key = isinstance(key, jax.Array) and jnp.issubdtype(
    key.dtype, jax.dtypes.prng_key
  )
  if not is_key or key.ndim > 1 or not key.size:
    raise ValueError(
      'key must be one typed key, jax.random.key(seed), or a vector of them; '
      f'found {key!r}'
    )
  if isinstance(optimizer, Balancer | Aggregator) or isinstance(
    balancer, optax.GradientTransformation
  ):
    raise ValueError(
      'the order is fit(key, model, optimizer, balancer, data): found a '
      'balancer as the optimizer, or an optimizer as the balancer'
    )
  if isinstance(model, type):
    raise ValueError(
      f'model must be an instance with its tasks, {model.__name__}(tasks); '
      'found the class'
    )
  has_maker = _check_pairs(model, optimizer, balancer, hyperparams)
  if hyperparams is not None and not has_maker:
    raise ValueError(
      'hyperparams need a function that makes the model, the optimizer or the '
      "balancer from them, such as lambda h: optax.adam(h['rate']); found none"
    )
  _check_hyperparams(hyperparams, key.shape)


def _check_pairs(
  model: Any, optimizer: Any, balancer: Any, hyperparams: Any
) -> bool:
  """Returns whether at least one of the three is a function of hyperparams."""
  has_maker = False
  for name, value, second, example in (
    ('model', model, 'apply', 'an architecture'),
    ('optimizer', optimizer, 'update', 'optax.adam(1e-3)'),
    ('balancer', balancer, 'update', 'balancing.equal()'),
  ):
    if hasattr(value, 'init') and hasattr(value, second):
      if name == 'balancer' and not hasattr(value, 'scope'):
        raise ValueError(
          'balancer must be a lplmtl.Balancer(init, update) or a '
          f'lplmtl.Aggregator, found {type(value).__name__}'
        )
      continue
    has_maker = True
    if hyperparams is None or not callable(value):
      raise ValueError(
        f'{name} must be a pair of functions, init and {second}, such as '
        f'{example} (a function that makes it needs hyperparams, which are '
        f'{"not given" if hyperparams is None else "given"}); found {value!r}'
      )
  return has_maker


def _check_hyperparams(hyperparams: Any, shape: tuple[int, ...]) -> None:
  for path, leaf in jax.tree_util.tree_flatten_with_path(hyperparams)[0]:
    name = f'hyperparams{jax.tree_util.keystr(path)}'
    if not isinstance(leaf, jax.Array):
      leaf = np.asarray(leaf)
      if leaf.dtype.kind not in 'biuf':
        raise ValueError(f'{name} must hold numbers, found {leaf.dtype}')
    if leaf.shape != shape:
      raise ValueError(
        f'{name} must be an array of the shape of the keys, {shape}, found '
        f'{leaf.shape}'
      )


def check_helpers(keeper: Any, on_epoch: Any, devices: Any) -> None:
  """Raises ValueError if keeper, callback or devices have the wrong type."""
  if devices is not None and not (
    isinstance(devices, Sequence)
    and len(devices)
    and all(isinstance(device, jax.Device) for device in devices)
  ):
    raise ValueError(
      'devices must be a list of devices, such as jax.local_devices(), found '
      f'{devices!r}'
    )
  methods = ('restore', 'next_pause', 'save_if_due')
  is_keeper = all(hasattr(keeper, name) for name in methods)
  if keeper is not None and (isinstance(keeper, type) or not is_keeper):
    raise ValueError(
      'keeper must have restore, next_pause and save_if_due, such as '
      f'resume.Checkpoints(folder); found {keeper!r}'
    )
  if on_epoch is not None and not callable(on_epoch):
    raise ValueError(f'on_epoch must be a function, found {on_epoch!r}')


def check_sizes(
  rows: int | Source,
  batch_size: int,
  validation: Any,
  *,
  num_epochs: int,
  eval_every: int,
  patience: int | None,
  skip_nonfinite: int,
) -> None:
  """Raises ValueError for sizes and counts out of range."""
  for name, value in (
    ('batch_size', batch_size), ('num_epochs', num_epochs),
    ('eval_every', eval_every), ('patience', patience),
    ('skip_nonfinite', skip_nonfinite),
  ):  # fmt: skip
    if value is not None and not isinstance(value, int | np.integer):
      raise ValueError(f'{name} must be a whole number, found {value!r}')
  if patience is not None and validation is None:
    raise ValueError('patience needs validation rows, found none')
  num_rows = rows if isinstance(rows, int) else rows.chunk_rows
  if not 1 <= batch_size <= num_rows:
    what = 'training rows' if isinstance(rows, int) else 'rows of a chunk'
    raise ValueError(
      f'batch_size must be from 1 to the number of {what}, {num_rows}; '
      f'found {batch_size}'
    )
  if not isinstance(rows, int) and batch_size % rows.num_shards:
    raise ValueError(
      f'batch_size must be a multiple of the {rows.num_shards} shards of the '
      f'data, found {batch_size}'
    )
  if min(num_epochs, eval_every, 1 if patience is None else patience) < 1:
    raise ValueError(
      'num_epochs, eval_every and patience must be at least 1, found '
      f'{num_epochs}, {eval_every} and {patience}'
    )
  if skip_nonfinite < 0:
    raise ValueError(
      f'skip_nonfinite must be at least 0, found {skip_nonfinite}'
    )
