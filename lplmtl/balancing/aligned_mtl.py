"""Independent component alignment (Senushkin et al. 2023)."""

from typing import Any, Literal

import jax.numpy as jnp

from lplmtl.balancing import _contract, _solvers
from lplmtl.types import Array, Balancer, Scope

SCALES = ('min', 'median', 'rmse')


def aligned_mtl(
  scale: Literal['min', 'median', 'rmse'] = 'min', scope: Scope = 'shared'
) -> Balancer:
  """Aligned-MTL: replaces the gradients by the nearest orthogonal ones.

  With the Gramian `A = V diag(lambda) V^T`, the gradients `B g`,

      B = sigma V diag(lambda^-1/2) V^T

  are orthogonal and of one length sigma, so that their Gramian has condition
  number 1. The step goes along their mean: the weights are `B 1 / T`; they sum
  to nothing fixed.

  Args:
    scale: sigma^2: the smallest, the median or the mean eigenvalue of A.
    scope: see `Balancer`.

  Returns:
    A Balancer without a state; 1 pass forward, T back. Directions of A of
    rounding's size are left out, in float32 those that are some 1000 times
    shorter than the longest gradient: bring the losses to one scale. Where all
    gradients are 0 the weights are 1/T.

  Raises:
    ValueError: another scale.

  References:
    Senushkin et al. 2023, "Independent Component Alignment for Multi-Task
    Learning".
  """
  if scale not in SCALES:
    raise ValueError(f'scale must be one of {SCALES}, found {scale!r}')

  def update(
    losses: Array, state: tuple[()], gramian: Array, present: Any
  ) -> tuple[Array, tuple[()]]:
    del losses, present
    weights = alignment(gramian, scale).mean(axis=1)
    return weights, state

  return _contract.balancer(
    _solvers.stateless, update, needs_gramian=True, scope=scope
  )


def alignment(gramian: Array, scale: str) -> Array:
  """`[T, T]` B, so that `sum_j B_kj g_j` are orthogonal and of one length."""
  size = len(gramian)
  largest = jnp.diagonal(gramian).max()
  values, vectors = jnp.linalg.eigh(
    gramian / jnp.where(largest > 0, largest, 1)
  )
  kept = values > 2 * size * jnp.finfo(values.dtype).eps * values[-1]
  count = kept.sum()
  if scale == 'min':
    chosen = jnp.min(jnp.where(kept, values, jnp.inf))
  elif scale == 'median':
    chosen = values[size - 1 - count // 2]  # from the largest down
  else:
    total = jnp.where(kept, values, 0).sum()
    chosen = total / jnp.maximum(count, 1).astype(values.dtype)
  factors = jnp.sqrt(chosen / jnp.where(kept, values, 1))
  matrix = vectors * jnp.where(kept, factors, 0)[None] @ vectors.T
  return jnp.where(count > 0, matrix, jnp.eye(size, dtype=matrix.dtype))
