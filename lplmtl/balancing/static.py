"""Fixed weights: what a grid search tries."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract
from lplmtl.types import Array, Balancer


def static(weights: Sequence[float] | None = None) -> Balancer:
  """Weights that stay as they are given; they sum to what they sum to.

  Tuned on validation, fixed weights are the baseline that learned ones are
  most often compared without (Xin et al. 2022, Kurin et al. 2022).

  Args:
    weights: T numbers >= 0, not all of them 0, in the order of the tasks; None
      for 1 each, as `equal`.

  Returns:
    A Balancer without a state; one pass forward, one back.

  Raises:
    ValueError: weights below 0, not finite or all 0; in `init`, another number
      of tasks.

  References:
    Xin et al. 2022, "Do Current Multi-Task Optimization Methods in Deep
    Learning Even Help?".
    Kurin et al. 2022, "In Defense of the Unitary Scalarization for Deep
    Multi-Task Learning".
  """
  _arguments.check_each('weights', weights, least=0)
  if weights is not None and not any(weights):
    raise ValueError(f'weights must not all be 0; found {tuple(weights)}')

  def init(key: Array, num_tasks: int) -> tuple[()]:
    del key
    if weights is not None and len(weights) != num_tasks:
      raise ValueError(
        f'expected a weight for each of {num_tasks} tasks, found '
        f'{len(weights)}: {tuple(weights)}'
      )
    return ()

  def update(
    losses: Array, state: tuple[()], present: Any
  ) -> tuple[Array, tuple[()]]:
    del present
    ones = jnp.ones_like(losses)
    if weights is None:
      return ones, state
    return jnp.asarray(weights, jnp.float32), state

  return _contract.balancer(init, update, needs_losses=False)
