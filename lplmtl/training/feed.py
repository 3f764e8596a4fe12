"""Where a step's rows come from: arrays on the devices, or a source of chunks.

Rows in memory are a single chunk that stays on the devices. The chunks of a
source are read one after another: while the devices train on one, a thread
reads the next and moves it to them.
"""

from concurrent import futures
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from lplmtl.training import (
  agreement,
  arrays,
  hosts,
  own_rows,
  parallel,
  shuffle,
)
from lplmtl.types import Array, Batch, Source


class Chunk(NamedTuple):
  """Rows on the devices, and which of them each step takes.

  Attributes:
    data: the rows.
    rows: `[S, n, B]` int32, the row numbers of the n steps of the chunk (see
      `shuffle.make_chunk_shuffle` where each device holds some rows only).
    first: the step of the epoch that the first of them is.
  """

  data: Batch
  rows: Array
  first: int = 0

  @property
  def last(self) -> int:
    """The step of the epoch that follows the chunk."""
    return self.first + self.rows.shape[1]


class Feed(Protocol):
  """The chunks of all epochs.

  Attributes:
    fingerprint: see `Source`; empty for rows in memory.
    example: rows on the host, for their shapes and dtypes.
    num_chunks: the chunks of an epoch.
    num_steps: n, the steps of a chunk.
  """

  fingerprint: str
  example: Batch
  num_chunks: int
  num_steps: int

  def like(self) -> Chunk:
    """Returns a chunk's shapes, dtypes and shardings."""

  def get(self, epoch: int, number: int) -> Chunk:
    """Returns a chunk, once it is on the devices; reads it unless it is there.

    Raises:
      Whatever the source raised, in a thread or not; HostsError if that was in
      another process.
    """

  def ahead(self, epoch: int, number: int) -> None:
    """Starts to prepare the chunk that `get` will be asked for next."""

  def batch(self, chunk: Chunk, seed: int, step: int) -> Batch:
    """Returns the rows that a step of the epoch takes, on the host."""

  def close(self) -> None:
    """Ends the thread, if there is one."""


class Resident:
  """Rows in memory: one chunk, of which only the order changes."""

  fingerprint = ''
  num_chunks = 1

  def __init__(
    self, data: Batch, keys: Array, num_rows: int, batch_size: int, mesh: Mesh
  ):
    """Moves the rows to the devices.

    Args:
      data: the rows on the host; more than `num_rows` if they were filled up.
      keys: `[S]` random keys.
      num_rows: the rows to train on.
      batch_size: B.
      mesh: from `parallel.make_mesh`.
    """
    self.example = data
    self.num_steps = num_rows // batch_size
    self._shuffle = shuffle.make_shuffle(keys, num_rows, batch_size)
    self._mesh = mesh
    self._data = parallel.replicate(data, mesh)
    self._ready: tuple[int, Chunk] | None = None

  def like(self) -> Chunk:
    """Returns the chunk that is ready, or that of epoch 0, see `Feed`."""
    return self.get(0 if self._ready is None else self._ready[0], 0)

  def get(self, epoch: int, number: int) -> Chunk:
    """Returns all rows in the order of an epoch."""
    del number  # there is one only
    if self._ready is None or self._ready[0] != epoch:
      rows = parallel.split_batches(self._shuffle(epoch), self._mesh)
      self._ready = epoch, Chunk(self._data, rows)
    return self._ready[1]

  def ahead(self, epoch: int, number: int) -> None:
    """Shuffles at once: the devices work meanwhile."""
    self.get(epoch, number)

  def batch(self, chunk: Chunk, seed: int, step: int) -> Batch:
    """Returns the rows of a step, see `Feed`."""
    rows = jax.device_get(hosts.whole(chunk.rows, self._mesh))
    return _take(chunk, rows[seed, step - chunk.first], self._mesh)

  def close(self) -> None:
    """Does nothing."""


