"""Impartial learning by gradients (Liu et al. 2021)."""

from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _contract, _solvers
from lplmtl.types import Array, Balancer, Scope


def imtl_g(scope: Scope = 'shared') -> Balancer:
  """IMTL-G: a direction that has the same angle to every task gradient.

      d . g_i / ||g_i|| = d . g_j / ||g_j||,  d = sum_k w_k g_k,  sum_k w_k = 1

  With the matrix C of the gradients' cosines that is
  `w_k ~ (C^-1 1)_k / ||g_k||`. The weights sum to 1, and single ones may be
  below 0. The scale of a loss does not turn the direction, but as the weights
  before scaling may sum to about 0, or below, the step may be very long, or
  lead up for all tasks alike; `config` has neither, on the same line. Gradients
  that depend on each other may have no such direction but 0.

  Args:
    scope: see `Balancer`.

  Returns:
    A Balancer without a state; 1 pass forward, T back. A task whose gradient is
    0 takes no part; where the weights of the equations sum to 0, up to 1e-6 of
    their sizes, they are even.

  References:
    Liu et al. 2021, "Towards Impartial Multi-task Learning".
  """

  def update(
    losses: Array, state: tuple[()], gramian: Array, present: Any
  ) -> tuple[Array, tuple[()]]:
    del losses, present
    cosines, norms = _solvers.normalize(gramian)
    values = _solvers.solve_on(cosines, jnp.ones_like(norms), norms > 0)
    weights = _solvers.shares(values * _solvers.inverse(norms), norms)
    return weights, state

  return _contract.balancer(
    _solvers.stateless, update, needs_gramian=True, scope=scope
  )
