"""Rows that are read from files and encoded while the devices train."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from lplmtl import _checks
from lplmtl.columns import Column, RowError
from lplmtl.data import encoded, sharded
from lplmtl.data.arrow_files import ArrowFiles
from lplmtl.training import arrays
from lplmtl.types import Batch


class ArrowSource:
  """Files as a `lplmtl.types.Source`, encoded on the fly.

  In each epoch the groups are in another order, and their rows, one group after
  another, fill the chunks: a group may begin in one chunk and end in the next.
  The few rows that are left over are others in each epoch.
  Rows are shuffled within a chunk only, so files that are sorted by label, or
  groups of more rows than a chunk, call for `write_rows`, which is also three
  to four times as fast to read.

  Attributes:
    num_rows: N.
    num_chunks: see `Source`, as are the others.
    chunk_rows: rows of a chunk.
    num_shards: W.
    fingerprint: a digest of the files and of the arguments but `encode`.
    example: the first rows of the first group.
  """

  def __init__(
    self,
    files: ArrowFiles,
    encode: Callable[[Mapping[str, Column]], Batch],
    *,
    chunk_rows: int = encoded.CHUNK_ROWS,
    num_shards: int = sharded.NUM_SHARDS,
    seed: int = 0,
  ):
    """Reads and encodes the first group.

    Args:
      files: which rows.
      encode: from the raw columns of some rows to a batch of NumPy arrays. A
        pure function: in `run` of a keeper, say which one.
      chunk_rows: the most rows that a chunk may have; two chunks are in memory.
      num_shards: W.
      seed: of the order of the groups.

    Raises:
      ValueError: a chunk has fewer rows than there are shards, `encode` fails,
        or it returns something else than a row for each row.
    """
    self._files, self._encode, self._seed = files, encode, seed
    self._first: tuple[str, Batch] | None = None
    self.num_rows, self.num_shards = files.num_rows, num_shards
    # As few chunks as will do, of equal size.
    self.num_chunks = -(-self.num_rows // max(chunk_rows, 1))
    size = self.num_rows // self.num_chunks // num_shards
    if not size:
      raise ValueError(
        f'each chunk needs at least a row of each of {num_shards} shards, '
        f'found {self.num_rows} rows in {self.num_chunks} chunks'
      )
    self.chunk_rows = size * num_shards
    self.fingerprint = hashlib.sha256(
      repr((files.fingerprint, self.chunk_rows, num_shards, seed)).encode()
    ).hexdigest()
    # The group read last: one that a chunk shares with the next is read once.
    self._last = 0, self._read(0)
    self.example: Batch = jax.tree.map(
      lambda x: x[: sharded.EXAMPLE_ROWS], self._last[1]
    )

  def chunk(self, epoch: int, number: int, shards: Sequence[int]) -> Batch:
    """Returns the rows of some shards of a chunk, see `Source`.

    Raises:
      ValueError: a file is missing, damaged or has changed, `encode` fails, or
        returns other arrays than for the first group; names the file and rows.
    """
    rng = np.random.default_rng([self._seed, epoch])
    order = rng.permutation(len(self._files.rows))
    ends = np.cumsum(self._files.rows[order])
    size = self.chunk_rows // self.num_shards
    # Which rows of an epoch are left out: those before the first.
    left = self.num_rows - self.num_chunks * self.chunk_rows
    origin = int(rng.integers(left + 1)) + number * self.chunk_rows
    parts = []
    for shard in shards:
      first = origin + shard * size
      parts += self._rows(order, ends, first, first + size)
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)

  def scan(self, shards: Sequence[int]) -> Iterator[Batch]:
    """Yields the groups of each shard, see `Source`."""
    for shard in shards:
      for group in range(shard, len(self._files.rows), self.num_shards):
        yield self._read(group)

  def _rows(
    self, order: np.ndarray, ends: np.ndarray, first: int, last: int
  ) -> list[Batch]:
    """Returns the rows from `first` to before `last` of an epoch, in pieces."""
    found = []
    place = int(np.searchsorted(ends, first, side='right'))
    while first < last:
      group, end = int(order[place]), int(ends[place])
      start = end - int(self._files.rows[group])
      rows = slice(first - start, min(last, end) - start)
      batch = self._group(group)
      found.append(jax.tree.map(lambda x, rows=rows: x[rows], batch))
      first, place = end, place + 1
    return found

  def _group(self, group: int) -> Batch:
    number, batch = self._last
    if number != group:
      batch = self._read(group)
      self._last = group, batch
    return batch

  def _read(self, group: int) -> Batch:
    columns = self._files.read(group)
    path, first = self._files.place(group)
    count = int(self._files.rows[group])
    name = f'{path}, rows {first} to {first + count - 1}'
    try:
      batch = arrays.read_arrays(self._encode(columns), 'the batch')
    except RowError as error:
      row = RowError(error.column, first + error.row, error.complaint)
      raise ValueError(f'{path}: {row}') from error
    except Exception as error:  # whatever a user's function raises
      reason = str(error) if isinstance(error, ValueError) else repr(error)
      raise ValueError(f'{name}: encode fails: {reason}') from error
    found = _checks.num_rows(batch.features)
    if found != count:
      raise ValueError(
        f'{name}: encode must return a row for each of {count} rows, found '
        f'{found}'
      )
    if self._first is None:
      self._first = name, jax.tree.map(lambda x: x[:1], batch)
    arrays.check_like(batch, self._first[1], name, self._first[0])
    return batch
