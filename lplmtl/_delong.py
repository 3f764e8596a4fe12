"""The parts of DeLong's method from which `lplmtl.statistics` is built."""

from typing import Any, NamedTuple

import numpy as np

from lplmtl import _intervals


class Placements(NamedTuple):
  """How each row ranks among the rows of the other class, for S seeds.

  Attributes:
    positive: `[S, P]`, the fraction of negative rows that score below each
      positive row.
    negative: `[S, Q]`, the fraction of positive rows that score above each
      negative row.
  """

  positive: np.ndarray
  negative: np.ndarray

  @property
  def aucs(self) -> np.ndarray:
    """The AUC of each seed, `[S]`."""
    return self.positive.mean(axis=1)

  def variance(self) -> float:
    """Returns the variance of the seeds' mean AUC when rows are drawn anew."""
    return variance(self.positive.mean(axis=0), self.negative.mean(axis=0))

  def seed_variance(self) -> tuple[float, int]:
    """Returns what seeds add to it, and S; see `_intervals.seed_variance`."""
    one_seed = np.mean(
      [
        variance(positive, negative)
        for positive, negative in zip(self.positive, self.negative, strict=True)
      ]
    )
    return _intervals.seed_variance(self.aucs, float(one_seed), self.variance())


def placements(scores: Any, labels: Any) -> Placements:
  """Returns the placements of `scores [S, N]` with `labels [N]`.

  Raises:
    ValueError: shapes do not match, a value is not finite, a label is a
      probability, or a class has fewer than two rows.
  """
  labels = np.asarray(labels)
  scores = np.asarray(scores, np.float64)
  check_shape(scores, labels)
  check_finite(scores, 'scores')
  check_finite(labels, 'labels')
  is_positive = labels > 0
  if (is_positive & (labels < 1)).any():
    raise ValueError(
      'an interval of an AUC needs labels that are 0 or 1, found '
      'probabilities: use bootstrap with metrics.roc_auc'
    )
  counts = int(is_positive.sum()), int((~is_positive).sum())
  if min(counts) < 2:
    raise ValueError(
      'an interval of an AUC needs at least two rows of each class, found '
      f'{counts[0]} positive (label > 0) and {counts[1]} negative ones'
    )
  pairs = [
    (_fraction_below(row[~is_positive], row[is_positive]),
     1 - _fraction_below(row[is_positive], row[~is_positive]))
    for row in scores
  ]  # fmt: skip
  positive, negative = (np.stack(part) for part in zip(*pairs, strict=True))
  return Placements(positive, negative)


def seed_placements(scores: Any, labels: Any, name: str) -> Placements:
  """Returns `placements`, for at least two seeds.

  Args:
    scores: `[S, N]` float, S >= 2.
    labels: `[N]`.
    name: what the error message calls `scores`.

  Raises:
    ValueError: there are fewer than two seeds; or as in `placements`.
  """
  scores = np.asarray(scores)
  if scores.ndim != 2 or len(scores) < 2:
    raise ValueError(
      f'{name} must be [S, N] with at least two seeds, as one seed does not '
      'show how much seeds differ (`delong` accepts one); found shape '
      f'{scores.shape}'
    )
  return placements(scores, labels)


def variance(positive: np.ndarray, negative: np.ndarray) -> float:
  """Returns DeLong's variance, from `[P]` and `[Q]` placements or differences.

  The mean over seeds may be taken first: the variance of a mean of AUCs is that
  of the mean placements.
  """
  return float(
    positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative)
  )


def twice_below(others: np.ndarray, scores: np.ndarray) -> np.ndarray:
  """Returns twice the number of `others` below each of `scores`; ties add one.

  It is doubled so that the counts are integers.
  """
  others = np.sort(others)
  left = np.searchsorted(others, scores, side='left')
  right = np.searchsorted(others, scores, side='right')
  return left + right


def _fraction_below(others: np.ndarray, scores: np.ndarray) -> np.ndarray:
  return twice_below(others, scores) / (2 * len(others))


def check_shape(scores: np.ndarray, labels: np.ndarray) -> None:
  """Raises ValueError unless they are `[S, N]` and `[N]`."""
  if labels.ndim != 1 or scores.ndim != 2 or scores.shape[1] != len(labels):
    raise ValueError(
      'expected a score for every row, [S, N] with [N] labels; found shapes '
      f'{scores.shape} and {labels.shape}'
    )


def check_finite(values: np.ndarray, name: str) -> None:
  """Raises ValueError unless `values` holds finite numbers or bools."""
  is_numeric = np.issubdtype(values.dtype, np.number) or values.dtype == bool
  if not is_numeric:
    raise ValueError(f'{name} must be finite numbers, found {values.dtype}')
  num_wrong = int((~np.isfinite(values)).sum())
  if num_wrong:
    raise ValueError(
      f'{name} must be finite numbers, found {num_wrong} that are not'
    )
