"""Predicts the rows of a table with a saved model, block by block."""

import collections
import dataclasses
import os
import pathlib
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from experiments.datasets.tables import mistakes, outputs, reader, sources
from experiments.launcher import display, output, run_folder, summary
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import checkpoint, tabular
from lplmtl import tables as encoding
from lplmtl.storage import files, pytrees
from lplmtl.tabular import predictor as predictors

STDOUT = '-'
ENDINGS = ('.csv', '.txt', '.parquet', '.pq')  # the first two: text
# The settings that have an effect on predictions.
_TAKEN = frozenset(
  {
    'data', 'separator', 'encoding', 'decimal', 'column_names', 'index_column',
    'cpu_devices', 'compilation_cache',
  }
)  # fmt: skip


@dataclasses.dataclass
class _Counts:
  """What is known once the last block has been predicted.

  Attributes:
    rows: how many there were.
    unseen: `{column: rows with a value that no training row has}`.
  """

  rows: int = 0
  unseen: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )

  def lines(self, target: str) -> list[str]:
    """Returns what to say about the predictions in `target`."""
    where = f'to {target}' if target != STDOUT else 'to standard output'
    if not self.rows:
      return [f'the table has no rows: only a header was written {where}']
    plural = 's' * (self.rows > 1)
    lines = [f'{self.rows:,} prediction{plural} written {where}']
    if self.unseen:
      lines.insert(0, summary.unseen_line(self.unseen))
    return lines


def predict(
  config: Config, given: Collection[str], folder: pathlib.Path, target: str
) -> None:
  """Writes a prediction for every row of a table, in order.

  Args:
    config: names the table and says how it is written.
    given: the settings that were given.
    folder: of a run, or of the model in it.
    target: the file to write, or `-` for standard output.

  Raises:
    InputError: a setting has no effect here, there is no such model, the table
      lacks columns that it reads, or the file cannot be written.
  """
  for name in given:
    if name not in _TAKEN:
      raise InputError(
        f'--{name} has no effect on predictions: leave it out (the model '
        'already knows what the columns are)'
      )
  folder = run_folder.model_of(folder)
  _check(config, target)
  try:
    predictor = tabular.load(folder)
    extra = checkpoint.load_extra(folder)
  except ValueError as error:  # of a bad path, too
    raise InputError(f'--model: {error}') from error
  index = config.index_column or (extra.get('config') or {}).get(
    'index_column', ''
  )
  counts, style = _Counts(), outputs.written(config)
  blocks = _predictions(
    predictor, config, index, bool(config.index_column), counts
  )
  if target == STDOUT:
    for content in outputs.csv_of(blocks, style):
      sys.stdout.write(content.decode())
    output.refuse_loss()
    for line in counts.lines(target):
      print(line, file=sys.stderr)
    return
  path = pathlib.Path(target).expanduser()
  try:
    if path.suffix.lower() in sources.ARROW:
      files.write(path, sources.arrow(path).write(blocks))
    else:
      files.write(path, outputs.csv_of(blocks, style))
  except OSError as error:
    raise InputError(
      f'cannot write --predict_to={target} ({error.strerror or error})'
    ) from error
  for line in counts.lines(target):
    display.make_console().print(line, soft_wrap=True)


def _check(config: Config, target: str) -> None:
  """Refuses to replace what is being read."""
  if target == STDOUT:
    return
  path = pathlib.Path(target).expanduser()
  if path.is_dir():
    raise InputError(f'--predict_to={target} is a folder: name a file in it')
  if path.suffix.lower() not in ENDINGS:
    raise InputError(
      f'--predict_to={target} must end in {", ".join(ENDINGS[:-1])} or '
      f'{ENDINGS[-1]}, or be {STDOUT} for standard output'
    )
  if not path.parent.is_dir():
    raise InputError(
      f'cannot write --predict_to={target}: create the folder {path.parent} '
      'first'
    )
  if config.data != sources.STDIN:
    for source in sources.find('data', config.data):
      if path.exists() and os.path.samefile(source, path):
        raise InputError(
          f'--predict_to={target} is the table that is read: name another file'
        )
  try:
    pytrees.check_outside(path.parent)
  except ValueError as error:
    raise InputError(f'--predict_to={target}: {error}') from error


def _predictions(
  predictor: tabular.Predictor,
  config: Config,
  index: str,
  is_asked: bool,
  counts: _Counts,
) -> Iterator[Mapping[str, Any]]:
  """Yields the predictions of each block of rows.

  Args:
    predictor: the model.
    config: names the table.
    index: the column that names a row; '' for its number.
    is_asked: whether the table must have that column.
    counts: updated after each block.
  """
  is_one = config.data == sources.STDIN or (
    len(sources.find('data', config.data)) == 1
  )
  for piece in reader.blocks_of(config, predictor.schema.missing):
    columns = piece.columns
    place = f'--data={config.data}{"" if is_one else f", {piece.file}"}'
    if index not in columns:
      if is_asked:
        mistakes.check_names(config, columns)
      index = ''
    num_rows = reader.num_rows(columns)
    try:
      features = predictor.encode(columns)
    except encoding.RowError as error:
      row = piece.first + error.row
      raise mistakes.of_row(error, place, row, is_new=True) from error
    except ValueError as error:
      reason = mistakes.in_flags(str(error))
      raise InputError(f'{place}: {reason}') from error
    logits = predictors.apply(predictor.model, predictor.params, features)
    predicted = tabular.decode(predictor.schema, logits)
    rows = np.arange(counts.rows, counts.rows + num_rows)
    counts.rows += num_rows
    counts.unseen.update(predictor.tables.unseen(features))
    yield {**outputs.row_names(columns, rows, index), **predicted}
