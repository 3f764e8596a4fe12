"""Random loss weighting (Lin et al. 2022)."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from lplmtl.balancing import _contract, _keys
from lplmtl.types import Array, Balancer


def rlw(distribution: Literal['normal', 'dirichlet'] = 'normal') -> Balancer:
  """Draws new weights in every step: a baseline that is hard to beat.

  The weights sum to 1, and each is 1/T on average.

  Args:
    distribution: `normal` takes the softmax of T standard normal numbers;
      `dirichlet` draws uniformly from all weights >= 0 that sum to 1.

  Returns:
    A Balancer whose state is a random key, `[2]` uint32; one forward and one
    backward pass per step.

  Raises:
    ValueError: `distribution` is neither.

  References:
    Lin et al. 2022, "Reasonable Effectiveness of Random Weighting: A Litmus
    Test for Multi-Task Learning".
  """
  if distribution not in ('normal', 'dirichlet'):
    raise ValueError(
      f"distribution must be 'normal' or 'dirichlet', found {distribution!r}"
    )

  def init(key: Array, num_tasks: int) -> Array:
    del num_tasks
    return _keys.to_data(key)

  def update(losses: Array, state: Array, present: Any) -> tuple[Array, Array]:
    del present
    key, draw_key = jax.random.split(_keys.from_data(state))
    if distribution == 'normal':
      drawn = jax.random.normal(draw_key, losses.shape, jnp.float32)
      weights = jax.nn.softmax(drawn)
    else:
      # Independent exponential numbers over their sum are uniform there.
      drawn = jax.random.exponential(draw_key, losses.shape, jnp.float32)
      weights = drawn / jnp.sum(drawn)
    return weights, _keys.to_data(key)

  return _contract.balancer(init, update, needs_losses=False)
