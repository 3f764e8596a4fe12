"""Projecting conflicting gradients (Yu et al. 2020)."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from lplmtl.types import Array, Balancer


def pcgrad(scope: Literal['all', 'shared'] = 'shared') -> Balancer:
  """PCGrad: takes from each gradient what conflicts with another's.

  For each task i, from `g_i^PC = g_i`, over the other tasks j in a random order
  of its own (Algorithm 1):

      g_i^PC <- g_i^PC - min(0, g_i^PC . g_j) / ||g_j||^2 g_j

  always the original g_j; the update is `sum_i g_i^PC`. All of it are
  combinations of the g_j, so the Gramian is enough: the weights are the sums of
  their coefficients. They are at least 1: without conflict it is `equal`.

  Args:
    scope: the parameters whose gradients are compared and combined.

  Returns:
    A Balancer whose state is a random key.

  Differs from the paper: with `scope='shared'` only shared parameters count, as
  is usual; parameters of one task have no conflict.

  References:
    Yu et al. 2020, "Gradient Surgery for Multi-Task Learning".
  """

  def init(key: Array, num_tasks: int) -> Array:
    del num_tasks
    return key

  def update(
    losses: Array, state: Array, *, gramian: Array, **extra: Any
  ) -> tuple[Array, Array]:
    del extra
    num_tasks = len(losses)
    key, order_key = jax.random.split(state)
    basis = jnp.eye(num_tasks, dtype=gramian.dtype)

    def surgery(own: Array, key: Array) -> Array:
      """Coefficients `[T]` of one task's projected gradient."""

      def project(found: Array, j: Array) -> tuple[Array, None]:
        inner = found @ gramian[:, j]
        # Not with itself; a conflict also rules out that ||g_j|| is 0.
        conflict = (inner < 0) & (own[j] == 0)
        length = jnp.where(conflict, gramian[j, j], 1)
        return found - jnp.where(conflict, inner / length, 0) * basis[j], None

      order = jax.random.permutation(key, num_tasks)
      return jax.lax.scan(project, own, order)[0]

    projected = jax.vmap(surgery)(basis, jax.random.split(order_key, num_tasks))
    return projected.sum(axis=0).astype(losses.dtype), key

  return Balancer(init, update, needs_gramian=True, scope=scope)
