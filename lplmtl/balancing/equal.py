"""Equal weights: the baseline of every comparison."""

from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _contract
from lplmtl.types import Array, Balancer


def equal() -> Balancer:
  """Weight 1 for every task; the weights sum to T.

  Returns:
    A Balancer without a state; one forward and one backward pass per step.

  Example:
    >>> import jax
    >>> balancer = equal()
    >>> state = balancer.init(jax.random.key(0), 2)
    >>> weights, state = balancer.update(jnp.array([0.5, 2.0]), state)
    >>> weights.tolist()
    [1.0, 1.0]
  """

  def update(
    losses: Array, state: tuple[()], present: Any
  ) -> tuple[Array, tuple[()]]:
    del present
    return jnp.ones_like(losses), state

  return _contract.balancer(_contract.stateless, update, needs_losses=False)
