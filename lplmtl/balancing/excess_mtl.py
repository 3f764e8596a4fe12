"""Weights by excess risks (He et al. 2024)."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, coordinates
from lplmtl.types import Aggregator, Array, PyTree

# Added to the sums of squares, as a coordinate that never had a gradient would
# give 0 / 0.
SMALLEST = 1e-7
# The smallest weight is at least exp(-60) = 9e-27 of the largest, so that its
# logarithm in the next step is finite.
LARGEST_LOG_RATIO = 60


class ExcessMtlState(NamedTuple):
  """State of `excess_mtl`.

  Attributes:
    squares: sums of squared gradients; each shared parameter with a leading T
      axis.
    first: `[T]` float32, each task's first excess risk; 0 until there is one.
    weights: `[T]` float32.
  """

  squares: PyTree
  first: Array
  weights: Array


def excess_mtl(
  learning_rate: float = 0.01,
  scope: Literal['all', 'shared'] = 'shared',
) -> Aggregator:
  """ExcessMTL: the further a task is from its optimum, the heavier it gets.

  A loss by itself does not show how much is left to learn, since labels may be
  noisy. The excess risk is estimated by a second-order expansion with
  Adagrad's estimate of the curvature, and the weights follow it:

      E_k = g_k^T diag(H_k)^-1 g_k,   H_k = sqrt(sum_t g_k^2),
      w_k <- w_k exp(rate E_k / E_k(first)),   scaled to the sum T

  (Algorithm 1).

  Args:
    learning_rate: > 0, of the weights.
    scope: see `Aggregator`.

  Returns:
    An Aggregator whose state is an `ExcessMtlState`, T times the size of the
    shared parameters; one forward and T backward passes per step. The weights
    sum to T. A task without a label in the batch (`present`) keeps its weight.

  Raises:
    ValueError: `learning_rate` is not above 0.

  Differs from the paper: the weights act only on the shared parameters. The
  authors' code starts with three epochs of equal weights and then takes the
  first risks; here the first risks are those of the first step.

  References:
    He et al. 2024, "Robust Multi-Task Learning with Excess Risks".
  """
  _arguments.check('learning_rate', learning_rate, above=0)

  def init(key: Array, params: PyTree, num_tasks: int) -> ExcessMtlState:
    del key
    ones = jnp.ones(num_tasks, jnp.float32)
    squares = coordinates.zeros(params, num_tasks)
    return ExcessMtlState(squares, jnp.zeros_like(ones), ones)

  def update(
    gradients: PyTree,
    losses: Array,
    state: ExcessMtlState,
    present: Array | None,
  ) -> tuple[PyTree, Array, ExcessMtlState]:
    mask = coordinates.present_tasks(losses, present)
    squares = jax.tree.map(
      lambda sums, g: sums + jnp.square(g), state.squares, gradients
    )
    scaled = jax.tree.map(
      lambda g, sums: g / jnp.sqrt(sums + SMALLEST), gradients, squares
    )
    risks = coordinates.inner(gradients, scaled).astype(jnp.float32)
    known = state.first > 0
    ratios = jnp.where(known, risks / jnp.where(known, state.first, 1), 0)
    # In logarithms, relative to the largest, so that no exp overflows.
    logs = jnp.log(state.weights) + learning_rate * mask * ratios
    grown = jnp.exp(jnp.maximum(logs - logs.max(), -LARGEST_LOG_RATIO))
    weights = coordinates.share_out(grown, state.weights, mask)
    first = jnp.where(known | (mask == 0), state.first, risks)
    gradient = coordinates.combine(weights, gradients)
    return gradient, weights, ExcessMtlState(squares, first, weights)

  return _contract.aggregator(init, update, scope)
