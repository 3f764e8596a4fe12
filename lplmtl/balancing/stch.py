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
  """Descends a smooth maximum of the losses: the worst task counts most.

      L = mu log sum_k exp(p_k (L_k - z_k) / mu)

  so that `w_k = p_k softmax_k(p_k (L_k - z_k) / mu)`. With mu towards 0 only
  the worst task has a weight; every solution that is Pareto optimal is then
  the minimum for some p. With even preferences the weights sum to 1 / T.

  Args:
    smoothing: mu > 0, in the units of the losses.
    preference: `[T]` p_k > 0; None for 1 / T each.
    ideal: `[T]` z_k, the lowest losses to be had; None for 0 each.

  Returns:
    A Balancer without a state; one pass forward, one back. A task without a
    label in the batch (`present`) has the weight 0.

  Raises:
    ValueError: arguments out of range; in `init`, another number of tasks.

  Differs from the paper: z is a constant, instead of one that is looked for.
  The authors' code takes log(L_k / nadir_k) for the losses, after a warm-up of
  some epochs whose mean losses are the nadir; here losses count as they are, in
  their own units, from the first step.

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
      # Without any label all are 0 anyway.
      heights = jnp.where(present.any(), heights, 0.0)
    return wanted * jax.nn.softmax(heights), state

  return _contract.balancer(init, update)
