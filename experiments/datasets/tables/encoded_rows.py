"""Writes the encoded rows of a table that is read in blocks."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.datasets import base
from experiments.datasets.tables import mistakes
from experiments.datasets.tables.streamed import SPLITS, Block, Streamed
from experiments.launcher import display, errors, files, run_folder
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import data, tabular
from lplmtl import tables as encoding
from lplmtl.data import encoded
from lplmtl.storage import files as stored
from lplmtl.tables import Tables
from lplmtl.tabular import checks, preparation
from lplmtl.types import Batch

_BLOCK_ROWS = 1000  # of a block of encoded rows, at least
_NUM_BLOCKS, _MOST_BLOCKS = 64, 512  # of a shard: usually, and at most


def encode(
  table: Streamed,
  schema: tabular.Schema,
  facts: Mapping[str, Any],
  num_bins: int,
  fitted: Tables | None,
  console: display.Console,
) -> base.Data:
  """Writes encoded rows, unless they are there, and opens them.

  Args:
    table: the rows.
    schema: complete.
    facts: see `base.Data`.
    num_bins: quantile bins per numeric column, 0 for none.
    fitted: tables to encode with; None fits them.
    console: for a line that says what is written.

  Raises:
    InputError: a row does not fit the schema, or the disk is full.
  """
  config = table.config
  folder = config.run_dir / run_folder.ROWS
  tables_key = fitted.to_json() if fitted else [num_bins, config.interpolate]
  known = {
    split: {k: v for k, v in file.items() if k != 'parts'}  # of any name
    for split, file in facts['files'].items()
  }
  key = hashlib.sha256(
    json.dumps(
      [table.digest, schema.to_json(), tables_key, config.split_seed, known]
    ).encode()
  ).hexdigest()
  note = _note(folder, key)
  is_resumed = note is not None
  if note is None:
    total = sum(table.rows.values())
    console.print(f'{total:,} rows are encoded into {folder}', soft_wrap=True)
    run_folder.clear_rows(config.run_dir)
    stored.make_folder(folder)
    try:
      with _disk(folder):
        note = _write(table, schema, num_bins, fitted, folder)
        files.write_json(folder / run_folder.ROWS_NOTE, {'key': key, **note})
    except BaseException:  # Ctrl-C, too
      run_folder.clear_rows(config.run_dir)
      raise
  with errors.reading(folder):
    parts: Any = {split: data.Encoded(folder / split) for split in SPLITS}
    if is_resumed:
      # Test rows are read when all epochs are over; training rows would take
      # several times as long, and are compared as they are read.
      for split in ('validation', 'test'):
        parts[split].verify()
  return base.Data(
    tabular.make_tasks(schema),
    train=parts['train'],
    validation=parts['validation'],
    test=parts['test'],
    tables=Tables.from_json(note['tables']),
    facts={
      **facts, 'rows': dict(table.rows), 'labelled': note['labelled'],
      'unseen': note['unseen'],
    },
    optimum={},
    extra={'schema': schema.to_json()},
  )  # fmt: skip


class _Planned(NamedTuple):
  """What is known of encoded rows before they are; see `types.Source`."""

  num_rows: int
  chunk_rows: int
  num_shards: int
  example: Batch


def preview(
  table: Streamed,
  schema: tabular.Schema,
  facts: Mapping[str, Any],
  num_bins: int,
  fitted: Tables | None,
) -> base.Data:
  """Returns what `encode` would, known from the sample.

  Tables are fitted on the sample: their vocabularies lack rare values.

  Args:
    table: as for `encode`, like all that follow.
    schema: complete.
    facts: see `base.Data`.
    num_bins: quantile bins per numeric column, 0 for none.
    fitted: tables to encode with; None fits them.

  Raises:
    RowError: a drawn row does not fit the schema.
  """
  columns = preparation.with_times(table.sample, schema)
  tables = fitted or preparation.fit_tables(
    columns, schema, num_bins, interpolate=table.config.interpolate
  )
  row = preparation.take(columns, np.arange(1))
  example = Batch(tables.encode(row), {})

  def planned(split: str) -> Any:
    rows, shards = table.rows[split], data.NUM_SHARDS
    size, step = encoded.plan(rows, shards, _num_blocks(rows))
    return _Planned(rows, shards * step * size, shards, example)

  return base.Data(
    tabular.make_tasks(schema),
    train=planned('train'),
    validation=planned('validation'),
    test=planned('test'),
    tables=tables,
    facts={**facts, 'rows': dict(table.rows)},
    optimum={},
    extra={'schema': schema.to_json()},
  )


def _note(folder: pathlib.Path, key: str) -> dict[str, Any] | None:
  """Returns what was noted of rows that were written for the same run."""
  try:
    note = stored.read_json(folder / run_folder.ROWS_NOTE)
    return note if note['key'] == key else None
  except (OSError, ValueError, TypeError, KeyError):
    return None


@contextlib.contextmanager
def _disk(folder: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise InputError(
      f'{folder} cannot be written ({error.strerror or error}): make room, or '
      'choose another --out_dir'
    ) from error


def _write(
  table: Streamed,
  schema: tabular.Schema,
  num_bins: int,
  fitted: Tables | None,
  folder: pathlib.Path,
) -> dict[str, Any]:
  """Fits the tables, writes the rows, and counts labels and unseen values."""
  tables = fitted or _fit(table, schema, num_bins)
  tasks = tabular.make_tasks(schema)
  labelled = {split: dict.fromkeys(schema.targets, 0) for split in SPLITS}
  unseen: dict[str, dict[Any, int]] = {'validation': {}, 'test': {}}
  with contextlib.ExitStack() as stack:
    writers = {
      split: stack.enter_context(
        data.RowWriter(
          folder / split,
          # Test rows need no labels: metrics are then undefined.
          tasks if split != 'test' else (),
          num_blocks=_num_blocks(table.rows[split]),
          seed=table.config.split_seed,
        )
      )
      for split in SPLITS
    }
    for block in table.blocks():
      for split, writer in writers.items():
        batch = _encoded(block, split, schema, tables, table.config)
        writer.add(batch)
        for name, known in (batch.where or {}).items():
          labelled[split][name] += int(known.sum())
        if split in unseen:
          for name, n in tables.unseen(batch.features).items():
            unseen[split][name] = unseen[split].get(name, 0) + n
  return {
    'tables': tables.to_json(), 'labelled': labelled, 'unseen': unseen,
  }  # fmt: skip


def _num_blocks(num_rows: int) -> int:
  """Returns how many blocks a shard has: as few rows as one may differ by.

  Above 33 million rows there are more than usual, or chunks, which have a block
  of each shard at least, would have more rows than they should. From 268
  million rows on they have, as each block is a file.
  """
  count = num_rows // (data.NUM_SHARDS * _BLOCK_ROWS)
  count = int(np.clip(count, 1, _NUM_BLOCKS))
  while num_rows > count * encoded.CHUNK_ROWS and count < _MOST_BLOCKS:
    count *= 2
  return count


def _fit(table: Streamed, schema: tabular.Schema, num_bins: int) -> Tables:
  fitter = preparation.table_fitter(
    schema, num_bins, interpolate=table.config.interpolate
  )
  for block in table.blocks():
    rows = block.rows['train']
    with _in_rows(block, rows, table.config):
      columns = preparation.take(block.columns, rows)
      columns = preparation.with_times(columns, schema)
    checks.check_columns(schema, columns)
    with _in_rows(block, rows, table.config, lambda: fitter.num_rows):
      fitter.add(columns)
  return fitter.finish()


def _encoded(
  block: Block,
  split: str,
  schema: tabular.Schema,
  tables: Tables,
  config: Config,
) -> Batch:
  rows = block.rows[split]
  columns = preparation.take(block.columns, rows)
  with _in_rows(block, rows, config):
    columns = preparation.with_times(columns, schema)
    checks.check_columns(schema, columns)
    found: Any = tabular.encode_labels(schema, columns)
    labels, where, weights = found
    return Batch(tables.encode(columns), labels, where, weights)


@contextlib.contextmanager
def _in_rows(
  block: Block,
  rows: np.ndarray,
  config: Config,
  before: Callable[[], int] = lambda: 0,
) -> Iterator[None]:
  """Gives errors the number that a row has in the table.

  Args:
    block: the rows.
    rows: their numbers in it.
    config: of which `schema` is used.
    before: returns how many rows before them an error counts.
  """
  try:
    yield
  except encoding.RowError as error:
    row = block.first + int(rows[error.row - before()])
    raise mistakes.of_row(
      error, block.file, row, schema=config.schema
    ) from error
