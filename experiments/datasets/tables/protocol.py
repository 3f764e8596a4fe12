"""A table as arrays: which inputs, which labels, which split.

Kinds of columns, vocabularies, scalers and bins come from the training rows
only. What a column is, is decided by `lplmtl.tabular`, as it is in Python.
"""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from concurrent import futures
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import numpy as np

from experiments.datasets import base
from experiments.datasets.tables import (
  encoded_rows,
  flags,
  memory,
  mistakes,
  outputs,
  reader,
  splits,
  statement,
  streamed,
)
from experiments.datasets.tables import parts as places
from experiments.launcher import display
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import tables as encoding
from lplmtl import tabular
from lplmtl.storage import files
from lplmtl.tables import Tables
from lplmtl.tabular import checks, inference, preparation
from lplmtl.tabular import facts as looked_at
from lplmtl.tabular import schema as schemas
from lplmtl.tabular import targets as label_arrays
from lplmtl.types import Batch, PyTree


def load(
  config: Config,
  console: display.Console,
  saved: Mapping[str, Any] = MappingProxyType({}),
) -> base.Source:
  """Reads the table that a Config names; see `base.Load`."""
  given = _given_schema(config, saved)
  is_streamed = (
    streamed.is_own(config, saved) if saved else streamed.is_wanted(config)
  )
  if is_streamed:
    return _load_streamed(config, console, given)
  memory.share()
  with futures.ThreadPoolExecutor(1) as later:  # writes the cache
    parts, found, schema = _read(config, console, saved, given, later)
  facts = statement.facts(config, found, schema)

  def encode_rows(
    num_bins: int, tables: Tables | None = None, *, is_last: bool = False
  ) -> base.Data:
    rows = parts if is_last else dict(parts)  # `encode` empties it
    with inputs_of_users(console, config.schema):
      return encode(config, rows, schema, facts, num_bins, tables)

  return base.Source(tabular.make_tasks(schema), facts, {}, encode_rows)


def _read(
  config: Config,
  console: display.Console,
  saved: Mapping[str, Any],
  given: tabular.Schema | None,
  later: futures.Executor,
) -> tuple[dict[str, splits.Part], dict[str, Any], tabular.Schema]:
  """Returns the rows of each split, facts about the files, and the schema."""
  with inputs_of_users(console, config.schema):
    options = flags.options(config)
    rough = given or inference.before_split(options)
    parts, found = splits.read(config, rough, saved, later)
    memory.give_back()
    known = looked_at.Seen(parts['train'].columns)
    if not saved:
      mistakes.check_names(config, known, found['data']['format'])
    if given is None:
      schema = tabular.infer(known, flags.targets(config), options)
    elif reader.num_rows(known):
      schema = tabular.complete(given, known)
    else:  # only rows to score, with the schema of a saved model
      schema = given
    if reader.num_rows(known):
      for table in outputs.describe(schema, known, config.schema):
        console.print(table)
  if not saved:  # else messages name all columns of the table
    parts = splits.slimmed(parts, schema, config.index_column)
  return parts, found, schema


def _load_streamed(
  config: Config, console: display.Console, given: tabular.Schema | None
) -> base.Source:
  """Reads a table in blocks; what its columns are is inferred from a sample."""
  with inputs_of_users(console, config.schema):
    options = flags.options(config)
    wanted = given.targets if given else flags.targets(config)
    columns = [
      column
      for name, target in wanted.items()
      for column in schemas.label_columns(name, target)
    ]
    rough = given or inference.before_split(options)
    table = streamed.Streamed(config, rough.missing, columns)
    known = looked_at.Seen(table.sample)
    mistakes.check_names(config, known)
    if given is None:
      schema = tabular.infer(known, flags.targets(config), options)
    else:
      schema = tabular.complete(given, known)
    total = table.rows['train']
    drawn_from = total if reader.num_rows(known) < total else 0
    for described in outputs.describe(schema, known, config.schema, drawn_from):
      console.print(described)
  found = {'data': table.facts}
  facts = statement.facts(config, found, schema)

  def encode_rows(
    num_bins: int, tables: Tables | None = None, *, is_last: bool = False
  ) -> base.Data:
    del is_last  # no rows are kept
    with inputs_of_users(console, config.schema):
      return encoded_rows.encode(
        table, schema, facts, num_bins, tables, console
      )

  def preview(
    num_bins: int, tables: Tables | None = None, *, is_last: bool = False
  ) -> base.Data:
    try:
      return encoded_rows.preview(table, schema, facts, num_bins, tables)
    except encoding.RowError:
      # A drawn row does not know its number in the table.
      return encode_rows(num_bins, tables, is_last=is_last)

  tasks = tabular.make_tasks(schema)
  return base.Source(tasks, facts, {}, encode_rows, preview)


@contextlib.contextmanager
def inputs_of_users(console: display.Console, file: str) -> Iterator[None]:
  """Turns mistakes in a table into InputErrors, and warnings into lines.

  Args:
    console: for the lines.
    file: that of --schema, or ''.
  """

  def note(line: str) -> None:
    console.print(mistakes.in_flags(line, file), soft_wrap=True)

  with display.plain_warnings(note):
    try:
      yield
    except InputError:
      raise
    except ValueError as error:
      raise InputError(mistakes.in_flags(str(error), file)) from error


