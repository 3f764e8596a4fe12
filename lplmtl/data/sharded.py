"""Rows in memory as a source of chunks."""

import hashlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from lplmtl import _checks
from lplmtl.training import agreement
from lplmtl.types import Batch

# Enough for a look at ids and labels, few enough to keep.
EXAMPLE_ROWS = 256
# Divides batches of 64, 256 or 4096 rows, and can be spread over 8 devices.
NUM_SHARDS = 8


class Sharded:
  """A Batch in memory as a `lplmtl.types.Source`.

  For rows that are spread over devices or processes instead of copied to each,
  and for tests. Each row belongs to one shard; a shard's rows are in another
  order in each epoch, and those that its chunks do not fill are others.

  Attributes:
    num_rows: N.
    num_chunks: see `Source`, as are the others.
    chunk_rows: the largest multiple of the shards that all chunks can have.
    num_shards: W.
    fingerprint: a digest of the rows and of the arguments.
    example: the first rows.

  Example:
    >>> rows = Batch(np.arange(10.0)[:, None], {})
    >>> source = Sharded(rows, num_shards=2, num_chunks=2)
    >>> source.chunk_rows
    4
    >>> [len(rows.features) for rows in source.scan([0, 1])]
    [5, 5]
  """

  def __init__(
    self,
    batch: Batch,
    *,
    num_shards: int = NUM_SHARDS,
    num_chunks: int = 1,
    seed: int = 0,
  ):
    """Assigns rows to shards at random.

    Args:
      batch: all rows, NumPy arrays that nobody changes.
      num_shards: W.
      num_chunks: the chunks of an epoch.
      seed: of the assignment and of the order.

    Raises:
      ValueError: there are too few rows for a row of each shard in each chunk.
    """
    self._batch: Batch = jax.tree.map(np.asarray, batch)
    self._seed = seed
    self.num_rows = _checks.num_rows(batch.features)
    self.num_chunks, self.num_shards = num_chunks, num_shards
    size = self.num_rows // num_shards // num_chunks
    if not size:
      raise ValueError(
        f'{num_chunks} chunks of {num_shards} shards need at least '
        f'{num_chunks * num_shards} rows, found {self.num_rows}'
      )
    self.chunk_rows = size * num_shards
    everyone = np.random.default_rng(seed).permutation(self.num_rows)
    self._rows = [everyone[shard::num_shards] for shard in range(num_shards)]
    self.example = self._take(np.arange(min(self.num_rows, EXAMPLE_ROWS)))

  @property
  def fingerprint(self) -> str:
    """A digest of the rows and of the arguments."""
    rows = agreement.digest(self._batch)
    facts = rows, self.num_shards, self.num_chunks, self._seed
    return hashlib.sha256(repr(facts).encode()).hexdigest()

  def chunk(self, epoch: int, number: int, shards: Sequence[int]) -> Batch:
    """Returns the rows of some shards of a chunk, see `Source`."""
    size = self.chunk_rows // self.num_shards

    def of_shard(shard: int) -> np.ndarray:
      rng = np.random.default_rng([self._seed, epoch, shard])
      return rng.permutation(self._rows[shard])[number * size :][:size]

    return self._take(np.concatenate([of_shard(shard) for shard in shards]))

  def scan(self, shards: Sequence[int]) -> Iterator[Batch]:
    """Yields the rows of each shard, see `Source`."""
    for shard in shards:
      yield self._take(self._rows[shard])

  def _take(self, rows: np.ndarray) -> Batch:
    return jax.tree.map(lambda x: x[rows], self._batch)
