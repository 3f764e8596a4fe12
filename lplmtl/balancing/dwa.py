"""Dynamic weight average (Liu et al. 2019)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, coordinates
from lplmtl.types import Array, Balancer


class DwaState(NamedTuple):
  """State of `dwa`.

  Attributes:
    step: scalar int32, steps taken.
    sums: `[T]` float32, losses of this epoch's steps, added up.
    counts: `[T]` float32, of how many steps.
    last: `[T]` float32, mean losses of the epoch before.
    weights: `[T]` float32, those of this epoch.
  """

  step: Array
  sums: Array
  counts: Array
  last: Array
  weights: Array


def dwa(steps_per_epoch: int = 100, temperature: float = 2.0) -> Balancer:
  """Weighs up the tasks whose losses fall more slowly; the weights sum to T.

      w_k(t) = T softmax_k(r_k(t-1) / temperature),  r_k(t) = L_k(t) / L_k(t-1)

  with L_k(t) the mean loss over epoch t; 1 each in the first two epochs.

  Args:
    steps_per_epoch: steps over which a mean is taken, >= 1.
    temperature: > 0; the larger, the more even.

  Returns:
    A Balancer whose state is a `DwaState`; one pass forward, one back. A task
    without a label in a step (`present`) does not count in its mean, and one
    without any in an epoch keeps its mean.

  Raises:
    ValueError: arguments out of range.

  References:
    Liu, Johns & Davison 2019, "End-to-End Multi-Task Learning with Attention".
  """
  _arguments.check_whole('steps_per_epoch', steps_per_epoch)
  _arguments.check('temperature', temperature, above=0)

  def init(key: Array, num_tasks: int) -> DwaState:
    del key
    # An array each: a buffer that stands twice in a state cannot be donated.
    sums, counts, last = (jnp.zeros(num_tasks, jnp.float32) for _ in range(3))
    return DwaState(
      jnp.zeros((), jnp.int32), sums, counts, last, jnp.ones_like(sums)
    )

  def update(
    losses: Array, state: DwaState, present: Array | None
  ) -> tuple[Array, DwaState]:
    here = coordinates.present_tasks(losses, present)
    sums = state.sums + jnp.where(here > 0, losses, 0.0)
    counts = state.counts + here
    step = state.step + 1
    is_end = step % steps_per_epoch == 0
    means = jnp.where(counts > 0, sums / jnp.maximum(counts, 1), state.last)
    # There is a ratio from the second epoch's end on.
    known = (state.last > 0) & (step > steps_per_epoch)
    ratios = jnp.where(known, means / jnp.where(known, state.last, 1.0), 1.0)
    weights = len(losses) * jax.nn.softmax(
      jnp.clip(ratios / temperature, -80.0, 80.0)
    )
    zeros = jnp.zeros_like(sums)
    return state.weights, DwaState(
      step,
      jnp.where(is_end, zeros, sums),
      jnp.where(is_end, zeros, counts),
      jnp.where(is_end, means, state.last),
      jnp.where(is_end, weights, state.weights),
    )

  return _contract.balancer(init, update, needs_losses=False)
