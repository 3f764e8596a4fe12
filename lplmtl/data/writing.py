"""Writes rows to a folder from which `Encoded` reads them in chunks."""

import os
import pathlib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from lplmtl import _checks
from lplmtl.data import dealing, sharded
from lplmtl.storage import folders
from lplmtl.training import arrays, values
from lplmtl.types import Batch, Task

# Of each shard: a chunk can have as few rows as a 64th of all.
NUM_BLOCKS = 64


def write_rows(
  folder: str | pathlib.Path,
  batches: Iterable[Batch],
  tasks: Sequence[Task] = (),
  *,
  num_shards: int = sharded.NUM_SHARDS,
  num_blocks: int = NUM_BLOCKS,
  seed: int = 0,
  overwrite: bool = False,
) -> int:
  """Writes rows that do not fit in memory, for `Encoded` to read.

  Args:
    folder: see `RowWriter`, as for all that follow.
    batches: pieces of any number of rows.
    tasks: whose labels are checked.
    num_shards: W.
    num_blocks: of each shard.
    seed: of the order in which rows are dealt out.
    overwrite: replaces rows that the folder holds.

  Returns:
    The number of rows.

  Raises:
    ValueError: there are no rows, or see `RowWriter` and `RowWriter.add`.
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
    folder,
    tasks,
    num_shards=num_shards,
    num_blocks=num_blocks,
    seed=seed,
    overwrite=overwrite,
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
  unless that raises. It takes the bytes of the rows, and twice that while it is
  written.

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
    overwrite: bool = False,
  ):
    """Writes nothing yet.

    Args:
      folder: where to write; its parent exists, and it does not, or is empty.
      tasks: whose labels are checked as `fit` checks rows in memory; without
        them only features are.
      num_shards: W, which must divide the batch size.
      num_blocks: of each shard.
      seed: of the order in which rows are dealt out.
      overwrite: replaces rows that the folder holds, once the new ones are
        complete. Nothing else is ever replaced.

    Raises:
      ValueError: a size is out of range, or the folder holds something.
    """
    if not all(_checks.is_whole_number(n) for n in (num_shards, num_blocks)):
      raise ValueError(
        'num_shards and num_blocks must be whole numbers of at least 1, found '
        f'{num_shards!r} and {num_blocks!r}'
      )
    target = pathlib.Path(folder).expanduser().absolute()
    _check_free(target, overwrite)
    self._target = target
    self._replacing = folders.replacing(target)
    self._tasks, self._sizes, self._seed = tasks, (num_shards, num_blocks), seed
    self._labelled: set[str] = set()
    self._pieces = 0
    self._first: Batch | None = None
    self._dealer: dealing.Dealer | None = None

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
    if self._dealer is None or self._first is None:
      self._first = jax.tree.map(lambda x: x[:1].copy(), batch)
      self._dealer = dealing.Dealer(
        self._folder, batch, self._sizes, self._seed
      )
    else:
      arrays.check_like(batch, self._first, name, 'the first piece')
    self._dealer.add(batch)

  def __enter__(self) -> 'RowWriter':
    # What a kill has left of earlier tries.
    folders.tidy(self._target.parent, re.escape(self._target.name))
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


def _check_free(folder: pathlib.Path, overwrite: bool) -> None:
  """Raises ValueError if writing a folder would replace something else."""
  if not os.path.lexists(folder) or folders.is_empty(folder):
    return
  if not folders.is_own(folder, folders.ROWS):
    raise ValueError(
      f'{folder} exists, and is no folder of rows that write_rows wrote: '
      'choose another, or move it away'
    )
  if not overwrite:
    raise ValueError(
      f'{folder} already holds rows: choose another folder, or replace them '
      'with overwrite=True'
    )
