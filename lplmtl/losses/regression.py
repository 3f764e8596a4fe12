"""Losses per row of labels that are numbers or counts."""

import dataclasses

import jax.numpy as jnp
import optax

from lplmtl.losses import _shapes
from lplmtl.types import Array

# Above this log rate, the Poisson loss goes on along its tangent. Its gradient
# is then at most e^30 = 1e13, whose square, summed over all parameters, an
# optimiser can still hold in float32; and no count has such a rate.
_MAX_LOG_RATE = 30.0


def half_squared_error(predictions: Array, labels: Array) -> Array:
  """Half the squared error, `(prediction - label)^2 / 2`.

  With the half, uncertainty weighting needs one formula for all tasks; see
  `lplmtl.balancing.uncertainty_loss`.

  Args:
    predictions: `[B, ..., 1]`.
    labels: `[B, ...]` float, standardised by the caller where units differ.

  Returns:
    `[B]` float32, averaged over further axes.

  Raises:
    ValueError: shapes do not match.
  """
  _shapes.check('half_squared_error', predictions, labels, num_outputs=1)
  targets = labels.astype(jnp.float32)
  return _shapes.mean_per_row(
    optax.l2_loss(predictions[..., 0].astype(jnp.float32), targets)
  )


def squared_error(predictions: Array, labels: Array) -> Array:
  """`(prediction - label)^2` without the half; see `half_squared_error`."""
  _shapes.check('squared_error', predictions, labels, num_outputs=1)
  return 2 * half_squared_error(predictions, labels)


@dataclasses.dataclass(frozen=True)
class Huber:
  """Huber loss: half the squared error, but linear beyond `delta`.

      e^2 / 2  if |e| <= delta,  else  delta (|e| - delta / 2)

  For labels with outliers, which would dominate a squared error. The gradient
  of a row is at most `delta`.

  Attributes:
    delta: > 0, in the unit of the labels: of standardised labels, 1 is one
      standard deviation.

  References:
    Huber 1964, "Robust Estimation of a Location Parameter".

  Example:
    >>> import jax.numpy as jnp
    >>> Huber(delta=1.0)(jnp.array([[0.5], [3.0]]), jnp.zeros(2)).tolist()
    [0.125, 2.5]
  """

  delta: float = 1.0

  def __post_init__(self) -> None:
    if not 0 < self.delta < float('inf'):
      raise ValueError(
        f'delta of the Huber loss must be a number > 0, found {self.delta!r}'
      )

  def __call__(self, predictions: Array, labels: Array) -> Array:
    """Returns one loss per row.

    Args:
      predictions: `[B, ..., 1]`.
      labels: `[B, ...]` float.

    Returns:
      `[B]` float32, averaged over further axes.

    Raises:
      ValueError: shapes do not match.
    """
    _shapes.check('Huber', predictions, labels, num_outputs=1)
    targets = labels.astype(jnp.float32)
    error = jnp.abs(predictions[..., 0].astype(jnp.float32) - targets)
    near = jnp.minimum(error, self.delta)
    return _shapes.mean_per_row(
      jnp.square(near) / 2 + self.delta * (error - near)
    )


def half_poisson_deviance(predictions: Array, labels: Array) -> Array:
  """Half the Poisson deviance of a logarithmic rate, for counts.

      e^z - y z + (y log y - y)

  This is the Poisson negative log likelihood, less that of a perfect
  prediction. The term in brackets does not depend on the prediction, so the
  gradient is that of `e^z - y z`; but the loss is never negative, which
  balancers that take its logarithm or learn its scale require, and it relates
  to counts as half the squared error does to numbers.

  Args:
    predictions: `[B, ..., 1]`, the logarithm z of the rate. From z = 30 on the
      loss is continued along its tangent, so that it cannot overflow.
    labels: `[B, ...]`, counts or other numbers >= 0.

  Returns:
    `[B]` float32, averaged over further axes.

  Raises:
    ValueError: shapes do not match.

  Example:
    >>> import jax.numpy as jnp
    >>> half_poisson_deviance(jnp.array([[0.0], [0.0]]), jnp.array([1, 0]))
    Array([0., 1.], dtype=float32)
  """
  _shapes.check('half_poisson_deviance', predictions, labels, num_outputs=1)
  log_rates = predictions[..., 0].astype(jnp.float32)
  counts = labels.astype(jnp.float32)
  capped = jnp.minimum(log_rates, _MAX_LOG_RATE)
  rates = jnp.exp(capped) * (1 + log_rates - capped)
  # `log` of the count 0 would be infinite; the terms with it are 0.
  error = log_rates - jnp.log(jnp.where(counts > 0, counts, 1))
  # Close to the label, the large terms of the plain formula cancel.
  is_close = (counts > 0) & (error < 1)
  close = counts * (jnp.expm1(jnp.minimum(error, 1)) - error)
  return _shapes.mean_per_row(
    jnp.where(is_close, close, rates - counts - counts * error)
  )
