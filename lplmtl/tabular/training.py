"""Trains on a table: one model, for all of its targets."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import training
from lplmtl.tabular import build
from lplmtl.tabular.predictor import Predictor
from lplmtl.tabular.preparation import Rows, prepare
from lplmtl.tabular.schema import Schema
from lplmtl.tabular.settings import Settings

OnEpoch = Callable[[dict[str, Any]], None]


def train(
  frame: Any,
  schema: Schema,
  settings: Settings | None = None,
  *,
  validation: Any = None,
  on_epoch: OnEpoch | None = None,
  start: Predictor | None = None,
) -> Predictor:
  """Trains one model, or several seeds of it at once, for all targets.

  A pure function: the same arguments give the same Predictor, and nothing else
  changes. Scalers, vocabularies and the epoch are chosen without test rows:
  rows that the schema's split calls test are not read.

  Args:
    frame: a DataFrame or `{name: column}`, with the inputs and the targets.
      Labels may be missing, row by row.
    schema: from `lplmtl.tabular.infer`, perhaps edited. What depends on the
      training rows and is not yet in it, such as the mean of a regression, is
      filled in.
    settings: see `Settings`; None for the defaults.
    validation: the rows that choose the epoch, like `frame`; None splits them
      off, as the schema or `settings.validation_share` say.
    on_epoch: called with each epoch's record; see `lplmtl.fit`.
    start: continues from its parameters, with its schema, tables and model,
      whatever `schema` and the sizes in `settings` say.

  Returns:
    Predictor.

  Raises:
    ValueError: columns are missing or do not fit the schema, a target has no
      label, or settings do not fit the rows.

  Example:
    >>> import lplmtl
    >>> from lplmtl import data, tabular
    >>> table = data.customers(200)
    >>> schema = tabular.infer(table, ['churn', 'value'])
    >>> settings = tabular.Settings(
    ...   lplmtl.SharedBottom, widths=(4,), tower_widths=(), num_epochs=1,
    ...   num_seeds=1)
    >>> predictor = tabular.train(table, schema, settings)
    >>> sorted(predictor.predict(table))
    ['churn', 'churn_probability', 'value']
  """
  settings = settings or Settings()
  rows = prepare(frame, schema, settings, validation, start=start)
  return train_rows(rows, settings, on_epoch=on_epoch, start=start)


def train_rows(
  rows: Rows,
  settings: Settings,
  *,
  on_epoch: OnEpoch | None = None,
  start: Predictor | None = None,
) -> Predictor:
  """Trains on encoded rows; see `train`."""
  hyperparams = {
    name: np.full(settings.num_seeds, getattr(settings, name), np.float32)
    for name in ('learning_rate', 'weight_decay')
  }
  if start and start.num_seeds != settings.num_seeds:
    raise ValueError(
      f'num_seeds must be {start.num_seeds}, as in the model to continue from; '
      f'found {settings.num_seeds}'
    )
  model = start.model if start else make_model(rows, settings)
  params = start.params if start else None
  result = fit(
    rows, settings, model, hyperparams, on_epoch=on_epoch, start=params
  )
  return Predictor(
    schema=rows.schema,
    tables=rows.tables,
    model=model,
    params=jax.device_get(result.params),
    history=tuple(result.history),
  )


def make_model(rows: Rows, settings: Settings) -> Any:
  """Builds the model of encoded rows."""
  encoder = build.make_encoder(settings, rows.tables)
  return build.make_model(settings, rows.tasks, encoder)


def fit(
  rows: Rows,
  settings: Settings,
  model: Any,
  hyperparams: Mapping[str, np.ndarray],
  *,
  on_epoch: OnEpoch | None = None,
  start: Any = None,
) -> training.FitResult:
  """Trains S models at once on encoded rows.

  Args:
    rows: from `preparation.prepare`.
    settings: `num_seeds` is not used.
    model: the model, or a function of hyperparams that makes it.
    hyperparams: `learning_rate`, `weight_decay` and what else `model` reads,
      `[S]` each.
    on_epoch: see `lplmtl.fit`.
    start: the parameters to start from, or None.
  """
  num_rows = len(rows.train.features['numeric'])
  batch_size = min(settings.batch_size, num_rows)
  num_steps = settings.num_epochs * (num_rows // batch_size)
  seeds = np.arange(len(hyperparams['learning_rate'])) + settings.seed
  return training.fit(
    jax.vmap(jax.random.key)(jnp.asarray(seeds)),
    model,
    build.OptimizerMaker(settings.schedule, num_steps),
    build.make_balancer(settings),
    rows.train,
    hyperparams=dict(hyperparams),
    validation=rows.validation,
    batch_size=batch_size,
    num_epochs=settings.num_epochs,
    patience=None if rows.validation is None else settings.patience,
    on_epoch=on_epoch,
    start=start,
  )
