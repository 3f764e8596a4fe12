"""Multi-objective gradient correction (Fernando et al. 2023)."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, coordinates
from lplmtl.types import Aggregator, Array, PyTree


class MoCoState(NamedTuple):
  """State of `moco`.

  Attributes:
    step: scalar int32, number of steps taken.
    tracked: the averages y_k; each shared parameter with a leading T axis.
    weights: `[T]` float32, lambda; 1/T for a task before its first label.
  """

  step: Array
  tracked: PyTree
  weights: Array


def moco(
  beta: float = 0.5,
  beta_decay: float = 0.5,
  gamma: float = 0.1,
  gamma_decay: float = 0.5,
  rho: float = 0.0,
  scope: Literal['all', 'shared'] = 'shared',
) -> Aggregator:
  """MoCo: steps towards MGDA's weights, on averages of noisy gradients.

      y_k <- y_k - beta_t (y_k - g_k),   beta_t = beta / t^beta_decay
      lambda <- project(lambda - gamma_t (Y^T Y + rho I) lambda)
      d = sum_k lambda_k y_k

  (Algorithm 1), with gamma_t like beta_t, and the projection onto the simplex.

  Args:
    beta: in (0, 1], of the moving averages, with `beta_decay` >= 0.
    gamma: > 0, of the weights, with `gamma_decay` >= 0.
    rho: >= 0, how strongly the weights are drawn towards equality.
    scope: see `Aggregator`.

  Returns:
    An Aggregator whose state is a `MoCoState`, T times the size of the shared
    parameters; one forward and T backward passes per step. The weights sum to
    1. A task without a label in the batch (`present`) keeps its average. Before
    its first label, its weight is 0; then it starts from 1/T.

  Raises:
    ValueError: an argument is out of range.

  Differs from the paper: the step of the weights uses gradients relative to the
  longest average, so gamma has no unit.

  References:
    Fernando et al. 2023, "Mitigating Gradient Bias in Multi-objective Learning:
    A Provably Convergent Approach".
  """
  _arguments.check('beta', beta, above=0, most=1)
  _arguments.check('beta_decay', beta_decay, least=0)
  _arguments.check('gamma', gamma, above=0)
  _arguments.check('gamma_decay', gamma_decay, least=0)
  _arguments.check('rho', rho, least=0)

  def init(key: Array, params: PyTree, num_tasks: int) -> MoCoState:
    del key
    weights = jnp.full(num_tasks, 1 / num_tasks, jnp.float32)
    zeros = coordinates.zeros(params, num_tasks)
    return MoCoState(jnp.zeros((), jnp.int32), zeros, weights)

  def update(
    gradients: PyTree, losses: Array, state: MoCoState, present: Array | None
  ) -> tuple[PyTree, Array, MoCoState]:
    mask = coordinates.present_tasks(losses, present)
    step = state.step + 1
    time = step.astype(jnp.float32)
    rate = beta / time**beta_decay * mask
    tracked = jax.tree.map(
      lambda y, g: y + coordinates.along(rate, y) * (g - y),
      state.tracked,
      gradients,
    )
    length = gamma / time**gamma_decay
    weights, kept = _step_weights(state.weights, tracked, length, rho)
    gradient = coordinates.combine(weights, tracked)
    return gradient, weights, MoCoState(step, tracked, kept)

  return _contract.aggregator(init, update, scope)


def _step_weights(
  weights: Array, tracked: PyTree, length: Array, rho: float
) -> tuple[Array, Array]:
  """Returns `[T]` weights of this step, and those to keep for the next one."""
  gramian = coordinates.products(tracked).astype(jnp.float32)
  squares = jnp.diagonal(gramian)
  gramian = gramian / jnp.where(squares.max() > 0, squares.max(), 1)
  # A task that never had a gradient would attract all of the weight.
  known = (squares > 0) | ~(squares > 0).any()
  used = jnp.where(known, weights, 0)
  slope = (gramian + rho * jnp.eye(len(weights), dtype=jnp.float32)) @ used
  moved = to_simplex(used - length * slope, known)
  new = jnp.where(known, moved, 0)
  return new, jnp.where(known, new, weights)


def to_simplex(values: Array, known: Array) -> Array:
  """Returns the nearest `[T]` weights >= 0 of sum 1; 0 where not `known`."""
  values = jnp.where(known, values, -jnp.inf)
  ordered = jnp.sort(values)[::-1]
  count = jnp.arange(1, len(values) + 1, dtype=values.dtype)
  excess = (jnp.cumsum(ordered) - 1) / count
  last = jnp.sum(ordered > excess) - 1
  return jnp.maximum(values - excess[last], 0)
