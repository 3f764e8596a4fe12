"""Unconflicting projection of gradients (Quinton & Rey 2024)."""

from typing import Any

import jax
import jax.numpy as jnp

from lplmtl.balancing import _contract, _solvers
from lplmtl.types import Array, Balancer, Scope


def upgrad(scope: Scope = 'shared') -> Balancer:
  """UPGrad: the mean of all gradients, each without its conflicts.

  Each g_i is projected onto the directions that increase no task's loss, the
  dual cone `{d : g_k . d >= 0 for all k}`:

      d = 1/T sum_i sum_k v_ik g_k,
      v_i = argmin || sum_k v_k g_k ||^2  over  v_k >= [k = i]

  The direction conflicts with no task. The weights are at least 1/T, and
  exactly 1/T (the mean) without conflicts.

  Args:
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is a `Solved`; one forward and T backward passes per
    step.

  Differs from the paper's code: the ridge is no larger than rounding errors.

  References:
    Quinton & Rey 2024, "Jacobian Descent for Multi-Objective Optimization".
  """

  def update(
    losses: Array, state: _solvers.Solved, gramian: Array, present: Any
  ) -> tuple[Array, _solvers.Solved]:
    del state, present
    cosines, norms = _solvers.normalize(gramian)
    # In units of each task's own gradient.
    added, residual = jax.vmap(_solvers.nonnegative, (None, 0))(
      cosines, -cosines
    )
    inverse = jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)
    weights = (1 + (norms @ added) * inverse) / len(losses)
    return weights, _solvers.solved(residual.max())

  return _contract.balancer(
    _solvers.unsolved, update, needs_gramian=True, scope=scope
  )
