"""Weights that decay step by step (Tang et al. 2020)."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract
from lplmtl.types import Array, Balancer


def exponential(
  initial: Sequence[float] | None = None,
  rates: Sequence[float] | None = None,
  steps_per_epoch: int = 1,
) -> Balancer:
  """PLE's schedule: `w_k = w_k,0 gamma_k^t`; the weights sum to nothing fixed.

  Args:
    initial: `[T]` w_k,0 > 0; None for 1 each.
    rates: `[T]` gamma_k > 0; None for 1 each, which is `static`.
    steps_per_epoch: after how many steps t grows by one.

  Returns:
    A Balancer whose state is the number of steps, int32; one pass forward, one
    back.

  Raises:
    ValueError: numbers that are not above 0; in `init`, another number of
      tasks.

  References:
    Tang et al. 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task
    Learning Model for Personalized Recommendations".
  """
  _arguments.check_each('initial', initial, above=0)
  _arguments.check_each('rates', rates, above=0)
  _arguments.check_whole('steps_per_epoch', steps_per_epoch)

  def init(key: Array, num_tasks: int) -> Array:
    del key
    _arguments.check_length('initial', initial, num_tasks)
    _arguments.check_length('rates', rates, num_tasks)
    return jnp.zeros((), jnp.int32)

  def update(losses: Array, state: Array, present: Any) -> tuple[Array, Array]:
    del present
    ones = jnp.ones_like(losses)
    start = ones if initial is None else jnp.asarray(initial, jnp.float32)
    rate = ones if rates is None else jnp.asarray(rates, jnp.float32)
    age = (state // steps_per_epoch).astype(jnp.float32)
    # At most exp(80): a rate above 1 must not grow beyond all numbers.
    growth = jnp.exp(jnp.clip(age * jnp.log(rate), -80.0, 80.0))
    return start * growth, state + 1

  return _contract.balancer(init, update, needs_losses=False)
