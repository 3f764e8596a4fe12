"""Predictions and metrics: pure functions of parameters and rows."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from lplmtl import _alike, _checks, losses
from lplmtl.training import merged
from lplmtl.types import Array, Batch, Model, PyTree, Task

# Rows at a time: on a CPU, a third faster than 4096 rows at a time.
_CHUNK = 1024


def predict(
  model: Model, params: PyTree, features: PyTree, *, chunk_size: int = _CHUNK
) -> dict[str, Array]:
  """Predicts a whole table, in chunks that fit the cache.

  Compiles once for each model and number of rows, whatever the parameters.

  Args:
    model: see `lplmtl.types.Model`.
    params: its parameters.
    features: pytree of `[N, ...]`.
    chunk_size: rows at a time.

  Returns:
    `{task: [N, ..., K]}`.

  Raises:
    ValueError: there are no rows, or an argument is not a model or its
      parameters.

  Example:
    >>> import lplmtl
    >>> from lplmtl import tasks
    >>> model = lplmtl.SharedBottom((tasks.binary('click'),))
    >>> x = jnp.ones((3, 8))
    >>> params = jax.jit(model.init)(jax.random.key(0), x)['params']
    >>> predict(model, params, x)['click'].shape  # [N, K]
    (3, 1)
  """
  _checks.check_call(model, params, chunk_size)
  features = jax.tree.map(jnp.asarray, features)
  try:
    hash(model)
  except TypeError:  # it holds arrays, such as a traced dropout rate
    return predict_rows(model, params, features, chunk_size)
  return _predict_compiled(model, params, features, int(chunk_size))


def predict_rows(
  model: Model, params: PyTree, features: PyTree, chunk_size: int = _CHUNK
) -> dict[str, Array]:
  """Does what `predict` does; a pure function, to be compiled by the caller."""
  count = _checks.num_rows(features)
  if not count or chunk_size < 1:
    raise ValueError(
      'expected at least one row to predict, and chunks of at least one; found '
      f'{count} rows and a chunk_size of {chunk_size}'
    )

  def one(rows: PyTree) -> dict[str, Array]:
    return _checks.model_outputs(model.apply({'params': params}, rows))[0]

  is_large = len(model.tasks) > _alike.FEW
  score = functools.partial(merged.run, one) if is_large else one
  if count <= chunk_size:
    return score(features)
  num_chunks = -(-count // chunk_size)
  # The last chunk repeats the last row: padding would copy every column.
  rows = jnp.minimum(jnp.arange(num_chunks * chunk_size), count - 1)

  chunks = jax.lax.map(
    lambda chunk: score(jax.tree.map(lambda x: x[chunk], features)),
    rows.reshape(num_chunks, chunk_size),
  )
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], chunks)


_predict_compiled = jax.jit(predict_rows, static_argnums=(0, 3))


def make_predictor(
  model: Model, params: PyTree, *, chunk_size: int = _CHUNK
) -> Callable[[PyTree], dict[str, Array]]:
  """Returns a compiled `features -> predictions` for fixed parameters.

  The parameters become constants of the program, so that whatever depends only
  on them is computed once: scoring a single row then takes a third to a half as
  long. Each predictor compiles its own program: keep it, or use `predict` where
  the parameters change.

  Args:
    model: see `lplmtl.types.Model`.
    params: its parameters.
    chunk_size: rows at a time, as in `predict`.

  Returns:
    `features [N, ...] -> {task: [N, ..., K]}`, jitted: it compiles once for
    each N, and can be lowered and exported. Features are arrays; for a data
    frame pass `frame.to_numpy('float32')`.

    Their values are not checked, as a call for one row may take 20 microseconds
    in all: the id of a category outside its vocabulary reads another column's
    embedding, or the first or last of all. Those that `Tables.encode` returns
    are inside; `model.encoder.check_features(features, 'features')` checks
    others, as `fit` does.

  Raises:
    ValueError: an argument is not a model or its parameters.

  Example:
    >>> import lplmtl
    >>> from lplmtl import tasks
    >>> model = lplmtl.SharedBottom((tasks.binary('click'),))
    >>> x = jnp.ones((3, 8))
    >>> params = jax.jit(model.init)(jax.random.key(0), x)['params']
    >>> make_predictor(model, params)(x)['click'].shape  # [N, K]
    (3, 1)
  """
  _checks.check_call(model, params, chunk_size)
  params = jax.device_get(params)
  return jax.jit(
    lambda features: predict_rows(model, params, features, chunk_size)
  )


def make_eval_step(
  model: Model,
  tasks: Sequence[Task],
  spread: Callable[[Callable], Callable] = lambda predict: predict,
) -> Callable[[PyTree, Batch], dict[str, dict[str, Array]]]:
  """Returns a pure function from parameters and rows to metrics.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks of the model, or some of them; their metrics may differ from
      those used in training.
    spread: turns `(params, features) -> predictions` into a function that
      computes them on several devices.

  Returns:
    `(params, batch) -> {task: {metric: scalar}}`: for each task its metrics in
    their order, and `loss`, the mean loss (weighted as in training), NaN if no
    row counts.
  """
  score = make_score(tasks)

  def evaluate(params: PyTree, batch: Batch) -> dict[str, dict[str, Array]]:
    batch = jax.tree.map(jnp.asarray, batch)
    _checks.check_call(model, params)
    predict = functools.partial(predict_rows, model)
    return score(spread(predict)(params, batch.features), batch)

  return evaluate


def make_score(
  tasks: Sequence[Task],
) -> Callable[[dict[str, Array], Batch], dict[str, dict[str, Array]]]:
  """Returns a pure function from predictions and rows to metrics.

  Args:
    tasks: see `make_eval_step`, as for the result.

  Returns:
    `({task: [N, ..., K]}, batch) -> {task: {metric: scalar}}`; of the features
    only the number of rows matters.
  """

  def score(
    predictions: dict[str, Array], batch: Batch
  ) -> dict[str, dict[str, Array]]:
    batch = jax.tree.map(jnp.asarray, batch)
    task_losses, present = losses.task_losses(tasks, predictions, batch)
    task_losses = jnp.where(present, task_losses, jnp.nan)

    def measure(
      number: int, outputs: Array, labels: PyTree, where: Array | None
    ) -> dict[str, Array]:
      labels = losses.mask_labels(labels, where)
      if where is None:
        where = jnp.ones(outputs.shape[0], bool)
      return {
        name: metric_fn(outputs, labels, where)
        for name, metric_fn in tasks[number].metric_fns.items()
      }

    calls = [
      (predictions[name], batch.labels[name], (batch.where or {}).get(name))
      for name in (task.name for task in tasks)
    ]
    keys = [
      (
        tuple(
          (name, _alike.identity(fn)) for name, fn in task.metric_fns.items()
        ),
        _alike.shapes(call),
      )
      for task, call in zip(tasks, calls, strict=True)
    ]
    # In turn: sorting the rows of all tasks at once would take T times as much
    # memory, and no less time. Few as well: metrics take long to compile.
    found = _alike.each(measure, calls, keys, in_turn=True)
    return {
      task.name: {'loss': task_losses[i], **metrics}
      for i, (task, metrics) in enumerate(zip(tasks, found, strict=True))
    }

  return score
