"""A table as arrays: which inputs, which labels, which split.

Kinds of columns, vocabularies, scalers and bins come from the training rows
only. What a column is, is decided by `lplmtl.tabular`, as it is in Python.
"""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from experiments.datasets import base
from experiments.datasets.tables import flags, mistakes, outputs, reader
from experiments.launcher import display, parsing
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import tables as encoding
from lplmtl import tabular
from lplmtl.columns import Column
from lplmtl.storage import files
from lplmtl.tables import Tables
from lplmtl.tabular import checks, inference, preparation
from lplmtl.tabular import facts as looked_at
from lplmtl.tabular import schema as schemas
from lplmtl.tabular import targets as label_arrays
from lplmtl.types import Batch, PyTree

SPLITS = ('train', 'validation', 'test')


class Part(NamedTuple):
  """The rows of one split.

  Attributes:
    columns: their columns.
    rows: their numbers in the table.
    file: the table, for messages.
  """

  columns: Mapping[Any, Column]
  rows: np.ndarray
  file: str


def load(
  config: Config,
  console: display.Console,
  saved: Mapping[str, Any] = MappingProxyType({}),
) -> base.Source:
  """Reads the table that a Config names; see `base.Load`."""
  given = _given_schema(config, saved)
  with inputs_of_users(console):
    options = flags.options(config)
    rough = given or inference.before_split(options)
    parts, found = _parts(config, rough, _trained_on(saved))
    known = looked_at.Seen(parts['train'].columns)
    if not saved:
      mistakes.check_names(config, known)
    if given is None:
      schema = tabular.infer(known, flags.targets(config), options)
    elif reader.num_rows(known):
      schema = tabular.complete(given, known)
    else:  # only rows to score, with the schema of a saved model
      schema = given
    if reader.num_rows(known):
      for table in outputs.describe(schema, known):
        console.print(table)
  facts = _facts(config, found, schema)

  def encode_rows(num_bins: int, tables: Tables | None = None) -> base.Data:
    with inputs_of_users(console):
      return encode(config, parts, schema, facts, num_bins, tables)

  return base.Source(tabular.make_tasks(schema), facts, {}, encode_rows)


@contextlib.contextmanager
def inputs_of_users(console: display.Console) -> Iterator[None]:
  """Turns mistakes in a table into InputErrors, and warnings into lines."""

  def note(line: str) -> None:
    console.print(mistakes.in_flags(line), soft_wrap=True)

  with display.plain_warnings(note):
    try:
      yield
    except InputError:
      raise
    except ValueError as error:
      raise InputError(mistakes.in_flags(str(error))) from error


def encode(
  config: Config,
  parts: Mapping[str, Part],
  schema: tabular.Schema,
  facts: Mapping[str, Any],
  num_bins: int,
  fitted: Tables | None = None,
) -> base.Data:
  """Encodes rows.

  Args:
    config: of which `interpolate` and `index_column` are used.
    parts: `{split: its rows}`.
    schema: what their columns are.
    facts: see `base.Data`.
    num_bins: quantile bins per numeric column, 0 for none.
    fitted: tables to encode with; None fits them on the training rows.

  Raises:
    InputError: a number cannot be encoded.
    ValueError: labels or other columns do not fit the schema.
  """
  split, batches = 'train', {}  # `split`: for the message
  labelled: dict[str, dict[str, int]] = {}
  # Metrics use no weights: rows that are only scored need none.
  is_trained = len(parts['train'].rows) > 0
  try:
    if fitted is None:
      fitted = preparation.fit_tables(
        parts['train'].columns,
        schema,
        num_bins,
        interpolate=config.interpolate,
      )
    for split, part in parts.items():
      checks.check_columns(schema, part.columns)
      features: Any = fitted.encode(part.columns)
      labels, where, weights = tabular.encode_labels(
        schema, part.columns, weighted=is_trained
      )
      if is_trained and split != 'test':
        what = 'training' if split == 'train' else split
        label_arrays.check_weights(schema, where, weights, what)
        _check_labels(where, what)
      labelled[split] = {name: int(y.sum()) for name, y in where.items()}
      has_all = all(known.all() for known in where.values())
      known: Any = None if has_all else where  # None is faster
      batches[split] = Batch(features, labels, known, weights)
  except encoding.RowError as error:
    part = parts[split]
    row = part.rows[error.row]
    raise mistakes.of_row(error, part.file, row, not is_trained) from error

  def predict(model: nn.Module, params: PyTree) -> base.Predictions:
    predictor = tabular.Predictor(schema, fitted, model, params)
    test = parts['test']
    return base.Predictions(
      lambda: outputs.beside_truth(predictor, test, config.index_column),
      predictor.score(test.columns),
    )

  return base.Data(
    tabular.make_tasks(schema),
    **batches,
    tables=fitted,
    facts={
      **facts,
      'rows': {split: len(part.rows) for split, part in parts.items()},
      'labelled': labelled,
      'unseen': {
        split: fitted.unseen(batches[split].features)
        for split in ('validation', 'test')
      },
    },
    optimum={},
    extra={'schema': schema.to_json()},
    predict=predict,
  )


