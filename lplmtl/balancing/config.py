"""Conflict-free inverse gradients (Liu et al. 2024)."""

from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _contract, _solvers
from lplmtl.types import Array, Balancer, Scope


def config(scope: Scope = 'shared') -> Balancer:
  """ConFIG: the same angle to every task gradient, with their joint length.

      d = (sum_k g_k . u) u,   u ~ pinv([g_1 / ||g_1||, ...]^T) 1,  ||u|| = 1

  The direction is that of `imtl_g`; its length is that of all gradients along
  it, so that gradients at odds make small steps. Where no direction has one
  angle to all gradients, as where they depend on each other, it is the nearest
  by least squares. The weights sum to nothing fixed: to T where all gradients
  are the same.

  Args:
    scope: see `Balancer`.

  Returns:
    A Balancer without a state; 1 pass forward, T back. A task whose gradient is
    0 takes no part.

  References:
    Liu et al. 2024, "ConFIG: Towards Conflict-free Training of Physics Informed
    Neural Networks".
  """

  def update(
    losses: Array, state: tuple[()], gramian: Array, present: Any
  ) -> tuple[Array, tuple[()]]:
    del losses, present
    cosines, norms = _solvers.normalize(gramian)
    # u ~ sum_k y_k g_k / ||g_k||, and g_k . u ~ ||g_k|| (C y)_k.
    rounding = 2 * len(norms) * jnp.finfo(cosines.dtype).eps
    inverse = jnp.linalg.pinv(cosines, rtol=rounding, hermitian=True)
    values = inverse @ (norms > 0).astype(cosines.dtype)
    # ||u||^2 before scaling, 0 where no direction has an angle to speak of.
    total = values.sum()
    known = total > 16 * jnp.finfo(total.dtype).eps
    values = jnp.where(known, values, 0)
    total = jnp.where(known, total, 1)
    along = norms @ (cosines @ values)
    ratio = jnp.where(norms > 0, along / jnp.where(norms > 0, norms, 1), 1)
    return (ratio * values / total), state

  return _contract.balancer(
    _solvers.stateless, update, needs_gramian=True, scope=scope
  )
