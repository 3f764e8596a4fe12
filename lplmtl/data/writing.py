"""Writes rows to a folder from which `Encoded` reads them in chunks."""

import pathlib
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from lplmtl import _checks
from lplmtl.data import encoded, leaves, sharded
from lplmtl.storage import files, folders
from lplmtl.training import arrays, values
from lplmtl.types import Batch, Task

# Of each shard: a chunk can have as few rows as a 64th of all.
NUM_BLOCKS = 64
# Rows that are collected before blocks are appended to: about 30 MB.
_BUFFER_ROWS = 2**18


def write_rows(
  folder: str | pathlib.Path,
  batches: Iterable[Batch],
  tasks: Sequence[Task] = (),
  *,
  num_shards: int = sharded.NUM_SHARDS,
  num_blocks: int = NUM_BLOCKS,
  seed: int = 0,
) -> int:
  """Writes rows that do not fit in memory, for `Encoded` to read.

  Args:
    folder: see `RowWriter`, as for all that follow.
    batches: pieces of any number of rows.
    tasks: whose labels are checked.
    num_shards: W.
    num_blocks: of each shard.
    seed: of the order in which rows are dealt out.

  Returns:
    The number of rows.

  Raises:
    ValueError: there are no rows, or see `RowWriter.add`.
    OSError: the folder cannot be written.

  Example:
    >>> import tempfile
    >>> from lplmtl import data
    >>> with tempfile.TemporaryDirectory() as parent:
    ...   rows = data.write_rows(
    ...     f'{parent}/rows', (data.clicks(500, seed=i) for i in range(3)),
    ...     num_blocks=2)
    ...   source = data.Encoded(f'{parent}/rows')
    >>> rows, source.num_chunks, source.chunk_rows
    (1500, 1, 1488)
  """
  with RowWriter(
    folder, tasks, num_shards=num_shards, num_blocks=num_blocks, seed=seed
  ) as writer:
    for batch in batches:
      writer.add(batch)
  return writer.num_rows


class RowWriter:
  """Writes rows piece by piece to a folder, for `Encoded` to read.

      with RowWriter('rows', tasks) as writer:
        writer.add(batch)

  Each run of `num_shards * num_blocks` rows is dealt out, one row to each
  block, in an order that is drawn for each run. So every block is a fair
  sample, however the rows are sorted. The folder appears at the end of `with`,
  unless that raises, and replaces an older one. It takes the bytes of the rows,
  and twice that while it is written.

  Attributes:
    num_rows: the rows so far.
  """

  def __init__(
    self,
    folder: str | pathlib.Path,
    tasks: Sequence[Task] = (),
    *,
    num_shards: int = sharded.NUM_SHARDS,
    num_blocks: int = NUM_BLOCKS,
    seed: int = 0,
  ):
    """Writes nothing yet.

    Args:
      folder: where to write; its parent exists.
      tasks: whose labels are checked as `fit` checks rows in memory; without
        them only features are.
      num_shards: W, which must divide the batch size.
      num_blocks: of each shard.
      seed: of the order in which rows are dealt out.

    Raises:
      ValueError: a size is out of range.
    """
    if not all(_checks.is_whole_number(n) for n in (num_shards, num_blocks)):
      raise ValueError(
        'num_shards and num_blocks must be whole numbers of at least 1, found '
        f'{num_shards!r} and {num_blocks!r}'
      )
    target = pathlib.Path(folder).expanduser().absolute()
    self._replacing = folders.replacing(target)
    self._tasks, self._sizes, self._seed = tasks, (num_shards, num_blocks), seed
    self._labelled: set[str] = set()
    self._pieces = 0
    self._dealer: _Dealer | None = None

  @property
  def num_rows(self) -> int:
    """The rows so far."""
    return self._dealer.count if self._dealer else 0

  def add(self, batch: Batch) -> None:
    """Adds the rows of a piece, which may have none.

    Args:
      batch: of the same structure, shapes and dtypes as the first one; features
        and labels are arrays in dicts or tuples.

    Raises:
      ValueError: it has another form, or a value is not finite or out of range;
        names the piece.
    """
    name = f'piece {self._pieces}'
    self._pieces += 1
    if self._tasks:
      batch = arrays.read_columns(self._tasks, batch, name)
    else:
      batch = arrays.read_arrays(batch, name)
    if not _checks.num_rows(batch.features):
      return
    self._labelled |= values.check_piece(self._tasks, batch, name)
    batch = jax.tree.map(np.asarray, values.canonical(batch))
    if self._dealer is None:
      self._dealer = _Dealer(self._folder, batch, self._sizes, self._seed)
    self._dealer.add(batch)

  def __enter__(self) -> 'RowWriter':
    self._folder = self._replacing.__enter__()
    self._folder.mkdir()
    return self

  def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
    if kind is not None:
      self._replacing.__exit__(kind, value, trace)
      return
    try:
      self._finish()
    except BaseException:
      self._replacing.__exit__(*sys.exc_info())
      raise
    self._replacing.__exit__(None, None, None)

  def _finish(self) -> None:
    if self._dealer is None:
      raise ValueError('there are no rows to write')
    names = [task.name for task in self._tasks]
    missing = [name for name in names if name not in self._labelled]
    if missing:
      raise ValueError(
        f'no row has a label for the tasks {missing}: leave them out'
      )
    self._dealer.finish()
    folders.seal(self._folder, folders.ROWS)


