"""Generated tasks of a given relatedness, and the conflicting losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as oracle

from lplmtl import data
from tests import contracts

Of = data.Outcome


def test_weights_have_the_cosines_asked_for():
  """Labels without sines and noise are linear: least squares finds weights."""
  problem = data.related(
    5, [Of(num_sines=0, noise=0.0)] * 5, num_clusters=2, correlation=-0.4,
    num_features=7,
  )  # fmt: skip
  rows = problem.draw(200, 1)
  labels = np.stack(list(rows.batch.labels.values()), 1)
  weights = np.linalg.lstsq(rows.batch.features, labels, rcond=None)[0].T
  expected = np.full((5, 5), -0.4)
  expected[:3, 3:] = expected[3:, :3] = 0
  np.fill_diagonal(expected, 1)
  np.testing.assert_allclose(weights @ weights.T, expected, atol=1e-5)
  assert list(rows.batch.labels) == [t.name for t in problem.tasks]


def test_tasks_with_correlation_1_are_one():
  rows = data.related(0, [Of(noise=0.0)] * 2, correlation=1.0).draw(100, 1)
  one, two = rows.batch.labels.values()
  np.testing.assert_allclose(one, two, atol=1e-5)
  apart = data.related(0, [Of(noise=0.0)] * 2, correlation=0.0).draw(4000, 1)
  one, two = apart.batch.labels.values()
  assert abs(np.corrcoef(one, two)[0, 1]) < 0.05


def test_means_are_those_of_the_equation():
  """The mean is linear plus sines of multiples of one product."""
  rows, linear = (
    data.related(0, [Of(num_sines=m, noise=0.0)], num_features=2).draw(
      20_000, 1
    )
    for m in (2, 0)
  )
  np.testing.assert_array_equal(rows.batch.features, linear.batch.features)
  z = linear.ideal['task_1'].astype(np.float64)
  left = rows.ideal['task_1'] - z
  waves = [f(i * z) for i in (1, 2) for f in (np.sin, np.cos)]
  found = np.linalg.lstsq(np.stack(waves, 1), left, rcond=None)
  assert found[1][0] < 1e-6  # nothing is left
  size = np.hypot(found[0][::2], found[0][1::2])
  np.testing.assert_allclose(size, 1, atol=1e-5)


def test_noise_scale_and_kind_of_each_task():
  outcomes = Of(noise=0.5), Of(noise=2.0, scale=100.0), Of('binary', noise=0.3)
  problem = data.related(1, outcomes, num_features=20)
  rows = problem.draw(20_000, 7)
  for name, spread in (('task_1', 0.5), ('task_2', 200.0)):
    noise = rows.batch.labels[name] - rows.ideal[name]
    assert abs(noise.std() / spread - 1) < 0.03
    assert abs(np.corrcoef(noise, rows.ideal[name])[0, 1]) < 0.03
  labels, log_odds = rows.batch.labels['task_3'], rows.ideal['task_3']
  assert set(np.unique(labels)) == {0, 1}
  chance = 1 / (1 + np.exp(-log_odds))
  for low, high in ((0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1)):
    inside = (low < chance) & (chance <= high)
    error = (labels - chance)[inside]
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(inside.sum())
  found = data.optimum(problem.tasks, rows)
  assert found['task_3'] == pytest.approx(
    oracle.roc_auc_score(labels, log_odds), abs=1e-5
  )
  assert found['task_2'] == pytest.approx(
    oracle.r2_score(rows.batch.labels['task_2'], rows.ideal['task_2']),
    abs=1e-5,
  )


def test_seeds_draw_rows_of_one_problem():
  problem = data.related(2)
  one, again, other = (problem.draw(50, seed) for seed in (0, 0, 1))
  np.testing.assert_array_equal(one.batch.features, again.batch.features)
  np.testing.assert_array_equal(
    one.batch.labels['task_1'], again.batch.labels['task_1']
  )
  assert not np.isin(one.batch.features, other.batch.features).any()
  same_rows = data.related(3).draw(50, 0)
  assert not np.array_equal(same_rows.ideal['task_1'], one.ideal['task_1'])


def test_labels_are_hidden():
  rows = data.related().draw(300, 0)
  few = data.keep_labels(rows.batch, {'task_2': 20}, seed=4)
  more = data.keep_labels(rows.batch, {'task_2': 90}, seed=4)
  assert few.where is not None and list(few.where) == ['task_2']
  assert few.where['task_2'].sum() == 20 and more.where['task_2'].sum() == 90
  assert not (few.where['task_2'] & ~more.where['task_2']).any()
  seen = np.asarray(few.where['task_2'])
  found = data.optimum(data.related().tasks, data.Drawn(few, rows.ideal))
  expected = oracle.r2_score(
    rows.batch.labels['task_2'][seen], rows.ideal['task_2'][seen]
  )
  assert found['task_2'] == pytest.approx(expected, abs=1e-5)
  with pytest.raises(ValueError, match="task_2, found 'task_9'"):
    data.keep_labels(rows.batch, {'task_9': 3}, seed=0)
  with pytest.raises(ValueError, match='1 to 300 labels, found 0'):
    data.keep_labels(rows.batch, {'task_1': 0}, seed=0)


@pytest.mark.parametrize(
  ('outcomes', 'options', 'message'),
  [
    ([Of(), Of()], {'num_clusters': 3}, '3, 2 and 100'),
    ([Of(), Of()], {'num_features': 1}, '1, 2 and 1'),
    ([], {}, '1, 0 and 100'),
    ([Of('count')], {}, "regression or binary, found 'count'"),
    ([Of(noise=-0.1)], {}, 'noise >= 0'),
    ([Of(scale=0.0)], {}, 'scale > 0'),
    ([Of(num_sines=-1)], {}, 'num_sines >= 0'),
    ([Of('binary', noise=0.0)], {}, '> 0 for yes/no labels'),
    ([Of(), Of()], {'correlation': 1.5}, 'cosines of 1.5'),
    ([Of()] * 3, {'correlation': -1.0}, 'no 3 weights in 1 clusters'),
    (2, {}, 'one for each task.*found 2'),
  ],
)
def test_impossible_problems_are_refused(outcomes, options, message):
  with pytest.raises(ValueError, match=message):
    data.related(0, outcomes, **options)


def test_an_empty_draw_is_refused():
  with pytest.raises(ValueError, match='at least 1 row, found 0'):
    data.related().draw(0, 0)


def test_the_optimum_is_that_of_rows_of_the_problem():
  one = data.related(0, [Of()]).draw(10, 0)
  two = data.related(0)
  with pytest.raises(ValueError, match=r'with task_2; these have task_1: draw'):
    data.optimum(two.tasks, one)
  with pytest.raises(ValueError, match=r'Problem\.draw.*found Batch'):
    data.optimum(two.tasks, one.batch)


def test_gradients_conflict_above_and_agree_with_finite_differences():
  with contracts.double_precision():
    jacobian = jax.jit(jax.jacobian(data.conflicting_losses))
    for start in (*data.STARTS, (1.0, -8.3)):
      theta = np.array(start, np.float64)
      found = np.asarray(jacobian(jnp.array(theta)))
      for i in range(2):
        step = np.eye(2)[i] * 1e-6
        ends = [
          data.conflicting_losses(jnp.array(theta + s)) for s in (step, -step)
        ]
        if start != (0.0, 0.0):  # a kink
          np.testing.assert_allclose(
            found[:, i], (ends[0] - ends[1]) / 2e-6, atol=1e-4
          )
    # On the front the gradients point against each other.
    one, two = jacobian(jnp.array([0.0, -8.355]))
    cosine = one @ two / jnp.linalg.norm(one) / jnp.linalg.norm(two)
    assert cosine < -0.999


def test_hidden_labels_are_not_hidden_twice():
  once = data.keep_labels(data.related().draw(20, 0).batch, {'task_1': 5}, 0)
  with pytest.raises(ValueError, match='are hidden already'):
    data.keep_labels(once, {'task_2': 5}, 0)
