"""Intervals against slow references and an oracle, and their coverage."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as oracle

from lplmtl import statistics
from tests import reference


def _rows(num_rows=40, num_scores=3, seed=0, decimals=1):
  """Scores with ties, and labels of both classes."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 2, num_rows)
  labels[:4] = 0, 1, 0, 1
  scores = labels + rng.normal(0, 1.5, (num_scores, num_rows))
  return scores.round(decimals), labels


@pytest.mark.parametrize('seed', range(3))
def test_delong(seed):
  scores, labels = _rows(seed=seed)
  aucs, covariance = statistics.delong(scores, labels)
  want_aucs, want = reference.delong(scores, labels)
  np.testing.assert_allclose(aucs, want_aucs, rtol=1e-12)
  np.testing.assert_allclose(covariance, want, rtol=1e-10, atol=1e-15)
  for row, auc in zip(scores, aucs, strict=True):
    assert auc == pytest.approx(oracle.roc_auc_score(labels, row))
    assert statistics.roc_auc(row, labels) == pytest.approx(auc)


def test_an_auc_without_one_of_the_classes():
  assert math.isnan(statistics.roc_auc([1.0, 2.0], [0, 0]))
  assert statistics.roc_auc([1.0, 2.0], [0, 1]) == 1.0


def test_delong_of_one_score_and_of_any_monotone_function():
  scores, labels = _rows(num_scores=1)
  aucs, covariance = statistics.delong(scores, labels)
  assert aucs.shape == (1,) and covariance.shape == (1, 1)
  other, other_covariance = statistics.delong(np.exp(scores), labels)
  assert other == aucs and other_covariance == covariance


def test_intervals_are_those_of_the_definition():
  """From the full covariance matrix, where the code averages first."""
  scores, labels = _rows(num_scores=7, num_rows=60)
  a, b = scores[:4], scores[4:]
  for interval, aucs_of in (
    (statistics.auc_interval(a, labels), (a,)),
    (statistics.auc_difference(a, b, labels), (a, b)),
  ):
    want = reference.auc_interval(aucs_of, labels)
    assert interval.estimate == pytest.approx(want['estimate'])
    assert interval.std_error == pytest.approx(want['std_error'])
    reach = stats.t.ppf(0.975, want['freedom']) * want['std_error']
    assert interval.high == pytest.approx(want['estimate'] + reach)
    assert interval.low == pytest.approx(want['estimate'] - reach)


def test_a_difference_is_antisymmetric():
  scores, labels = _rows(num_scores=5)
  one = statistics.auc_difference(scores[:2], scores[2:], labels)
  other = statistics.auc_difference(scores[2:], scores[:2], labels)
  assert one.estimate == pytest.approx(-other.estimate)
  assert one.low == pytest.approx(-other.high)
  assert one.std_error == pytest.approx(other.std_error)


def test_a_method_against_itself_differs_by_its_seeds_only():
  """With equal scores on the same rows the contribution of the rows is zero."""
  scores, labels = _rows(num_scores=4)
  interval = statistics.auc_difference(scores, scores, labels)
  assert interval.estimate == 0.0
  same = np.repeat(scores[:1], 3, axis=0)
  interval = statistics.auc_difference(same, same, labels)
  np.testing.assert_allclose(interval, 0.0, atol=1e-7)
  # With identical seeds this is DeLong's interval for one score.
  interval = statistics.auc_interval(same, labels)
  aucs, covariance = statistics.delong(scores[:1], labels)
  error = math.sqrt(covariance[0, 0])
  assert interval.std_error == pytest.approx(error)
  assert interval.high == pytest.approx(aucs[0] + 1.959964 * error, abs=1e-6)


def test_mean_interval():
  values = [0.91, 0.92, 0.95]
  interval = statistics.mean_interval(values)
  want = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
  assert (interval.low, interval.high) == pytest.approx(want)
  narrow = statistics.mean_interval(values, level=0.5)
  assert interval.low < narrow.low < narrow.high < interval.high


def test_equivalence_needs_the_whole_interval():
  assert statistics.Interval(0.001, -0.0005, 0.0015, 0.0).within(0.002)
  assert not statistics.Interval(0.0, -0.0005, 0.0021, 0.0).within(0.002)
  assert not statistics.Interval(0.0, -0.002, 0.001, 0.0).within(0.002)


