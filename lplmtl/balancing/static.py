"""Fixed weights, such as a grid search tries."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract
from lplmtl.types import Array, Balancer


def static(weights: Sequence[float] | None = None) -> Balancer:
  """Constant weights, whatever their sum.

  Fixed weights tuned on validation rows are the baseline that comparisons of
  learned weights most often lack (Xin et al. 2022, Kurin et al. 2022).

  Args:
    weights: T numbers >= 0, not all of them 0, in the order of the tasks; None
      for 1 each, as in `equal`.

  Returns:
    A Balancer without a state; one forward and one backward pass per step.

  Raises:
    ValueError: a weight is negative or not finite, or all are 0; or, in `init`,
      the number of tasks does not match.

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
    _arguments.check_length('weights', weights, num_tasks)
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
