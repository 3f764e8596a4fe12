"""Multi-objective gradient correction (Fernando et al. 2023)."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, coordinates
from lplmtl.types import Aggregator, Array, PyTree


class MoCoState(NamedTuple):
  """State of `moco`.

  Attributes:
    step: scalar int32, steps taken.
    tracked: the gradients y_k, a leading T on every shared parameter.
    weights: `[T]` float32, lambda; 1/T of a task before its first label.
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
  """MoCo: the way to MGDA's weights, over gradients freed of their noise.

      y_k <- y_k - beta_t (y_k - g_k),   beta_t = beta / t^beta_decay
      lambda <- project(lambda - gamma_t (Y^T Y + rho I) lambda)
      d = sum_k lambda_k y_k

  (Algorithm 1), the projection onto the simplex; gamma_t likewise.

  Args:
    beta: in (0, 1], of the moving averages, with its `beta_decay` >= 0.
    gamma: > 0, of the weights, with its `gamma_decay` >= 0.
    rho: >= 0, draws the weights to even ones.
    scope: see `Aggregator`.

  Returns:
    An Aggregator whose state is a `MoCoState`, T times the shared parameters;
    1 pass forward, T back. The weights sum to 1. The average of a task without
    a label in the batch (`present`) stays; before its first label it has no
    weight, and then starts from 1/T.

  Raises:
    ValueError: arguments out of range.

  Differs from the paper: gradients enter the weights' step relative to the
  longest average, so that gamma has no unit.

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
    return MoCoState(
      jnp.zeros((), jnp.int32),
      coordinates.zeros(params, num_tasks),
      jnp.full(num_tasks, 1 / num_tasks, jnp.float32),
    )

  def update(
    gradients: PyTree,
    losses: Array,
    state: MoCoState,
    present: Array | None,
  ) -> tuple[PyTree, Array, MoCoState]:
    here = coordinates.present_tasks(losses, present)
    step = state.step + 1
    time = step.astype(jnp.float32)
    rate = beta / time**beta_decay * here
    tracked = jax.tree.map(
      lambda y, g: y + coordinates.along(rate, y) * (g - y),
      state.tracked,
      gradients,
    )
    gramian = coordinates.products(tracked).astype(jnp.float32)
    squares = jnp.diagonal(gramian)
    gramian = gramian / jnp.where(squares.max() > 0, squares.max(), 1)
    # A task that has had no gradient yet would draw the weights to itself.
    known = (squares > 0) | ~(squares > 0).any()
    used = jnp.where(known, state.weights, 0)
    ridge = rho * jnp.eye(len(losses), dtype=jnp.float32)
    slope = (gramian + ridge) @ used
    moved = to_simplex(used - gamma / time**gamma_decay * slope, known)
    weights = jnp.where(known, moved, 0)
    found = coordinates.combine(weights, tracked)
    kept = jnp.where(known, weights, state.weights)
    return found, weights, MoCoState(step, tracked, kept)

  return _contract.aggregator(init, update, scope)


def to_simplex(values: Array, known: Array) -> Array:
  """The nearest `[T]` weights >= 0 that sum to 1; 0 where not `known`."""
  values = jnp.where(known, values, -jnp.inf)
  ordered = jnp.sort(values)[::-1]
  count = jnp.arange(1, len(values) + 1, dtype=values.dtype)
  excess = (jnp.cumsum(ordered) - 1) / count
  last = jnp.sum(ordered > excess) - 1
  return jnp.maximum(values - excess[last], 0)
