"""Direction-oriented multi-objective gradients (Xiao et al. 2023)."""

from typing import Any, Literal

import jax.numpy as jnp

from lplmtl.balancing import arguments, solvers
from lplmtl.balancing.moco import to_simplex
from lplmtl.types import Array, Balancer


def sdmgrad(
  learning_rate: float = 0.1,
  strength: float = 0.3,
  rho: float = 0.0,
  scope: Literal['all', 'shared'] = 'shared',
) -> Balancer:
  """SDMGrad: MGDA near the mean gradient, by products without bias.

      v <- project(v - rate (G_1^T G_2 (v + strength 1 / T) + rho v))
      w = (v + strength 1 / T) / (1 + strength)

  the projection onto the simplex; G_1 and G_2 hold the task gradients of the
  even and of the odd rows: the square of one noisy gradient is too large by the
  noise's variance, the product of two is right on average. The weights sum
  to 1.

  Args:
    learning_rate: > 0, of the weights.
    strength: >= 0, of the mean gradient.
    rho: >= 0, draws the weights to even ones.
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is v, `[T]` float32; 1 pass forward, T back, of all
    rows, half by half.

  Raises:
    ValueError: arguments out of range.

  Differs from the paper: one step of v in every training step, on halves of its
  batch instead of on further batches, and the model's step on both of them; the
  products are the mean of `G_1^T G_2` and `G_2^T G_1`, relative to the largest
  entry, so that the rate has no unit; w is divided by 1 + strength. In a loop
  of your own, hand over these products as the Gramian.

  References:
    Xiao, Ban & Ji 2023, "Direction-oriented Multi-objective Learning: Simple
    and Provable Stochastic Algorithms".
  """
  arguments.check('learning_rate', learning_rate, above=0)
  arguments.check('strength', strength, least=0)
  arguments.check('rho', rho, least=0)

  def init(key: Array, num_tasks: int) -> Array:
    del key
    return jnp.full(num_tasks, 1 / num_tasks, jnp.float32)

  @solvers.checked
  def update(
    losses: Array, state: Array, *, gramian: Array, **extra: Any
  ) -> tuple[Array, Array]:
    del extra
    products = (gramian + gramian.T).astype(jnp.float32) / 2
    largest = jnp.abs(products).max()
    products = products / jnp.where(largest > 0, largest, 1)
    mean = strength / len(losses)
    slope = products @ (state + mean) + rho * state
    state = to_simplex(state - learning_rate * slope)
    return (state + mean) / (1 + strength), state

  return Balancer(
    init, update, needs_gramian=True, between_halves=True, scope=scope
  )
