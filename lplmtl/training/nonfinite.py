"""What to say of a step whose numbers are infinite or NaN."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import prng
from lplmtl.training import gradients, steps
from lplmtl.training.progress import Progress
from lplmtl.types import Array, Batch, Model, PyTree, Task


class NonFiniteError(ArithmeticError):
  """Losses, gradients or a state that are not finite; names step and task."""


def bad_seeds(
  before: Progress, after: Progress, is_finite: np.ndarray, limit: int
) -> np.ndarray:
  """`[S]` bool: seeds with more than `limit` steps that were not finite.

  Args:
    before: the progress before some steps.
    after: and after them.
    is_finite: `[S]` bool, whether the state is so after them.
    limit: 0, or how many steps may be skipped.
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
  """Repeats steps one by one until the bad one.

  Args:
    run_one: `(state, step) -> (state, is_finite)`, for the seed.
    before: the progress before some steps, one of which is bad.
    after: and after them.
    seed: whose steps.
    limit: see `bad_seeds`.

  Returns:
    (step, state): the bad one, and the state before it.
  """
  if limit:
    skipped = np.flatnonzero(after.metrics['skipped'][seed, before.step :])
    known = before.step + skipped[limit - before.num_skipped[seed]]
  else:
    losses = after.metrics['losses'][seed, before.step : after.step]
    bad = ~np.isfinite(losses).all(axis=1)
    known = before.step + int(bad.argmax()) if bad.any() else after.step - 1
  state = before.state
  for step in range(before.step, known):
    new, is_finite = run_one(state, step)
    if not is_finite:
      return step, state
    state = new
  return known, state


def explain(
  model: Model,
  tasks: Sequence[Task],
  state: steps.TrainState,
  after: steps.TrainState,
  batch: Batch,
  weights: np.ndarray,
) -> str:
  """What is not finite about a step, in words.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    state: of one seed, before the step.
    after: its state after the step, on the host.
    batch: its rows.
    weights: `[T]`, of its losses.

  Returns:
    The first task that is to blame and the first parameter concerned.
  """

  @jax.jit
  def run(state: steps.TrainState, batch: Batch) -> list[tuple[Array, PyTree]]:
    key = jax.random.fold_in(state.key, state.step)
    key = prng.row_key(key)
    # One by one: what is not finite in one task turns the zeros that flow back
    # from another into NaN.
    return [
      gradients.task_gradients(model, (task,), state.params, batch, key=key)
      for task in tasks
    ]

  largest = (0.0, '')
  for task, (value, gradient) in zip(
    tasks, jax.device_get(run(state, batch)), strict=True
  ):
    bad = _not_finite(gradient)
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
      reached = float(np.abs(np.nan_to_num(leaf)).max(initial=0))
      text = f'of task {task.name!r} in {_name(path)}'
      largest = max(largest, (reached, text))
    where = f', first in the gradient of {bad[0]}' if bad else ''
    if not np.isfinite(value).all():
      return f'the loss of task {task.name!r} is {value[0]}{where}'
    if bad:
      return (
        f'the gradient of task {task.name!r}, whose loss is {value[0]:.3g}, is '
        f'not finite{where}'
      )
  usual = _not_finite(state)  # as the best loss of an optimiser is at first
  first = next((x for x in _not_finite(after) if x not in usual), 'its update')
  named = zip(tasks, weights, strict=True)
  shown = ', '.join(f'{w:.3g} for {task.name!r}' for task, w in named)
  return (
    f'{first} is not finite, though all losses and gradients are; the largest '
    f'gradient, {largest[1]}, reaches {largest[0]:.3g}, and the weights of the '
    f'losses are {shown}'
  )


def _not_finite(tree: PyTree) -> list[str]:
  """The names of the leaves that are not."""
  return [
    _name(path)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    if jnp.issubdtype(leaf.dtype, jnp.inexact) and not np.isfinite(leaf).all()
  ]


def _name(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')
