"""Metrics of labels that are classes: losses, decisions, calibration."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lplmtl import ordinal
from lplmtl.metrics import _rows
from lplmtl.types import Array


def log_loss(logits: Array, labels: Array, where: Array | None = None) -> Array:
  """Mean negative log-likelihood, in nats.

  Args:
    logits: `[N]` or `[N, 1]` for binary labels, `[N, K]` for K classes.
    labels: `[N]`, 0 or 1 (or soft), or class indices.
    where: `[N]` bool or None.

  Returns:
    Scalar float32; NaN if no row counts.
  """
  _rows.check_labels(logits, labels)
  if logits.ndim == 2 and logits.shape[-1] > 1:
    values = optax.softmax_cross_entropy_with_integer_labels(
      logits.astype(jnp.float32), labels.astype(jnp.int32)
    )
  else:
    values = optax.sigmoid_binary_cross_entropy(
      _rows.column(logits).astype(jnp.float32), labels.astype(jnp.float32)
    )
  return _rows.mean(values, where)


def calibration_error(
  logits: Array,
  labels: Array,
  where: Array | None = None,
  *,
  num_bins: int = 15,
) -> Array:
  """Expected calibration error of the positive class's probability.

  `sum_b n_b / N |mean label in b - mean probability in b|` over `num_bins` bins
  of equal width (Naeini et al. 2015; Guo et al. 2017, eq. 3).

  Args:
    logits: `[N]` or `[N, 1]` float.
    labels: `[N]`, 0 or 1, or soft.
    where: `[N]` bool or None.
    num_bins: number of bins over [0, 1], 15 in Guo et al.; each includes its
      upper edge.

  Returns:
    Scalar float32 in [0, 1]; NaN if no row counts.

  Differs from the paper: Guo et al. bin the confidence in the predicted class,
  which reveals little when positives are rare; here the probability of the
  positive class is binned.
  """
  curve = calibration_curve(logits, labels, where, num_bins=num_bins)
  total = jnp.sum(curve.num_rows)
  gaps = curve.num_rows * jnp.abs(curve.observed - curve.predicted)
  gaps = jnp.where(curve.num_rows > 0, gaps, 0.0)
  return jnp.where(total > 0, jnp.sum(gaps) / jnp.maximum(total, 1), jnp.nan)


class Calibration(NamedTuple):
  """A reliability diagram, bin by bin.

  Attributes:
    num_rows: `[num_bins]` float32, the number of rows in each bin.
    predicted: `[num_bins]`, their mean probability; NaN in an empty bin.
    observed: `[num_bins]`, the fraction of them that is positive; NaN in an
      empty bin.
  """

  num_rows: Array
  predicted: Array
  observed: Array


def calibration_curve(
  logits: Array,
  labels: Array,
  where: Array | None = None,
  *,
  num_bins: int = 15,
) -> Calibration:
  """Mean probability and fraction of positive rows in bins of equal width.

  Args:
    logits: `[N]` or `[N, 1]` float.
    labels: `[N]`, 0 or 1, or soft.
    where: `[N]` bool or None.
    num_bins: number of bins over [0, 1]; each includes its upper edge.

  Returns:
    Calibration; `calibration_error` averages the gaps between its two curves.
  """
  _rows.check_labels(logits, labels)
  probability = jax.nn.sigmoid(_rows.column(logits).astype(jnp.float32))
  mask = _rows.as_mask(probability, where)
  bins = jnp.ceil(probability * num_bins).astype(jnp.int32) - 1
  bins = jnp.clip(bins, 0, num_bins - 1)

  def total(values: Array) -> Array:
    values = jnp.where(mask, values, 0.0)
    return jax.ops.segment_sum(values, bins, num_segments=num_bins)

  num_rows = total(jnp.ones_like(probability))
  divisor = jnp.where(num_rows > 0, num_rows, jnp.nan)
  observed = total(_rows.to_float(labels)) / divisor
  return Calibration(num_rows, total(probability) / divisor, observed)


def accuracy(logits: Array, labels: Array, where: Array | None = None) -> Array:
  """Fraction of rows whose most probable class is the label.

  Args:
    logits: `[N]` or `[N, 1]` for binary labels, `[N, K]` for K classes.
    labels: `[N]` class indices; a soft binary label counts as its likelier
      class.
    where: `[N]` bool or None.

  Returns:
    Scalar float32 in [0, 1]; NaN if no row counts.
  """
  _rows.check_labels(logits, labels)
  if logits.ndim == 2 and logits.shape[-1] > 1:
    is_right = _rows.to_float(jnp.argmax(logits, axis=-1)) == _rows.to_float(
      labels
    )
  else:
    is_right = (_rows.column(logits) > 0) == (_rows.to_float(labels) > 0.5)
  return _rows.mean(_rows.unless_nan(is_right, logits), where)


def ordinal_accuracy(
  logits: Array, labels: Array, where: Array | None = None
) -> Array:
  """Fraction of rows whose median class, of K ordered ones, is the label.

  Args:
    logits: `[N, K - 1]` float, one per threshold; see `lplmtl.ordinal`.
    labels: `[N]` class indices.
    where: `[N]` bool or None.

  Returns:
    Scalar float32 in [0, 1]; NaN if no row counts.
  """
  classes = _ordinal_classes(logits, labels)
  is_right = classes == _rows.to_float(labels)
  return _rows.mean(_rows.unless_nan(is_right, classes), where)


def quadratic_kappa(
  logits: Array, labels: Array, where: Array | None = None
) -> Array:
  """Cohen's kappa of K ordered classes, with quadratic weights.

      1 - mean (c - y)^2 / (Var c + Var y + (mean c - mean y)^2)

  with the class c that is predicted. The divisor is the mean of (c - y)^2 if
  predictions and labels are paired at random: 0 is chance, 1 is perfect. The
  sums over the confusion matrix, which usually define it, give the same number.

  Args:
    logits: `[N, K - 1]` float, one per threshold; see `lplmtl.ordinal`.
    labels: `[N]` class indices.
    where: `[N]` bool or None.

  Returns:
    Scalar float32, at most 1; NaN if predictions and labels are all the same
    class.

  References:
    Cohen 1968, "Weighted Kappa: Nominal Scale Agreement with Provision for
    Scaled Disagreement or Partial Credit".
  """
  classes = _ordinal_classes(logits, labels)
  labels = _rows.to_float(labels)
  observed = _rows.mean(jnp.square(classes - labels), where)
  expected = (
    _rows.variance(classes, where)
    + _rows.variance(labels, where)
    + jnp.square(_rows.mean(classes, where) - _rows.mean(labels, where))
  )
  # Not `> 0`: NaN must stay NaN.
  kappa = 1 - observed / jnp.where(expected == 0, 1, expected)
  return jnp.where(expected == 0, jnp.nan, kappa)


def _ordinal_classes(logits: Array, labels: Array) -> Array:
  _rows.check_labels(logits, labels)
  return _rows.unless_nan(ordinal.classes(logits), logits)
