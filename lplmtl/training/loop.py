"""The host loop of `fit`: runs steps as one program, then examines them."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl.training import (
  checks,
  compiled,
  hosts,
  nonfinite,
  optimizers,
  parallel,
  programs,
  progress,
  scanning,
  warm_start,
)
from lplmtl.training.job import Job
from lplmtl.training.keepers import Keeping
from lplmtl.training.progress import Progress, Record
from lplmtl.training.steps import TrainState
from lplmtl.types import Array, PyTree, Task


def start(
  job: Job, keys: Array, keeping: Keeping, params: PyTree | None
) -> Progress:
  """Returns the progress that the keeper saved, or else that of a new run.

  Args:
    job: see `Job`.
    keys: `[S]` random keys, padded.
    keeping: from `keepers.make`.
    params: the parameters to start from, see `fit`; None draws them.

  Raises:
    ValueError: `params` are not those of the model.
  """
  inputs = job.inputs
  one_row = jax.tree.map(_one_row, inputs.feed.example.features)
  arguments: tuple[Any, ...] = keys, inputs.hyperparams, one_row
  if params is not None:
    drawn = jax.eval_shape(job.programs.init, *arguments, None).params
    params = warm_start.read(params, drawn, job.num_seeds)
    params = parallel.home(params, job.mesh)
  arguments = (*arguments, params)
  lowered = job.programs.init.lower(*arguments)
  state = compiled.compile_once('init', lowered, job.mesh)(*arguments)
  new = progress.start(
    state, job.num_seeds, inputs.num_steps, len(job.tasks),
    inputs.feed.fingerprint,
  )  # fmt: skip
  saved = keeping.restore(new)
  if saved is None:
    return new
  state, best_params = _placed(
    parallel.fill((saved.state, saved.best_params), job.mesh),
    (new.state, new.best_params),
  )
  return saved._replace(state=state, best_params=best_params)


def compile_ahead(job: Job, current: Progress) -> Job:
  """Compiles before training starts, so that each is timed separately."""
  if job.is_over(current):
    return job
  inputs = job.inputs
  job.prepare(current)
  like = inputs.feed.like()
  run_chunk = job.programs.run_chunk.lower(
    current.state, inputs.hyperparams, like.data, like.rows, 0, 0
  )
  run_chunk = compiled.compile_once('run_chunk', run_chunk, job.mesh)
  evaluate = job.programs.evaluate
  if inputs.validation is not None:
    evaluate = _compile_evaluation(job, current.state.params)
  made = job.programs._replace(run_chunk=run_chunk, evaluate=evaluate)
  return job._replace(programs=made)


def _compile_evaluation(job: Job, params: PyTree) -> Any:
  validation, hyperparams = job.inputs.validation, job.inputs.hyperparams
  if isinstance(validation, scanning.Scanned):
    scan = programs.make_scan(
      job.model, job.tasks, job.optimizer, mesh=job.mesh,
      num_seeds=len(jax.tree.leaves(params)[0]),
    )  # fmt: skip
    return scan.compiled(params, hyperparams, validation, job.mesh)
  lowered = job.programs.evaluate.lower(params, hyperparams, validation)
  checks.check_metrics(lowered.out_info)
  return compiled.compile_once('evaluate', lowered, job.mesh)


def train(
  job: Job,
  current: Progress,
  keeping: Keeping,
  on_epoch: Callable[[Record], None] | None,
) -> Progress:
  """Trains until the last epoch, or until every seed has stopped.

  Args:
    job: from `compile_ahead`.
    current: from `start`.
    keeping: from `keepers.make`.
    on_epoch: see `fit`.

  Raises:
    NonFiniteError: see `fit`. Errors of the keeper and of `on_epoch` propagate.
  """
  num_steps = job.inputs.num_steps
  while not job.is_over(current):
    before, chunk = current, job.chunk(current)
    last = min(chunk.last, keeping.next_pause(current))
    ends_epoch = last == num_steps
    state, *results = job.run(current.state, chunk, current.step, last)
    # The call above returns at once: the next rows are shuffled, and read,
    # while the devices work.
    job.prepare(current, after=1)
    metrics, is_finite = job.on_host(results)
    current = progress.advance(current, state, metrics, last, chunk.first)
    nonfinite.check(job, before, current, is_finite, chunk)
    if ends_epoch:
      current = _end_epoch(job, current)
    try:
      keeping.save_if_due(current)
    finally:
      # Called even if the keeper raises, as it does when asked to stop; but
      # called after it, so that the progress is saved even if this fails.
      if ends_epoch and on_epoch is not None:
        on_epoch(current.history[-1])
  return current


def _end_epoch(job: Job, current: Progress) -> Progress:
  """Evaluates if that is due, updates the choice, extends the history."""
  params, epoch = _eval_params(job, current.state), current.epoch + 1
  schedule, inputs = job.schedule, job.inputs
  scores = None
  if inputs.validation is None:
    everyone = np.full_like(current.choice.best_epoch, epoch)
    choice = current.choice._replace(best_epoch=everyone)
    current = current._replace(best_params=params, choice=choice)
  elif epoch % schedule.eval_every == 0 or epoch == schedule.num_epochs:
    scores = job.on_host(
      job.programs.evaluate(params, inputs.hyperparams, inputs.validation)
    )
  current, improved = progress.end_epoch(
    current, job.tasks, scores, schedule.patience
  )
  if sum('validation' in record for record in current.history) == 1:
    _warn_of_undefined(job.tasks, current.history)
  if improved.all():  # as a single seed does: there is nothing to select from
    current = current._replace(best_params=params)
  elif improved.any():
    improved = parallel.fill(improved, job.mesh)
    best_params = _select(improved, params, current.best_params)
    current = current._replace(best_params=best_params)
  return current


def _placed(tree: PyTree, like: PyTree) -> PyTree:
  """Moves arrays to where those of another pytree are."""
  return jax.tree.map(lambda x, y: hosts.place(x, y.sharding), tree, like)


_averaged = jax.jit(jax.vmap(optimizers.eval_params))


def _eval_params(job: Job, state: TrainState) -> PyTree:
  """Returns the parameters to evaluate, on the devices of the trained ones."""
  if not optimizers.averages(state.opt_state):
    return state.params
  params = _averaged(state.opt_state, state.params)
  return _placed(params, state.params)


def _warn_of_undefined(
  tasks: Sequence[Task], history: Sequence[Mapping[str, Any]]
) -> None:
  without = progress.undefined(history, tasks)
  if not without:
    return
  metrics = ', '.join(
    f'{next(iter(task.metric_fns), "loss")} of task {task.name!r}'
    for task in tasks
    if task.name in without
  )
  instead = 'the losses' if len(without) == len(tasks) else 'the other tasks'
  warnings.warn(
    f'the validation rows do not define {metrics} (an AUC needs rows of both '
    'classes, R^2 labels that differ): the best epoch is chosen by '
    f'{instead} only',
    stacklevel=6,  # the caller of `fit`
  )


def _one_row(x: Array) -> np.ndarray:
  """Returns zeros on the host: initialisation reads only shapes and dtypes."""
  return np.zeros((1, *x.shape[1:]), x.dtype)


@jax.jit
def _select(improved: Array, new: PyTree, old: PyTree) -> PyTree:
  def select(new: Array, old: Array) -> Array:
    mask = improved.reshape(improved.shape + (1,) * (new.ndim - 1))
    return jnp.where(mask, new, old)

  return jax.tree.map(select, new, old)
