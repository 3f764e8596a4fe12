"""Encoded rows in a folder, read in chunks: tables larger than memory.

The rows lie in W shards of blocks. Every block is a fair sample of all rows,
because the writer deals out each run of rows, one to each block: files sorted
by label or by time come out mixed. A chunk is some blocks of each shard, others
in each epoch.
"""

import hashlib
import json
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lplmtl.data import leaves
from lplmtl.storage import files
from lplmtl.types import Batch

FORMAT = 1
META = 'rows.json'
# 28 columns of four bytes: about 60 MB, two of which are in memory.
CHUNK_ROWS = 2**19
_EXAMPLE_ROWS = 256


def block_name(shard: int, block: int) -> str:
  """Returns the name of the file of a block."""
  return f'{shard:03d}_{block:04d}.rows'


def plan(
  num_rows: int,
  num_shards: int,
  num_blocks: int,
  chunk_rows: int = CHUNK_ROWS,
) -> tuple[int, int]:
  """Returns how many rows chunks take of a block, and blocks of a shard.

  Args:
    num_rows: of the folder.
    num_shards: see `write_rows`, as for `num_blocks`.
    num_blocks: of each shard.
    chunk_rows: the most rows that a chunk may have, but for a block of each
      shard, which it has at least.
  """
  size = num_rows // (num_shards * num_blocks)  # blocks differ by a row at most
  rows = max(num_shards * size, 1)
  # A divisor, so that an epoch reads all blocks.
  step = max(
    step
    for step in range(1, num_blocks + 1)
    if num_blocks % step == 0 and (step == 1 or step * rows <= chunk_rows)
  )
  return size, step


