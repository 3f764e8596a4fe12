"""Dual balancing (Lin et al. 2023)."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, coordinates
from lplmtl.types import Aggregator, Array, PyTree

# The smallest divisor, for losses and for the lengths of the averages relative
# to the longest: far below what training reaches, while gradients divided by it
# are still finite in float32.
SMALLEST = 1e-8


class DbMtlState(NamedTuple):
  """State of `db_mtl`.

  Attributes:
    step: scalar int32, number of steps taken.
    tracked: moving averages of the gradients of the log losses; each shared
      parameter with a leading T axis.
  """

  step: Array
  tracked: PyTree


def db_mtl(
  beta: float = 0.9,
  decay: float = 0.5,
  scope: Literal['all', 'shared'] = 'shared',
) -> Aggregator:
  """DB-MTL: log losses, and gradients all as long as the longest.

      y_k <- beta_t y_k + (1 - beta_t) grad log(L_k),   beta_t = beta / t^decay
      d = max_j ||y_j|| sum_k y_k / ||y_k||

  (Algorithm 1). The scale of a loss has no effect.

  Args:
    beta: in [0, 1), momentum of the moving averages.
    decay: >= 0, exponent by which beta decays over the steps.
    scope: see `Aggregator`.

  Returns:
    An Aggregator whose state is a `DbMtlState`, T times the size of the shared
    parameters; one forward and T backward passes per step. The weights that it
    reports are the factors of the averages; their sum is not fixed. Losses must
    be above 0; those below 1e-8 count as 1e-8. A task without a label in the
    batch (`present`) keeps its average.

  Raises:
    ValueError: an argument is out of range.

  Differs from the paper: parameters of a single task follow the gradient of the
  task's loss, not of its log loss.

  References:
    Lin et al. 2023, "Dual-Balancing for Multi-Task Learning".
  """
  _arguments.check('beta', beta, least=0, below=1)
  _arguments.check('decay', decay, least=0)

  def init(key: Array, params: PyTree, num_tasks: int) -> DbMtlState:
    del key
    tracked = coordinates.zeros(params, num_tasks)
    return DbMtlState(jnp.zeros((), jnp.int32), tracked)

  def update(
    gradients: PyTree,
    losses: Array,
    state: DbMtlState,
    present: Array | None,
  ) -> tuple[PyTree, Array, DbMtlState]:
    mask = coordinates.present_tasks(losses, present)
    step = state.step + 1
    rate = mask * (1 - beta / step.astype(jnp.float32) ** decay)
    inverse = 1 / jnp.maximum(losses, SMALLEST)  # grad log L = grad L / L
    tracked = jax.tree.map(
      lambda y, g: (
        y + coordinates.along(rate, y) * (coordinates.along(inverse, g) * g - y)
      ),
      state.tracked,
      gradients,
    )
    norms = jnp.sqrt(coordinates.inner(tracked, tracked))
    weights = jnp.where(
      norms > 0, norms.max() / jnp.maximum(norms, SMALLEST * norms.max()), 1
    )
    weights = jnp.where(norms.max() > 0, weights, 1).astype(jnp.float32)
    gradient = coordinates.combine(weights, tracked)
    return gradient, weights, DbMtlState(step, tracked)

  return _contract.aggregator(init, update, scope)