def _check_labels(where: Mapping[str, np.ndarray], what: str) -> None:
  for name, known in where.items():
    if not known.any():
      raise InputError(
        f'target {name!r} has no label in the {len(known)} {what} rows: leave '
        'it out, or split the rows in another way (--split_seed, '
        '--split_column)'
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


def _trained_on(saved: Mapping[str, Any]) -> Mapping[str, Any]:
  """Returns `{flag: facts of its file}` of a saved model; else nothing."""
  return (saved.get('data') or {}).get('files', {})


def _parts(
  config: Config, schema: tabular.Schema, trained_on: Mapping[str, Any]
) -> tuple[dict[str, Part], dict[str, Any]]:
  """Reads and splits the rows.

  Args:
    config: names the files.
    schema: says how to split.
    trained_on: the facts about the files of a saved model that is to be scored.
      Its own table is split as it was in training; all rows of any other table
      are test rows.

  Returns:
    The rows of each split, and facts about the files.
  """
  table = reader.read(config, schema.missing)
  file, found = table.facts['file'], {'data': table.facts}
  every = np.arange(table.facts['rows'])
  own = trained_on.get('data', table.facts)['sha256']
  if table.facts['sha256'] != own:
    _refuse_test_data(config)
    none = every[:0]
    rows = {'train': none, 'validation': none, 'test': every}
    return _taken(table.columns, rows, file), found
  if 'test' in trained_on and not config.test_data:
    raise InputError(
      f'{file} is what the model was trained on, and its test rows are in '
      f'{trained_on["test"]["file"]}: name them with --test_data'
    )
  # The rows that a saved model was validated on must not change with the flag.
  is_drawn = 'test' not in trained_on if trained_on else not config.test_data
  try:
    rows = tabular.split(
      table.columns, schema, config.split_seed, test=is_drawn
    )
  except encoding.RowError as error:
    raise mistakes.of_row(error, file, error.row) from error
  parts = _taken(table.columns, rows, file)
  if config.test_data:
    table = reader.read(config, schema.missing, 'test_data')
    found['test'] = table.facts
    every = np.arange(table.facts['rows'])
    parts['test'] = Part(table.columns, every, table.facts['file'])
  counts = {split: len(part.rows) for split, part in parts.items()}
  if not all(counts.values()):
    raise InputError(
      'too few rows: training, validation and test need at least one each; '
      f'found {counts}'
    )
  return parts, found


def _refuse_test_data(config: Config) -> None:
  if config.test_data:
    raise InputError(
      f'--data={config.data} is not the table that the model was trained on, '
      'so that all its rows are test rows: leave out --test_data'
    )


def _taken(
  columns: Mapping[Any, Column], rows: Mapping[str, np.ndarray], file: str
) -> dict[str, Part]:
  """Returns the rows of each split."""
  return {
    split: Part(preparation.take(columns, rows[split]), rows[split], file)
    for split in SPLITS
  }


def _facts(
  config: Config, found: dict[str, Any], schema: tabular.Schema
) -> dict[str, Any]:
  name = parsing.stem(config.data)
  content = json.dumps(schema.to_json(), sort_keys=True).encode()
  digest = hashlib.sha256(content).hexdigest()
  what = ' and '.join(
    f'{facts["file"]} ({facts["rows"]:,} rows, {facts["format"]})'
    for facts in found.values()
  )
  return {
    'dataset': name,
    'statement': what,
    # The schema identifies a run as the files do.
    'files': {**found, 'schema': {'file': 'schema.json', 'sha256': digest}},
    'targets': _targets(schema),
  }


def _targets(schema: tabular.Schema) -> dict[str, Any]:
  """Returns names of classes and units, for tables and pictures."""
  targets: dict[str, Any] = schema.to_json()['targets']
  for name, target in schema.targets.items():
    columns = list(schemas.label_columns(name, target))
    targets[name] = {**targets[name], 'columns': columns}
  return targets


DATASET = base.Dataset(flags.check, load)
