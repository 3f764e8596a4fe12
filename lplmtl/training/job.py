"""What stays the same throughout a call of `fit`, in three records."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lplmtl.training import parallel
from lplmtl.training.programs import ModelOrMaker, Programs
from lplmtl.training.progress import Progress
from lplmtl.training.steps import TrainState
from lplmtl.types import Array, Batch, PyTree, Task


class Schedule(NamedTuple):
  """How long to train, and when to evaluate; see `fit`."""

  num_epochs: int
  eval_every: int
  patience: int | None
  skip_nonfinite: int


class Inputs(NamedTuple):
  """The arrays that the programs read, on the devices.

  Attributes:
    hyperparams: pytree of `[S]`, or None.
    data: the training rows; zeros may follow (see `arrays.fill_up`).
    validation: the validation rows, or None.
    shuffle: `epoch -> row numbers [S, N, B]`, on the host; see `make_shuffle`.
    num_steps: N, the steps of an epoch.
  """

  hyperparams: PyTree
  data: Batch
  validation: Batch | None
  shuffle: Callable[[int], np.ndarray]
  num_steps: int


class Job(NamedTuple):
  """One call of `fit`.

  Attributes:
    model: see `fit`.
    tasks: T tasks.
    programs: see `Programs`, for S padded to a multiple of the devices.
    inputs: see `Inputs`; hyperparams and row numbers are padded likewise.
    schedule: see `Schedule`.
    mesh: from `parallel.make_mesh`.
    num_seeds: S as requested, without padding.
    is_single: whether one key was given, so that results have no axis of seeds.
  """

  model: ModelOrMaker
  tasks: Sequence[Task]
  programs: Programs
  inputs: Inputs
  schedule: Schedule
  mesh: Mesh
  num_seeds: int
  is_single: bool

  def rows(self, epoch: int) -> Array:
    """Returns the row numbers of an epoch, `[S, N, B]`, on the devices."""
    return parallel.split_batches(self.inputs.shuffle(epoch), self.mesh)

  def run(self, state: TrainState, rows: Array, first: int, last: int) -> Any:
    """Takes the steps from `first` to before `last`; see `Programs`."""
    hyperparams, data = self.inputs.hyperparams, self.inputs.data
    return self.programs.run_chunk(state, hyperparams, data, rows, first, last)

  def on_host(self, tree: PyTree) -> PyTree:
    """Fetches arrays with a leading S axis, without the seeds that pad it."""
    return jax.tree.map(lambda x: x[: self.num_seeds], jax.device_get(tree))

  def is_over(self, progress: Progress) -> bool:
    """Returns whether all epochs are over, or all seeds have stopped."""
    is_last = progress.epoch >= self.schedule.num_epochs
    return is_last or not progress.choice.active.any()
