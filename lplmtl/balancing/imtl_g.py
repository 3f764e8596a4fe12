"""Impartial learning by gradients (Liu et al. 2021)."""

from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _contract, _solvers
from lplmtl.types import Array, Balancer, Scope


def imtl_g(scope: Scope = 'shared') -> Balancer:
  """IMTL-G: the direction that has the same angle to every task gradient.

      d . g_i / ||g_i|| = d . g_j / ||g_j||,  d = sum_k w_k g_k,  sum_k w_k = 1

  With the matrix C of the gradients' cosines, this is
  `w_k ~ (C^-1 1)_k / ||g_k||`. The weights sum to 1, and some may be below 0.
  The scale of a loss does not turn the direction. But if the weights sum to
  about 0 before they are scaled, the step is very long, and if they sum to less
  than 0, all losses rise. `config` follows the same line without either
  problem. Linearly dependent gradients may have no such direction except 0.

  Args:
    scope: see `Balancer`.

  Returns:
    A Balancer without a state; one forward and T backward passes per step. A
    task whose gradient is 0 is ignored. If the solution sums to 0, to within
    1e-6 of the sum of its absolute entries, the weights are 1/T.

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
    _contract.stateless, update, needs_gramian=True, scope=scope
  )
