"""Metrics of whole data sets: exact, masked, and fit for jit and vmap.

Each takes logits (or predictions), labels and `where`, `[N]` bool, True for the
rows that count. A metric that is not defined (no row, one class only) is NaN.

A soft label, a probability y, counts as a share y of a positive row and a share
1 - y of a negative one: as two rows with these weights would. AUC and average
precision of soft labels stay below 1 however good the scores are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lplmtl.types import Array


def roc_auc(scores: Array, labels: Array, where: Array | None = None) -> Array:
  """Area under the ROC curve, exact: ties count one half.

  The share of (positive, negative) pairs in which the positive row has the
  higher score (Mann-Whitney U / (P N)). Counts are exact integers; the mean
  runs over shares in [0, 1], so that a million rows do not overflow.

  Args:
    scores: `[N]` or `[N, 1]` float; any monotone function of the probability.
    labels: `[N]`, 0 or 1, or soft ones; what is below 0 counts as 0, what is
      above 1 as 1.
    where: `[N]` bool or None.

  Returns:
    Scalar float32 in [0, 1]; NaN where one of the classes has no row.

  Example:
    >>> import jax.numpy as jnp
    >>> scores = jnp.array([0.1, 0.4, 0.4, 0.8])
    >>> float(roc_auc(scores, labels=jnp.array([0, 0, 1, 1])))
    0.875
  """
  scores, positive, negative = _sides(scores, labels, where)
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

  Rows with one score form one threshold, as in scikit-learn's
  `average_precision_score`; no interpolation.

  Args:
    scores: `[N]` or `[N, 1]` float.
    labels: `[N]`, 0 or 1, or soft ones; what is below 0 counts as 0, what is
      above 1 as 1.
    where: `[N]` bool or None.

  Returns:
    Scalar float32 in [0, 1]; NaN without a positive row.
  """
  scores, positive, negative = _sides(scores, labels, where)
  first, _, order = _ties(scores)
  positive, negative = positive[order], negative[order]
  # Rows at or above each row's score, ties included.
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
    labels: `[N]`, 0 / 1 (or soft), or class numbers.
    where: `[N]` bool or None.

  Returns:
    Scalar float32.
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
    labels: `[N]`, 0 or 1, or soft ones.
    where: `[N]` bool or None.
    num_bins: bins over [0, 1]; a bin holds its upper edge.

  Returns:
    Scalar float32 in [0, 1]; NaN without a row.

  Differs from the paper: Guo et al. bin the confidence of the predicted class;
  for rare positives this form, over the probability of the positive class, is
  the one that tells something.
  """
  curve = calibration_curve(logits, labels, where, num_bins=num_bins)
  total = jnp.sum(curve.num_rows)
  gaps = curve.num_rows * jnp.abs(curve.observed - curve.predicted)
  gaps = jnp.where(curve.num_rows > 0, gaps, 0.0)
  return jnp.where(total > 0, jnp.sum(gaps) / jnp.maximum(total, 1), jnp.nan)


class Calibration(NamedTuple):
  """A reliability diagram, bin by bin.

  Attributes:
    num_rows: `[num_bins]` float32, rows in each bin.
    predicted: their mean probability; NaN in an empty bin.
    observed: the share of positive ones among them; NaN in an empty bin.
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
  """Mean probability and share of positive rows, over bins of equal width.

  Args:
    logits: `[N]` or `[N, 1]` float.
    labels: `[N]`, 0 or 1, or soft ones.
    where: `[N]` bool or None.
    num_bins: bins over [0, 1]; a bin holds its upper edge.

  Returns:
    Calibration; the gaps of its bins are those of `calibration_error`.
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
  some = jnp.where(num_rows > 0, num_rows, jnp.nan)
  observed = total(_float(labels)) / some
  return Calibration(num_rows, total(probability) / some, observed)


def accuracy(logits: Array, labels: Array, where: Array | None = None) -> Array:
  """Share of rows whose most probable class is the label.

  Args:
    logits: `[N]` or `[N, 1]` for binary labels, `[N, K]` for K classes.
    labels: `[N]` class numbers; of a soft binary label the likelier class.
    where: `[N]` bool or None.

  Returns:
    Scalar float32 in [0, 1]; NaN without a row.
  """
  _check_labels(logits, labels)
  if logits.ndim == 2 and logits.shape[-1] > 1:
    is_right = _float(jnp.argmax(logits, axis=-1)) == _float(labels)
  else:
    is_right = (_column(logits) > 0) == (_float(labels) > 0.5)
  is_nan = jnp.isnan(logits).reshape(logits.shape[0], -1).any(axis=1)
  return _mean(jnp.where(is_nan, jnp.nan, _float(is_right)), where)


def r2(predictions: Array, labels: Array, where: Array | None = None) -> Array:
  """Coefficient of determination, `1 - sum (y - p)^2 / sum (y - mean y)^2`.

  Args:
    predictions: `[N]` or `[N, 1]` float.
    labels: `[N]` float.
    where: `[N]` bool or None.

  Returns:
    Scalar float32, at most 1; NaN where the labels do not vary.
  """
  _check_labels(predictions, labels)
  labels, predictions = _float(labels), _float(_column(predictions))
  residual = _mean(jnp.square(labels - predictions), where)
  # From the smallest one: the mean of equal labels rounds, their distances are
  # 0; and far from 0 the mean is as good as near it.
  mask = _mask(labels, where)
  distances = labels - jnp.min(labels, initial=jnp.inf, where=mask)
  distances = jnp.where(mask, distances, 0.0)
  variance = _mean(jnp.square(distances - _mean(distances, where)), where)
  return jnp.where(variance > 0, 1 - residual / _or_one(variance), jnp.nan)


def _float(values: Array) -> Array:
  return values.astype(jnp.float32)


def _or_one(total: Array) -> Array:
  """A divisor: 1 in the place of 0."""
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


def _sides(
  scores: Array, labels: Array, where: Array | None
) -> tuple[Array, Array, Array]:
  """Scores, and each row's share in the classes: bool; float32 if soft."""
  scores = _column(scores)
  _check_labels(scores, labels)
  mask = _mask(scores, where)
  # A score that is NaN has no rank: no row counts then, and the metric is NaN.
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
  """First and one-past-last position of each row's run of equal scores."""
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
  """`[N] -> [N + 1]`: the sum before each position.

  Of whole rows an exact count; only shares of rows are added up as floats.
  """
  is_whole = shares if shares.dtype == bool else shares == 1
  whole = jnp.cumsum(is_whole.astype(jnp.int32))
  if shares.dtype != bool:
    parts = jnp.where(shares < 1, shares, 0)
    whole = _float(whole) + jnp.cumsum(parts)
  return jnp.concatenate([jnp.zeros(1, whole.dtype), whole])
