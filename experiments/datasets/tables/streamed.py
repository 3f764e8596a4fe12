"""A table larger than memory: read in blocks, trained on as encoded rows.

Three passes over the files: one that draws the rows from which kinds of columns
and classes are inferred, one that fits the encoder's tables, and one that
writes encoded rows into the run's folder, from which training reads them in
chunks. A run that is resumed finds them there; a finished one removes them.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.datasets.tables import parts, reader, sampling, sources
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import data
from lplmtl.columns import Column
from lplmtl.tabular import preparation

SPLITS = ('train', 'validation', 'test')
_SHARE = 0.1  # of the rows, for each of validation and test
# Bytes on the disk: encoded, and beside the raw columns, a table of this size
# takes some 8 GB of memory.
LARGE = 2 * 10**9
# How a run's results say that its table was streamed.
FORMAT = 'read in chunks'
# How rows may not be split without a look at all of them at once.
_SPLITS_BY = ('split_column', 'time_column', 'group_column')


class Block(NamedTuple):
  """Some rows.

  Attributes:
    columns: by name.
    first: the number of the first row in its file.
    rows: `{split: numbers of its rows in the block}`.
    file: its file, for messages.
  """

  columns: Mapping[Any, Column]
  first: int
  rows: dict[str, np.ndarray]
  file: str


def is_wanted(config: Config) -> bool:
  """Whether the rows are read in blocks: if asked to, or many if it can be.

  Raises:
    InputError: it is asked for, and cannot be.
  """
  if config.stream == 'never' or config.data == sources.STDIN:
    if config.stream == 'always':
      raise InputError('--stream=always reads the table three times: write '
                       'standard input to a file')  # fmt: skip
    return False
  given = [name for name in _SPLITS_BY if getattr(config, name)]
  if config.stream == 'always':
    if given:
      raise InputError(
        f'--stream=always splits at random: leave out --{given[0]}, or put the '
        'test rows into files of their own (--test_data)'
      )
    if config.batch_size % data.NUM_SHARDS:
      raise InputError(
        f'--batch_size must be a multiple of {data.NUM_SHARDS} with '
        f'--stream=always, found {config.batch_size}'
      )
    return True
  if given or config.schema or config.batch_size % data.NUM_SHARDS:
    return False
  size = sum(p.stat().st_size for p in sources.find('data', config.data))
  return size > LARGE


def is_own(config: Config, saved: Mapping[str, Any]) -> bool:
  """Whether a saved model was trained on this table, read in blocks.

  Its test rows are then those of that run.

  Args:
    config: names the files.
    saved: the `extra` data of the model.
  """
  files_of = (saved.get('data') or {}).get('files', {})
  trained_on = files_of.get('data', {})
  if trained_on.get('format') != FORMAT or config.data == sources.STDIN:
    return False
  digests = sources.digests(_paths(config))
  return bool(trained_on['sha256'] == _digest(digests))


def _paths(config: Config) -> list[pathlib.Path]:
  paths = sources.find('data', config.data)
  if config.test_data:
    paths = [*paths, *sources.find('test_data', config.test_data)]
  return paths


def _stamp(path: pathlib.Path) -> tuple[int, int] | None:
  """Returns the size of a file and when it was written to, if it is there."""
  try:
    found = path.stat()
  except OSError:
    return None
  return found.st_size, found.st_mtime_ns


def _digest(digests: list[str]) -> str:
  # A run on the same rows in memory is another run: it splits others.
  digest = f'{FORMAT} {sources.digest(digests)}'
  return hashlib.sha256(digest.encode()).hexdigest()


class Streamed:
  """A table, of which a sample has been drawn."""

  def __init__(self, config: Config, missing: Sequence[str], labels: Any):
    """Reads the table once.

    Args:
      config: names the files.
      missing: texts that mean "missing" in a column of numbers.
      labels: the columns that are predicted.
    """
    self.config, self._missing = config, tuple(missing)
    paths = _paths(config)
    sources.warn_of_types(paths)
    self._stamps = {path: _stamp(path) for path in paths}
    digests = sources.digests(paths)
    self.digest, self._parts = _digest(digests), parts.of(paths, digests)
    sample = sampling.Sample(config.split_seed, labels)
    self.rows = dict.fromkeys(SPLITS, 0)
    for block in self.blocks():
      for split in SPLITS:
        self.rows[split] += len(block.rows[split])
      taken = preparation.take(block.columns, block.rows['train'])
      sample.add(taken, len(block.rows['train']))
    if not all(self.rows.values()):
      raise InputError(
        'too few rows: training, validation and test need at least one each; '
        f'found {self.rows}'
      )
    self.sample = sample.columns()

  @property
  def facts(self) -> dict[str, Any]:
    """What is known of a table in memory, but for the rows of each file."""
    return {
      'file': _name(self.config.data), 'rows': sum(self.rows.values()),
      'sha256': self.digest, 'format': FORMAT, **self._parts,
    }  # fmt: skip

  def blocks(self) -> Iterator[Block]:
    """Yields the rows of the table, and of that of test rows.

    Raises:
      InputError: a file is not as it was when the table was opened, or cannot
        be read.
    """
    self._check_stamps()  # a file may have another length in this pass
    yield from self._table(self.config, 0 if self.config.test_data else _SHARE)
    if self.config.test_data:
      other = dataclasses.replace(self.config, data=self.config.test_data)
      for block in self._table(other, 0):
        every = np.arange(reader.num_rows(block.columns))
        rows = {**dict.fromkeys(SPLITS, every[:0]), 'test': every}
        yield block._replace(rows=rows)
    self._check_stamps()

  def _check_stamps(self) -> None:
    for path, stamp in self._stamps.items():
      if _stamp(path) != stamp:
        raise InputError(
          f'{path} changed while it was read, which takes three passes: start '
          'again once it is complete'
        )

  def _table(self, config: Config, test_share: float) -> Iterator[Block]:
    for i, piece in enumerate(reader.blocks_of(config, self._missing)):
      n = reader.num_rows(piece.columns)
      drawn = np.random.default_rng([config.split_seed, i]).random(n)
      part = np.digitize(drawn, [test_share, test_share + _SHARE])
      rows = {
        name: np.flatnonzero(part == number)
        for number, name in ((0, 'test'), (1, 'validation'), (2, 'train'))
      }
      yield Block(piece.columns, piece.first, rows, piece.file)


def _name(path: str) -> str:
  """Returns what to call a table in messages."""
  return pathlib.Path(path).name or path
