"""Multiple-gradient descent (Désidéri 2012; Sener & Koltun 2018)."""

from typing import Any, Literal

import jax.numpy as jnp

from lplmtl.balancing import _contract, _solvers
from lplmtl.types import Array, Balancer, Scope

NORMALIZATIONS = ('none', 'l2', 'loss', 'loss+')
# A smaller loss counts as this, so that a gradient divided by it is finite.
SMALLEST = 1e-8


def mgda(
  normalization: Literal['none', 'l2', 'loss', 'loss+'] = 'none',
  scope: Scope = 'shared',
) -> Balancer:
  """MGDA: the shortest mixture of the task gradients.

      w = argmin || sum_k w_k g_k / c_k ||^2  over  w >= 0, sum_k w_k = 1

  Without normalisation (c_k = 1), the direction `sum_k w_k g_k` lowers the loss
  of every task, at the same rate for all tasks with a weight above 0. If it is
  0, no direction lowers all losses. The weights sum to 1.

  Args:
    normalization: c_k is 1 (`none`), the length of the gradient (`l2`), the
      loss (`loss`) or their product (`loss+`). It only affects the search for
      the weights, which then multiply the plain gradients, as in the authors'
      code: the loss of a task may rise.
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is a `Solved`; one forward and T backward passes per
    step.

  Raises:
    ValueError: `normalization` is not one of the four.

  Differs from the papers: the problem is solved exactly, with an active set,
  for any T (Sener & Koltun use Frank-Wolfe for three tasks or more). A task
  whose gradient is 0, such as one without labels, is ignored instead of
  stopping the others.

  References:
    Désidéri 2012, "Multiple-gradient descent algorithm (MGDA) for
    multiobjective optimization".
    Sener & Koltun 2018, "Multi-Task Learning as Multi-Objective Optimization".
  """
  if normalization not in NORMALIZATIONS:
    raise ValueError(
      f'normalization must be one of {NORMALIZATIONS}, found {normalization!r}'
    )

  def update(
    losses: Array, state: _solvers.Solved, gramian: Array, present: Any
  ) -> tuple[Array, _solvers.Solved]:
    del state, present
    cosines, norms = _solvers.normalize(gramian)
    lengths = norms
    if normalization in ('l2', 'loss+'):
      lengths = jnp.where(norms > 0, 1, 0).astype(norms.dtype)
    if normalization in ('loss', 'loss+'):
      lengths = lengths / jnp.maximum(losses, SMALLEST).astype(norms.dtype)
    # With x = w / (w^T A w): A x = 1 where x > 0, and A x >= 1 elsewhere.
    inverse = _solvers.inverse(lengths)
    values, residual = _solvers.nonnegative(cosines, inverse)
    return _solvers.shares(values * inverse, norms), _solvers.solved(residual)

  return _contract.balancer(
    _solvers.unsolved, update, needs_gramian=True, scope=scope
  )