class Encoded:
  """A folder that `lplmtl.data.write_rows` wrote, as a `Source`.

  Opening it reads a few rows only. A block that is missing or has changed is
  named when it is read: its checksum is compared when it is read first, and
  after that whenever its time or its size is another one.

  Attributes:
    num_rows: N.
    num_chunks: see `lplmtl.types.Source`, as are the others.
    chunk_rows: rows of a chunk.
    num_shards: W.
    fingerprint: a digest of all rows and of the size of a chunk.
    example: a few rows.
  """

  def __init__(
    self, folder: str | pathlib.Path, *, chunk_rows: int = CHUNK_ROWS,
    seed: int = 0,
  ):  # fmt: skip
    """Opens a folder.

    Args:
      folder: see `write_rows`.
      chunk_rows: the most rows that a chunk may have, but for a block of each
        shard, which it has at least. An epoch reads all blocks, equally many
        for each chunk. Two chunks are in memory.
      seed: of the order of the blocks.

    Raises:
      ValueError: the folder holds no rows, or is damaged.
    """
    self._folder = pathlib.Path(folder).expanduser()
    content = _content(self._folder)
    try:
      meta = json.loads(content)
      self._form = meta['form']
      self._leaves = leaves.of_json(meta['leaves'])
      self._blocks = [[(int(n), int(c)) for n, c in s] for s in meta['blocks']]
      self.num_rows, is_known = int(meta['rows']), meta['format'] == FORMAT
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(f'{self._folder / META} is damaged: {error}') from error
    if not is_known:
      raise ValueError(
        f'{self._folder} has format {meta["format"]}, and this release reads '
        f'format {FORMAT}: write the rows again'
      )
    self._seed = seed
    self._stamps: dict[tuple[int, int], tuple[int, int]] = {}
    self.num_shards = len(self._blocks)
    num_blocks = len(self._blocks[0])
    self._size, self._step = plan(
      self.num_rows, self.num_shards, num_blocks, chunk_rows
    )
    self.num_chunks = num_blocks // self._step
    self.chunk_rows = self.num_shards * self._step * self._size
    self.fingerprint = hashlib.sha256(
      content + repr((self._step, seed)).encode()
    ).hexdigest()
    self._check_sizes()
    self.example = next(self._pieces(range(self.num_shards), _EXAMPLE_ROWS))

  def chunk(self, epoch: int, number: int, shards: Sequence[int]) -> Batch:
    """Returns the rows of some shards of a chunk, see `Source`.

    Raises:
      ValueError: a block is missing or has changed.
    """
    size, step = self._size, self._step
    total = len(shards) * step * size
    out = [leaves.empty(leaf, total) for leaf in self._leaves]
    first = 0
    for shard in shards:
      rng = np.random.default_rng([self._seed, epoch, shard])
      order = rng.permutation(len(self._blocks[shard]))
      for block in order[number * step : (number + 1) * step].tolist():
        found = self._read(shard, block)
        # A block with a row more than others leaves out another one each time.
        spare = int(rng.integers(len(found[0])))
        kept = spare if len(found[0]) > size else size
        for part, x in zip(out, found, strict=True):
          part[first : first + kept] = x[:kept]
          part[first + kept : first + size] = x[kept + 1 : size + 1]
        first += size
    return leaves.assemble(self._form, out)

  def scan(self, shards: Sequence[int]) -> Iterator[Batch]:
    """Yields the rows of each shard, see `Source`."""
    return self._pieces(shards, None)

  def verify(self) -> None:
    """Compares the checksum of every block with that of its bytes.

    For rows that are read late, such as those of a test: their blocks are
    otherwise compared when they are read.

    Raises:
      ValueError: a block is missing or has changed; names it.
    """
    for shard, blocks in enumerate(self._blocks):
      for block in range(len(blocks)):
        self._read(shard, block)

  def _pieces(self, shards: Sequence[int], most: int | None) -> Iterator[Batch]:
    for shard in shards:
      for block, (count, _) in enumerate(self._blocks[shard]):
        if count:
          found = [
            np.require(x[:most], requirements='A')  # aligned
            for x in self._read(shard, block)
          ]
          yield leaves.assemble(self._form, found)

  def _read(self, shard: int, block: int) -> list[np.ndarray]:
    """Returns the arrays of a block, which nobody may write to."""
    count, checksum = self._blocks[shard][block]
    path = self._folder / block_name(shard, block)
    size = self._num_bytes(count)
    try:
      found = path.stat()
      content = files.read(path, size)
    except OSError as error:
      raise _unreadable(path, error) from error
    stamp = found.st_size, found.st_mtime_ns
    # A checksum takes as long as reading: once, unless the file is touched.
    if self._stamps.get((shard, block)) != stamp:
      if len(content) != size or zlib.crc32(content) != checksum:
        raise ValueError(
          f'{path} has changed since it was written: write the rows again'
        )
      self._stamps[shard, block] = stamp
    return _split(content, self._leaves, count)

  def _num_bytes(self, count: int) -> int:
    return count * sum(leaf.row_bytes for leaf in self._leaves)

  def _check_sizes(self) -> None:
    """Raises ValueError unless every block is there, with its size."""
    for shard, blocks in enumerate(self._blocks):
      for block, (count, _) in enumerate(blocks):
        path = self._folder / block_name(shard, block)
        try:
          found = path.stat().st_size
        except OSError as error:
          raise _unreadable(path, error) from error
        if found != self._num_bytes(count):
          raise ValueError(
            f'{path} must have {self._num_bytes(count)} bytes, found {found}: '
            'write the rows again'
          )


def _split(
  content: bytes, parts: Sequence[leaves.Leaf], count: int
) -> list[np.ndarray]:
  """Returns the arrays of a block, which lie one after another."""
  found, start = [], 0
  for leaf in parts:
    length = count * leaf.row_bytes
    flat = np.frombuffer(content, np.uint8, length, start)
    found.append(flat.view(leaf.dtype).reshape(count, *leaf.shape))
    start += length
  return found


def _content(folder: pathlib.Path) -> bytes:
  try:
    return files.read(folder / META)
  except FileNotFoundError as error:
    raise ValueError(
      f'{folder} holds no rows that lplmtl.data.write_rows wrote'
    ) from error
  except OSError as error:
    raise _unreadable(folder / META, error) from error


def _unreadable(path: pathlib.Path, error: OSError) -> ValueError:
  return ValueError(f'{path} cannot be read: {error.strerror}')


def meta_json(
  form: Any,
  parts: Sequence[leaves.Leaf],
  blocks: Sequence[Sequence[tuple[int, int]]],
) -> bytes:
  """Returns the content of the file that describes a folder.

  Args:
    form: from `leaves.structure`.
    parts: the arrays of a row.
    blocks: `(rows, CRC-32)` of each block of each shard.
  """
  rows = sum(count for shard in blocks for count, _ in shard)
  meta = {
    'format': FORMAT, 'rows': rows, 'form': form,
    'leaves': [leaf.to_json() for leaf in parts], 'blocks': blocks,
  }  # fmt: skip
  return json.dumps(meta).encode()
