"""Generated rows larger than memory, as Parquet and as encoded rows.

20 categories, 8 numbers and two related binary labels, which depend on them.
"""

import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow
from pyarrow import parquet

import lplmtl
from experiments.benchmark import anonymous
from lplmtl import data, tasks
from lplmtl.columns import Column

# Values of the categories; five columns of each.
SIZES = (8, 40, 200, 1000)
CATEGORIES = [f'c{i}' for i in range(20)]
NUMBERS = [f'x{i}' for i in range(8)]
LABELS = ('click', 'buy')
# The forms in which the rows are trained on.
MEMORY, PARQUET, ENCODED = 'in memory', 'Parquet', 'encoded rows'
TODO = tuple(tasks.binary(name) for name in LABELS)
ROW_GROUP = 2**16
_PIECE = 2**19  # rows that are generated at a time
_FILE = 2**22  # rows of a file
_TEST_PIECE = 2**40  # numbers pieces that no training file has


def piece(number: int, n: int) -> dict[str, np.ndarray]:
  """Generates n rows; those of a number are always the same."""
  fixed = np.random.default_rng(0)
  rng = np.random.default_rng([1, number])
  columns: dict[str, np.ndarray] = {}
  hidden = np.zeros((len(LABELS), n))
  for i, name in enumerate(CATEGORIES):
    size = SIZES[i % len(SIZES)]
    effects = fixed.normal(size=(3, size)) / np.sqrt(len(CATEGORIES))
    # The first values are the most frequent, as in most tables.
    values = (size * rng.random(n) ** 2).astype(np.int32)
    hidden += effects[0, values] + 0.7 * effects[1:, values]
    columns[name] = values
  weights = fixed.normal(size=(len(LABELS), len(NUMBERS))) / 3
  numbers = rng.normal(size=(len(NUMBERS), n)).astype(np.float32)
  hidden += weights @ numbers + 0.4 * numbers[0] * numbers[1]
  columns |= dict(zip(NUMBERS, numbers, strict=True))
  for name, logit in zip(LABELS, hidden - 1.0, strict=True):
    chance = 1 / (1 + np.exp(-2 * logit))
    columns[name] = (rng.random(n) < chance).astype(np.int32)
  return columns


def _pieces(num_rows: int) -> Iterator[dict[str, np.ndarray]]:
  for number, start in enumerate(range(0, num_rows, _PIECE)):
    yield piece(number, min(_PIECE, num_rows - start))


def write_parquet(
  folder: pathlib.Path, num_rows: int, is_sorted: bool = False
) -> None:
  """Writes files of row groups of 65,536 rows, compressed with zstd.

  Args:
    folder: a new folder.
    num_rows: of all files.
    is_sorted: whether rows with a click come last, in files of their own.
  """
  folder.mkdir()
  for click in (0, 1) if is_sorted else (None,):
    writer, in_file, files = None, 0, 0
    for columns in _pieces(num_rows):
      if click is not None:
        rows = np.flatnonzero(columns['click'] == click)
        columns = {name: x[rows] for name, x in columns.items()}
      table = pyarrow.table(columns)
      if writer is None or in_file >= _FILE:
        if writer is not None:
          writer.close()
        path = folder / f'{click or 0}_{files:04d}.parquet'
        writer = parquet.ParquetWriter(path, table.schema, compression='zstd')
        in_file, files = 0, files + 1
      writer.write_table(table, row_group_size=ROW_GROUP)
      in_file += len(table)
    if writer is not None:
      writer.close()


class Encoder:
  """Encodes rows, by tables that were fitted in one pass."""

  def __init__(self, pieces: Iterator[Mapping[str, Column]]):
    fitter = data.TableFitter(CATEGORIES, NUMBERS)
    for columns in pieces:
      fitter.add(columns)
    self.tables = fitter.finish()

  def __call__(self, columns: Mapping[str, Column]) -> lplmtl.Batch:
    """Returns the batch of some rows."""
    labels = {
      name: lplmtl.columns.spread(columns[name]).astype(np.int32)
      for name in LABELS
    }
    return lplmtl.Batch(self.tables.encode(columns), labels)


class Written(NamedTuple):
  """What it took to fit tables and to write encoded rows.

  Attributes:
    fitted: seconds until the tables were fitted.
    done: seconds until the rows were written.
    memory: the most anonymous memory meanwhile, in bytes.
  """

  fitted: float
  done: float
  memory: int


def write_encoded(folder: pathlib.Path) -> Written:
  """Encodes the Parquet of a table, and writes its rows, into `rows`.

  Args:
    folder: with the Parquet in `files`.
  """
  start = time.perf_counter()
  with anonymous.watched() as peak:
    raw = data.ArrowFiles(folder / 'files')
    encode = Encoder(raw.pieces())
    fitted = time.perf_counter()
    data.write_rows(folder / 'rows', map(encode, raw.pieces()), TODO)
  done = time.perf_counter()
  return Written(fitted - start, done - start, peak.most)


def fresh_rows(encode: Encoder, n: int) -> lplmtl.Batch:
  """Returns n rows that are in no file."""
  return encode(piece(_TEST_PIECE, n))
