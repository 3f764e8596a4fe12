"""Weights that decay or grow step by step (Tang et al. 2020)."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract
from lplmtl.types import Array, Balancer

# A rate to the power of t is kept within exp(+-80): exp(80) = 6e34 leaves room
# for initial weights of up to 6000 below float32's limit of 3e38, and exp(-80)
# = 2e-35 is still a normal float32.
LARGEST_LOG = 80.0


def exponential(
  initial: Sequence[float] | None = None,
  rates: Sequence[float] | None = None,
  steps_per_epoch: int = 1,
) -> Balancer:
  """PLE's schedule: `w_k = w_k,0 gamma_k^t`; the sum is not fixed.

  Args:
    initial: `[T]` w_k,0 > 0; None for 1 each.
    rates: `[T]` gamma_k > 0; None for 1 each, which is `static`.
    steps_per_epoch: number of steps after which t grows by 1.

  Returns:
    A Balancer whose state is the number of steps, int32; one forward and one
    backward pass per step.

  Raises:
    ValueError: a number is not above 0; or, in `init`, the number of tasks does
      not match.

  References:
    Tang et al. 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task
    Learning Model for Personalized Recommendations".
  """
  _arguments.check_each('initial', initial, above=0)
  _arguments.check_each('rates', rates, above=0)
  _arguments.check_whole('steps_per_epoch', steps_per_epoch)

  def init(key: Array, num_tasks: int) -> Array:
    del key
    _arguments.check_length('initial', initial, num_tasks)
    _arguments.check_length('rates', rates, num_tasks)
    return jnp.zeros((), jnp.int32)

  def update(losses: Array, state: Array, present: Any) -> tuple[Array, Array]:
    del present
    ones = jnp.ones_like(losses)
    start = ones if initial is None else jnp.asarray(initial, jnp.float32)
    rate = ones if rates is None else jnp.asarray(rates, jnp.float32)
    age = (state // steps_per_epoch).astype(jnp.float32)
    logs = jnp.clip(age * jnp.log(rate), -LARGEST_LOG, LARGEST_LOG)
    return start * jnp.exp(logs), state + 1

  return _contract.balancer(init, update, needs_losses=False)
