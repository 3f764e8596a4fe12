"""Finds the step, the task and the parameter that are not finite."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import prng
from lplmtl.training import gradients, hosts, programs
from lplmtl.training.feed import Chunk
from lplmtl.training.job import Job
from lplmtl.training.progress import Progress
from lplmtl.training.steps import TrainState
from lplmtl.types import Array, Batch, Model, PyTree, Task


class NonFiniteError(ArithmeticError):
  """Non-finite losses, gradients or state; names the step and the task."""


def check(
  job: Job,
  before: Progress,
  after: Progress,
  is_finite: np.ndarray,
  chunk: Chunk,
) -> None:
  """Raises NonFiniteError if a seed cannot continue.

  A program returns the losses of its steps, but checks the state only once, at
  the end; so after a failure, its steps are repeated one by one.

  Args:
    job: see `Job`.
    before: the progress before some steps.
    after: the progress after them.
    is_finite: `[S]` bool, whether the state is finite after them.
    chunk: the rows of these steps.
  """
  limit = job.schedule.skip_nonfinite
  bad = bad_seeds(before, after, is_finite, limit)
  if not bad.any():
    return
  seed = int(np.argmax(bad))

  def run_one(state: TrainState, step: int) -> tuple[TrainState, bool]:
    state, _, finite = job.run(state, chunk, step, step + 1)
    return state, bool(np.asarray(finite)[seed])

  step, state = locate(run_one, before, after, seed, limit)
  new_state, metrics, _ = job.run(state, chunk, step, step + 1)
  weights = np.asarray(metrics['weights'])[seed, step - chunk.first]
  old, new, settings = jax.tree.map(
    lambda x: x[seed],
    jax.device_get(
      hosts.whole((state, new_state, job.inputs.hyperparams), job.mesh)
    ),
  )
  batch = job.inputs.feed.batch(chunk, seed, step)
  (model,) = programs.build((job.model,), settings)
  reason = explain(model, job.tasks, old, new, batch, weights)
  raise NonFiniteError(
    f'step {step + 1} of epoch {before.epoch + 1} (seed number {seed}): '
    f'{reason}. Lower the learning rate, or look for extreme values in the data'
  )


def bad_seeds(
  before: Progress, after: Progress, is_finite: np.ndarray, limit: int
) -> np.ndarray:
  """Returns `[S]` bool: active seeds with more than `limit` non-finite steps.

  Args:
    before: the progress before some steps.
    after: the progress after them.
    is_finite: `[S]` bool, whether the state is finite after them.
    limit: how many steps a seed may skip, from the start of the run.
  """
  if limit:
    bad = after.num_skipped > limit
  else:
    losses = after.metrics['losses'][:, before.step : after.step]
    bad = ~is_finite | ~np.isfinite(losses).all(axis=(1, 2))
  return bad & after.choice.active


def locate(
  run_one: Callable[[Any, int], tuple[Any, bool]],
  before: Progress,
  after: Progress,
  seed: int,
  limit: int,
) -> tuple[int, Any]:
  """Repeats steps one by one up to the bad one.

  Args:
    run_one: `(state, step) -> (state, is_finite)`, for the seed.
    before: the progress before some steps, one of which is bad.
    after: the progress after them.
    seed: the seed concerned.
    limit: see `bad_seeds`.

  Returns:
    (step, state): the bad step, and the state before it.
  """
  if limit:
    skipped = np.flatnonzero(after.metrics['skipped'][seed, before.step :])
    suspect = before.step + skipped[limit - before.num_skipped[seed]]
  else:
    losses = after.metrics['losses'][seed, before.step : after.step]
    bad = ~np.isfinite(losses).all(axis=1)
    # Without a bad loss the last step, or one before it, spoiled the state.
    suspect = before.step + int(np.argmax(bad)) if bad.any() else after.step - 1
  state = before.state
  for step in range(before.step, suspect):
    new, is_finite = run_one(state, step)
    if not is_finite:
      return step, state
    state = new
  return suspect, state


def explain(
  model: Model,
  tasks: Sequence[Task],
  state: TrainState,
  after: TrainState,
  batch: Batch,
  weights: np.ndarray,
) -> str:
  """Describes what is not finite in a step.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    state: the state of one seed before the step.
    after: its state after the step; both on the host.
    batch: the rows of the step.
    weights: `[T]`, the weights of the losses.

  Returns:
    A message with the first task at fault and the first parameter concerned.
  """

  @jax.jit
  def run(state: TrainState, batch: Batch) -> list[tuple[Array, PyTree]]:
    key = jax.random.fold_in(state.key, state.step)
    key = prng.row_key(key)
    # Each task by itself: in a joint backward pass the NaN of one task turns
    # the zeros of another into NaN too.
    return [
      gradients.task_gradients(model, (task,), state.params, batch, key=key)
      for task in tasks
    ]

  largest = (0.0, '')
  for task, (loss, gradient) in zip(
    tasks, jax.device_get(run(state, batch)), strict=True
  ):
    bad = _not_finite(gradient)
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
      size = float(np.abs(np.nan_to_num(leaf)).max(initial=0))
      largest = max(largest, (size, f'of task {task.name!r} in {_name(path)}'))
    where = f', first in the gradient of {bad[0]}' if bad else ''
    if not np.isfinite(loss).all():
      return f'the loss of task {task.name!r} is {loss[0]}{where}'
    if bad:
      return (
        f'the gradient of task {task.name!r}, whose loss is {loss[0]:.3g}, is '
        f'not finite{where}'
      )
  # Some numbers start at infinity, such as an optimiser's best loss so far.
  usual = _not_finite(state)
  first = next((x for x in _not_finite(after) if x not in usual), 'its update')
  task_weights = ', '.join(
    f'{weight:.3g} for {task.name!r}'
    for task, weight in zip(tasks, weights, strict=True)
  )
  return (
    f'{first} is not finite, though all losses and gradients are; the largest '
    f'gradient, {largest[1]}, reaches {largest[0]:.3g}, and the weights of the '
    f'losses are {task_weights}'
  )


def _not_finite(tree: PyTree) -> list[str]:
  """Returns the names of the leaves with an infinity or a NaN."""
  return [
    _name(path)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    if jnp.issubdtype(leaf.dtype, jnp.inexact) and not np.isfinite(leaf).all()
  ]


def _name(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')
