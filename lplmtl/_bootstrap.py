"""Metrics on resampled rows; public as part of `lplmtl.statistics`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl import _delong, _intervals


class Bootstrap(NamedTuple):
  """A metric on samples of the test rows, seed by seed; see `bootstrap`.

  Attributes:
    values: `[S]`, the metric on the rows themselves.
    samples: `[R, S]`, the metric on each sample of the rows.
  """

  values: np.ndarray
  samples: np.ndarray


def bootstrap(
  metric: Callable[[Any, Any], Any],
  scores: Any,
  labels: Any,
  *,
  num_samples: int = 200,
  seed: int = 0,
) -> Bootstrap:
  """Computes a metric on samples of the test rows, drawn with replacement.

  Methods that are resampled with the same labels, `num_samples` and `seed` see
  the same rows, so that they can be compared by `bootstrap_interval`.

  Args:
    metric: `(scores [N, ...], labels [N, ...]) -> number`, such as one of
      `lplmtl.metrics`; pass it through `jax.jit` to save time.
    scores: `[S, N, ...]` float, one entry per seed.
    labels: `[N, ...]`.
    num_samples: R >= 2. With 200, a standard error is accurate to 5 %.
    seed: seed for drawing the rows.

  Raises:
    ValueError: shapes do not match, scores are not finite, or `num_samples` is
      too small.

  References:
    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
  """
  scores, labels = np.asarray(scores), np.asarray(labels)
  if scores.ndim < 2 or not labels.ndim or scores.shape[1] != len(labels):
    raise ValueError(
      'expected a score for every row, [S, N, ...] with [N, ...] labels; found '
      f'shapes {scores.shape} and {labels.shape}'
    )
  _delong.check_finite(scores, 'scores')
  if num_samples < 2:
    raise ValueError(f'num_samples must be at least 2, found {num_samples}')

  def values(rows: Any) -> np.ndarray:
    return np.array([float(metric(one[rows], labels[rows])) for one in scores])

  rng, count = np.random.default_rng(seed), len(labels)
  samples = [values(rng.integers(0, count, count)) for _ in range(num_samples)]
  return Bootstrap(values(slice(None)), np.stack(samples))


def bootstrap_interval(
  method: Bootstrap, baseline: Bootstrap | None = None, *, level: float = 0.95
) -> _intervals.Interval:
  """Interval for any metric, or a difference in it, over seeds and test rows.

  The counterpart of `auc_interval` and `auc_difference` for metrics whose
  variance has no formula: the samples take the place of DeLong's covariance,
  everything else is the same. Samples in which the metric is undefined (NaN)
  are left out. In simulations with 200 rows, 3 or 5 seeds, R^2 and accuracy,
  95 % intervals covered the truth in 94 to 98 % of cases.

  Args:
    method: of S >= 2 seeds.
    baseline: of S' >= 2 seeds, resampled with the same rows; None for an
      interval of the metric itself.
    level: confidence level, in (0, 1).

  Returns:
    Interval around the mean of the seeds' metrics, less that of the baseline's
    seeds.

  Raises:
    ValueError: there are fewer than two seeds, numbers of samples differ, the
      metric is defined in fewer than two samples, or `level` is outside (0, 1).

  Example:
    >>> import numpy as np
    >>> def error(scores, labels):
    ...   return np.abs(scores - labels).mean()
    >>> labels = np.arange(40.0)
    >>> noise = np.random.default_rng(0).normal(size=(5, 40))
    >>> ours = bootstrap(error, labels + noise, labels)
    >>> theirs = bootstrap(error, labels + 2 * noise, labels)
    >>> bootstrap_interval(ours, theirs).high < 0  # a smaller error
    True
  """
  methods = [method] if baseline is None else [method, baseline]
  if min(len(one.values) for one in methods) < 2:
    raise ValueError(
      'expected at least two seeds, as one seed does not show how much seeds '
      'differ (`paired_bootstrap` accepts one)'
    )
  kept = defined([one.samples for one in methods])
  signs = [1, -1][: len(methods)]

  def variance(samples: Any) -> float:
    return float(np.var(samples, axis=0, ddof=1).mean())

  return _intervals.from_variances(
    sum(s * one.values.mean() for s, one in zip(signs, methods, strict=True)),
    variance(sum(s * x.mean(axis=1) for s, x in zip(signs, kept, strict=True))),
    [
      _intervals.seed_variance(
        one.values, variance(samples), variance(samples.mean(axis=1))
      )
      for one, samples in zip(methods, kept, strict=True)
    ],
    level,
  )


def defined(methods: Sequence[np.ndarray]) -> list[np.ndarray]:
  """Returns the samples `[R, S]` in which no method's metric is NaN."""
  if len({len(samples) for samples in methods}) > 1:
    raise ValueError(
      'expected as many samples of both methods, found '
      f'{" and ".join(str(len(samples)) for samples in methods)}'
    )
  is_defined = np.all([np.isfinite(x).all(axis=1) for x in methods], axis=0)
  if is_defined.sum() < 2:
    raise ValueError(
      'expected a metric that is defined in at least two of '
      f'{len(is_defined)} samples of rows, found {is_defined.sum()}; the '
      'others are NaN'
    )
  return [samples[is_defined] for samples in methods]
