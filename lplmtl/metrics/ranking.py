"""How well scores rank the rows of one class above those of the other."""

from collections.abc import Callable
from typing import NamedTuple

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
    >>> import jax, jax.numpy as jnp
    >>> scores = jnp.array([0.1, 0.4, 0.4, 0.8])
    >>> float(jax.jit(roc_auc)(scores, labels=jnp.array([0, 0, 1, 1])))
    0.875
  """
  rows = _rank(*_class_shares(scores, labels, where))
  num_positive = _rows.to_float(rows.num_positive)
  num_negative = _rows.to_float(rows.num_negative)
  wins = _rows.to_float(rows.negative_below)
  wins += 0.5 * _rows.to_float(rows.negative_tied)
  share = _rows.to_float(rows.positive) * (wins / _rows.or_one(num_negative))
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
  rows = _rank(*_class_shares(scores, labels, where))
  # Rows that score at least as high as each row, ties included.
  true_positives = rows.num_positive - rows.positive_below
  false_positives = rows.num_negative - rows.negative_below
  predicted = jnp.maximum(_rows.to_float(true_positives + false_positives), 1)
  precision = _rows.to_float(rows.positive) * (
    _rows.to_float(true_positives) / predicted
  )
  num_positive = _rows.to_float(rows.num_positive)
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


class _Ranked(NamedTuple):
  """Rows in the order of their scores, ties being rows of equal scores.

  Attributes:
    positive: `[N]`, the positive share of each row.
    positive_below: `[N]`, the positive shares of all lower scores.
    negative_below: `[N]`, the negative ones.
    negative_tied: `[N]`, the negative ones of equal scores.
    num_positive: scalar, the positive shares of all rows.
    num_negative: scalar, the negative ones.
  """

  positive: Array
  positive_below: Array
  negative_below: Array
  negative_tied: Array
  num_positive: Array
  num_negative: Array


def _rank(scores: Array, positive: Array, negative: Array) -> _Ranked:
  position = jnp.arange(scores.size)
  ordered, order = jax.lax.sort((scores, position), num_keys=1)
  positive, negative = positive[order], negative[order]
  starts = (ordered != jnp.roll(ordered, 1)) & (position > 0)
  positives, negatives, group = _running_totals(positive, negative, starts)
  group = group[1:]  # the number of each row's ties, counted from 0
  firsts = jnp.full(scores.size + 1, scores.size).at[group].min(position)
  first, after = firsts[group], firsts[group + 1]
  return _Ranked(
    positive,
    positives[first],
    negatives[first],
    negatives[after] - negatives[first],
    positives[-1],
    negatives[-1],
  )


def _running_totals(*shares: Array) -> list[Array]:
  """Returns the sums before each position, `[N] -> [N + 1]` for each array.

  Whole rows are counted exactly, and only fractions are summed as floats: a
  float32 sum of ones stops growing at 2^24. All arrays at once, because XLA
  makes some ten operations of each running sum, which take long to compile.
  """
  whole = jnp.stack([x if x.dtype == bool else x == 1 for x in shares])
  totals = list(jnp.cumsum(whole.astype(jnp.int32), axis=1))
  soft = [i for i, x in enumerate(shares) if x.dtype != bool]
  if soft:
    parts = jnp.stack([jnp.where(shares[i] < 1, shares[i], 0) for i in soft])
    for i, sums in zip(soft, jnp.cumsum(parts, axis=1), strict=True):
      totals[i] = _rows.to_float(totals[i]) + sums
  return [jnp.concatenate([jnp.zeros(1, x.dtype), x]) for x in totals]
