"""Fast adaptive multi-task optimisation (Liu et al. 2023)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lplmtl.balancing import _arguments, _contract, coordinates
from lplmtl.balancing._learned import keep_absent, move
from lplmtl.types import Array, Balancer

# The smallest distance of a loss from its lower bound: the method divides by
# the distance and takes its logarithm. The authors' code uses 1e-8, too.
SMALLEST = 1e-8


class FamoState(NamedTuple):
  """State of `famo`.

  Attributes:
    logits: `[T]` float32, xi_k.
    opt_state: state of the logits' optimiser.
  """

  logits: Array
  opt_state: Any


def famo(
  learning_rate: float = 0.025,
  weight_decay: float = 0.001,
  lowest: Sequence[float] | None = None,
) -> Balancer:
  """FAMO: makes all losses fall at the same rate, for one more forward pass.

      w_k = c z_k / (L_k - b_k),  z = softmax(xi),
      c = 1 / sum_k z_k / (L_k - b_k)

  After the step, with the losses L' of the same rows,

      delta_k = log(L_k - b_k) - log(L'_k - b_k),
      xi <- xi - rate (J delta + decay xi),   J = diag(z) - z z^T

  by Adam: a task whose loss fell faster than the others' gets less weight. The
  weights sum to 1.

  Args:
    learning_rate: of the logits' own Adam.
    weight_decay: gamma, of the logits.
    lowest: `[T]` b_k, lower bounds of the losses; None for 0 each. A bound
      above a task's loss is not detected: that loss counts as 1e-8 from then
      on, and the task gets nearly all of the weight.

  Returns:
    A Balancer whose state is a `FamoState`; two forward passes and one backward
    pass per step. A task without a label in the batch (`present`) keeps its
    logit and has weight 0. Losses must be above b_k; those closer than 1e-8
    count as 1e-8 above it.

  Raises:
    ValueError: an argument is out of range; or, in `init`, the number of tasks
      does not match.

  References:
    Liu et al. 2023, "FAMO: Fast Adaptive Multitask Optimization".
  """
  _arguments.check('learning_rate', learning_rate, above=0)
  _arguments.check('weight_decay', weight_decay, least=0)
  _arguments.check_each('lowest', lowest)
  optimizer = optax.chain(
    optax.add_decayed_weights(weight_decay), optax.adam(learning_rate)
  )

  def init(key: Array, num_tasks: int) -> FamoState:
    del key
    _arguments.check_length('lowest', lowest, num_tasks)
    logits = jnp.zeros(num_tasks, jnp.float32)
    return FamoState(logits, optimizer.init(logits))

  def above(losses: Array) -> Array:
    base = 0.0 if lowest is None else jnp.asarray(lowest, jnp.float32)
    return jnp.maximum(losses - base, SMALLEST)

  def update(
    losses: Array, state: FamoState, present: Array | None
  ) -> tuple[Array, FamoState]:
    mask = coordinates.present_tasks(state.logits, present)
    rates = mask * jax.nn.softmax(state.logits) / above(losses)
    total = rates.sum()
    return rates / jnp.where(total > 0, total, 1), state

  def after(
    before: Array, later: Array, state: FamoState, present: Array | None
  ) -> FamoState:
    mask = coordinates.present_tasks(state.logits, present)
    shares = mask * jax.nn.softmax(state.logits)
    fall = jnp.log(above(before)) - jnp.log(above(later))
    total = shares.sum()
    mean = jnp.sum(shares * fall) / jnp.where(total > 0, total, 1)
    slope = shares * (fall - mean)  # J delta
    step, opt_state = move(optimizer, slope, state.opt_state, state.logits)
    return keep_absent(
      FamoState(state.logits + step, opt_state), state, present
    )

  return _contract.balancer(init, update, after=after)
