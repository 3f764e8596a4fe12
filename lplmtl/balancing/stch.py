"""Smooth Tchebycheff scalarisation (Lin et al. 2024)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract
from lplmtl.types import Array, Balancer


def stch(
  smoothing: float = 0.1,
  preference: Sequence[float] | None = None,
  ideal: Sequence[float] | None = None,
) -> Balancer:
  """Minimises a smooth maximum of the losses: the worst task counts most.

      L = mu log sum_k exp(p_k (L_k - z_k) / mu)

  so that `w_k = p_k softmax_k(p_k (L_k - z_k) / mu)`. As mu approaches 0, only
  the worst task keeps a weight; every Pareto-optimal solution is then the
  minimum for some p. With equal preferences the weights sum to 1/T.

  Args:
    smoothing: mu > 0, in the units of the losses.
    preference: `[T]` p_k > 0; None for 1/T each.
    ideal: `[T]` z_k, the lowest losses that can be reached; None for 0 each.

  Returns:
    A Balancer without a state; one forward and one backward pass per step. A
    task without a label in the batch (`present`) has weight 0.

  Raises:
    ValueError: an argument is out of range; or, in `init`, the number of tasks
      does not match.

  Differs from the paper: z is a constant and is not searched for. The authors'
  code replaces the losses by log(L_k / nadir_k), after some warm-up epochs
  whose mean losses are the nadir; here the losses keep their own units, from
  the first step on.

  References:
    Lin et al. 2024, "Smooth Tchebycheff Scalarization for Multi-Objective
    Optimization".
  """
  _arguments.check('smoothing', smoothing, above=0)
  _arguments.check_each('preference', preference, above=0)
  _arguments.check_each('ideal', ideal)

  def init(key: Array, num_tasks: int) -> tuple[()]:
    del key
    _arguments.check_length('preference', preference, num_tasks)
    _arguments.check_length('ideal', ideal, num_tasks)
    return ()

  def update(
    losses: Array, state: tuple[()], present: Array | None
  ) -> tuple[Array, tuple[()]]:
    size = len(losses)
    even = (1 / size,) * size
    wanted = jnp.asarray(
      even if preference is None else preference, losses.dtype
    )
    best = jnp.asarray((0,) * size if ideal is None else ideal, losses.dtype)
    heights = wanted * (losses - best) / smoothing
    if present is not None:
      heights = jnp.where(present, heights, -jnp.inf)
      # If no task has a label, the softmax of -inf is NaN; all losses are 0.
      heights = jnp.where(present.any(), heights, 0.0)
    return wanted * jax.nn.softmax(heights), state

  return _contract.balancer(init, update)
