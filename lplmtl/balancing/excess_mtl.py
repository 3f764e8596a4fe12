"""Weights by excess risks (He et al. 2024)."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, coordinates
from lplmtl.types import Aggregator, Array, PyTree

SMALLEST = 1e-7  # added to sums of squares


class ExcessMtlState(NamedTuple):
  """State of `excess_mtl`.

  Attributes:
    squares: sums of squared gradients, a leading T on every shared parameter.
    first: `[T]` float32, each task's first excess risk; 0 before there was one.
    weights: `[T]` float32.
  """

  squares: PyTree
  first: Array
  weights: Array


def excess_mtl(
  learning_rate: float = 0.01,
  scope: Literal['all', 'shared'] = 'shared',
) -> Aggregator:
  """ExcessMTL: the further a task is from its optimum, the heavier.

  A loss alone does not tell how much there is left to learn: labels may be
  noise. The excess risk is estimated by a second-order expansion with the
  curvature that Adagrad sees, and the weights follow it:

      E_k = g_k^T diag(H_k)^-1 g_k,   H_k = sqrt(sum_t g_k^2),
      w_k <- w_k exp(rate E_k / E_k(first)),   scaled to the sum T

  (Algorithm 1).

  Args:
    learning_rate: > 0, of the weights.
    scope: see `Aggregator`.

  Returns:
    An Aggregator whose state is an `ExcessMtlState`, T times the shared
    parameters; 1 pass forward, T back. The weights sum to T. A task without a
    label in the batch (`present`) keeps its share.

  Raises:
    ValueError: a learning rate that is not above 0.

  Differs from the paper: the weights act on the shared parameters alone. The
  authors' code has a warm-up of three epochs with even weights, after which it
  takes the first risks; here these are the first step's.

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
    here = coordinates.present_tasks(losses, present)
    squares = jax.tree.map(
      lambda sums, g: sums + jnp.square(g), state.squares, gradients
    )
    scaled = jax.tree.map(
      lambda g, sums: g / jnp.sqrt(sums + SMALLEST), gradients, squares
    )
    risks = coordinates.inner(gradients, scaled).astype(jnp.float32)
    known = state.first > 0
    ratios = jnp.where(known, risks / jnp.where(known, state.first, 1), 0)
    # In logarithms, so that no ratio is too large for exp.
    logs = jnp.log(state.weights) + learning_rate * here * ratios
    grown = jnp.exp(jnp.maximum(logs - logs.max(), -60))
    weights = coordinates.share_out(grown, state.weights, here)
    first = jnp.where(known | (here == 0), state.first, risks)
    found = coordinates.combine(weights, gradients)
    return found, weights, ExcessMtlState(squares, first, weights)

  return _contract.aggregator(init, update, scope)
