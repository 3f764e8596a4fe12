"""`fit`: from a model, an optimiser, a balancer and rows to a trained model.

The path of a batch: the host shuffles row numbers (`shuffle`) and passes them,
with the rows themselves if these do not fit in memory (`feed`), to one program
(`steps.train_chunk`), which gathers each batch from the rows on the device and
applies the step of `steps.make_train_step`: the losses of all tasks, their
weights from the balancer, one pull-back of the weighted sum, one update of the
optimiser. Between programs, the host examines the metrics (`loop`).
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lplmtl.training import (
  checks,
  hosts,
  keepers,
  loop,
  making,
  parallel,
)
from lplmtl.training.job import Job, Schedule
from lplmtl.training.programs import (
  BalancerOrMaker,
  ModelOrMaker,
  OptimizerOrMaker,
)
from lplmtl.training.progress import Keeper, Progress
from lplmtl.training.steps import TrainState
from lplmtl.types import Array, Batch, PyTree, Source


class FitResult(NamedTuple):
  """What `fit` returns; with several keys, arrays have a leading S axis.

  Attributes:
    params: the selected parameters: the best on the validation rows or, without
      these, the last. For a schedule-free optimiser they are its averages,
      which are also what is validated.
    state: the TrainState after the last step.
    best_epoch: `[S]` or scalar int, the epoch (from 1) of `params`.
    history: one dict per epoch: `epoch`; `losses` `[S, T]`, the mean over the
      steps with a label (NaN if there was none); `loss_weights` `[S, T]`, those
      of the last step; `residual` `[S]`, the largest of all steps, for a
      balancer that solves a problem; `active` `[S]`, False once a seed has
      stopped, after which its figures stay the same; and at evaluated epochs
      `validation`, `{task: {metric: [S]}}`. Skipped steps are left out.
    num_skipped: `[S]` or scalar int, the steps skipped under `skip_nonfinite`.
    steps_taken: the steps of this call, without those of a restored run.
    seconds: the wall time of this call: `init` (the first state, its
      compilation included), `compile` (tracing included, which is all that an
      equal call needs the second time) and `train` (evaluation included).
  """

  params: PyTree
  state: TrainState
  best_epoch: np.ndarray
  history: list[dict[str, Any]]
  num_skipped: np.ndarray
  steps_taken: int
  seconds: dict[str, float]


def fit(
  key: Array,
  model: ModelOrMaker,
  optimizer: OptimizerOrMaker,
  balancer: BalancerOrMaker,
  data: Batch | Source,
  *surplus: Any,
  hyperparams: PyTree = None,
  validation: Batch | Source | None = None,
  batch_size: int = 256,
  num_epochs: int = 10,
  eval_every: int = 1,
  patience: int | None = None,
  skip_nonfinite: int = 0,
  devices: Sequence[jax.Device] | None = None,
  start: PyTree | None = None,
  keeper: Keeper | None = None,
  on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> FitResult:
  """Trains one model per key.

  A short host loop: shuffle, run an epoch as one program, evaluate. Each epoch
  takes `floor(N / batch_size)` steps; the rows left over differ from epoch to
  epoch. An interrupted run that resumes with its `keeper`, on the same number
  of devices, gives bit-identical results. A seed gives the same results, up to
  rounding, by itself or beside others. Calls whose programs are the same
  compile once in a process (see `lplmtl.training.compiled`).

  A population over numeric settings is one program too: pass `hyperparams`, and
  instead of the model, the optimiser or the balancer a function that makes it
  from the settings of one seed:

      fit(keys, model, lambda h: optax.adam(h['learning_rate']), balancer,
          data, hyperparams={'learning_rate': jnp.array(rates)})

  Learning rates, weight decay, dropout rates and the learning rate of loss
  weights may be such settings; sizes may not.

  Selects the parameters with the best mean, over tasks, of each task's primary
  validation metric (its negated loss, if it has no metric); ties go to the
  earlier epoch. A metric that the validation rows do not define (the AUC of a
  single class) is left out of the mean in every epoch, with a warning; if none
  is left, the mean loss decides. Several seeds all run until the last one
  stops; the selection and the history of a stopped seed stay frozen.

  Args:
    key: one random key, or `[S]` of them for S seeds at once; several keys give
      every result a leading S axis.
    model: see `lplmtl.types.Model`; its `tasks` are the T tasks. Or a function
      of hyperparams.
    optimizer: any optax transformation whose step needs no more than the
      gradient, the parameters and the loss (as `value`); or a function of
      hyperparams.
    balancer: see `lplmtl.types.Balancer` and `Aggregator`; or a function of
      hyperparams.
    data: the training rows: arrays, or numeric columns of pandas; or a source
      that reads them in chunks, such as those of `lplmtl.data`, for rows that
      do not fit in memory. Each of its chunks gives `floor(chunk_rows /
      batch_size)` steps, and its values are not checked.
    *surplus: empty, unless the tasks are passed third, as in release 0.1,
      which works for one more release (DeprecationWarning).
    hyperparams: pytree of numbers, `[S]` each with `[S]` keys, scalars with one
      key; None if everything is fixed.
    validation: the rows for selection and early stopping, or a source that
      holds them: these are read at each evaluation, and only predictions and
      labels are in memory at once. None selects the last epoch.
    batch_size: B, the rows of a step.
    num_epochs: passes over the data.
    eval_every: epochs from one evaluation to the next (the last epoch is always
      evaluated).
    patience: a seed stops after this many evaluations without improvement; None
      never stops.
    skip_nonfinite: how many steps with non-finite losses or gradients each seed
      may skip before the call fails.
    devices: the devices to train on, None for all, those of other processes
      included (see `lplmtl.training.hosts`): several seeds are spread over
      them, a single seed splits its batches.
    start: the parameters to start from, such as those of an earlier result:
      like `params` of this call's result, or with several keys those of a
      single seed, which all then start from. The states of optimizer and
      balancer start afresh. None draws them.
    keeper: saves the progress, and restores it when the same call is made
      again, such as `lplmtl.resume.Checkpoints`.
    on_epoch: called with each epoch's entry of the history, once the progress
      is saved; what it raises ends the call.

  Returns:
    FitResult.

  Raises:
    ValueError: an argument has the wrong type, sizes do not fit the data,
      labels do not fit the tasks, or `start` does not fit the model.
    NonFiniteError: non-finite losses or gradients; names the step, the task and
      the first parameter concerned.
    HostsError: one of several processes has failed, is lost, or was called with
      other arguments.

  Example:
    >>> import optax, lplmtl
    >>> from lplmtl import balancing, data, tasks
    >>> todo = tasks.binary('click'), tasks.binary('buy')
    >>> model = lplmtl.SharedBottom(todo)
    >>> result = fit(jax.random.key(0), model, optax.adam(1e-2),
    ...              balancing.equal(), data.clicks(200), num_epochs=2,
    ...              batch_size=100)
    >>> [record['losses'].shape for record in result.history]  # [S, T]
    [(1, 2), (1, 2)]
    >>> sorted(result.params)
    ['bottom', 'tower_buy', 'tower_click']
  """
  keeper = keepers.current_keeper(keeper)
  optimizer, balancer, data = checks.without_tasks(
    model, (optimizer, balancer, data), surplus
  )
  checks.check_helpers(keeper, on_epoch, devices)
  schedule = Schedule(
    num_epochs=num_epochs,
    eval_every=eval_every,
    patience=patience,
    skip_nonfinite=skip_nonfinite,
  )
  job, keys = making.make_job(
    key, (model, optimizer, balancer), (data, validation), hyperparams,
    batch_size=batch_size, schedule=schedule, devices=devices,
  )  # fmt: skip
  return run(job, keys, start, keeper, on_epoch)


def run(
  job: Job,
  keys: Array,
  start: PyTree | None = None,
  keeper: Keeper | None = None,
  on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> FitResult:
  """Runs a job, for `fit` and `fit_each`.

  Args:
    job: from `making.make_job`.
    keys: likewise.
    start: see `fit`.
    keeper: see `fit`.
    on_epoch: see `fit`.
  """
  times = [time.perf_counter()]
  try:
    with hosts.naming_loss():
      asked = keepers.make(keeper, job)
      first = loop.start(job, keys, asked, start)
      jax.block_until_ready(first.state)
      times.append(time.perf_counter())
      job = loop.compile_ahead(job, first)
      times.append(time.perf_counter())
      last = loop.train(job, first, asked, on_epoch)
      times.append(time.perf_counter())
      return _result(job, first, last, times)
  finally:
    job.inputs.feed.close()


def _result(
  job: Job, first: Progress, last: Progress, times: list[float]
) -> FitResult:
  """Gathers the result, without the axis of seeds for a single key."""
  num_seeds = None if job.is_single else job.num_seeds
  params, state = parallel.first_seeds(
    hosts.whole((last.best_params, last.state), job.mesh), num_seeds
  )
  best_epoch, num_skipped = last.choice.best_epoch, last.num_skipped
  if num_seeds is None:
    best_epoch, num_skipped = best_epoch[0], num_skipped[0]
  init, compile, train = np.diff(times).tolist()
  return FitResult(
    params=params,
    state=state,
    best_epoch=best_epoch,
    history=list(last.history),
    num_skipped=num_skipped,
    steps_taken=last.total_steps - first.total_steps,
    seconds={'init': init, 'compile': compile, 'train': train},
  )