def encode(
  config: Config,
  parts: dict[str, splits.Part],
  schema: tabular.Schema,
  facts: Mapping[str, Any],
  num_bins: int,
  fitted: Tables | None = None,
) -> base.Data:
  """Encodes rows.

  Args:
    config: of which `interpolate` and `index_column` are used.
    parts: `{split: its rows}`. Those of a split are let go once they are
      encoded, so that `parts` ends empty; test rows are kept for `predict`.
    schema: what their columns are.
    facts: see `base.Data`.
    num_bins: quantile bins per numeric column, 0 for none.
    fitted: tables to encode with; None fits them on the training rows.

  Raises:
    InputError: a number cannot be encoded.
    ValueError: labels or other columns do not fit the schema.
  """
  tables: Any = fitted
  test, batches = parts['test'], {}
  rows = {split: len(part.rows) for split, part in parts.items()}
  labelled: dict[str, dict[str, int]] = {}
  # Metrics use no weights: rows that are only scored need none.
  is_trained = rows['train'] > 0
  part = parts['train']  # `part`: for the message
  try:
    for split in splits.SPLITS:
      part = parts.pop(split)
      columns = preparation.with_times(part.columns, schema)
      if tables is None:
        tables = preparation.fit_tables(
          columns, schema, num_bins, interpolate=config.interpolate
        )
      features = _features(schema, tables, columns)
      del columns
      part = splits.only_labels(part, schema)
      memory.give_back()
      labels, where, weights = _labels(schema, part, split, is_trained)
      labelled[split] = {name: int(y.sum()) for name, y in where.items()}
      has_all = all(known.all() for known in where.values())
      known: Any = None if has_all else where  # None is faster
      batches[split] = Batch(features, labels, known, weights)
  except InputError:
    raise
  except ValueError as error:
    raise _mistake(
      error, part, schema, not is_trained, config.schema
    ) from error

  def predict(model: nn.Module, params: PyTree) -> base.Predictions:
    predictor = tabular.Predictor(schema, tables, model, params)
    return base.Predictions(
      lambda: outputs.beside_truth(predictor, test, config.index_column),
      predictor.score(test.columns),
    )

  return base.Data(
    tabular.make_tasks(schema),
    train=batches['train'],
    validation=batches['validation'],
    test=batches['test'],
    tables=tables,
    facts={
      **facts,
      'rows': rows,
      'labelled': labelled,
      'unseen': {
        split: tables.unseen(batches[split].features)
        for split in ('validation', 'test')
      },
    },
    optimum={},
    extra={'schema': schema.to_json()},
    predict=predict,
  )


def _features(
  schema: tabular.Schema, tables: Tables, columns: Mapping[Any, Any]
) -> Any:
  checks.check_columns(schema, columns)
  memory.give_back()
  return tables.encode(columns)


def _mistake(
  error: ValueError,
  part: splits.Part,
  schema: tabular.Schema,
  is_new: bool,
  file: str,
) -> InputError:
  """Returns what to say about rows of a split that do not fit the schema."""
  if not isinstance(error, encoding.RowError):
    table = part.facts['file']
    return InputError(f'{table}: {mistakes.in_flags(str(error), file)}')
  table, row = places.place(part.facts, int(part.rows[error.row]))
  if error.column in (schema.weight, *schema.task_weights.values()):
    return mistakes.of_weight(error, table, row)
  return mistakes.of_row(error, table, row, is_new, file)


def _labels(
  schema: tabular.Schema, part: splits.Part, split: str, is_trained: bool
) -> Any:
  """Returns what `tabular.encode_labels` does, checked."""
  found = tabular.encode_labels(schema, part.columns, weighted=is_trained)
  if is_trained and split != 'test':
    what = 'training' if split == 'train' else split
    label_arrays.check_weights(schema, *found[1:], what)
    _check_labels(found[1], what)
  return found


def _check_labels(where: Mapping[str, np.ndarray], what: str) -> None:
  for name, known in where.items():
    if not known.any():
      raise InputError(
        f'target {name!r} has no label in the {len(known)} {what} rows: leave '
        'it out, or split the rows in another way (--split_seed, '
        'or a column that says the split)'
      )


def _given_schema(
  config: Config, saved: Mapping[str, Any]
) -> tabular.Schema | None:
  """Returns the schema of a saved model, or that of --schema; else None."""
  place, data = 'the saved model', saved.get('schema')
  if data is None and config.schema:
    place = config.schema
    try:
      data = files.read_json(pathlib.Path(config.schema))
    except FileNotFoundError as error:
      raise InputError(f'--schema={config.schema}: no such file') from error
    except (OSError, ValueError) as error:
      raise InputError(
        f'--schema={config.schema} cannot be read ({error}): expected the '
        'schema.json of a run, perhaps edited'
      ) from error
  if data is None:
    return None
  try:
    return tabular.Schema.from_json(data)
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise InputError(f'{place}: {error}') from error


DATASET = base.Dataset(flags.check, load)
