"""Impartial learning by losses (Liu et al. 2021)."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from lplmtl.balancing import _arguments
from lplmtl.balancing._learned import learned
from lplmtl.types import Array, Balancer


class ImtlLState(NamedTuple):
  """State of `imtl_l`.

  Attributes:
    scales: `[T]` float32, s_k, within [-15, 15].
    opt_state: state of their optimiser.
  """

  scales: Array
  opt_state: Any


def imtl_l_loss(losses: Array, scales: Array) -> Array:
  """IMTL-L's total loss, for your own training loop.

      sum_k  exp(s_k) L_k - s_k

  At the optimum over s_k every scaled loss is 1.

  Args:
    losses: `[T]` float >= 0.
    scales: `[T]` float s_k, learned together with the parameters.

  Returns:
    Scalar.

  Raises:
    ValueError: the arguments do not both have shape `[T]`.

  References:
    Liu et al. 2021, "Towards Impartial Multi-task Learning".
  """
  losses, scales = _arguments.one_each(losses, scales)
  return jnp.sum(jnp.exp(scales) * losses - scales)


def imtl_l(learning_rate: float = 1e-2) -> Balancer:
  """IMTL-L: learned scales that bring every loss to 1.

  The weights are `exp(s_k)` (see `imtl_l_loss`). The s_k start at 0 and descend
  the same total loss with their own Adam. The sum of the weights is not fixed.
  This is `uncertainty` with twice the regulariser: there, the scaled losses
  approach 1/2.

  Args:
    learning_rate: Adam's step for the s_k.

  Returns:
    A Balancer whose state is an `ImtlLState`; one forward and one backward pass
    per step. A task without a label in the batch (`present`) keeps its s_k.

  Raises:
    ValueError: `learning_rate` is not above 0.

  Differs from the paper: the s_k have their own optimiser, and are bounded to
  [-15, 15].

  References:
    Liu et al. 2021, "Towards Impartial Multi-task Learning".
  """
  return learned(imtl_l_loss, learning_rate, ImtlLState)
