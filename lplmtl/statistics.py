"""Intervals for test AUCs that hold both what rows and what seeds vary.

NumPy in float64, after training: scores of the same test rows, one line a seed.
None of them tells how another sample of *training* rows would come out.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special  # jax brings it


class Interval(NamedTuple):
  """A two-sided interval.

  Attributes:
    estimate: what is estimated.
    low: lower end.
    high: upper end.
    std_error: standard error of the estimate.
  """

  estimate: float
  low: float
  high: float
  std_error: float

  def within(self, margin: float) -> bool:
    """Whether the whole interval lies inside +-margin (equivalence)."""
    return -margin < self.low and self.high < margin


class _Placements(NamedTuple):
  """What DeLong's method is made of, for S seeds.

  Attributes:
    positive: `[S, P]`, the share of negative rows below each positive one.
    negative: `[S, Q]`, the share of positive rows above each negative one.
  """

  positive: np.ndarray
  negative: np.ndarray

  @property
  def aucs(self) -> np.ndarray:
    """`[S]`."""
    return self.positive.mean(axis=1)

  def variance(self) -> float:
    """Of the mean AUC over the seeds, as rows are drawn anew."""
    return _variance(self.positive.mean(axis=0), self.negative.mean(axis=0))

  def seed_variance(self) -> float:
    """Of the mean AUC, as seeds are drawn anew; an unbiased estimate.

    On the same rows AUCs of different seeds differ by the seeds and by how
    seeds and rows go together; `variance` holds the latter already.
    """
    num_seeds = len(self.positive)
    single = np.mean(
      [
        _variance(*own)
        for own in zip(self.positive, self.negative, strict=True)
      ]
    )
    # single = rows + together, variance() = rows + together / S.
    together = (single - self.variance()) * num_seeds / (num_seeds - 1)
    return float(self.aucs.var(ddof=1) - together) / num_seeds


def delong(scores: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
  """AUCs of several scores of the same rows, and their covariance.

      cov(k, l) = cov_i(V_k,i, V_l,i) / P + cov_j(W_k,j, W_l,j) / Q

  with V the share of the Q negative rows that score below positive row i, and
  W the share of the P positive rows that score above negative row j; ties count
  one half (DeLong et al. 1988). By sorting, O(M N log N) (Sun and Xu 2014 get
  the same from mid-ranks).

  Args:
    scores: `[M, N]` float, the larger the likelier; any monotone function of
      the probability.
    labels: `[N]`, positive where > 0; two rows of each class at least.

  Returns:
    `[M]` AUCs in [0, 1] and their `[M, M]` covariance, float64.

  Raises:
    ValueError: shapes that do not match, scores that are not finite, or too few
      rows of a class.

  References:
    DeLong, DeLong and Clarke-Pearson 1988, "Comparing the Areas under Two or
    More Correlated Receiver Operating Characteristic Curves: A Nonparametric
    Approach".
    Sun and Xu 2014, "Fast Implementation of DeLong's Algorithm for Comparing
    the Areas Under Correlated Receiver Operating Characteristic Curves".
  """
  found = _placements(scores, labels)
  covariance = sum(
    np.atleast_2d(np.cov(part)) / part.shape[1]
    for part in (found.positive, found.negative)
  )
  return found.aucs, np.asarray(covariance)


def auc_interval(scores: Any, labels: Any, *, level: float = 0.95) -> Interval:
  """Interval of one method's AUC: other seeds, other test rows.

  Cut off at 0 and 1. Near a perfect AUC its variance is underestimated, and the
  interval too narrow.

  Args:
    scores: `[S, N]` float, a line a seed; S >= 2.
    labels: `[N]`, positive where > 0.
    level: confidence, in (0, 1).

  Returns:
    Interval around the mean AUC of the seeds; see `auc_difference`.

  Raises:
    ValueError: as `auc_difference`.

  Example:
    >>> import numpy as np
    >>> labels = np.array([0, 0, 1, 1] * 10)
    >>> scores = labels + np.random.default_rng(0).normal(size=(5, 40))
    >>> interval = auc_interval(scores, labels)
    >>> interval.low < interval.estimate < interval.high
    True
  """
  found = _placements(_two_seeds(scores, 'scores'), labels)
  interval = _interval(
    found.aucs.mean(),
    found.variance(),
    [(found.seed_variance(), len(found.positive))],
    level,
  )
  return interval._replace(
    low=max(interval.low, 0.0), high=min(interval.high, 1.0)
  )


def auc_difference(
  scores: Any, baseline: Any, labels: Any, *, level: float = 0.95
) -> Interval:
  """Interval of a difference in AUC: other seeds, other test rows.

  Estimated is the mean AUC of a method's seeds minus that of the baseline's.
  Its variance is the sum of

  - what the test rows add: DeLong's variance of the difference of the two means
    over seeds, paired, as both score the same rows;
  - what the seeds add: for each method, the variance of its AUCs over the seeds
    less that part which the first term holds (see `delong`: the mean variance
    of one seed's AUC less the mean covariance of two), over S; not below 0.

  Seeds of the two methods count as independent. The quantile is Student's, with
  the degrees of freedom of Welch and Satterthwaite. In simulations 95 %
  intervals covered 93 to 95 times of 100 with 3 seeds or more, with 2 about 91
  times: take 5.

  Args:
    scores: `[S, N]` float, the method's scores, a line a seed; S >= 2.
    baseline: `[S', N]` float, the baseline's, of the same rows; S' >= 2.
    labels: `[N]`, positive where > 0.
    level: confidence, in (0, 1).

  Returns:
    Interval; positive where the method is better.

  Raises:
    ValueError: fewer than two seeds, shapes that do not match, scores that are
      not finite, too few rows of a class, or a level outside of (0, 1).

  References:
    DeLong et al. 1988; Satterthwaite 1946, "An Approximate Distribution of
    Estimates of Variance Components".

  Example:
    >>> import numpy as np
    >>> labels = np.array([0, 0, 1, 1] * 10)
    >>> noise = np.random.default_rng(0).normal(size=(5, 40))
    >>> auc_difference(labels + noise, labels + 9 * noise, labels).estimate > 0
    True
  """
  ours = _placements(_two_seeds(scores, 'scores'), labels)
  theirs = _placements(_two_seeds(baseline, 'baseline'), labels)
  return _interval(
    ours.aucs.mean() - theirs.aucs.mean(),
    _variance(
      ours.positive.mean(axis=0) - theirs.positive.mean(axis=0),
      ours.negative.mean(axis=0) - theirs.negative.mean(axis=0),
    ),
    [(found.seed_variance(), len(found.positive)) for found in (ours, theirs)],
    level,
  )


def mean_interval(values: Any, *, level: float = 0.95) -> Interval:
  """Student's interval of a mean over seeds, on these very test rows.

  Args:
    values: `[S]` numbers, S >= 2, such as one metric of every seed.
    level: confidence, in (0, 1).

  Raises:
    ValueError: fewer than two values, or a level outside of (0, 1).
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
    raise ValueError(
      'expected [S] finite values of two seeds at least, found shape '
      f'{values.shape}: {values}'
    )
  variance = float(values.var(ddof=1)) / len(values)
  return _interval(values.mean(), 0.0, [(variance, len(values))], level)


def paired_bootstrap(
  metric: Callable[[Any, Any], Any],
  scores: Any,
  baseline: Any,
  labels: Any,
  *,
  num_samples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> Interval:
  """Percentile interval of a difference in any metric: other test rows.

  Rows are drawn with replacement, the same for both methods. The seeds stay as
  they are: for AUC, `auc_difference` counts both. Samples in which the metric
  is not defined (NaN) do not count.

  Args:
    metric: `(scores [N], labels [N]) -> number`, such as one of
      `lplmtl.metrics`.
    scores: `[S, N]` float, or `[N]`; the metric's mean over seeds counts.
    baseline: `[S', N]` or `[N]`, of the same rows.
    labels: `[N]`.
    num_samples: how often rows are drawn, >= 2.
    seed: of the draws.
    level: confidence, in (0, 1).

  Returns:
    Interval around the difference on the rows as they are; `std_error` is the
    standard deviation over the samples.

  Raises:
    ValueError: shapes that do not match, a level outside of (0, 1), or no
      sample in which the metric is defined.

  References:
    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
  """
  labels = np.asarray(labels)
  ours, theirs = np.atleast_2d(scores), np.atleast_2d(baseline)
  for found in (ours, theirs):
    _check_shape(found, labels)
    _check_finite(found, 'scores')
  _check_level(level)
  if num_samples < 2:
    raise ValueError(f'num_samples must be at least 2, found {num_samples}')

  def difference(rows: Any) -> float:
    means = [
      np.mean([float(metric(line[rows], labels[rows])) for line in found])
      for found in (ours, theirs)
    ]
    return float(means[0] - means[1])

  rng = np.random.default_rng(seed)
  samples = np.array(
    [
      difference(rng.integers(0, len(labels), len(labels)))
      for _ in range(num_samples)
    ]
  )
  samples = samples[np.isfinite(samples)]
  if len(samples) < 2:
    raise ValueError(
      'the metric is not defined (NaN) in any sample of rows, or in one alone'
    )
  low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
  return Interval(
    difference(slice(None)), float(low), float(high), float(samples.std())
  )


def mtl_gain(values: Sequence[float], single: Sequence[float]) -> float:
  """Mean relative gain over single-task models, in per cent.

      100 / T sum_k (M_k - M_single,k) / M_single,k

  Args:
    values: T metrics of a multi-task model, larger is better.
    single: those of T single-task models, > 0.

  Raises:
    ValueError: lengths that differ, no task, or metrics out of range.

  References:
    Maninis et al. 2019, "Attentive Single-Tasking of Multiple Tasks".

  Example:
    >>> round(mtl_gain([0.84, 0.93], single=[0.80, 0.93]), 2)
    2.5
  """
  ours, others = np.asarray(values, float), np.asarray(single, float)
  if ours.ndim != 1 or ours.shape != others.shape or not ours.size:
    raise ValueError(
      'expected as many values as tasks, [T] and [T], found shapes '
      f'{ours.shape} and {others.shape}'
    )
  if not (np.isfinite(ours).all() and (others > 0).all()):
    raise ValueError(
      'expected finite metrics, those of single-task models above 0; found '
      f'{ours} and {others}'
    )
  return float(100 * np.mean((ours - others) / others))


def _placements(scores: Any, labels: Any) -> _Placements:
  labels = np.asarray(labels)
  scores = np.asarray(scores, np.float64)
  _check_shape(scores, labels)
  _check_finite(scores, 'scores')
  _check_finite(labels, 'labels')
  is_positive = labels > 0
  if (is_positive & (labels < 1)).any():
    raise ValueError(
      'an interval of an AUC needs labels that are 0 or 1, found '
      'probabilities: take paired_bootstrap with metrics.roc_auc'
    )
  counts = int(is_positive.sum()), int((~is_positive).sum())
  if min(counts) < 2:
    raise ValueError(
      'an interval of an AUC needs two rows of each class at least, found '
      f'{counts[0]} positive (label > 0) and {counts[1]} negative ones'
    )
  pairs = [
    (_below(own[~is_positive], own[is_positive]),
     1 - _below(own[is_positive], own[~is_positive]))
    for own in scores
  ]  # fmt: skip
  positive, negative = (np.stack(part) for part in zip(*pairs, strict=True))
  return _Placements(positive, negative)


def _below(others: np.ndarray, own: np.ndarray) -> np.ndarray:
  """The share of `others` that lies below each of `own`; ties are halves."""
  others = np.sort(others)
  left = np.searchsorted(others, own, side='left')
  right = np.searchsorted(others, own, side='right')
  return (left + right) / (2 * len(others))


def _variance(positive: np.ndarray, negative: np.ndarray) -> float:
  """DeLong's, from `[P]` and `[Q]` placements or their differences."""
  return float(
    positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative)
  )


def _interval(
  estimate: Any,
  rows: float,
  seeds: Sequence[tuple[float, int]],
  level: float,
) -> Interval:
  """From the rows' variance, and each method's variance by its S seeds."""
  _check_level(level)
  parts = [(max(variance, 0.0), size - 1) for variance, size in seeds]
  total = rows + sum(variance for variance, _ in parts)
  spread = sum(variance**2 / freedom for variance, freedom in parts)
  freedom = total**2 / spread if spread > 0 else math.inf
  # Student's quantile; the normal one where rows are all that varies.
  quantile = (1 + level) / 2
  if math.isfinite(freedom):
    factor = special.stdtrit(freedom, quantile)
  else:
    factor = special.ndtri(quantile)
  error = math.sqrt(total)
  estimate = float(estimate)
  reach = float(factor) * error
  return Interval(estimate, estimate - reach, estimate + reach, error)


def _two_seeds(scores: Any, name: str) -> np.ndarray:
  scores = np.asarray(scores)
  if scores.ndim != 2 or len(scores) < 2:
    raise ValueError(
      f'{name} must be [S, N] with two seeds at least, as one seed does not '
      f'tell how seeds differ (`delong` takes one); found shape {scores.shape}'
    )
  return scores


def _check_shape(scores: np.ndarray, labels: np.ndarray) -> None:
  if labels.ndim != 1 or scores.ndim != 2 or scores.shape[1] != len(labels):
    raise ValueError(
      'expected a score of every row, [S, N] with [N] labels; found shapes '
      f'{scores.shape} and {labels.shape}'
    )


def _check_finite(values: np.ndarray, name: str) -> None:
  numbers = np.issubdtype(values.dtype, np.number) or values.dtype == bool
  if not numbers or not np.isfinite(values).all():
    wrong = int((~np.isfinite(values)).sum()) if numbers else values.dtype
    raise ValueError(f'{name} must be finite numbers; not so are {wrong}')


def _check_level(level: float) -> None:
  if not 0 < level < 1:
    raise ValueError(f'level must lie between 0 and 1, found {level}')