def _coverage(num_times, num_seeds, statistic):
  """The fraction of intervals that contain the truth; new rows and seeds."""
  rng = np.random.default_rng(0)
  num_rows, skills = 240, (1.5, 1.2)
  spread = math.sqrt(0.8**2 + 0.4**2 + 0.5**2)
  # A seed's AUC is Phi(gain / (sqrt(2) spread)), and gains are normal; the mean:
  truth = [
    stats.norm.cdf(s / math.sqrt(2 * spread**2 + 0.15**2)) for s in skills
  ]
  hits = 0
  for _ in range(num_times):
    labels = (rng.random(num_rows) < 0.3).astype(int)
    rows = 0.8 * rng.normal(size=num_rows)
    scores = [
      (skill + 0.15 * rng.normal(size=(num_seeds, 1))) * labels
      + rows
      + 0.4 * rng.normal(size=num_rows)
      + 0.5 * rng.normal(size=(num_seeds, num_rows))
      for skill in skills
    ]
    interval, value = statistic(scores, labels, truth)
    hits += interval.low <= value <= interval.high
  return hits / num_times


@pytest.mark.slow
@pytest.mark.parametrize('num_seeds', [3, 10])
def test_coverage_of_the_difference(num_seeds):
  """With 2,500 simulations the standard error is .0044."""
  coverage = _coverage(
    2500,
    num_seeds,
    lambda scores, labels, truth: (
      statistics.auc_difference(*scores, labels),
      truth[0] - truth[1],
    ),
  )
  assert 0.93 < coverage < 0.97


def test_coverage_of_one_method():
  coverage = _coverage(
    2500,
    5,
    lambda scores, labels, truth: (
      statistics.auc_interval(scores[0], labels),
      truth[0],
    ),
  )
  assert 0.93 < coverage < 0.97


@pytest.mark.slow
def test_intervals_from_seeds_or_rows_only_cover_too_little():
  """The coverage test would fail if either part were left out."""
  seeds_only = _coverage(
    500,
    5,
    lambda scores, labels, truth: (
      statistics.mean_interval(statistics.delong(scores[0], labels)[0]),
      truth[0],
    ),
  )
  assert seeds_only < 0.9

  def rows_only(scores, labels, truth):
    repeated = [np.repeat(lines[:1], 2, axis=0) for lines in scores]
    interval = statistics.auc_difference(*repeated, labels)
    return interval, truth[0] - truth[1]

  assert _coverage(500, 1, rows_only) < 0.93

  # As the docstring says, two seeds are too few.
  def both(scores, labels, truth):
    interval = statistics.auc_difference(*scores, labels)
    return interval, truth[0] - truth[1]

  assert 0.88 < _coverage(2500, 2, both) < 0.94


def test_bootstrap():
  """Close to DeLong's interval, which requires paired draws."""
  scores, labels = _rows(num_scores=2, num_rows=400, decimals=6)
  method, baseline = scores[:1], scores[0] + 0.3 * scores[1]
  interval = statistics.paired_bootstrap(
    statistics.roc_auc, method, baseline, labels, num_samples=400
  )
  aucs, covariance = statistics.delong(np.stack([method[0], baseline]), labels)
  assert interval.estimate == pytest.approx(aucs[0] - aucs[1])
  error = math.sqrt(np.array([1, -1]) @ covariance @ np.array([1, -1]))
  assert interval.std_error == pytest.approx(error, rel=0.15)
  assert interval.low == pytest.approx(
    interval.estimate - 1.96 * error, abs=error / 3
  )
  again = statistics.paired_bootstrap(
    statistics.roc_auc, method, baseline, labels, num_samples=400
  )
  assert interval == again


def test_bootstrap_of_the_mean_over_seeds():
  scores, labels = _rows(num_scores=3)
  interval = statistics.paired_bootstrap(
    lambda s, y: s.mean(), scores[:2], scores[2], labels, num_samples=20
  )
  assert interval.estimate == pytest.approx(
    scores[:2].mean() - scores[2].mean()
  )


