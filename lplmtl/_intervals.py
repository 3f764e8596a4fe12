"""The interval that `lplmtl.statistics` makes of variances."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple


class Interval(NamedTuple):
  """A two-sided confidence interval.

  Attributes:
    estimate: point estimate.
    low: lower end.
    high: upper end.
    std_error: standard error of the estimate.
  """

  estimate: float
  low: float
  high: float
  std_error: float

  def within(self, margin: float) -> bool:
    """Returns whether the interval lies within +-margin (equivalence)."""
    return -margin < self.low and self.high < margin


def from_variances(
  estimate: Any,
  row_variance: float,
  seed_variances: Sequence[tuple[float, int]],
  level: float,
) -> Interval:
  """Uses the rows' variance and, for each method, (seed variance, S)."""
  # Deferred: it would be a tenth of what a command that trains imports.
  from scipy import special  # a dependency of jax

  check_level(level)
  # An unbiased estimate of a variance near 0 is often negative.
  parts = [(max(variance, 0.0), size - 1) for variance, size in seed_variances]
  total = row_variance + sum(variance for variance, _ in parts)
  spread = sum(variance**2 / freedom for variance, freedom in parts)
  # Welch-Satterthwaite; if only rows vary it is infinite: a normal quantile.
  freedom = total**2 / spread if spread > 0 else math.inf
  quantile = (1 + level) / 2
  if math.isfinite(freedom):
    factor = special.stdtrit(freedom, quantile)
  else:
    factor = special.ndtri(quantile)
  estimate, error = float(estimate), math.sqrt(total)
  margin = float(factor) * error
  return Interval(estimate, estimate - margin, estimate + margin, error)


def seed_variance(
  values: Any, one_seed: float, mean_of_seeds: float
) -> tuple[float, int]:
  """Returns the variance of a mean of S seeds when seeds are drawn anew, and S.

  On the same rows, two seeds differ because the seeds differ and because seeds
  and rows interact; the variance of the rows already contains the latter. The
  estimate is unbiased and may be negative.

  Args:
    values: `[S]` metrics, S >= 2.
    one_seed: the mean variance of one seed's metric when rows are drawn anew.
    mean_of_seeds: that of the mean over the seeds.
  """
  size = len(values)
  # one_seed = rows + interaction, mean_of_seeds = rows + interaction / S.
  interaction = (one_seed - mean_of_seeds) * size / (size - 1)
  return float(values.var(ddof=1) - interaction) / size, size


def check_level(level: float) -> None:
  """Raises ValueError unless 0 < level < 1."""
  if not 0 < level < 1:
    raise ValueError(f'level must lie between 0 and 1, found {level}')
