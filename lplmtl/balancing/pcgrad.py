"""Projecting conflicting gradients (Yu et al. 2020)."""

from typing import Any

import jax
import jax.numpy as jnp

from lplmtl.balancing import _contract, _keys
from lplmtl.types import Array, Balancer, Scope


def pcgrad(scope: Scope = 'shared') -> Balancer:
  """PCGrad: removes from each gradient what conflicts with the others.

  For each task i, starting from `g_i^PC = g_i`, over the other tasks j in a
  random order drawn for i (Algorithm 1):

      g_i^PC <- g_i^PC - min(0, g_i^PC . g_j) / ||g_j||^2 g_j

  always with the original g_j; the update is `sum_i g_i^PC`. All of these are
  combinations of the g_j, so the Gramian suffices: the weights are the sums of
  their coefficients. They are at least 1, and without conflicts exactly 1.

  Args:
    scope: the parameters whose gradients are compared and combined; see
      `Balancer`.

  Returns:
    A Balancer whose state is a random key, `[2]` uint32; one forward and T
    backward passes per step.

  Differs from the paper: with `scope='shared'` only shared parameters count, as
  is common practice; parameters of a single task cannot conflict.

  References:
    Yu et al. 2020, "Gradient Surgery for Multi-Task Learning".
  """

  def init(key: Array, num_tasks: int) -> Array:
    del num_tasks
    return _keys.to_data(key)

  def update(
    losses: Array, state: Array, gramian: Array, present: Any
  ) -> tuple[Array, Array]:
    del present
    num_tasks = len(losses)
    key, order_key = jax.random.split(_keys.from_data(state))
    tasks = jnp.arange(num_tasks)
    # [i, k]: the coefficient of g_k in task i's projected gradient.
    start = jnp.eye(num_tasks, dtype=gramian.dtype)

    def project(coefficients: Array, j: Array) -> tuple[Array, None]:
      inner = jnp.sum(coefficients * gramian[j], axis=1)
      conflict = (inner < 0) & (j != tasks) & (gramian[j, j] > 0)
      square = jnp.where(conflict, gramian[j, j], 1)
      removed = jnp.where(conflict, inner / square, 0)
      return coefficients.at[tasks, j].add(-removed), None

    order = _keys.orders(order_key, num_tasks)
    coefficients, _ = jax.lax.scan(project, start, order.T)
    return coefficients.sum(axis=0), _keys.to_data(key)

  return _contract.balancer(init, update, needs_gramian=True, scope=scope)
