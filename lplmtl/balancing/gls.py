"""Geometric loss strategy (Chennupati et al. 2019)."""

import jax.numpy as jnp

from lplmtl.balancing import _contract, coordinates
from lplmtl.types import Array, Balancer

# A smaller loss counts as this, so that its logarithm is finite.
SMALLEST = 1e-8


def gls() -> Balancer:
  """Minimises the geometric mean of the losses, whatever their scales.

      L = (prod_k L_k)^(1/T),  so  w_k = dL / dL_k = L / (T L_k)

  The sum of the weights is not fixed: `sum_k w_k L_k = L`. A task without a
  label in the batch (`present`) is left out of the mean and has weight 0.

  Returns:
    A Balancer without a state; one forward and one backward pass per step.
    Losses must be above 0; those below 1e-8 count as 1e-8.

  References:
    Chennupati et al. 2019, "MultiNet++: Multi-Stream Feature Aggregation and
    Geometric Loss Strategy for Multi-Task Learning".
  """

  def update(
    losses: Array, state: tuple[()], present: Array | None
  ) -> tuple[Array, tuple[()]]:
    mask = coordinates.present_tasks(losses, present)
    count = jnp.maximum(mask.sum(), 1.0)
    logs = jnp.log(jnp.maximum(losses, SMALLEST))
    mean = jnp.sum(mask * logs) / count
    return mask * jnp.exp(mean - logs) / count, state

  return _contract.balancer(_contract.stateless, update)
