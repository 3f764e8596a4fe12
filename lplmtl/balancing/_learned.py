"""Weights learned by the gradient of a total loss, as part of the state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lplmtl.balancing import _arguments, _contract
from lplmtl.types import Array, Balancer, PyTree

# Weights stay between exp(-15) and exp(15) = 3e6, the optima for losses from
# 3e-7 to 3e6: beyond that, a task is solved or broken. Without a bound, a loss
# of 0 would drive its weight to infinity.
LARGEST = 15.0


def learned(
  total_loss: Callable[[Array, Array], Array],
  learning_rate: float,
  make_state: Callable[[Array, Any], Any],
) -> Balancer:
  """Makes a balancer with T learned values within [-15, 15] that start at 0.

  The weights are `dtotal / dlosses`. The values descend `dtotal / dvalues` with
  their own Adam. A task without a label in the batch (`present`) keeps its
  value and its optimiser state.

  Args:
    total_loss: `(losses [T], values [T]) -> scalar`, linear in the losses.
    learning_rate: Adam's.
    make_state: a NamedTuple class with the values and the optimiser's state.

  Raises:
    ValueError: `learning_rate` is not above 0.
  """
  _arguments.check('learning_rate', learning_rate, above=0)
  optimizer = optax.adam(learning_rate)

  def init(key: Array, num_tasks: int) -> Any:
    del key
    values = jnp.zeros(num_tasks, jnp.float32)
    return make_state(values, optimizer.init(values))

  def update(
    losses: Array, state: Any, present: Array | None
  ) -> tuple[Array, Any]:
    values, opt_state = state
    weights, gradient = jax.grad(total_loss, argnums=(0, 1))(losses, values)
    step, opt_state = move(optimizer, gradient, opt_state, values)
    new = make_state(jnp.clip(values + step, -LARGEST, LARGEST), opt_state)
    return weights, keep_absent(new, state, present)

  # Linear in the losses: the weights depend only on the state.
  return _contract.balancer(init, update, needs_losses=False)


def move(
  optimizer: optax.GradientTransformation,
  slope: Array,
  opt_state: Any,
  values: Array,
) -> tuple[Array, Any]:
  """Returns the step of learned values, and their optimiser's new state."""
  # Optax mixes dtypes in its counters, which strict promotion forbids.
  with jax.numpy_dtype_promotion('standard'):
    return optimizer.update(slope, opt_state, values)


def keep_absent(new: PyTree, old: PyTree, present: Array | None) -> PyTree:
  """Returns `new`, with old entries for tasks without a label in the batch."""
  if present is None:
    return new
  return jax.tree.map(
    lambda new, old: jnp.where(present, new, old) if new.ndim else new, new, old
  )
