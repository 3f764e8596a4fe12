"""Predictions and metrics: pure functions of parameters and rows."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

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

  def one(rows: PyTree, _: Array) -> dict[str, Array]:
    return _checks.apply_trained(model, params, rows)[0]

  found: dict[str, Array] = _in_chunks(model, one, features, chunk_size)
  return found


def predictor(model: Model) -> Callable[..., dict[str, Array]]:
  """Returns `predict_rows` of a model, for `parallel.over_table`."""
  return lambda params, features, is_row=None: predict_rows(
    model, params, features
  )


def predict_with_gates(
  model: Model, params: PyTree, features: PyTree, is_row: Array | None = None
) -> tuple[dict[str, Array], PyTree]:
  """Returns predictions, and how much weight the gates give to each expert.

  Args:
    model: see `predict`, as are the next two.
    params: its parameters.
    features: pytree of `[N, ...]`.
    is_row: `[N]` bool, False for rows whose gates do not count; None for all.

  Returns:
    (predictions, sums): `aux['gates']` summed over the rows of each chunk,
    `[E_p]` each with a leading axis of chunks.
  """

  def one(rows: PyTree, counts: Array) -> tuple[dict[str, Array], PyTree]:
    features, is_row = rows
    if is_row is not None:
      counts &= is_row
    predictions, aux = _checks.apply_trained(model, params, features)
    weights = counts.astype(jnp.float32)
    gates = aux.get('gates', ())
    return predictions, jax.tree.map(lambda w: (weights @ w)[None], gates)

  found: tuple[dict[str, Array], PyTree] = _in_chunks(
    model, one, (features, is_row), _CHUNK
  )
  return found


def _in_chunks(
  model: Model, one: Callable[..., Any], rows: PyTree, chunk_size: int
) -> Any:
  """Returns what a function of a chunk returns of all, one after the other.

  Args:
    model: asked only for the number of its tasks.
    one: `(rows, is_first) -> results`, pytrees with a leading axis. `is_first`
      is False for repeated rows, which fill the last chunk. Results may have
      that of the rows, or any shorter one that does not depend on these.
    rows: pytree of `[N, ...]`.
    chunk_size: rows at a time.
  """
  count = _checks.num_rows(rows)
  if not count or chunk_size < 1:
    raise ValueError(
      'expected at least one row to predict, and chunks of at least one; found '
      f'{count} rows and a chunk_size of {chunk_size}'
    )
  is_large = len(model.tasks) > _alike.FEW
  run = functools.partial(merged.run, one) if is_large else one
  if count <= chunk_size:
    return run(rows, jnp.ones(count, bool))
  num_chunks = -(-count // chunk_size)

  def of_chunk(numbers: Array) -> Any:
    # The last chunk repeats the last row: padding would copy every column.
    places = jnp.minimum(numbers, count - 1)
    return run(jax.tree.map(lambda x: x[places], rows), numbers < count)

  numbers = jnp.arange(num_chunks * chunk_size).reshape(num_chunks, chunk_size)
  chunks = jax.lax.map(of_chunk, numbers)
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
    spread: turns `predictor(model)` into a function that computes predictions
      on several devices.

  Returns:
    `(params, batch) -> {task: {metric: scalar}}`: for each task its metrics in
    their order, and `loss`, the mean loss (weighted as in training), NaN if no
    row counts.
  """
  score = make_score(tasks)

  def evaluate(params: PyTree, batch: Batch) -> dict[str, dict[str, Array]]:
    batch = jax.tree.map(jnp.asarray, batch)
    _checks.check_call(model, params)
    predict = spread(predictor(model))
    return score(predict(params, batch.features), batch)

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
