"""Conflict-free inverse gradients (Liu et al. 2024)."""

from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _contract, _solvers
from lplmtl.types import Array, Balancer, Scope


def config(scope: Scope = 'shared') -> Balancer:
  """ConFIG: a step at the same angle to every task gradient.

      d = (sum_k g_k . u) u,   u ~ pinv([g_1 / ||g_1||, ...]^T) 1,  ||u|| = 1

  The direction is that of `imtl_g`. The length is the sum of the gradients'
  components along it, so conflicting gradients make short steps. If no
  direction has the same angle to all gradients, for instance because they are
  linearly dependent, the least-squares direction is used. The sum of the
  weights is not fixed; it is T if all gradients are equal.

  Args:
    scope: see `Balancer`.

  Returns:
    A Balancer without a state; one forward and T backward passes per step. A
    task whose gradient is 0 is ignored.

  References:
    Liu et al. 2024, "ConFIG: Towards Conflict-free Training of Physics Informed
    Neural Networks".
  """

  def update(
    losses: Array, state: tuple[()], gramian: Array, present: Any
  ) -> tuple[Array, tuple[()]]:
    del losses, present
    cosines, norms = _solvers.normalize(gramian)
    # u ~ sum_k y_k g_k / ||g_k||, and g_k . u ~ ||g_k|| (C y)_k. The largest
    # eigenvalue of C is at least 1; rounding moves the others by T eps of it.
    rounding = 2 * len(norms) * jnp.finfo(cosines.dtype).eps
    inverse = jnp.linalg.pinv(cosines, rtol=rounding, hermitian=True)
    values = inverse @ (norms > 0).astype(cosines.dtype)
    # ||u||^2 before scaling: 0 up to rounding if the gradients cancel and no
    # direction has a positive component along them. With 2 to 50 gradients that
    # cancel in pairs, rounding left at most 10 eps: 16 eps is above that.
    total = values.sum()
    known = total > 16 * jnp.finfo(total.dtype).eps
    values = jnp.where(known, values, 0)
    total = jnp.where(known, total, 1)
    along = norms @ (cosines @ values)
    ratio = jnp.where(norms > 0, along / jnp.where(norms > 0, norms, 1), 1)
    return (ratio * values / total), state

  return _contract.balancer(
    _contract.stateless, update, needs_gramian=True, scope=scope
  )
