"""Independent component alignment (Senushkin et al. 2023)."""

from typing import Any, Literal

import jax.numpy as jnp

from lplmtl.balancing import _contract
from lplmtl.types import Array, Balancer, Scope

SCALES = ('min', 'median', 'rmse')


def aligned_mtl(
  scale: Literal['min', 'median', 'rmse'] = 'min', scope: Scope = 'shared'
) -> Balancer:
  """Aligned-MTL: replaces the gradients by the nearest orthogonal ones.

  With the Gramian `A = V diag(lambda) V^T`, the gradients `B g`,

      B = sigma V diag(lambda^-1/2) V^T

  are orthogonal and all have the length sigma, so their Gramian has condition
  number 1. The step follows their mean: the weights are `B 1 / T`. Their sum is
  not fixed.

  Args:
    scale: sigma^2 is the smallest, the median or the mean eigenvalue of A.
    scope: see `Balancer`.

  Returns:
    A Balancer without a state; one forward and T backward passes per step.
    Directions in which A is 0 up to rounding are dropped: in float32, those
    about 1000 times shorter than the longest gradient, so bring the losses to
    a common scale. If all gradients are 0, the weights are 1/T.

  Raises:
    ValueError: `scale` is not one of the three.

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
    _contract.stateless, update, needs_gramian=True, scope=scope
  )


def alignment(gramian: Array, scale: str) -> Array:
  """Returns B, `[T, T]`; the `sum_j B_kj g_j` are orthogonal, of one length."""
  size = len(gramian)
  # Relative to the longest gradient, so that no product overflows or vanishes.
  largest = jnp.diagonal(gramian).max()
  values, vectors = jnp.linalg.eigh(
    gramian / jnp.where(largest > 0, largest, 1)
  )
  # Rounding moves each eigenvalue by about T eps times the largest one; twice
  # that separates those that are 0. eigh returns them in ascending order.
  kept = values > 2 * size * jnp.finfo(values.dtype).eps * values[-1]
  count = kept.sum()
  if scale == 'min':
    chosen = jnp.min(jnp.where(kept, values, jnp.inf))
  elif scale == 'median':
    chosen = values[size - 1 - count // 2]  # of those kept
  else:
    total = jnp.where(kept, values, 0).sum()
    chosen = total / jnp.maximum(count, 1).astype(values.dtype)
  factors = jnp.sqrt(chosen / jnp.where(kept, values, 1))
  matrix = vectors * jnp.where(kept, factors, 0)[None] @ vectors.T
  return jnp.where(count > 0, matrix, jnp.eye(size, dtype=matrix.dtype))