class _Dealer:
  """Deals out rows to the files of blocks.

  Attributes:
    count: the rows so far.
  """

  def __init__(
    self, folder: pathlib.Path, first: Batch, sizes: tuple[int, int], seed: int
  ):
    self.count = 0
    self._folder, self._sizes, self._seed = folder, sizes, seed
    self._form = leaves.structure(first)
    self._leaves = leaves.of_batch(first)
    width = sum(leaf.row_bytes for leaf in self._leaves)
    self._buffer = np.empty((_BUFFER_ROWS, width), np.uint8)
    self._places = np.empty(_BUFFER_ROWS, np.int32)
    self._filled = 0

  def add(self, batch: Batch) -> None:
    """Adds the rows of a batch."""
    found = leaves.of_batch(batch)
    if found != self._leaves:
      new = {*found} ^ {*self._leaves}
      shown = sorted(f'{x.path} ({x.dtype}{list(x.shape)})' for x in new)
      raise ValueError(
        'all pieces must have the same arrays; these are only in the first one '
        f'or in the one after {self.count} rows: {", ".join(shown)}'
      )
    records = np.concatenate(
      [
        np.ascontiguousarray(x).reshape(len(x), -1).view(np.uint8)
        for x in jax.tree.leaves(batch)
      ],
      axis=1,
    )
    places = self._deal(len(records))
    for start in range(0, len(records), _BUFFER_ROWS):
      self._collect(
        records[start : start + _BUFFER_ROWS],
        places[start : start + _BUFFER_ROWS],
      )

  def _deal(self, n: int) -> np.ndarray:
    """Returns the blocks of the next rows."""
    size = self._sizes[0] * self._sizes[1]
    runs = range(self.count // size, (self.count + n - 1) // size + 1)
    orders = [
      np.random.default_rng([self._seed, run]).permutation(size) for run in runs
    ]
    first = self.count % size
    self.count += n
    return np.concatenate(orders)[first : first + n]

  def _collect(self, records: np.ndarray, places: np.ndarray) -> None:
    left = _BUFFER_ROWS - self._filled
    for part in (slice(0, left), slice(left, len(records))):
      n = len(records[part])
      rows = slice(self._filled, self._filled + n)
      self._buffer[rows], self._places[rows] = records[part], places[part]
      self._filled += n
      if self._filled == _BUFFER_ROWS:
        self._flush()

  def _flush(self) -> None:
    """Appends the collected rows to the files of their blocks."""
    places = self._places[: self._filled]
    order = np.argsort(places, kind='stable')
    num_places = self._sizes[0] * self._sizes[1]
    ends = np.cumsum(np.bincount(places, minlength=num_places))
    rows = self._buffer[order]
    for place, end in enumerate(ends.tolist()):
      start = int(ends[place - 1]) if place else 0
      if end > start:
        with open(self._part(place), 'ab') as file:
          file.write(rows[start:end])
    self._filled = 0

  def _part(self, place: int) -> pathlib.Path:
    return self._folder / f'{place}.part'

  def finish(self) -> None:
    """Writes each block anew, array by array, and describes the folder."""
    self._flush()
    num_shards, num_blocks = self._sizes
    blocks: list[list[tuple[int, int]]] = []
    for shard in range(num_shards):
      blocks.append([])
      for block in range(num_blocks):
        part = self._part(shard * num_blocks + block)
        content = part.read_bytes() if part.exists() else b''
        width = self._buffer.shape[1]
        rows = np.frombuffer(content, np.uint8).reshape(-1, width)
        by_array = b''.join(self._columns(rows))
        path = self._folder / encoded.block_name(shard, block)
        path.write_bytes(by_array)
        part.unlink(missing_ok=True)
        blocks[-1].append((len(rows), zlib.crc32(by_array)))
    meta = encoded.meta_json(self._form, self._leaves, blocks)
    files.write(self._folder / encoded.META, meta)

  def _columns(self, rows: np.ndarray) -> Iterator[Any]:
    start = 0
    for leaf in self._leaves:
      yield np.ascontiguousarray(rows[:, start : start + leaf.row_bytes]).data
      start += leaf.row_bytes
