"""How one epoch leads to the next, on the host alone."""

import types
import warnings

import numpy as np
import pytest

import lplmtl
from experiments.launcher import display
from lplmtl import losses, tasks
from lplmtl.training import progress

TASKS = (tasks.binary('zebra'), tasks.regression('apple'))
NAN = np.nan


def _start(num_seeds=1, num_steps=4):
  state = types.SimpleNamespace(params={})
  return progress.start(state, num_seeds, num_steps, len(TASKS))


def _scores(auc, r2, zebra_loss=0.5, apple_loss=1.0):
  """An evaluation; a list has a value for each seed."""
  auc, r2, zebra_loss, apple_loss = np.broadcast_arrays(
    *(np.float32([x]).ravel() for x in (auc, r2, zebra_loss, apple_loss))
  )
  rest = {
    name: auc for name in ('average_precision', 'log_loss', 'calibration_error')
  }
  return {
    'zebra': {'auc': auc, **rest, 'loss': zebra_loss},
    'apple': {'r2': r2, 'loss': apple_loss},
  }


def _run(evaluations, patience=None):
  now = _start(len(evaluations[0]['apple']['r2']))
  improved = []
  for scores in evaluations:
    now, better = progress.end_epoch(now, TASKS, scores, patience)
    improved.append(better.tolist())
  return now, improved


def test_an_undefined_metric_leaves_the_mean():
  """One class among the validation rows: the other task chooses."""
  evaluations = [_scores(NAN, r2) for r2 in (0.1, 0.3, 0.2)]
  now, improved = _run(evaluations, patience=2)
  assert improved == [[True], [True], [False]]
  assert now.choice.best_epoch == 2 and now.choice.active.all()
  np.testing.assert_allclose(now.choice.best_score, 0.3, rtol=1e-6)
  assert progress.undefined(now.history, TASKS) == ['zebra']


def test_without_any_defined_metric_the_loss_decides():
  evaluations = [
    _scores(NAN, NAN, zebra_loss, apple_loss)
    for zebra_loss, apple_loss in ((0.5, 1.0), (0.6, 0.7), (0.1, 2.0))
  ]
  now, improved = _run(evaluations)
  assert improved == [[True], [True], [False]]
  np.testing.assert_allclose(now.choice.best_score, -0.65, rtol=1e-6)


def test_a_metric_of_predictions_that_are_not_finite_never_wins():
  """The first seed is bad at first, the second one later."""
  now, improved = _run(
    [
      _scores([NAN, 0.7], [NAN, 0.5], zebra_loss=[NAN, 0.5]),
      _scores([0.6, NAN], [0.1, 0.9], zebra_loss=[0.5, NAN]),
      _scores([0.5, 0.6], [0.1, 0.5]),
    ]
  )
  assert improved == [[True, True], [True, False], [False, False]]
  assert now.choice.best_epoch.tolist() == [2, 1]
  assert not progress.undefined(now.history, TASKS)


def test_one_evaluation_decides_what_counts():
  """A metric that is NaN in a later epoch alone does not leave the mean."""
  now, improved = _run([_scores(0.6, 0.2), _scores(NAN, 0.9)])
  assert improved == [[True], [False]]
  # Nobody's predictions were finite at first: the next evaluation decides.
  bad = _scores(NAN, NAN, NAN, NAN)
  now, improved = _run([bad, _scores(NAN, 0.2), _scores(NAN, 0.4)])
  assert improved == [[True], [True], [True]]
  assert progress.undefined(now.history, TASKS) == ['zebra']


def test_what_no_step_tells_is_nan():
  """Not 0, which would be perfect."""
  now = _start(num_seeds=3)
  metrics = {
    'losses': np.arange(24, dtype=np.float32).reshape(3, 4, 2),
    'weights': np.arange(24, dtype=np.float32).reshape(3, 4, 2),
    'present': np.ones((3, 4, 2), bool),
    'residual': np.full((3, 4), 0.5, np.float32),
    'skipped': np.zeros((3, 4), bool),
  }
  metrics['skipped'][0] = True
  metrics['skipped'][1, 3] = True
  metrics['losses'][1, 3] = metrics['weights'][1, 3] = np.inf
  metrics['residual'][1, 3] = NAN
  metrics['present'][2, :, 1] = False
  now = progress.advance(now, now.state, metrics, 4)
  now, _ = progress.end_epoch(now, TASKS, None, None)
  (record,) = now.history
  np.testing.assert_array_equal(
    record['losses'], [[NAN, NAN], [10.0, 11.0], [19.0, NAN]]
  )
  np.testing.assert_array_equal(
    record['loss_weights'], [[NAN, NAN], [12.0, 13.0], [22.0, 23.0]]
  )
  np.testing.assert_array_equal(record['residual'], [NAN, 0.5, 0.5])
  assert now.num_skipped.tolist() == [4, 1, 0]
  # A seed that has stopped skips nothing any more.
  choice = now.choice._replace(active=np.array([True, False, True]))
  now = progress.advance(now._replace(choice=choice), now.state, metrics, 4)
  assert now.num_skipped.tolist() == [8, 1, 0]


def test_a_metric_called_loss():
  with pytest.raises(ValueError, match="task 'a': .*called"):
    lplmtl.Task('a', losses.squared_error, metric_fns={'loss': len})


def test_warnings_of_the_library_are_lines():
  lines = []
  with warnings.catch_warnings():
    warnings.simplefilter('always')
    with display.plain_warnings(lines.append):
      warnings.warn('the validation rows', stacklevel=1)
    assert lines == ['note: the validation rows']
