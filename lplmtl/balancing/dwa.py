"""Dynamic weight average (Liu et al. 2019)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, coordinates
from lplmtl.types import Array, Balancer

# A ratio is infinite after an epoch whose loss was close to 0, and the softmax
# of infinities is NaN. With a logit of 80, the other tasks' shares may be as
# small as exp(-80) = 2e-35: negligible, but still a normal float32.
LARGEST_LOGIT = 80.0


class DwaState(NamedTuple):
  """State of `dwa`.

  Attributes:
    step: scalar int32, number of steps taken.
    sums: `[T]` float32, sums of the losses over the steps of this epoch.
    counts: `[T]` float32, number of steps in each sum.
    last: `[T]` float32, mean losses of the previous epoch.
    weights: `[T]` float32, the weights of this epoch.
  """

  step: Array
  sums: Array
  counts: Array
  last: Array
  weights: Array


def dwa(steps_per_epoch: int = 100, temperature: float = 2.0) -> Balancer:
  """Gives more weight to tasks whose losses fall more slowly.

      w_k(t) = T softmax_k(r_k(t-1) / temperature),  r_k(t) = L_k(t) / L_k(t-1)

  with L_k(t) the mean loss over epoch t. The weights sum to T; in the first two
  epochs all are 1.

  Args:
    steps_per_epoch: number of steps over which a mean is taken, >= 1.
    temperature: > 0; larger values make the weights more even.

  Returns:
    A Balancer whose state is a `DwaState`; one forward and one backward pass
    per step. Steps in which a task has no label (`present`) do not count
    towards its mean; a task without a label in a whole epoch keeps its mean.

  Raises:
    ValueError: an argument is out of range.

  References:
    Liu, Johns & Davison 2019, "End-to-End Multi-Task Learning with Attention".
  """
  _arguments.check_whole('steps_per_epoch', steps_per_epoch)
  _arguments.check('temperature', temperature, above=0)

  def init(key: Array, num_tasks: int) -> DwaState:
    del key
    # Three arrays: a buffer that appears twice in a state cannot be donated.
    sums, counts, last = (jnp.zeros(num_tasks, jnp.float32) for _ in range(3))
    return DwaState(
      jnp.zeros((), jnp.int32), sums, counts, last, jnp.ones_like(sums)
    )

  def update(
    losses: Array, state: DwaState, present: Array | None
  ) -> tuple[Array, DwaState]:
    mask = coordinates.present_tasks(losses, present)
    sums = state.sums + jnp.where(mask > 0, losses, 0.0)
    counts = state.counts + mask
    step = state.step + 1
    is_end = step % steps_per_epoch == 0
    means = jnp.where(counts > 0, sums / jnp.maximum(counts, 1), state.last)
    # The first ratio is known at the end of the second epoch.
    known = (state.last > 0) & (step > steps_per_epoch)
    ratios = jnp.where(known, means / jnp.where(known, state.last, 1.0), 1.0)
    logits = jnp.clip(ratios / temperature, -LARGEST_LOGIT, LARGEST_LOGIT)
    weights = len(losses) * jax.nn.softmax(logits)
    zeros = jnp.zeros_like(sums)
    return state.weights, DwaState(
      step,
      jnp.where(is_end, zeros, sums),
      jnp.where(is_end, zeros, counts),
      jnp.where(is_end, means, state.last),
      jnp.where(is_end, weights, state.weights),
    )

  return _contract.balancer(init, update, needs_losses=False)
