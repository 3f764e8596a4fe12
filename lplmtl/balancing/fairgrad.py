"""Fair resource allocation (Ban & Ji 2024)."""

from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, _solvers
from lplmtl.types import Array, Balancer, Scope


def fairgrad(alpha: float = 2.0, scope: Scope = 'shared') -> Balancer:
  """FairGrad: shares out the decrease of the losses alpha-fairly.

  It maximises `sum_k (g_k . d)^(1 - alpha) / (1 - alpha)` over directions of
  one length, so

      A w = w^(-1/alpha),   w > 0

  element by element, with the Gramian A. Every task's loss goes down.
  alpha = 1 is `nash_mtl`; the larger it is, the more the slowest task counts.
  The weights sum to nothing fixed: the step's length goes with that of the
  gradients to the power (1 - alpha) / (1 + alpha), so that it grows as they
  vanish; `normalized` brings it to the others' scale.

  Args:
    alpha: >= 0.5. Up to about 6 the equation holds to float32's rounding.
      Beyond that the weights, which go with a task's gain to the power -alpha,
      may leave float32's range: they stay finite, and `residual` says by how
      much the equation is missed.
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is a `Solved`; 1 pass forward, T back. The
    weight of a task whose gradient is 0 is the mean of the others'. Gradients
    of which a mixture is 0 have no solution; they get large finite weights
    whose direction is about 0.

  Raises:
    ValueError: an alpha below 0.5.

  Differs from the paper: solved by Newton's method in place of nonlinear least
  squares.

  References:
    Ban & Ji 2024, "Fair Resource Allocation in Multi-Task Learning".
  """
  _arguments.check('alpha', alpha, least=0.5)
  power = 1 / alpha

  def update(
    losses: Array, state: _solvers.Solved, gramian: Array, present: Any
  ) -> tuple[Array, _solvers.Solved]:
    del losses, state, present
    cosines, norms = _solvers.normalize(gramian)
    here = norms > 0
    largest = jnp.where(here.any(), norms.max(), 1)
    lengths = jnp.where(here, norms / largest, 1)
    # w = y / ||g||: C y = ||g||^(p - 1) y^-p.
    values, residual = _solvers.fair(cosines, lengths ** (power - 1), power)
    weights = jnp.where(here, values / lengths, 0)
    count = jnp.maximum(here.sum(), 1).astype(weights.dtype)
    mean = weights.sum() / count
    weights = jnp.where(here, weights, jnp.where(here.any(), mean, 1))
    # Of gradients that are `largest` times as long.
    weights = weights * largest ** (-2 / (1 + power))
    return weights, _solvers.solved(residual)

  return _contract.balancer(
    _solvers.unsolved, update, needs_gramian=True, scope=scope
  )
