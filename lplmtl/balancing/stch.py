"""Smooth Tchebycheff scalarisation (Lin et al. 2024)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lplmtl.types import Array, Balancer


def stch(
  smoothing: float = 0.1,
  preference: Sequence[float] | None = None,
  ideal: Sequence[float] | None = None,
) -> Balancer:
  """Descends a smooth maximum of the losses: the worst task counts most.

      L = mu log sum_k exp(p_k (L_k - z_k) / mu)

  so that `w_k = p_k softmax_k(p_k (L_k - z_k) / mu)`. With mu towards 0 only
  the worst task has a weight; every solution that is Pareto optimal is the
  minimum for some p. With even preferences the weights sum to 1 / T.

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

  References:
    Lin et al. 2024, "Smooth Tchebycheff Scalarization for Multi-Objective
    Optimization".
  """
  if not smoothing > 0:
    raise ValueError(f'smoothing must be above 0, found {smoothing}')
  if preference is not None and not all(p > 0 for p in preference):
    raise ValueError(f'preference must be above 0, found {tuple(preference)}')

  def init(key: Array, num_tasks: int) -> tuple[()]:
    del key
    for name, values in (('preference', preference), ('ideal', ideal)):
      if values is not None and len(values) != num_tasks:
        raise ValueError(
          f'{name} has {len(values)} entries for {num_tasks} tasks'
        )
    return ()

  def update(
    losses: Array,
    state: tuple[()],
    *,
    present: Array | None = None,
    **extra: Any,
  ) -> tuple[Array, tuple[()]]:
    del extra
    losses = jax.lax.stop_gradient(losses.astype(jnp.float32))
    size = len(losses)
    wanted = jnp.full(size, 1 / size) if preference is None else preference
    best = jnp.zeros(size) if ideal is None else ideal
    wanted, best = (jnp.asarray(x, jnp.float32) for x in (wanted, best))
    heights = wanted * (losses - best) / smoothing
    if present is not None:
      heights = jnp.where(present, heights, -jnp.inf)
      # Without any label all are 0 anyway.
      heights = jnp.where(present.any(), heights, 0.0)
    return wanted * jax.nn.softmax(heights), state

  return Balancer(init, update)
