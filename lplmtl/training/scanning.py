"""Predictions and metrics of a source: each row once, in blocks of equal size.

Features are in memory for two blocks at a time; predictions and labels for all
rows, because most metrics, such as an AUC, are not sums over rows.
"""

import copy
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lplmtl.training import agreement, arrays, checks, compiled, values
from lplmtl.types import Batch, PyTree, Source

# Rows that are predicted at a time: large enough to hide the cost of a call.
_BLOCK = 2**16


class Scanned:
  """The rows of a source, in blocks of equal size.

  Attributes:
    num_rows: N.
    example: rows, for their shapes and dtypes.
  """

  def __init__(self, source: Source, example: Batch, name: str):
    """Reads nothing yet.

    Args:
      source: see `Source`.
      example: its example, as arrays in JAX's dtypes.
      name: what to call the rows in messages.
    """
    self.num_rows, self.example = source.num_rows, example
    self._source, self._name = source, name
    self._size = min(_BLOCK, self.num_rows)
    self._read: Callable[[Callable[[], Any]], Any] = lambda read: read()

  def in_all_processes(self) -> 'Scanned':
    """Returns the same rows; if one process cannot read them, all raise.

    All processes must then ask for `blocks`.
    """
    shared = copy.copy(self)
    shared._read = agreement.together
    return shared

  def like(self, num_rows: int | None = None) -> Batch:
    """Returns the shapes and dtypes of a block, or of so many rows."""
    count = self._size if num_rows is None else num_rows
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype),
      self.example,
    )

  def blocks(self) -> Iterator[tuple[Batch, int]]:
    """Yields blocks, the next of which is read meanwhile, and their rows.

    The last row of the last block is repeated until that is full.

    Raises:
      ValueError: the source holds another number of rows, or of another form.
      HostsError: see `in_all_processes`.
    """
    count, found = 0, self._cut()
    with futures.ThreadPoolExecutor(1, 'blocks') as thread:
      pending = thread.submit(next, found, None)
      while (block := self._read(pending.result)) is not None:
        pending = thread.submit(next, found, None)
        yield block
        count += block[1]
    if count != self.num_rows:
      raise ValueError(
        f'{self._name} must have the {self.num_rows} rows that its source '
        f'says, found {count}'
      )

  def _cut(self) -> Iterator[tuple[Batch, int]]:
    size, waiting, count = self._size, list[Batch](), 0
    for piece in self._source.scan(range(self._source.num_shards)):
      piece = arrays.read_like(piece, self.example, self._name)
      waiting.append(piece)
      count += len(jax.tree.leaves(piece)[0])
      while count >= size:
        whole = _joined(waiting)
        yield _rows(whole, slice(size)), size
        waiting, count = [_rows(whole, slice(size, None))], count - size
    if count:
      rows = np.minimum(np.arange(size), count - 1)
      yield _rows(_joined(waiting), rows), count


def _joined(pieces: list[Batch]) -> Batch:
  if len(pieces) == 1:
    return pieces[0]
  return jax.tree.map(lambda *x: np.concatenate(x), *pieces)


def _rows(batch: Batch, rows: Any) -> Batch:
  return jax.tree.map(lambda x: x[rows], batch)


class Scan(NamedTuple):
  """What evaluates a source, in the place of a program for rows in memory.

  Attributes:
    predict: `(params, hyperparams, features) -> {task: [S, P, ..., K]}`, for
      the P rows of a block.
    score: `({task: [S, N, ..., K]}, batch) -> {task: {metric: [S]}}`; features
      are not read.
  """

  predict: Any
  score: Any

  def compiled(
    self, params: PyTree, hyperparams: PyTree, rows: Scanned, mesh: Mesh
  ) -> 'Scan':
    """Compiles both, for rows of this form.

    Raises:
      ValueError: a metric is not a scalar.
    """
    predict = self.predict.lower(params, hyperparams, rows.like().features)
    predictions = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(
        (x.shape[0], rows.num_rows, *x.shape[2:]), x.dtype
      ),
      predict.out_info,
    )
    labels = _without_features(rows.like(rows.num_rows), rows.num_rows)
    score = self.score.lower(predictions, labels)
    checks.check_metrics(score.out_info)
    return Scan(
      compiled.compile_once('predict', predict, mesh),
      compiled.compile_once('score', score, mesh),
    )

  def each(
    self, params: PyTree, hyperparams: PyTree, rows: Scanned
  ) -> Iterator[tuple[Batch, PyTree]]:
    """Yields the rows of each block, and their predictions on the host."""
    for block, count in rows.blocks():
      found = self.predict(params, hyperparams, block.features)
      found = jax.tree.map(lambda x, n=count: x[:, :n], jax.device_get(found))
      yield _rows(block, slice(count)), found

  def collect(
    self, params: PyTree, hyperparams: PyTree, rows: Scanned
  ) -> tuple[PyTree, Batch]:
    """Returns `{task: [S, N, ..., K]}`, and all rows without their features."""
    labels, predictions = [], []
    for block, found in self.each(params, hyperparams, rows):
      labels.append(block._replace(features=None))
      predictions.append(found)
    every: PyTree = jax.tree.map(
      lambda *x: np.concatenate(x, axis=1), *predictions
    )
    return every, _without_features(_joined(labels), rows.num_rows)

  def __call__(
    self, params: PyTree, hyperparams: PyTree, rows: Scanned
  ) -> dict[str, dict[str, Any]]:
    """Returns `{task: {metric: [S]}}`; see `programs.Programs`."""
    return self.score(*self.collect(params, hyperparams, rows))


def _without_features(batch: Batch, num_rows: int) -> Batch:
  """Returns a batch whose features only tell the number of rows."""
  return batch._replace(features=np.zeros(num_rows, bool))


def read(source: Source, tasks: Any, name: str) -> Scanned:
  """Returns the rows of a source, to be read in blocks.

  Args:
    source: see `Source`.
    tasks: T tasks, whose labels it has.
    name: what to call them in messages.
  """
  example = arrays.read_columns(tasks, source.example, f'{name}.example')
  return Scanned(source, values.canonical(example), name)
