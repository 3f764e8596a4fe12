"""The host loop: shuffle, run an epoch as one program, look at it.

The walk of a batch: `fit` shuffles row numbers on the host and hands them to
`steps.train_chunk`, one program, which gathers each batch from the rows on the
device and applies the step of `steps.make_train_step`: losses of all tasks,
weights from the balancer, one pull-back of the weighted sum, one optimiser
update.
"""

import functools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.training import (
  arrays,
  checks,
  nonfinite,
  optimizers,
  parallel,
  programs,
  progress,
  steps,
)
from lplmtl.training.nonfinite import NonFiniteError
from lplmtl.training.progress import Keeper, Progress
from lplmtl.types import Array, Batch, PyTree, Task


class FitResult(NamedTuple):
  """What `fit` returns; arrays lead with S where several keys were given.

  Attributes:
    params: the chosen parameters, best on validation (else the last); of a
      schedule-free optimiser its averages, which are also what is validated.
    state: the TrainState after the last step.
    best_epoch: `[S]` or scalar int, the epoch (from 1) of `params`.
    history: one dict an epoch: `epoch`, `losses` `[S, T]` (mean over the steps
      with a label; NaN over none), `loss_weights` `[S, T]` (at its last step),
      `residual` `[S]` (of a balancer that solves a problem, the largest of the
      steps); all without the steps that were skipped; `active` `[S]`
      (False once a seed has stopped: its figures stay as they were), and at
      evaluated epochs `validation`, `{task: {metric: [S]}}`.
    num_skipped: `[S]` or scalar int, steps that `skip_nonfinite` let pass.
    steps_taken: steps of this call, without those that a keeper handed back.
    seconds: wall time of this call: `init` (the first state, compilation
      included), `compile` and `train` (evaluation included).
  """

  params: PyTree
  state: steps.TrainState
  best_epoch: np.ndarray
  history: list[dict[str, Any]]
  num_skipped: np.ndarray
  steps_taken: int
  seconds: dict[str, float]


