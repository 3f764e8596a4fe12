"""Fair resource allocation (Ban & Ji 2024)."""

from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import solvers
from lplmtl.types import Array, Balancer, Scope


def fairgrad(alpha: float = 2.0, scope: Scope = 'shared') -> Balancer:
  """FairGrad: shares out the decrease of the losses alpha-fairly.

  It maximises `sum_k (g_k . d)^(1 - alpha) / (1 - alpha)` over directions of
  one length, so

      A w = w^(-1/alpha),   w > 0

  element by element, with the Gramian A. Every task's loss goes down.
  alpha = 1 is `nash_mtl`; the larger it is, the more the slowest task counts.
  The weights sum to nothing fixed, and shrink as the gradients grow.

  Args:
    alpha: > 0.
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is a `solvers.Solved`; 1 pass forward, T back. The
    weight of a task whose gradient is 0 is the mean of the others'. Gradients
    of which a mixture is 0 have no solution; they get large finite weights
    whose direction is about 0.

  Raises:
    ValueError: an alpha that is not above 0.

  Differs from the paper: solved by Newton's method in place of nonlinear least
  squares.

  References:
    Ban & Ji 2024, "Fair Resource Allocation in Multi-Task Learning".
  """
  if not alpha > 0:
    raise ValueError(f'alpha must be above 0, found {alpha}')
  power = 1 / alpha

  def update(
    losses: Array, state: solvers.Solved, *, gramian: Array, **extra: Any
  ) -> tuple[Array, solvers.Solved]:
    del state, extra
    cosines, norms = solvers.normalize(gramian)
    here = norms > 0
    largest = jnp.where(here.any(), norms.max(), 1)
    lengths = jnp.where(here, norms / largest, 1)
    # w = y / ||g||: C y = ||g||^(p - 1) y^-p.
    values, residual = solvers.fair(cosines, lengths ** (power - 1), power)
    weights = jnp.where(here, values / lengths, 0)
    mean = weights.sum() / jnp.maximum(here.sum(), 1)
    weights = jnp.where(here, weights, jnp.where(here.any(), mean, 1))
    # Of gradients that are `largest` times as long.
    weights = weights * largest ** (-2 / (1 + power))
    return solvers.finish(losses, weights, residual)

  return Balancer(solvers.unsolved, update, needs_gramian=True, scope=scope)
