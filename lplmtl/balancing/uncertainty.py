"""Learned uncertainty weights (Kendall et al. 2018; Liebel & Körner 2018)."""

from collections.abc import Sequence
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
    opt_state: state of their own optimiser.
  """

  log_vars: Array
  opt_state: Any


def uncertainty_loss(
  losses: Array,
  log_vars: Array,
  is_regression: Sequence[bool] | Array | None = None,
) -> Array:
  """Kendall et al.'s total loss, for a training loop of your own.

  With `s_k = log sigma_k^2`:

      sum_k  c_k exp(-s_k) L_k + s_k / 2,   c_k = 1/2 for regressions, else 1

  (eq. 7 for regressions with L the squared error, eq. 10 for classifications
  with L the cross-entropy). At the optimum over s_k it holds s_k = ln(2 c_k
  L_k); the total may well be negative.

  Args:
    losses: `[T]` float >= 0.
    log_vars: `[T]` float, learned together with the parameters.
    is_regression: `[T]` bool; None takes every task for a classification.

  Returns:
    Scalar.

  Raises:
    ValueError: other shapes, also that of `is_regression`.

  References:
    Kendall, Gal & Cipolla 2018, "Multi-Task Learning Using Uncertainty to Weigh
    Losses for Scene Geometry and Semantics".

  Example:
    >>> losses, log_vars = jnp.array([0.5, 2.0]), jnp.zeros(2)
    >>> float(uncertainty_loss(losses, log_vars))
    2.5
  """
  losses, log_vars = _arguments.one_each(losses, log_vars)
  _arguments.check_flags('is_regression', is_regression, len(losses))
  factor = _factor(is_regression, losses)
  return jnp.sum(factor * jnp.exp(-log_vars) * losses + log_vars / 2)


def uncertainty_revised_loss(
  losses: Array,
  log_vars: Array,
  is_regression: Sequence[bool] | Array | None = None,
) -> Array:
  """Liebel & Körner's total loss, whose regulariser is never negative.

  With `s_k = log sigma_k^2`:

      sum_k  L_k / (2 sigma_k^2) + ln(1 + sigma_k^2)

  (eq. 3). Args and returns as `uncertainty_loss`; the paper makes no difference
  between regressions and classifications, so `is_regression` has no effect.

  References:
    Liebel & Körner 2018, "Auxiliary Tasks in Multi-task Learning".
  """
  losses, log_vars = _arguments.one_each(losses, log_vars)
  _arguments.check_flags('is_regression', is_regression, len(losses))
  return jnp.sum(jnp.exp(-log_vars) * losses / 2 + jax.nn.softplus(log_vars))


def uncertainty(
  learning_rate: float = 1e-2,
  is_regression: Sequence[bool] | None = None,
) -> Balancer:
  """Homoscedastic uncertainty weighting (Kendall et al. 2018).

  The weights are `c_k exp(-s_k)` (see `uncertainty_loss`), and the `s_k` follow
  the gradient of the same total loss by their own Adam, starting at 0, so at
  the weights c_k. The weights sum to nothing fixed: a small loss gets a large
  weight, up to `exp(15)`.

  Args:
    learning_rate: Adam's step for the `s_k`, in nats.
    is_regression: `[T]` bool, True for squared errors; None: none of them.

  Returns:
    A Balancer whose state is an `UncertaintyState`. A task without a label in
    the batch (`present`) keeps its `s_k` and its optimiser state.

  Differs from the paper: the s_k have an optimiser of their own (outside of
  weight decay, gradient clipping and the model's learning-rate schedule), and
  are bounded to [-15, 15] so that no loss from 0 to 1e6 gives a weight that is
  not finite.

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
  _arguments.check_flags('is_regression', is_regression)

  def total(losses: Array, log_vars: Array) -> Array:
    return uncertainty_loss(losses, log_vars, is_regression)

  def check(num_tasks: int) -> None:
    _arguments.check_length('is_regression', is_regression, num_tasks)

  return learned(total, learning_rate, UncertaintyState, check)


def uncertainty_revised(learning_rate: float = 1e-2) -> Balancer:
  """Uncertainty weighting with a positive regulariser (Liebel & Körner 2018).

  The weights are `exp(-s_k) / 2` (see `uncertainty_revised_loss`); everything
  else is as in `uncertainty`.
  """
  return learned(uncertainty_revised_loss, learning_rate, UncertaintyState)


def _factor(
  is_regression: Sequence[bool] | Array | None, losses: Array
) -> Array:
  if is_regression is None:
    return jnp.ones_like(losses)
  return jnp.where(jnp.asarray(is_regression), 0.5, 1.0).astype(losses.dtype)
