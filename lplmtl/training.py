"""The host loop: shuffle, run an epoch as one program, look at it.

The walk of a batch: `fit` shuffles row numbers on the host and hands them to
`steps.train_chunk`, one program, which gathers each batch from the rows on the
device and applies the step of `steps.make_train_step`: losses of all tasks,
weights from the balancer, one pull-back of the weighted sum, one optimiser
update.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import checks, parallel, programs, steps, types
from lplmtl.types import Array, Batch, PyTree, Task


class NonFiniteError(ArithmeticError):
  """A training loss that is not finite; names the step and the task."""


class FitResult(NamedTuple):
  """What `fit` returns; arrays lead with S where several keys were given.

  Attributes:
    params: the chosen parameters, best on validation (else the last).
    state: the TrainState after the last step.
    best_epoch: `[S]` or scalar int, the epoch (from 1) of `params`.
    history: one dict an epoch: `epoch`, `losses` `[S, T]` (mean over the
      epoch), `loss_weights` `[S, T]` (at its last step), `active` `[S]` (False
      once a seed has stopped: its figures stay as they were), and at evaluated
      epochs `validation`, `{task: {metric: [S]}}`.
    seconds: wall time: `init` (the first state, compilation included),
      `compile` and `train` (evaluation included).
  """

  params: PyTree
  state: steps.TrainState
  best_epoch: np.ndarray
  history: list[dict[str, Any]]
  seconds: dict[str, float]


def fit(
  key: Array,
  model: Any,
  tasks: Sequence[Task],
  optimizer: Any,
  balancer: Any,
  data: Batch,
  *,
  hyperparams: PyTree = None,
  validation: Batch | None = None,
  batch_size: int = 256,
  num_epochs: int = 10,
  eval_every: int = 1,
  patience: int | None = None,
  devices: Sequence[jax.Device] | None = None,
  on_chunk: Callable[[dict[str, Any]], None] | None = None,
) -> FitResult:
  """Trains one model a key.

  A short host loop: shuffle, run an epoch as one program, look at it. Each
  epoch takes `floor(N / batch_size)` steps; the rows left over differ from
  epoch to epoch. A seed computes the same, up to rounding, alone or beside
  others.

  A population over settings that are numbers is one program too: give
  `hyperparams`, and in the place of the model, the optimiser or the balancer a
  function that makes it from one seed's settings:

      fit(keys, model, tasks, lambda h: optax.adam(h['learning_rate']),
          balancer, data, hyperparams={'learning_rate': jnp.array(rates)})

  Learning rates, weight decay, dropout rates and the learning rate of loss
  weights may be such settings; sizes may not.

  Chosen are the parameters with the best mean, over tasks, of each task's
  primary validation metric (its loss, negated, where it has no metric); ties go
  to the earlier epoch. With several seeds all run until the last one stops; a
  stopped seed's choice and history stay frozen.

  Args:
    key: one random key, or `[S]` of them for S seeds at once; several keys give
      every result a leading S axis.
    model: see `lplmtl.types.Model`; or a function of hyperparams.
    tasks: T tasks.
    optimizer: any optax transformation; or a function of hyperparams.
    balancer: see `lplmtl.types.Balancer`; or a function of hyperparams.
    data: the training rows.
    hyperparams: pytree of numbers, `[S]` each with `[S]` keys, scalars with
      one; None where everything is fixed.
    validation: rows to choose and to stop by; None keeps the last epoch.
    batch_size: B, rows of a step.
    num_epochs: passes over the data.
    eval_every: epochs from one evaluation to the next (the last is always
      evaluated).
    patience: a seed stops after so many evaluations without improvement; None
      never stops.
    devices: what to train on, None for all local devices: several seeds take a
      device each, a single one splits its batches.
    on_chunk: called with each epoch's entry of the history.

  Returns:
    FitResult.

  Raises:
    ValueError: sizes that do not fit the data, or labels that do not fit the
      tasks.
    NonFiniteError: a loss that is not finite.
  """
  checks.check_arguments(key, model, optimizer, balancer, hyperparams)
  checks.check_data(tasks, data, 'data')
  if validation is not None:
    checks.check_data(tasks, validation, 'validation')
  num_rows = types.num_rows(data.features)
  checks.check_sizes(
    num_rows, batch_size, num_epochs, eval_every, patience, validation
  )
  keys = jnp.atleast_1d(key)
  hyperparams = jax.tree.map(jnp.atleast_1d, hyperparams)
  num_seeds = len(keys)
  mesh = parallel.make_mesh(num_seeds, batch_size, devices)
  data, validation = parallel.replicate((data, validation), mesh)
  keys, hyperparams = parallel.fill((keys, hyperparams), mesh)
  shuffle = make_shuffle(keys, num_rows, batch_size)

  def on_host(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[:num_seeds], jax.device_get(tree))

  make, run, evaluate = programs.make(
    model,
    tasks,
    optimizer,
    balancer,
    num_seeds=len(keys),
    batch_size=batch_size,
    mesh=mesh,
  )
  clock = [time.perf_counter()]
  state = make(keys, hyperparams, jax.tree.map(_one_row, data.features))
  jax.block_until_ready(state)
  clock.append(time.perf_counter())
  rows = parallel.split_batches(shuffle(0), mesh)
  run = run.lower(state, hyperparams, data, rows).compile()
  if validation is not None:
    evaluate = evaluate.lower(state.params, hyperparams, validation).compile()
  clock.append(time.perf_counter())

  choice = _Choice(num_seeds)
  best_params = None
  history: list[dict[str, Any]] = []
  for epoch in range(1, num_epochs + 1):
    state, metrics = run(state, hyperparams, data, rows)
    if epoch < num_epochs:  # while the devices are at work
      rows = parallel.split_batches(shuffle(epoch), mesh)
    record = _summarise(on_host(metrics), tasks, epoch, choice.active)
    if validation is None:
      choice.best_epoch[:] = epoch
      best_params = state.params
    elif epoch % eval_every == 0 or epoch == num_epochs:
      scores = on_host(evaluate(state.params, hyperparams, validation))
      record['validation'] = _ordered(scores, tasks)
      improved = choice.look(_selection_score(scores, tasks), epoch, patience)
      # A copy: the next chunk takes over the state's own buffers.
      best_params = _select(
        parallel.fill(improved, mesh), state.params, best_params or state.params
      )
    _freeze(record, history)
    history.append(record)
    if on_chunk is not None:
      on_chunk(record)
    if not choice.active.any():
      break
  clock.append(time.perf_counter())
  spent = np.diff(clock).tolist()
  seconds = dict(zip(('init', 'compile', 'train'), spent, strict=True))
  params, state = _take((best_params, state), num_seeds if key.ndim else None)
  best_epoch = choice.best_epoch if key.ndim else choice.best_epoch[0]
  return FitResult(params, state, best_epoch, history, seconds)


def _one_row(x: Array) -> np.ndarray:
  """A row of zeros on the host: initialisation looks at shapes alone."""
  return np.zeros((1, *x.shape[1:]), x.dtype)


class _Choice:
  """Which epoch is each seed's best so far, and which seeds still run."""

  def __init__(self, num_seeds: int):
    self.best_epoch = np.zeros(num_seeds, np.int32)
    self.best_score = np.full(num_seeds, -np.inf)
    self.stale = np.zeros(num_seeds, np.int32)
    self.active = np.ones(num_seeds, bool)

  def look(
    self, scores: np.ndarray, epoch: int, patience: int | None
  ) -> np.ndarray:
    """Takes note of `[S]` scores; returns `[S]` bool, True where better."""
    better = (scores > self.best_score) | (self.best_epoch == 0)
    improved = better & self.active
    self.best_score = np.where(improved, scores, self.best_score)
    self.best_epoch = np.where(improved, epoch, self.best_epoch)
    self.stale = np.where(improved, 0, self.stale + 1)
    if patience is not None:
      self.active &= self.stale < patience
    return improved


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


