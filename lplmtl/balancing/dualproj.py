"""Projection onto the dual cone (Lopez-Paz & Ranzato 2017)."""

from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _contract, _solvers
from lplmtl.types import Array, Balancer, Scope


def dualproj(scope: Scope = 'shared') -> Balancer:
  """DualProj: the mean gradient without its conflicts.

  The mean is projected onto the directions that increase no task's loss:

      d = argmin || d - 1/T sum_k g_k ||^2  over  g_k . d >= 0 for all k

  as GEM does with past tasks as the constraints. The weights are at least 1/T,
  and exactly 1/T if the mean conflicts with no task.

  Args:
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is a `Solved`; one forward and T backward passes per
    step.

  Differs from the paper: GEM learns one task at a time and remembers the
  others; the projection for tasks that are learned together is TorchJD's.

  References:
    Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory for Continual Learning".
  """

  def update(
    losses: Array, state: _solvers.Solved, gramian: Array, present: Any
  ) -> tuple[Array, _solvers.Solved]:
    del state, present
    cosines, norms = _solvers.normalize(gramian)
    largest = norms.max()
    scaled = norms / jnp.where(largest > 0, largest, 1)
    added, residual = _solvers.nonnegative(cosines, -cosines @ scaled)
    inverse = jnp.where(scaled > 0, 1 / jnp.where(scaled > 0, scaled, 1), 0)
    weights = (1 + added * inverse) / len(losses)
    return weights, _solvers.solved(residual)

  return _contract.balancer(
    _solvers.unsolved, update, needs_gramian=True, scope=scope
  )
