"""Gradient normalisation (Chen et al. 2018)."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from lplmtl.balancing import _arguments, _contract, coordinates
from lplmtl.balancing._learned import move
from lplmtl.types import Array, Balancer, Scope

# The smallest weight before scaling. Adam's steps of 0.025 could otherwise take
# a weight to 0 or below, where the task is lost or its loss is maximised.
SMALLEST = 1e-3


class GradNormState(NamedTuple):
  """State of `gradnorm`.

  Attributes:
    weights: `[T]` float32 > 0, for the next step.
    first: `[T]` float32, each task's first loss; 0 until there is one.
    opt_state: state of the weights' optimiser.
  """

  weights: Array
  first: Array
  opt_state: Any


def gradnorm(
  alpha: float = 1.5, learning_rate: float = 0.025, scope: Scope = 'all'
) -> Balancer:
  """GradNorm: learns weights that make the gradients equally long.

  The weights of the next step follow the gradient of

      sum_k | G_k - mean(G) r_k^alpha |,   G_k = w_k ||g_k||

  with the target held constant. r_k is the ratio of task k's loss to its first
  loss, relative to the mean of these ratios: tasks that lag behind may have
  longer gradients. The weights sum to T.

  Args:
    alpha: >= 0, how strongly a lag counts.
    learning_rate: of the weights' own Adam.
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is a `GradNormState`; one forward and T backward
    passes per step. A task without a label in the batch (`present`) keeps its
    weight.

  Raises:
    ValueError: an argument is out of range.

  Differs from the paper: the lengths are those of the gradients of all
  parameters in the scope, not only of the last shared layer; weights are at
  least 1e-3 before they are scaled to their sum.

  References:
    Chen et al. 2018, "GradNorm: Gradient Normalization for Adaptive Loss
    Balancing in Deep Multitask Networks".
  """
  _arguments.check('alpha', alpha, least=0)
  _arguments.check('learning_rate', learning_rate, above=0)
  optimizer = optax.adam(learning_rate)

  def init(key: Array, num_tasks: int) -> GradNormState:
    del key
    ones = jnp.ones(num_tasks, jnp.float32)
    return GradNormState(ones, jnp.zeros_like(ones), optimizer.init(ones))

  def update(
    losses: Array,
    state: GradNormState,
    gramian: Array,
    present: Array | None,
  ) -> tuple[Array, GradNormState]:
    mask = coordinates.present_tasks(losses, present)
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0)).astype(jnp.float32)
    first = jnp.where((state.first > 0) | (mask == 0), state.first, losses)
    count = jnp.maximum(mask.sum(), 1)
    ratios = jnp.where(first > 0, losses / jnp.where(first > 0, first, 1), 1)
    mean = jnp.sum(mask * ratios) / count
    relative = ratios / jnp.where(mean > 0, mean, 1)
    lengths = state.weights * norms
    target = jnp.sum(mask * lengths) / count * relative**alpha
    slope = mask * norms * jnp.sign(lengths - target)
    step, opt_state = move(optimizer, slope, state.opt_state, state.weights)
    weights = jnp.maximum(state.weights + mask * step, SMALLEST)
    weights = coordinates.share_out(weights, state.weights, mask)
    return state.weights, GradNormState(weights, first, opt_state)

  return _contract.balancer(
    init, update, needs_losses=False, needs_gramian=True, scope=scope
  )
