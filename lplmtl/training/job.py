"""What stays the same throughout a call of `fit`, in three records."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from lplmtl.training.feed import Chunk, Feed
from lplmtl.training.programs import (
  ModelOrMaker,
  OptimizerOrMaker,
  Programs,
)
from lplmtl.training.progress import Progress
from lplmtl.training.scanning import Scanned
from lplmtl.training.steps import TrainState
from lplmtl.types import Batch, PyTree, Task


class Schedule(NamedTuple):
  """How long to train, and when to evaluate; see `fit`."""

  num_epochs: int
  eval_every: int
  patience: int | None
  skip_nonfinite: int


class Inputs(NamedTuple):
  """What the programs read.

  Attributes:
    hyperparams: pytree of `[S]`, or None; on the devices.
    feed: the training rows.
    validation: the validation rows, on the devices or those of a source; or
      None.
  """

  hyperparams: PyTree
  feed: Feed
  validation: Batch | Scanned | None

  @property
  def num_steps(self) -> int:
    """N, the steps of an epoch."""
    return self.feed.num_chunks * self.feed.num_steps


class Job(NamedTuple):
  """One call of `fit`.

  Attributes:
    model: see `fit`.
    optimizer: see `fit`.
    tasks: T tasks.
    programs: see `Programs`, for S padded to a multiple of the devices.
    inputs: see `Inputs`; hyperparams and row numbers are padded likewise.
    schedule: see `Schedule`.
    mesh: from `parallel.make_mesh`.
    num_seeds: S as requested, without padding.
    is_single: whether one key was given, so that results have no axis of seeds.
  """

  model: ModelOrMaker
  optimizer: OptimizerOrMaker
  tasks: Sequence[Task]
  programs: Programs
  inputs: Inputs
  schedule: Schedule
  mesh: Mesh
  num_seeds: int
  is_single: bool

  def chunk(self, progress: Progress) -> Chunk:
    """Returns the chunk of the next step."""
    feed = self.inputs.feed
    return feed.get(progress.epoch, self._number(progress))

  def prepare(self, progress: Progress, after: int = 0) -> None:
    """Prepares the chunk of the next step, or the one after it, if any."""
    feed = self.inputs.feed
    epochs, number = divmod(self._number(progress) + after, feed.num_chunks)
    if progress.epoch + epochs < self.schedule.num_epochs:
      feed.ahead(progress.epoch + epochs, number)

  def _number(self, progress: Progress) -> int:
    # After its last step an epoch may still have to be closed.
    feed = self.inputs.feed
    return min(progress.step // feed.num_steps, feed.num_chunks - 1)

  def run(self, state: TrainState, chunk: Chunk, first: int, last: int) -> Any:
    """Takes the steps of the epoch from `first` to before `last`.

    See `Programs`; the metrics are those of the chunk's n steps.
    """
    return self.programs.run_chunk(
      state, self.inputs.hyperparams, chunk.data, chunk.rows,
      first - chunk.first, last - chunk.first,
    )  # fmt: skip

  def on_host(self, tree: PyTree) -> PyTree:
    """Fetches arrays with a leading S axis, without the seeds that pad it."""
    return jax.tree.map(lambda x: x[: self.num_seeds], jax.device_get(tree))

  def is_over(self, progress: Progress) -> bool:
    """Returns whether all epochs are over, or all seeds have stopped."""
    is_last = progress.epoch >= self.schedule.num_epochs
    return is_last or not progress.choice.active.any()
