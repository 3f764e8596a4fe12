"""Fair resource allocation (Ban & Ji 2024)."""

from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, _solvers
from lplmtl.types import Array, Balancer, Scope


def fairgrad(alpha: float = 2.0, scope: Scope = 'shared') -> Balancer:
  """FairGrad: divides the decrease in the losses alpha-fairly among the tasks.

  It maximises `sum_k (g_k . d)^(1 - alpha) / (1 - alpha)` over directions of
  fixed length, so

      A w = w^(-1/alpha),   w > 0

  element by element, with the Gramian A. The loss of every task falls. alpha =
  1 is `nash_mtl`; the larger alpha is, the more the slowest task counts. The
  sum of the weights is not fixed: the length of the step scales with that of
  the gradients to the power of (1 - alpha) / (1 + alpha), so for alpha > 1 it
  grows as they vanish; `normalized` makes it comparable with other methods.

  Args:
    alpha: >= 0.5; may be traced. Up to about 6, the equation holds to float32
      rounding. Beyond that, the weights, which scale with a task's gain to the
      power of -alpha, may leave the range of float32: they stay finite, and
      `residual` shows how far they are from satisfying the equation.
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is a `Solved`; one forward and T backward passes per
    step. A task whose gradient is 0 gets the mean weight of the others.
    If a mixture of the gradients is 0, there is no solution; the weights are
    then large but finite, and the combined gradient is about 0.

  Raises:
    ValueError: `alpha` is below 0.5.

  Differs from the paper: solved by Newton's method instead of nonlinear least
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
    nonzero = norms > 0
    largest = jnp.where(nonzero.any(), norms.max(), 1)
    lengths = jnp.where(nonzero, norms / largest, 1)
    # With w = y / ||g||: C y = ||g||^(p - 1) y^-p, p = 1 / alpha.
    values, residual = _solvers.fair(cosines, lengths ** (power - 1), power)
    weights = jnp.where(nonzero, values / lengths, 0)
    count = jnp.maximum(nonzero.sum(), 1).astype(weights.dtype)
    mean = weights.sum() / count
    weights = jnp.where(nonzero, weights, jnp.where(nonzero.any(), mean, 1))
    # Back to gradients that are `largest` times as long.
    weights = weights * largest ** (-2 / (1 + power))
    return weights, _solvers.solved(residual)

  return _contract.balancer(
    _solvers.unsolved, update, needs_gramian=True, scope=scope
  )