class Streamed:
  """A source, of which two chunks are in memory: one in use, and the next."""

  def __init__(
    self,
    source: Source,
    example: Batch,
    keys: Array,
    batch_size: int,
    mesh: Mesh,
  ):
    """Reads nothing yet.

    Args:
      source: see `Source`; its sizes fit.
      example: those of the source, as arrays.
      keys: `[S]` random keys.
      batch_size: B, a multiple of the source's shards.
      mesh: from `parallel.make_mesh`, whose devices divide these if it is over
        rows.
    """
    self.fingerprint = source.fingerprint
    self.example = example
    self.num_chunks = source.num_chunks
    self.num_steps = source.chunk_rows // batch_size
    self._num_devices = mesh.size if parallel.splits_rows(mesh) else 1
    self._shuffle = shuffle.make_chunk_shuffle(
      keys, source, batch_size, self._num_devices
    )
    self._source, self._mesh = source, mesh
    self._shape = len(keys), self.num_steps, batch_size
    self._thread = futures.ThreadPoolExecutor(1, 'chunks')
    self._current: tuple[tuple[int, int], Chunk] | None = None
    self._pending: tuple[tuple[int, int], futures.Future[Chunk]] | None = None

  def like(self) -> Chunk:
    """Returns shapes, dtypes and shardings, see `Feed`."""
    num_rows = self._source.chunk_rows
    table = parallel.split_table(self._mesh)

    def shape(x: Any) -> jax.ShapeDtypeStruct:
      shape = num_rows, *x.shape[1:]
      return jax.ShapeDtypeStruct(shape, x.dtype, sharding=table)

    rows: Any = jax.ShapeDtypeStruct(
      self._shape, np.int32, sharding=parallel.batches(self._mesh)
    )
    return Chunk(jax.tree.map(shape, self.example), rows)

  def get(self, epoch: int, number: int) -> Chunk:
    """Returns a chunk, see `Feed`."""
    place = epoch, number
    # `fit` also pauses in the middle of a chunk.
    if self._current is None or self._current[0] != place:
      self.ahead(epoch, number)
      assert self._pending is not None
      _, future = self._pending
      self._pending = self._current = None
      self._current = place, self._result(future)
    return self._current[1]

  def ahead(self, epoch: int, number: int) -> None:
    """Starts to read a chunk, unless it is being read already."""
    place = epoch, number
    if self._pending is None or self._pending[0] != place:
      self._pending = place, self._thread.submit(self._load, epoch, number)

  def batch(self, chunk: Chunk, seed: int, step: int) -> Batch:
    """Returns the rows of a step, see `Feed`."""
    rows = jax.device_get(hosts.whole(chunk.rows, self._mesh))
    rows = rows[seed, step - chunk.first]
    device = np.arange(len(rows)) * self._num_devices // len(rows)
    first = device * (self._source.chunk_rows // self._num_devices)
    return _take(chunk, first + rows, self._mesh)

  def close(self) -> None:
    """Ends the thread, once it has read what it is reading."""
    self._pending = self._current = None
    self._thread.shutdown(cancel_futures=True)

  def _result(self, future: futures.Future[Chunk]) -> Chunk:
    # A process that cannot read its rows must not leave the others waiting.
    if hosts.spans(self._mesh):
      return agreement.together(future.result)
    return future.result()

  def _load(self, epoch: int, number: int) -> Chunk:
    source, mesh = self._source, self._mesh
    shards = own_rows.own_shards(source.num_shards, mesh)
    data = arrays.read_like(
      source.chunk(epoch, number, shards),
      self.example,
      f'chunk {number} of epoch {epoch}',
      source.chunk_rows // source.num_shards * len(shards),
    )
    rows = self._shuffle(epoch, number, shards)
    chunk = Chunk(
      own_rows.join(data, parallel.split_table(mesh), mesh, axis=0),
      own_rows.join(rows, parallel.batches(mesh), mesh, axis=2),
      number * self.num_steps,
    )
    # Waits here, so that the transfer is no part of the next steps.
    jax.block_until_ready(chunk.data)
    return chunk


def _take(chunk: Chunk, rows: np.ndarray, mesh: Mesh) -> Batch:
  data = jax.device_get(hosts.whole(chunk.data, mesh))
  return jax.tree.map(lambda x: x[rows], data)
