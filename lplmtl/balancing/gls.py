"""Geometric loss strategy (Chennupati et al. 2019)."""

import jax.numpy as jnp

from lplmtl.balancing import _contract, coordinates
from lplmtl.types import Array, Balancer

SMALLEST = 1e-8  # of a loss: below it a task counts as done


def gls() -> Balancer:
  """Descends the geometric mean of the losses, whatever their scales.

      L = (prod_k L_k)^(1/T),  so  w_k = dL / dL_k = L / (T L_k)

  The weights sum to nothing fixed: `sum_k w_k L_k = L`. A task without a label
  in the batch (`present`) takes no part in the mean, and has the weight 0.

  Returns:
    A Balancer without a state; one pass forward, one back. Losses must be
    above 0; smaller ones than 1e-8 count as 1e-8.

  References:
    Chennupati et al. 2019, "MultiNet++: Multi-Stream Feature Aggregation and
    Geometric Loss Strategy for Multi-Task Learning".
  """

  def init(key: Array, num_tasks: int) -> tuple[()]:
    del key, num_tasks
    return ()

  def update(
    losses: Array, state: tuple[()], present: Array | None
  ) -> tuple[Array, tuple[()]]:
    here = coordinates.present_tasks(losses, present)
    count = jnp.maximum(here.sum(), 1.0)
    logs = jnp.log(jnp.maximum(losses, SMALLEST))
    mean = jnp.sum(here * logs) / count
    return here * jnp.exp(mean - logs) / count, state

  return _contract.balancer(init, update)
