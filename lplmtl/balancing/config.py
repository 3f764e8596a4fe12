"""Conflict-free inverse gradients (Liu et al. 2024)."""

from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import solvers
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

  @solvers.checked
  def update(
    losses: Array, state: tuple[()], *, gramian: Array, **extra: Any
  ) -> tuple[Array, tuple[()]]:
    del extra
    cosines, norms = solvers.normalize(gramian)
    # u ~ sum_k y_k g_k / ||g_k||, and g_k . u ~ ||g_k|| (C y)_k.
    values = _least_squares(cosines, (norms > 0) * 1.0)
    # ||u||^2 before scaling, 0 where no direction has an angle to speak of.
    total = values.sum()
    known = total > 16 * jnp.finfo(total.dtype).eps
    values = jnp.where(known, values, 0)
    total = jnp.where(known, total, 1)
    along = norms @ (cosines @ values)
    ratio = jnp.where(norms > 0, along / jnp.where(norms > 0, norms, 1), 1)
    return (ratio * values / total), state

  return Balancer(solvers.stateless, update, needs_gramian=True, scope=scope)


def _least_squares(matrix: Array, rhs: Array) -> Array:
  """`pinv(A) b`: eigenvalues of rounding's size are left out."""
  values, vectors = jnp.linalg.eigh(matrix)
  least = 2 * len(rhs) * jnp.finfo(values.dtype).eps * values[-1]
  kept = values > least
  inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
  return vectors @ (inverse * (rhs.astype(matrix.dtype) @ vectors))
