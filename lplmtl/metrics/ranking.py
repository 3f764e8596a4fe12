"""How well scores rank the rows of one class above those of the other."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lplmtl.metrics import _rows
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
  wins = _rows.to_float(below[first]) + 0.5 * _rows.to_float(ties)
  num_positive, num_negative = (
    _rows.to_float(jnp.sum(positive)),
    _rows.to_float(below[-1]),
  )
  share = _rows.to_float(positive) * (wins / _rows.or_one(num_negative))
  return jnp.where(
    (num_positive > 0) & (num_negative > 0),
    jnp.sum(share) / _rows.or_one(num_positive),
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
  predicted = jnp.maximum(_rows.to_float(true_positives + false_positives), 1)
  precision = _rows.to_float(positive) * (
    _rows.to_float(true_positives) / predicted
  )
  num_positive = _rows.to_float(jnp.sum(positive))
  return jnp.where(
    num_positive > 0, jnp.sum(precision) / _rows.or_one(num_positive), jnp.nan
  )


def macro_roc_auc(
  scores: Array, labels: Array, where: Array | None = None
) -> Array:
  """Mean ROC AUC of K labels that do not exclude each other.

  Args:
    scores: `[N, K]` float.
    labels: `[N, K]`, 0 or 1, or soft.
    where: `[N]` bool or None.

  Returns:
    Scalar float32 in [0, 1], the mean over the labels whose AUC is defined,
    those with a row of either class; NaN if there are none.
  """
  return _mean_over_labels(roc_auc, scores, labels, where)


def macro_average_precision(
  scores: Array, labels: Array, where: Array | None = None
) -> Array:
  """Mean average precision of K labels that do not exclude each other.

  Args:
    scores: `[N, K]` float.
    labels: `[N, K]`, 0 or 1, or soft.
    where: `[N]` bool or None.

  Returns:
    Scalar float32 in [0, 1], the mean over the labels with a positive row; NaN
    if there are none.
  """
  return _mean_over_labels(average_precision, scores, labels, where)


def _mean_over_labels(
  metric: Callable[[Array, Array, Array], Array],
  scores: Array,
  labels: Array,
  where: Array | None,
) -> Array:
  if labels.shape != scores.shape or labels.ndim != 2:
    raise ValueError(
      f'expected scores and labels of shape [N, K], found {scores.shape} and '
      f'{labels.shape}'
    )
  mask = _rows.as_mask(scores, where)
  values = jax.vmap(metric, in_axes=(1, 1, None))(scores, labels, mask)
  is_defined = ~jnp.isnan(values)
  mean = _rows.mean(values, is_defined)
  # A label whose scores are NaN is not undefined: the model is at fault.
  is_nan = jnp.any(jnp.isnan(scores) & mask[:, None])
  return jnp.where(is_nan, jnp.nan, mean)


def _class_shares(
  scores: Array, labels: Array, where: Array | None
) -> tuple[Array, Array, Array]:
  """Returns scores, and the positive and negative share of each row.

  Shares are bool, or float32 for soft labels; both are 0 in rows that do not
  count.
  """
  scores = _rows.column(scores)
  _rows.check_labels(scores, labels)
  mask = _rows.as_mask(scores, where)
  # A NaN score has no rank: no row counts then, which makes the metric NaN.
  mask &= ~jnp.any(jnp.isnan(scores) & mask)
  if not jnp.issubdtype(labels.dtype, jnp.inexact):
    is_positive = labels if labels.dtype == bool else labels > 0
    return scores, is_positive & mask, ~is_positive & mask
  positive = jnp.clip(_rows.to_float(labels), 0, 1)
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
    total = _rows.to_float(total) + jnp.cumsum(fractions)
  return jnp.concatenate([jnp.zeros(1, total.dtype), total])
