"""Metrics of labels that are numbers or counts."""

import jax.numpy as jnp

from lplmtl import losses
from lplmtl.metrics import _rows
from lplmtl.types import Array


def r2(predictions: Array, labels: Array, where: Array | None = None) -> Array:
  """Coefficient of determination, `1 - sum (y - p)^2 / sum (y - mean y)^2`.

  Args:
    predictions: `[N]` or `[N, 1]` float.
    labels: `[N]` float.
    where: `[N]` bool or None.

  Returns:
    Scalar float32, at most 1; NaN if the labels do not vary.
  """
  _rows.check_labels(predictions, labels)
  labels = _rows.to_float(labels)
  predictions = _rows.to_float(_rows.column(predictions))
  residual = _rows.mean(jnp.square(labels - predictions), where)
  variance = _rows.variance(labels, where)
  return jnp.where(variance > 0, 1 - residual / _rows.or_one(variance), jnp.nan)


def mean_absolute_error(
  predictions: Array, labels: Array, where: Array | None = None
) -> Array:
  """Mean absolute error, in the unit of the labels; smaller is better.

  Args:
    predictions: `[N]` or `[N, 1]` float.
    labels: `[N]` float.
    where: `[N]` bool or None.

  Returns:
    Scalar float32; NaN if no row counts.
  """
  _rows.check_labels(predictions, labels)
  predictions = _rows.to_float(_rows.column(predictions))
  return _rows.mean(jnp.abs(predictions - _rows.to_float(labels)), where)


def poisson_d2(
  log_rates: Array, labels: Array, where: Array | None = None
) -> Array:
  """Fraction of the Poisson deviance explained: R^2 for counts.

      1 - sum D(y, e^z) / sum D(y, mean y),    D(y, m) = y log(y / m) - y + m

  0 for a model that always predicts the mean count, 1 for a perfect one; the
  same as `d2_tweedie_score(power=1)` in scikit-learn.

  Args:
    log_rates: `[N]` or `[N, 1]` float, the logarithms z of the rates.
    labels: `[N]`, counts or other numbers >= 0.
    where: `[N]` bool or None.

  Returns:
    Scalar float32, at most 1; NaN if the labels do not vary.

  References:
    Hastie, Tibshirani and Wainwright 2015, "Statistical Learning with
    Sparsity", section 3.1.
  """
  _rows.check_labels(log_rates, labels)
  labels = _rows.to_float(labels)
  mean = _rows.mean(labels, where)
  always = jnp.broadcast_to(jnp.log(mean), labels.shape)
  ours, baseline = (
    _rows.mean(losses.half_poisson_deviance(z[:, None], labels), where)
    for z in (_rows.column(log_rates), always)
  )
  varies = (_rows.variance(labels, where) > 0) & (baseline > 0)
  return jnp.where(varies, 1 - ours / _rows.or_one(baseline), jnp.nan)
