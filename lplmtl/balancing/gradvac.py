"""Gradient vaccine (Wang et al. 2021)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, _keys
from lplmtl.types import Array, Balancer, Scope

# The largest average cosine c: the coefficient grows as c / sqrt(1 - c^2),
# which is 7 here and infinite at 1.
LARGEST = 0.99


class GradVacState(NamedTuple):
  """State of `gradvac`.

  Attributes:
    key: `[2]` uint32, a random key.
    wanted: `[T, T]` float32, moving averages of the cosines.
  """

  key: Array
  wanted: Array


def gradvac(beta: float = 0.01, scope: Scope = 'all') -> Balancer:
  """GradVac: gives the gradients the cosines that they usually have.

  For each task i, starting from `g'_i = g_i`, over the other tasks j in a
  random order drawn for i (Algorithm 1): with `phi = cos(g'_i, g_j)` and its
  moving average `phi'`, if phi < phi',

      g'_i <- g'_i + ||g'_i|| (phi' sqrt(1 - phi^2) - phi sqrt(1 - phi'^2))
                     / (||g_j|| sqrt(1 - phi'^2)) g_j

  after which their cosine is phi'; then `phi' <- (1 - beta) phi' + beta phi`.
  The update is `sum_i g'_i`, as in `pcgrad`, which is the case phi' = 0. The
  weights are at least 1 if no average is below 0; their sum is not fixed.

  Args:
    beta: in [0, 1], how fast the moving averages move.
    scope: see `Balancer`; 'all' is the paper's "whole model".

  Returns:
    A Balancer whose state is a `GradVacState`; one forward and T backward
    passes per step.

  Raises:
    ValueError: `beta` is out of range.

  Differs from the paper: averages stay within [-0.99, 0.99], so that nearly
  parallel gradients do not give an infinite coefficient.

  References:
    Wang et al. 2021, "Gradient Vaccine: Investigating and Improving Multi-task
    Optimization in Massively Multilingual Models".
  """
  _arguments.check('beta', beta, least=0, most=1)

  def init(key: Array, num_tasks: int) -> GradVacState:
    wanted = jnp.zeros((num_tasks, num_tasks), jnp.float32)
    return GradVacState(_keys.to_data(key), wanted)

  def update(
    losses: Array, state: GradVacState, gramian: Array, present: Any
  ) -> tuple[Array, GradVacState]:
    del present
    num_tasks = len(losses)
    key, order_key = jax.random.split(_keys.from_data(state.key))
    tasks = jnp.arange(num_tasks)
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0))

    def turn(loop: tuple[Array, Array], j: Array) -> Any:
      # coefficients[i, k]: how much of g_k there is in g'_i.
      coefficients, wanted = loop
      along = coefficients @ gramian
      squares = jnp.sum(along * coefficients, axis=1)
      length = jnp.sqrt(jnp.maximum(squares, 0))
      usable = (j != tasks) & (length > 0) & (norms[j] > 0)
      product = jnp.where(usable, length * norms[j], 1)
      cosine = jnp.clip(along[tasks, j] / product, -1, 1)
      goal = wanted[tasks, j]
      ratio = goal / jnp.sqrt(1 - goal**2) * jnp.sqrt(1 - cosine**2) - cosine
      ratio = ratio * length / jnp.where(usable, norms[j], 1)
      coefficients = coefficients.at[tasks, j].add(
        jnp.where(usable & (cosine < goal), ratio, 0)
      )
      new = jnp.clip((1 - beta) * goal + beta * cosine, -LARGEST, LARGEST)
      wanted = wanted.at[tasks, j].set(jnp.where(usable, new, goal))
      return (coefficients, wanted), None

    start = jnp.eye(num_tasks, dtype=gramian.dtype)
    wanted = state.wanted.astype(gramian.dtype)
    order = _keys.orders(order_key, num_tasks)
    (coefficients, wanted), _ = jax.lax.scan(turn, (start, wanted), order.T)
    new = GradVacState(_keys.to_data(key), wanted.astype(jnp.float32))
    return coefficients.sum(axis=0), new

  return _contract.balancer(init, update, needs_gramian=True, scope=scope)
