"""Deals out rows to the files of blocks, which `Encoded` reads."""

import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from lplmtl.data import encoded, leaves
from lplmtl.storage import files
from lplmtl.types import Batch

# Rows that are collected before blocks are appended to: about 30 MB.
_BUFFER_ROWS = 2**18


class Dealer:
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
