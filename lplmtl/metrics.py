"""Metrics over whole data sets: exact, masked, and usable in jit and vmap.

Each takes logits (or predictions), labels and `where`, `[N]` bool, True for the
rows that count. A metric that is undefined (no rows, or only one class) is NaN.

A soft label, a probability y, counts as two rows: a positive one with weight y
and a negative one with weight 1 - y. With soft labels, AUC and average
precision stay below 1 however good the scores are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lplmtl.types import Array


def roc_auc(scores: Array, labels: Array, where: Array | None = None) -> Array:
  """Area under the ROC curve, exact, with ties counted as one half.

  This is the fraction of (positive, negative) pairs in which the positive row
  has the higher score (Mann-Whitney U / (P N)). Rows are counted exactly, as
  integers; then fractions in [0, 1] are averaged, because from some 100,000
  rows on, the number of pairs overflows 32 bits.

  Args:
    scores: `[N]` or `[N, 1]` float; any monotone function of the probability.
    labels: `[N]`, 0 or 1, or soft; values outside [0, 1] are clipped.
    where: `[N]` bool or None.

  Returns:
    Scalar float32 in [0, 1]; NaN if either class has no row.

  Example:
    >>> import jax.numpy as jnp
    >>> scores = jnp.array([0.1, 0.4, 0.4, 0.8])
    >>> float(roc_auc(scores, labels=jnp.array([0, 0, 1, 1])))
    0.875
  """
  scores, positive, negative = _class_shares(scores, labels, where)
  first, last, order = _ties(scores)
  positive, negative = positive[order], negative[order]
  below = _running_total(negative)  # [N + 1]
  ties = below[last] - below[first]
  wins = _float(below[first]) + 0.5 * _float(ties)
  num_positive, num_negative = _float(jnp.sum(positive)), _float(below[-1])
  share = _float(positive) * (wins / _or_one(num_negative))
  return jnp.where(
    (num_positive > 0) & (num_negative > 0),
    jnp.sum(share) / _or_one(num_positive),
    jnp.nan,
  )


def average_precision(
  scores: Array, labels: Array, where: Array | None = None
) -> Array:
  """Average precision: the sum of precision times the step in recall.

  Rows with equal scores form one threshold, as in scikit-learn's
  `average_precision_score`; there is no interpolation.

  Args:
    scores: `[N]` or `[N, 1]` float.
    labels: `[N]`, 0 or 1, or soft; values outside [0, 1] are clipped.
    where: `[N]` bool or None.

  Returns:
    Scalar float32 in [0, 1]; NaN if there is no positive row.
  """
  scores, positive, negative = _class_shares(scores, labels, where)
  first, _, order = _ties(scores)
  positive, negative = positive[order], negative[order]
  # Rows that score at least as high as each row, ties included.
  true_positives = jnp.sum(positive) - _running_total(positive)[first]
  false_positives = jnp.sum(negative) - _running_total(negative)[first]
  predicted = jnp.maximum(_float(true_positives + false_positives), 1)
  precision = _float(positive) * (_float(true_positives) / predicted)
  num_positive = _float(jnp.sum(positive))
  return jnp.where(
    num_positive > 0, jnp.sum(precision) / _or_one(num_positive), jnp.nan
  )


def log_loss(logits: Array, labels: Array, where: Array | None = None) -> Array:
  """Mean negative log-likelihood, in nats.

  Args:
    logits: `[N]` or `[N, 1]` for binary labels, `[N, K]` for K classes.
    labels: `[N]`, 0 or 1 (or soft), or class indices.
    where: `[N]` bool or None.

  Returns:
    Scalar float32; NaN if no row counts.
  """
  _check_labels(logits, labels)
  if logits.ndim == 2 and logits.shape[-1] > 1:
    values = optax.softmax_cross_entropy_with_integer_labels(
      logits.astype(jnp.float32), labels.astype(jnp.int32)
    )
  else:
    values = optax.sigmoid_binary_cross_entropy(
      _column(logits).astype(jnp.float32), labels.astype(jnp.float32)
    )
  return _mean(values, where)


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
  _check_labels(logits, labels)
  probability = jax.nn.sigmoid(_column(logits).astype(jnp.float32))
  mask = _mask(probability, where)
  bins = jnp.ceil(probability * num_bins).astype(jnp.int32) - 1
  bins = jnp.clip(bins, 0, num_bins - 1)

  def total(values: Array) -> Array:
    values = jnp.where(mask, values, 0.0)
    return jax.ops.segment_sum(values, bins, num_segments=num_bins)

  num_rows = total(jnp.ones_like(probability))
  divisor = jnp.where(num_rows > 0, num_rows, jnp.nan)
  observed = total(_float(labels)) / divisor
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
  _check_labels(logits, labels)
  if logits.ndim == 2 and logits.shape[-1] > 1:
    is_right = _float(jnp.argmax(logits, axis=-1)) == _float(labels)
  else:
    is_right = (_column(logits) > 0) == (_float(labels) > 0.5)
  # Comparisons would silently turn NaN into a class.
  is_nan = jnp.isnan(logits).reshape(logits.shape[0], -1).any(axis=1)
  return _mean(jnp.where(is_nan, jnp.nan, _float(is_right)), where)


def r2(predictions: Array, labels: Array, where: Array | None = None) -> Array:
  """Coefficient of determination, `1 - sum (y - p)^2 / sum (y - mean y)^2`.

  Args:
    predictions: `[N]` or `[N, 1]` float.
    labels: `[N]` float.
    where: `[N]` bool or None.

  Returns:
    Scalar float32, at most 1; NaN if the labels do not vary.
  """
  _check_labels(predictions, labels)
  labels, predictions = _float(labels), _float(_column(predictions))
  residual = _mean(jnp.square(labels - predictions), where)
  # Relative to the smallest label: the mean of equal labels is rounded, but
  # their distances are exactly 0; and labels far from 0 lose no digits.
  mask = _mask(labels, where)
  distances = labels - jnp.min(labels, initial=jnp.inf, where=mask)
  distances = jnp.where(mask, distances, 0.0)
  variance = _mean(jnp.square(distances - _mean(distances, where)), where)
  return jnp.where(variance > 0, 1 - residual / _or_one(variance), jnp.nan)


def _float(values: Array) -> Array:
  return values.astype(jnp.float32)


def _or_one(total: Array) -> Array:
  """Returns `total`, or 1 in place of 0: a safe divisor."""
  return jnp.where(total > 0, total, 1)


def _mask(values: Array, where: Array | None) -> Array:
  return jnp.ones(values.shape[:1], bool) if where is None else where


def _mean(values: Array, where: Array | None) -> Array:
  mask = _mask(values, where)
  total = _float(jnp.sum(mask))
  mean = jnp.sum(jnp.where(mask, values, 0)) / _or_one(total)
  return jnp.where(total > 0, mean, jnp.nan)


def _column(values: Array) -> Array:
  if values.ndim == 2 and values.shape[1] == 1:
    return values[:, 0]
  if values.ndim == 1:
    return values
  raise ValueError(f'expected shape [N] or [N, 1], found {values.shape}')


def _check_labels(outputs: Array, labels: Array) -> None:
  if labels.shape != outputs.shape[:1]:
    raise ValueError(
      f'expected labels of shape {outputs.shape[:1]}, found {labels.shape}'
    )


def _class_shares(
  scores: Array, labels: Array, where: Array | None
) -> tuple[Array, Array, Array]:
  """Returns scores, and the positive and negative share of each row.

  Shares are bool, or float32 for soft labels; both are 0 in rows that do not
  count.
  """
  scores = _column(scores)
  _check_labels(scores, labels)
  mask = _mask(scores, where)
  # A NaN score has no rank: no row counts then, which makes the metric NaN.
  mask &= ~jnp.any(jnp.isnan(scores) & mask)
  if not jnp.issubdtype(labels.dtype, jnp.inexact):
    is_positive = labels if labels.dtype == bool else labels > 0
    return scores, is_positive & mask, ~is_positive & mask
  positive = jnp.clip(_float(labels), 0, 1)
  return (
    scores,
    jnp.where(mask, positive, 0),
    jnp.where(mask, 1 - positive, 0),
  )


def _ties(scores: Array) -> tuple[Array, Array, Array]:
  """Returns start and end of each sorted row's run of ties, and the order."""
  order = jnp.argsort(scores)
  ordered = scores[order]
  position = jnp.arange(scores.size)
  differs = ordered[1:] != ordered[:-1]
  edge = jnp.ones(1, bool)
  first = jax.lax.cummax(
    jnp.where(jnp.concatenate([edge, differs]), position, 0)
  )
  last = jax.lax.cummin(
    jnp.where(jnp.concatenate([differs, edge]), position + 1, scores.size),
    reverse=True,
  )
  return first, last, order


def _running_total(shares: Array) -> Array:
  """Returns the sum before each position: `[N] -> [N + 1]`.

  Whole rows are counted exactly, and only fractions are summed as floats: a
  float32 sum of ones stops growing at 2^24.
  """
  is_whole_row = shares if shares.dtype == bool else shares == 1
  total = jnp.cumsum(is_whole_row.astype(jnp.int32))
  if shares.dtype != bool:
    fractions = jnp.where(shares < 1, shares, 0)
    total = _float(total) + jnp.cumsum(fractions)
  return jnp.concatenate([jnp.zeros(1, total.dtype), total])
