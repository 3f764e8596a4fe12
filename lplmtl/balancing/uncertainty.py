"""Learned uncertainty weights (Kendall et al. 2018; Liebel & Körner 2018)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments
from lplmtl.balancing._learned import learned
from lplmtl.types import Array, Balancer


class UncertaintyState(NamedTuple):
  """State of the uncertainty balancers.

  Attributes:
    log_vars: `[T]` float32, `log sigma_k^2`, within [-15, 15].
    opt_state: state of their optimiser.
  """

  log_vars: Array
  opt_state: Any


def uncertainty_loss(losses: Array, log_vars: Array) -> Array:
  """Kendall et al.'s total loss, for your own training loop.

  With `s_k = log sigma_k^2`:

      sum_k  exp(-s_k) L_k + s_k / 2

  (eq. 10 for classification, with L the cross-entropy, and eq. 7 for
  regression, with L half the squared error, as in `lplmtl.tasks.regression`).
  The optimum over s_k is s_k = ln(2 L_k); the total may be negative there.

  Args:
    losses: `[T]` float >= 0.
    log_vars: `[T]` float, learned together with the parameters.

  Returns:
    Scalar.

  Raises:
    ValueError: the arguments do not both have shape `[T]`.

  References:
    Kendall, Gal & Cipolla 2018, "Multi-Task Learning Using Uncertainty to Weigh
    Losses for Scene Geometry and Semantics".

  Example:
    >>> losses, log_vars = jnp.array([0.5, 2.0]), jnp.zeros(2)
    >>> float(uncertainty_loss(losses, log_vars))
    2.5
  """
  losses, log_vars = _arguments.one_each(losses, log_vars)
  return jnp.sum(jnp.exp(-log_vars) * losses + log_vars / 2)


def uncertainty_revised_loss(losses: Array, log_vars: Array) -> Array:
  """Liebel & Körner's total loss, whose regulariser is never negative.

  With `s_k = log sigma_k^2`:

      sum_k  L_k / (2 sigma_k^2) + ln(1 + sigma_k^2)

  (eq. 3). The arguments and the result are those of `uncertainty_loss`.

  References:
    Liebel & Körner 2018, "Auxiliary Tasks in Multi-task Learning".
  """
  losses, log_vars = _arguments.one_each(losses, log_vars)
  return jnp.sum(jnp.exp(-log_vars) * losses / 2 + jax.nn.softplus(log_vars))


def uncertainty(learning_rate: float = 1e-2) -> Balancer:
  """Homoscedastic uncertainty weighting (Kendall et al. 2018).

  The weights are `exp(-s_k)` (see `uncertainty_loss`). The `s_k` start at 0,
  and so the weights at 1, and descend the same total loss with their own Adam.
  The sum of the weights is not fixed: a small loss gets a large weight, up to
  `exp(15)`.

  Args:
    learning_rate: Adam's step for the `s_k`, in nats.

  Returns:
    A Balancer whose state is an `UncertaintyState`; one forward pass and one
    backward pass per step. A task without a label in the batch (`present`)
    keeps its `s_k` and its optimiser state.

  Raises:
    ValueError: `learning_rate` is not above 0.

  Differs from the paper: the s_k have their own optimiser (not subject to the
  model's weight decay, gradient clipping or learning-rate schedule), and are
  bounded to [-15, 15], so that every loss from 0 to 1e6 gives a finite weight.

  Example:
    >>> balancer = uncertainty()
    >>> state = balancer.init(jax.random.key(0), 2)
    >>> update = jax.jit(balancer.update)
    >>> weights, state = update(jnp.array([0.1, 2.0]), state)
    >>> weights.tolist()  # exp(-s), and every s starts at 0
    [1.0, 1.0]
    >>> bool(state.log_vars[0] < 0 < state.log_vars[1])
    True
  """
  return learned(uncertainty_loss, learning_rate, UncertaintyState)


def uncertainty_revised(learning_rate: float = 1e-2) -> Balancer:
  """Uncertainty weighting with a positive regulariser (Liebel & Körner 2018).

  The weights are `exp(-s_k) / 2` (see `uncertainty_revised_loss`); everything
  else is as in `uncertainty`.
  """
  return learned(uncertainty_revised_loss, learning_rate, UncertaintyState)