def test_intervals_by_bootstrap_are_those_of_delong():
  """With the seeds' variance, paired, clipped nowhere."""
  scores, labels = _rows(num_scores=7, num_rows=300, decimals=6)
  ours, theirs = scores[:4], scores[4:] + 0.5 * scores[0]
  found = [
    statistics.bootstrap(statistics.roc_auc, x, labels, num_samples=400)
    for x in (ours, theirs)
  ]
  for interval, want in (
    (
      statistics.bootstrap_interval(*found),
      statistics.auc_difference(ours, theirs, labels),
    ),
    (
      statistics.bootstrap_interval(found[0]),
      statistics.auc_interval(ours, labels),
    ),
  ):
    assert interval.estimate == pytest.approx(want.estimate)
    assert interval.std_error == pytest.approx(want.std_error, rel=0.1)
    np.testing.assert_allclose(interval, want, atol=0.2 * want.std_error)


def test_bootstrap_of_vectors():
  """Scores of several outputs; samples without a value are left out."""
  scores, labels = (
    np.eye(3)[np.newaxis, [0, 1, 2, 2]] * [[[1]], [[2]]],
    [0, 1, 2, 1],
  )

  def accuracy(scores, labels):
    if 0 not in labels:
      return np.nan
    return (scores.argmax(axis=1) == labels).mean()

  found = statistics.bootstrap(accuracy, scores, labels, num_samples=50)
  assert found.values.tolist() == [0.75, 0.75]
  assert found.samples.shape == (50, 2) and np.isnan(found.samples).any()
  interval = statistics.bootstrap_interval(found)
  assert interval.low < interval.estimate == 0.75 < interval.high
  assert statistics.bootstrap_interval(found, found).std_error == 0


def test_mtl_gain():
  assert statistics.mtl_gain([0.99, 0.8], [0.9, 1.0]) == pytest.approx(-5.0)


LABELS = np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
  'call, complaint',
  [
    (lambda: statistics.delong(np.zeros((1, 3)), LABELS), r'\(1, 3\)'),
    (lambda: statistics.delong(np.zeros(4), LABELS), 'shapes'),
    (lambda: statistics.delong([[0, 1, 2, np.nan]], LABELS), 'finite'),
    (lambda: statistics.delong([[0, 1, 2, 3]], [0, 0, 0, 1]), '1 positive'),
    (lambda: statistics.auc_interval(np.zeros((1, 4)), LABELS), 'two seeds'),
    (lambda: statistics.auc_interval(np.zeros((2, 4)), LABELS, level=95), 'level'),
    (
      lambda: statistics.auc_difference(np.zeros((2, 4)), np.zeros((2, 3)), LABELS),
      'shapes',
    ),
    (lambda: statistics.delong([[0, 1, 2, 3]], [0, 1, np.nan, 1]), 'labels must be finite.* 1 '),
    (lambda: statistics.delong([[0, 1, 2, 3]], list('abab')), 'labels must be finite.*U1'),
    (lambda: statistics.mean_interval([1.0]), 'two seeds'),
    (lambda: statistics.mean_interval([1.0, np.nan]), 'finite'),
    (lambda: statistics.mtl_gain([1.0], [0.0]), 'above 0'),
    (
      lambda: statistics.paired_bootstrap(np.dot, np.zeros(4), np.zeros(4), LABELS, num_samples=1),
      'num_samples',
    ),
    (
      lambda: statistics.paired_bootstrap(
        lambda s, y: np.nan, np.zeros(4), np.zeros(4), LABELS, num_samples=3
      ),
      'NaN',
    ),
    (lambda: statistics.bootstrap(np.dot, np.zeros((1, 3)), LABELS), 'every row'),
    (
      lambda: statistics.bootstrap_interval(
        statistics.bootstrap(np.dot, np.zeros((1, 4)), LABELS)
      ),
      'two seeds',
    ),
    (
      lambda: statistics.bootstrap_interval(
        *(
          statistics.bootstrap(np.dot, np.zeros((2, 4)), LABELS, num_samples=n)
          for n in (2, 3)
        )
      ),
      'found 2 and 3',
    ),
    (lambda: statistics.mtl_gain([], []), 'one value per task'),
  ],
)  # fmt: skip
def test_mistakes(call, complaint):
  with pytest.raises(ValueError, match=complaint):
    call()
