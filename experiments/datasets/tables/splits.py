"""The rows of a table, split into those for training, validation and test."""

from collections.abc import Mapping
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

from experiments.datasets.tables import mistakes, reader
from experiments.datasets.tables import parts as places
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import _tables_encode, _threads, tabular
from lplmtl import tables as encoding
from lplmtl.columns import Column
from lplmtl.tabular import checks
from lplmtl.tabular import facts as looked_at
from lplmtl.tabular import schema as schemas

SPLITS = ('train', 'validation', 'test')


class Part(NamedTuple):
  """The rows of one split.

  Attributes:
    columns: their columns.
    rows: their numbers in the table.
    facts: about the table, see `reader.Table`.
  """

  columns: Mapping[Any, Column]
  rows: np.ndarray
  facts: Mapping[str, Any]


def read(
  config: Config,
  schema: tabular.Schema,
  saved: Mapping[str, Any],
  later: futures.Executor | None = None,
) -> tuple[dict[str, Part], dict[str, Any]]:
  """Reads and splits the rows.

  Args:
    config: names the files.
    schema: says how to split.
    saved: the `extra` data of a saved model that is to be scored; else nothing.
      Its own table is split as it was in training; all rows of any other table
      are test rows.
    later: see `reader.read`.

  Returns:
    The rows of each split, and facts about the files.
  """
  # `{flag: facts of its file}` of the saved model.
  trained_on = (saved.get('data') or {}).get('files', {})
  table = reader.read(config, schema.missing, later=later)
  file, found = table.facts['file'], {'data': table.facts}
  every = np.arange(table.facts['rows'])
  own = trained_on.get('data', table.facts)['sha256']
  if table.facts['sha256'] != own:
    _refuse_test_data(config)
    none = every[:0]
    rows = {'train': none, 'validation': none, 'test': every}
    return _taken(table, rows), found
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
    file, row = places.place(table.facts, error.row)
    raise mistakes.of_row(error, file, row, schema=config.schema) from error
  parts = _taken(table, rows)
  if config.test_data:
    table = reader.read(config, schema.missing, 'test_data', later)
    if table.facts['sha256'] == own:
      raise InputError(
        f'--test_data={config.test_data} holds the rows of --data, which the '
        'model learns from: name another table, or leave it out'
      )
    found['test'] = table.facts
    every = np.arange(table.facts['rows'])
    parts['test'] = Part(table.columns, every, table.facts)
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
  table: reader.Table, rows: Mapping[str, np.ndarray]
) -> dict[str, Part]:
  """Moves the rows of each split out of a table, whose columns end empty.

  So that no more than one column per thread is in memory twice.
  """
  columns = table.columns

  def take(name: Any) -> list[Column]:
    column = columns.pop(name)
    return [looked_at.take(column, rows[split]) for split in SPLITS]

  names = list(columns)
  taken = zip(*_threads.each(take, names), strict=True)
  return {
    split: Part(dict(zip(names, some, strict=True)), rows[split], table.facts)
    for split, some in zip(SPLITS, taken, strict=True)
  }


def slimmed(
  parts: Mapping[str, Part], schema: tabular.Schema, index: str
) -> dict[str, Part]:
  """Returns rows that take less memory, and are encoded to the same arrays.

  Columns that nobody reads are left out, and whole numbers that repeat take a
  byte or two each instead of eight. Test rows are also written, as they are.

  Args:
    parts: `{split: its rows}`.
    schema: what their columns are.
    index: the column that names a row, or ''.
  """
  numbers = {*schema.names('number')} - _label_columns(schema)
  left_out = {
    name for name, one in schema.inputs.items() if one.kind not in checks.USED
  } - {index, *_label_columns(schema)}

  def slim(split: str) -> Part:
    part = parts[split]
    whole = numbers if split != 'test' else set()

    def column(name: Any) -> Column:
      found: Any = part.columns[name]
      is_float = getattr(found, 'dtype', None) == np.float64
      if is_float and name in whole:
        return _tables_encode.whole(found)
      return found

    names = [name for name in part.columns if name not in left_out]
    found = _threads.each(column, names, len(part.rows))
    return part._replace(columns=dict(zip(names, found, strict=True)))

  return {split: slim(split) for split in parts}


def only_labels(part: Part, schema: tabular.Schema) -> Part:
  """Returns rows without the columns that are inputs only."""
  kept = _label_columns(schema)
  columns = {n: part.columns[n] for n in part.columns if n in kept}
  return part._replace(columns=columns)


def _label_columns(schema: tabular.Schema) -> set[Any]:
  """Returns the columns of labels and of weights."""
  names = {schema.weight, *schema.task_weights.values()}
  for name, target in schema.targets.items():
    names.update(schemas.label_columns(name, target))
  return names
