"""A table as arrays: rows split, the schema completed, columns encoded."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from lplmtl import data, dates, types
from lplmtl import tables as encoding
from lplmtl.columns import Column, RowError
from lplmtl.tables import Tables
from lplmtl.tabular import checks, facts, labels, splits, targets
from lplmtl.tabular.predictor import Predictor
from lplmtl.tabular.schema import Schema, check_is_schema
from lplmtl.tabular.settings import Settings

Columns = Mapping[Any, Column]


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


def prepare(
  frame: Any,
  schema: Schema,
  settings: Settings,
  validation: Any = None,
  *,
  start: Predictor | None = None,
  complete: Callable[[Schema, Any], Schema] = labels.complete,
) -> Rows:
  """Splits the rows of a table, completes its schema and encodes them.

  Args:
    frame: as for `training.train`, like all that follow.
    schema: says how to split, before any row is looked at.
    settings: of which `num_bins`, `seed` and `validation_share` are used.
    validation: the rows that choose the epoch; None splits them off.
    start: provides the schema and the tables, which are fitted otherwise.
    complete: returns the schema, from the one above and the training rows.
  """
  check_is_schema(schema)
  numbers: Mapping[str, np.ndarray] = {}
  if validation is None:
    frame, validation, numbers = separate(frame, schema, settings)
  schema = start.schema if start else complete(schema, frame)
  return encode(
    frame, schema, settings, validation, start=start, numbers=numbers
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
    columns = with_times(columns, schema)
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


def with_times(columns: Columns, schema: Schema) -> dict[Any, Column]:
  """Returns columns whose dates have been read, for all that follows."""
  missing = facts.missing_texts(schema.missing)
  return {
    **columns,
    **{
      name: dates.parse(
        name, columns[name], schema.inputs[name].format, missing
      )
      for name in schema.names('date')
      if name in columns
    },
  }


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
    rules=_rules(schema),
  )


def table_fitter(
  schema: Schema, num_bins: int, *, interpolate: bool = True
) -> data.TableFitter:
  """Returns what fits the tables of `fit_tables` on pieces of the rows.

  Args:
    schema: complete, see `labels.complete`.
    num_bins: see `lplmtl.tables.fit`.
    interpolate: likewise.
  """
  inputs, numbers = schema.inputs, schema.names('number')
  return data.TableFitter(
    schema.names('category'),
    numbers,
    log=tuple(name for name in numbers if inputs[name].log),
    num_bins=num_bins,
    interpolate=interpolate,
    booleans=schema.names('boolean'),
    dates={name: inputs[name].format for name in schema.names('date')},
    rules=_rules(schema),
  )


def _rules(schema: Schema) -> encoding.Rules:
  return encoding.Rules(
    fill_missing=True,
    missing=schema.missing,
    min_count=schema.min_count,
    max_vocabulary=schema.max_vocabulary,
    num_buckets=schema.num_buckets,
    columns={name: schema.sizes(name) for name in schema.names('category')},
  )
