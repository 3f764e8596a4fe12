"""Trains on a table: rows to arrays, arrays to a trained model."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import tables as encoding
from lplmtl import training, types
from lplmtl.columns import Column, RowError
from lplmtl.tables import Tables
from lplmtl.tabular import build, checks, facts, splits, targets
from lplmtl.tabular.labels import complete
from lplmtl.tabular.predictor import Predictor
from lplmtl.tabular.schema import Schema
from lplmtl.tabular.settings import Settings

Columns = Mapping[Any, Column]
OnEpoch = Callable[[dict[str, Any]], None]


class Rows(NamedTuple):
  """A table as arrays, with what was fitted on its training rows.

  Attributes:
    schema: with classes, means and standard deviations.
    tables: encode the inputs.
    tasks: one per target.
    train: the training rows.
    validation: the rows that choose the epoch, or None.
  """

  schema: Schema
  tables: Tables
  tasks: tuple[types.Task, ...]
  train: types.Batch
  validation: types.Batch | None


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
    ...   lplmtl.SharedBottom, widths=(4,), num_crosses=0, num_epochs=1)
    >>> predictor = tabular.train(table, schema, settings)
    >>> sorted(predictor.predict(table))
    ['churn', 'churn_probability', 'value']
  """
  settings = settings or Settings()
  if validation is None:
    frame, validation, numbers = separate(frame, schema, settings)
  else:
    numbers = {}
  schema = start.schema if start else complete(schema, frame)
  rows = encode(
    frame, schema, settings, validation, start=start, numbers=numbers
  )
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


def separate(
  frame: Any, schema: Schema, settings: Settings
) -> tuple[Columns, Columns | None, Mapping[str, np.ndarray]]:
  """Returns the training rows of a table and, if there are any, the others.

  The rows depend on the schema's split, time and group columns, the seed and
  the share of validation rows; a schema without columns will do.

  Returns:
    `(training rows, validation rows, numbers)`: `{'train', 'validation'}`, the
    numbers of these rows in the table, for messages; empty if all are for
    training.
  """
  columns = checks.columns_of(frame)
  share = settings.validation_share
  if not share and schema.split == '':
    return columns, None, {}
  rows = splits.split(
    columns, schema, settings.seed, share=share or splits.SHARE
  )
  train, others = (take(columns, rows[p]) for p in ('train', 'validation'))
  return train, others, rows


@contextlib.contextmanager
def _counted(numbers: np.ndarray | None) -> Iterator[None]:
  """Gives errors the number that a row has in the user's table."""
  try:
    yield
  except RowError as error:
    if numbers is None:
      raise
    row = int(numbers[error.row])
    raise RowError(error.column, row, error.complaint, error.cure) from None


def take(columns: Columns, rows: np.ndarray) -> dict[Any, Column]:
  """Returns some rows of all columns."""
  return {name: facts.take(column, rows) for name, column in columns.items()}


def encode(
  frame: Any,
  schema: Schema,
  settings: Settings,
  validation: Any = None,
  *,
  start: Predictor | None = None,
  numbers: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Rows:
  """Encodes training rows, and those that choose the epoch.

  Args:
    frame: the training rows.
    schema: complete, see `labels.complete`.
    settings: of which `num_bins` is used.
    validation: further rows, or None.
    start: provides the tables; None fits them on the training rows.
    numbers: what `separate` returned, or empty.
  """
  columns = checks.columns_of(frame)
  with _counted(numbers.get('train')):
    tables = (
      start.tables if start else fit_tables(columns, schema, settings.num_bins)
    )

  def batch(columns: Columns, part: str) -> types.Batch:
    with _counted(numbers.get(part)):
      found: Any = targets.encode_labels(schema, columns)
      labels, where, weights = found
      return types.Batch(tables.encode(columns), labels, where, weights)

  train, others = batch(columns, 'train'), None
  targets.check_weights(schema, train.where or {}, train.weights, 'training')
  if validation is not None:
    others = batch(checks.columns_of(validation), 'validation')
    targets.check_weights(
      schema, others.where or {}, others.weights, 'validation'
    )
    for name, where in (others.where or {}).items():
      if not where.any():
        raise ValueError(
          f'target {name!r} has no label in the {len(where)} validation rows: '
          'raise validation_share, pass other validation rows, or leave the '
          'target out'
        )
  tasks = targets.make_tasks(schema)
  return Rows(schema, tables, tasks, train, others)


def fit_tables(
  columns: Columns, schema: Schema, num_bins: int, *, interpolate: bool = True
) -> Tables:
  """Fits the tables that encode a schema's inputs, on training rows.

  Args:
    columns: the training rows.
    schema: complete, see `labels.complete`.
    num_bins: see `lplmtl.tables.fit`.
    interpolate: likewise.
  """

  def pick(kind: str) -> dict[Any, Column]:
    return {name: columns[name] for name in schema.names(kind)}

  checks.check_columns(schema, columns)
  inputs = schema.inputs
  return encoding.fit(
    pick('category'),
    pick('number'),
    log=tuple(name for name in schema.names('number') if inputs[name].log),
    num_bins=num_bins,
    interpolate=interpolate,
    booleans=pick('boolean'),
    dates={
      name: (column, inputs[name].format)
      for name, column in pick('date').items()
    },
    rules=encoding.Rules(
      fill_missing=True,
      missing=schema.missing,
      min_count=schema.min_count,
      max_vocabulary=schema.max_vocabulary,
      num_buckets=schema.num_buckets,
    ),
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
    rows: from `encode`.
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