def fit(
  key: Array,
  model: Any,
  optimizer: Any,
  balancer: Any,
  data: Batch,
  *surplus: NoReturn,
  hyperparams: PyTree = None,
  validation: Batch | None = None,
  batch_size: int = 256,
  num_epochs: int = 10,
  eval_every: int = 1,
  patience: int | None = None,
  skip_nonfinite: int = 0,
  devices: Sequence[jax.Device] | None = None,
  keeper: Keeper | None = None,
  on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> FitResult:
  """Trains one model a key.

  A short host loop: shuffle, run an epoch as one program, look at it. Each
  epoch takes `floor(N / batch_size)` steps; the rows left over differ from
  epoch to epoch. A run that was interrupted and goes on with its `keeper`, on
  as many devices, computes the same bits as one that was not. A seed computes
  the same, up to rounding, alone or beside others.

  A population over settings that are numbers is one program too: give
  `hyperparams`, and in the place of the model, the optimiser or the balancer a
  function that makes it from one seed's settings:

      fit(keys, model, lambda h: optax.adam(h['learning_rate']), balancer,
          data, hyperparams={'learning_rate': jnp.array(rates)})

  Learning rates, weight decay, dropout rates and the learning rate of loss
  weights may be such settings; sizes may not.

  Chosen are the parameters with the best mean, over tasks, of each task's
  primary validation metric (its loss, negated, where it has no metric); ties go
  to the earlier epoch. A metric that the validation rows do not define (an AUC
  of one class) is left out of the mean in every epoch, with a warning; where
  none is left, the mean loss decides. With several seeds all run until the last
  one stops; a stopped seed's choice and history stay frozen.

  Args:
    key: one random key, or `[S]` of them for S seeds at once; several keys give
      every result a leading S axis.
    model: see `lplmtl.types.Model`, its `tasks` are the T tasks; or a function
      of hyperparams.
    optimizer: any optax transformation that steps by the gradient, the
      parameters and the loss (as `value`); or a function of hyperparams.
    balancer: see `lplmtl.types.Balancer`; or a function of hyperparams.
    data: the training rows: arrays, or columns of pandas that hold numbers.
    *surplus: nothing; catches the order of arguments up to release 0.1.
    hyperparams: pytree of numbers, `[S]` each with `[S]` keys, scalars with
      one; None where everything is fixed.
    validation: rows to choose and to stop by; None keeps the last epoch.
    batch_size: B, rows of a step.
    num_epochs: passes over the data.
    eval_every: epochs from one evaluation to the next (the last is always
      evaluated).
    patience: a seed stops after so many evaluations without improvement; None
      never stops.
    skip_nonfinite: how many steps with losses or gradients that are not finite
      each seed may skip, rather than stop.
    devices: what to train on, None for all local devices: several seeds take a
      device each, a single one splits its batches.
    keeper: keeps the progress, and hands it back when the same call is made
      again; such as `lplmtl.resume.Checkpoints`.
    on_epoch: called with each epoch's entry of the history, once the keeper has
      looked; what it raises ends the call.

  Returns:
    FitResult.

  Raises:
    ValueError: sizes that do not fit the data, or labels that do not fit the
      tasks.
    NonFiniteError: losses or gradients that are not finite; names the step, the
      task and the first parameter concerned.

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
  checks.check_order(optimizer, surplus)
  checks.check_arguments(key, model, optimizer, balancer, hyperparams)
  checks.check_helpers(keeper, on_epoch, devices)
  tasks = programs.model_tasks(model, hyperparams)
  data = arrays.read_batch(tasks, data, 'data')
  if validation is not None:
    validation = arrays.read_batch(tasks, validation, 'validation')
  checks.check_batches(model, data, validation)
  num_rows = _checks.num_rows(data.features)
  checks.check_sizes(
    num_rows, batch_size, num_epochs, eval_every, patience, skip_nonfinite,
    validation,
  )  # fmt: skip
  keys = jnp.atleast_1d(key)
  num_seeds = len(keys)
  mesh = parallel.make_mesh(num_seeds, batch_size, devices)
  keys, hyperparams = parallel.fill(
    (keys, jax.tree.map(jnp.atleast_1d, hyperparams)), mesh
  )
  init, run, evaluate = programs.make(
    model,
    tasks,
    optimizer,
    balancer,
    num_seeds=len(keys),
    batch_size=batch_size,
    mesh=mesh,
    skip_nonfinite=skip_nonfinite > 0,
  )
  table, validation = parallel.replicate((data, validation), mesh)
  job = _Job(
    model, tasks, hyperparams, table, validation, run, evaluate,
    make_shuffle(keys, num_rows, batch_size), mesh, num_seeds, num_epochs,
    eval_every, patience, skip_nonfinite, keeper, on_epoch,
  )  # fmt: skip
  clock = [time.perf_counter()]
  state = init(keys, hyperparams, jax.tree.map(_one_row, data.features))
  now = progress.start(state, num_seeds, num_rows // batch_size, len(tasks))
  now = _resume(job, now)
  jax.block_until_ready(now.state)
  start = now.total_steps
  clock.append(time.perf_counter())
  job = _compile(job, now)
  clock.append(time.perf_counter())
  now = _train(job, now)
  clock.append(time.perf_counter())
  spent = np.diff(clock).tolist()
  seconds = dict(zip(('init', 'compile', 'train'), spent, strict=True))
  params, state = _take(
    (now.best_params, now.state), num_seeds if key.ndim else None
  )
  best_epoch, num_skipped = now.choice.best_epoch, now.num_skipped
  if not key.ndim:
    best_epoch, num_skipped = best_epoch[0], num_skipped[0]
  return FitResult(
    params,
    state,
    best_epoch,
    list(now.history),
    num_skipped,
    now.total_steps - start,
    seconds,
  )


class _Job(NamedTuple):
  """What stays the same throughout a run; S is filled up to the devices."""

  model: Any
  tasks: Sequence[Task]
  hyperparams: PyTree
  data: Batch
  validation: Batch | None
  run: Any
  evaluate: Any
  shuffle: Callable[[int], np.ndarray]
  mesh: Any
  num_seeds: int
  num_epochs: int
  eval_every: int
  patience: int | None
  skip_nonfinite: int
  keeper: Keeper | None
  on_epoch: Callable[[dict[str, Any]], None] | None

  def rows(self, epoch: int) -> Array:
    """Row numbers, `[S, N, B]`, on the devices."""
    return parallel.split_batches(self.shuffle(epoch), self.mesh)

  def on_host(self, tree: PyTree) -> PyTree:
    """Arrays that lead with S, without the seeds that fill the devices."""
    return jax.tree.map(lambda x: x[: self.num_seeds], jax.device_get(tree))

  def is_over(self, now: Progress) -> bool:
    """Whether there is nothing left to do."""
    return now.epoch >= self.num_epochs or not now.choice.active.any()


def _resume(job: _Job, now: Progress) -> Progress:
  """What was kept, on the devices; or the start."""
  if job.keeper is None:
    return now
  kept = job.keeper.restore(_visible(job, now))
  if kept is None:
    return now
  state, best_params = jax.device_put(
    parallel.fill((kept.state, kept.best_params), job.mesh),
    parallel.leading(job.mesh),
  )
  return kept._replace(state=state, best_params=best_params)


def _visible(job: _Job, now: Progress) -> Progress:
  """The progress without the seeds that fill the devices."""
  if len(now.state.step) == job.num_seeds:
    return now
  state, best_params = _take((now.state, now.best_params), job.num_seeds)
  return now._replace(state=state, best_params=best_params)


def _compile(job: _Job, now: Progress) -> _Job:
  """Compiles ahead, so that time is told apart."""
  if job.is_over(now):
    return job
  run = job.run.lower(
    now.state, job.hyperparams, job.data, job.rows(now.epoch), 0, 0
  ).compile()
  evaluate = job.evaluate
  if job.validation is not None:
    lowered = evaluate.lower(now.state.params, job.hyperparams, job.validation)
    checks.check_metrics(lowered.out_info)
    evaluate = lowered.compile()
  return job._replace(run=run, evaluate=evaluate)


def _train(job: _Job, now: Progress) -> Progress:
  rows = job.rows(now.epoch)
  while not job.is_over(now):
    before, used = now, rows
    num_steps = now.num_steps
    last = num_steps if job.keeper is None else job.keeper.until(now)
    state, *found = job.run(
      now.state, job.hyperparams, job.data, rows, now.step, last
    )
    if last == num_steps and now.epoch + 1 < job.num_epochs:
      rows = job.rows(now.epoch + 1)  # while the devices are at work
    metrics, is_finite = job.on_host(found)
    now = progress.advance(now, state, metrics, last)
    _check_finite(job, before, now, is_finite, used)
    if last == num_steps:
      now = _end_epoch(job, now)
    try:
      if job.keeper is not None:
        job.keeper.look(_visible(job, now))
    finally:  # afterwards, as it may fail: the progress is kept first
      if last == num_steps and job.on_epoch is not None:
        job.on_epoch(now.history[-1])
  return now


def _end_epoch(job: _Job, now: Progress) -> Progress:
  """Evaluates where it is time to, chooses, writes the history."""
  params, epoch = _eval_params(job, now.state), now.epoch + 1
  if job.validation is None:
    everyone = np.full_like(now.choice.best_epoch, epoch)
    choice = now.choice._replace(best_epoch=everyone)
    now = now._replace(best_params=params, choice=choice)
  scores = None
  is_due = epoch % job.eval_every == 0 or epoch == job.num_epochs
  if job.validation is not None and is_due:
    scores = job.evaluate(params, job.hyperparams, job.validation)
    scores = job.on_host(scores)
  now, improved = progress.end_epoch(now, job.tasks, scores, job.patience)
  if sum('validation' in record for record in now.history) == 1:
    _warn_of_undefined(job.tasks, now.history)
  if improved.any():
    improved = parallel.fill(improved, job.mesh)
    best_params = _select(improved, params, now.best_params)
    now = now._replace(best_params=best_params)
  return now


_averaged = jax.jit(jax.vmap(optimizers.eval_params))


def _eval_params(job: _Job, state: steps.TrainState) -> PyTree:
  """What is evaluated and chosen, on the devices of the parameters."""
  if not optimizers.averages(state.opt_state):
    return state.params
  params = _averaged(state.opt_state, state.params)
  return jax.device_put(params, parallel.leading(job.mesh))


def _warn_of_undefined(
  tasks: Sequence[Task], history: Sequence[Mapping[str, Any]]
) -> None:
  without = progress.undefined(history, tasks)
  if not without:
    return
  what = ', '.join(
    f'{next(iter(task.metric_fns), "loss")} of task {task.name!r}'
    for task in tasks
    if task.name in without
  )
  instead = 'the losses' if len(without) == len(tasks) else 'the other tasks'
  warnings.warn(
    f'the validation rows do not define {what} (as rows of one class only do '
    f'not define an AUC): {instead} alone decide which epoch is the best',
    stacklevel=5,
  )


def _check_finite(
  job: _Job, before: Progress, now: Progress, is_finite: np.ndarray, rows: Array
) -> None:
  """Raises a NonFiniteError where a seed may not go on."""
  limit = job.skip_nonfinite
  bad = nonfinite.bad_seeds(before, now, is_finite, limit)
  if not bad.any():
    return
  seed = int(bad.argmax())

  def run_one(state: PyTree, step: int) -> tuple[PyTree, bool]:
    state, _, is_finite = job.run(
      state, job.hyperparams, job.data, rows, step, step + 1
    )
    return state, bool(is_finite[seed])

  step, state = nonfinite.locate(run_one, before, now, seed, limit)
  after, metrics, _ = job.run(
    state, job.hyperparams, job.data, rows, step, step + 1
  )
  weights = np.asarray(metrics['weights'])[seed, step]
  own, after, settings, rows = jax.tree.map(
    lambda x: x[seed], jax.device_get((state, after, job.hyperparams, rows))
  )
  batch = jax.tree.map(lambda x: x[rows[step]], jax.device_get(job.data))
  (model,) = programs.build((job.model,), settings)
  reason = nonfinite.explain(model, job.tasks, own, after, batch, weights)
  raise NonFiniteError(
    f'step {step + 1} of epoch {before.epoch + 1} (seed number {seed}): '
    f'{reason}. Lower the learning rate, or look for extreme values in the data'
  )


def _one_row(x: Array) -> np.ndarray:
  """A row of zeros on the host: initialisation looks at shapes alone."""
  return np.zeros((1, *x.shape[1:]), x.dtype)


def make_shuffle(
  keys: Array, num_rows: int, batch_size: int
) -> Callable[[int], np.ndarray]:
  """Row numbers of an epoch, `[S, N, B]` int32, from the key and the epoch.

  Shuffled on the host: a random permutation is a sort on the device, 10 % of an
  epoch on a CPU.
  """
  seeds = np.asarray(jax.random.key_data(keys)).tolist()
  num_steps = num_rows // batch_size

  def shuffle(epoch: int) -> np.ndarray:
    rows = [
      np.random.default_rng([*seed, epoch]).permutation(num_rows)
      for seed in seeds
    ]
    kept = np.stack(rows)[:, : num_steps * batch_size].astype(np.int32)
    return kept.reshape(len(seeds), num_steps, batch_size)

  return shuffle


@jax.jit
def _select(improved: Array, new: PyTree, old: PyTree) -> PyTree:
  def select(new: Array, old: Array) -> Array:
    mask = improved.reshape(improved.shape + (1,) * (new.ndim - 1))
    return jnp.where(mask, new, old)

  return jax.tree.map(select, new, old)


@functools.partial(jax.jit, static_argnums=1)
def _take(tree: PyTree, num_seeds: int | None) -> PyTree:
  """The first seeds; or, with None, the first one without its axis."""
  return jax.tree.map(lambda x: x[:num_seeds] if num_seeds else x[0], tree)