def _summarise(
  metrics: Mapping[str, np.ndarray],
  tasks: Sequence[Task],
  epoch: int,
  active: np.ndarray,
) -> dict[str, Any]:
  """One epoch's entry of the history, from `[S, N, T]` metrics."""
  values, present = metrics['losses'], metrics['present']
  bad = ~np.isfinite(values) & active[:, None, None]
  if bad.any():
    # The earliest step first, whichever seed it belongs to.
    step, seed, task = np.argwhere(bad.transpose(1, 0, 2))[0]
    raise NonFiniteError(
      f'the loss of task {tasks[task].name!r} is '
      f'{values[seed, step, task]} at step {step + 1} of epoch {epoch} '
      f'(seed number {seed}): lower the learning rate, or look for '
      'extreme values in the data'
    )
  steps = np.maximum(present.sum(axis=1), 1)
  return {
    'epoch': epoch,
    'losses': (values * present).sum(axis=1) / steps,
    'loss_weights': metrics['weights'][:, -1],
    'active': active.copy(),
  }


def _selection_score(
  scores: Mapping[str, Mapping[str, np.ndarray]], tasks: Sequence[Task]
) -> np.ndarray:
  """`[S]` mean of the primary metrics; worst of all where it is NaN."""
  primary = []
  for task in tasks:
    name = next(iter(task.metric_fns), None)
    found = scores[task.name]
    primary.append(-found['loss'] if name is None else found[name])
  mean = np.mean(primary, axis=0)
  return np.where(np.isnan(mean), -np.inf, mean)


def _ordered(
  scores: Mapping[str, Mapping[str, np.ndarray]], tasks: Sequence[Task]
) -> dict[str, dict[str, np.ndarray]]:
  """Back to the tasks' own order: JAX sorts the keys of dicts."""
  return {
    task.name: {m: scores[task.name][m] for m in (*task.metric_fns, 'loss')}
    for task in tasks
  }


def _freeze(record: dict[str, Any], history: list[dict[str, Any]]) -> None:
  """Keeps the last figures of the seeds that have stopped."""
  active = record['active']
  if active.all():
    return
  last = next(r for r in reversed(history) if 'validation' in r)

  def keep(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    mask = active.reshape(active.shape + (1,) * (new.ndim - 1))
    return np.where(mask, new, old)

  for name in ('losses', 'loss_weights'):
    record[name] = keep(record[name], last[name])
  for task, values in record.get('validation', {}).items():
    for name, value in values.items():
      values[name] = keep(value, last['validation'][task][name])


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
