"""Commands on a data set with several kinds of task, missing labels, weights."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from experiments.comparison import boosting, intervals, plan
from experiments.comparison import run as comparison
from experiments.launcher import run
from experiments.launcher.options import Config
from experiments.reporting import page
from lplmtl import statistics
from lplmtl.training import parallel
from tests import own_table

CONFIG = Config(
  architecture='shared_bottom', bottom_widths=(8,), tower_widths=(),
  num_bins=0, epochs=2, batch_size=100, learning_rate=0.05,
  compilation_cache='none',
)  # fmt: skip
PRIMARY = {
  'churn': 'auc', 'segment': 'accuracy', 'value': 'r2', 'visits': 'd2',
  'rating': 'kappa', 'tags': 'auc',
}  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Of the run and of the comparison."""
  return tmp_path_factory.mktemp('own')


@pytest.fixture(scope='module')
def finished(folder):
  """The results of a run; the tasks are the data set's, not the Config's."""
  config = dataclasses.replace(CONFIG, out_dir=str(folder / 'run'))
  return run.execute(config, lambda config: own_table.make())


@pytest.fixture(scope='module')
def compared(folder):
  """The results of a comparison of a network and trees."""
  pytest.importorskip('lightgbm')
  asked = plan.Plan(
    dataclasses.replace(CONFIG, num_seeds=3),
    rows={'shared_bottom': {'architecture': 'shared_bottom'}, 'trees': None},
    settings={},
    tree_settings={
      f'num_leaves={n}': {'num_leaves': n, 'learning_rate': 0.2} for n in (3, 7)
    },
    tuning_seeds=1,
    baseline='shared_bottom',
    single='shared_bottom',
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(boosting, 'ROUNDS', 20)
    patch.setattr(intervals, 'SAMPLES', 20)
    patch.setattr(parallel, 'num_cores', lambda: 1)  # none to wait for
    return comparison.compare(asked, own_table.make(), folder / 'compare')


def _scores(folder, kind):
  """Returns the kept logits of a row."""
  for path in (folder / 'compare' / 'cells').glob('*.npz'):
    cell = json.loads(path.with_suffix('.json').read_text())
    if cell['identity']['kind'] == kind:
      with np.load(path) as arrays:
        return dict(arrays)
  raise AssertionError(kind)


def _test_rows(task):
  """Returns the labels of a task and which test rows have one."""
  test = own_table.make().load(CONFIG, None).encode(0).test
  return test.labels[task], test.where[task]


def test_a_run(finished, folder):
  assert {t: next(iter(m)) for t, m in finished['test'].items()} == PRIMARY
  assert list(finished['loss_weights']) == list(PRIMARY)
  assert list(finished['calibration']) == ['churn']
  outcomes = finished['outcomes']
  assert set(outcomes) == set(PRIMARY) - {'churn'}
  assert outcomes['segment']['classes'] == ['new', 'loyal', 'gone']
  counts, (labels, where) = (
    np.array(outcomes['segment']['counts']),
    _test_rows('segment'),
  )
  assert counts.sum(axis=1).tolist() == np.bincount(labels[where]).tolist()
  accuracy = np.trace(counts) / counts.sum()
  assert accuracy == pytest.approx(
    finished['test']['segment']['accuracy']['mean']
  )
  # Numbers are in the unit of the data, not standardised.
  labels, where = _test_rows('value')
  own = own_table.MEAN + own_table.STD * labels[where]
  np.testing.assert_allclose(outcomes['value']['true'], own, rtol=1e-4)
  assert outcomes['value']['unit'] == 'EUR'
  found = sklearn_metrics.r2_score(own, outcomes['value']['predicted'])
  assert found == pytest.approx(
    finished['test']['value']['r2']['mean'], abs=1e-3
  )
  # Rates, not their logarithms or multiples of their mean.
  labels, where = _test_rows('visits')
  counts = np.rint(own_table.MEAN_VISITS * labels[where])
  assert outcomes['visits']['true'] == counts.tolist()
  found = sklearn_metrics.d2_tweedie_score(
    counts, outcomes['visits']['predicted'], power=1
  )
  assert found == pytest.approx(
    finished['test']['visits']['d2']['mean'], abs=1e-3
  )
  assert outcomes['tags']['labels'] == ['new', 'large']
  assert np.mean(outcomes['tags']['auc']) == pytest.approx(
    finished['test']['tags']['auc']['mean'], abs=1e-5
  )
  assert len(outcomes['rating']['counts']) == 4
  assert (folder / 'run' / 'outcomes.png').read_bytes()[1:4] == b'PNG'


def test_a_comparison(compared, folder):
  network, trees = compared['rows']
  assert compared['tasks'] == list(PRIMARY)
  for row in compared['rows']:
    assert {t: next(iter(m)) for t, m in row['test'].items()} == PRIMARY
    assert set(row['interval']) == set(PRIMARY)
  # One setting of networks leaves nothing to tune; two of trees, seven models.
  assert network['fits'] == 3 and trees['fits'] == (2 + 3) * 7
  ours, theirs = _scores(folder, 'final trees'), _scores(folder, 'final')
  labels, where = _test_rows('value')
  for scores, row in ((ours, trees), (theirs, network)):
    want = [
      sklearn_metrics.r2_score(labels[where], s[where]) for s in scores['value']
    ]
    assert row['test']['value']['r2']['per_seed'] == pytest.approx(
      want, abs=1e-4
    )
    assert row['interval']['value']['estimate'] == pytest.approx(
      np.mean(want), abs=1e-4
    )
  labels, where = _test_rows('churn')
  want = statistics.auc_difference(
    ours['churn'][:, where], theirs['churn'][:, where], labels[where]
  )
  assert trees['difference']['churn'] == want._asdict()
  # What was written for people.
  text = (folder / 'compare' / 'comparison.md').read_text()
  assert 'Test AUC, accuracy and R² (' in text and '±0.01 on value' in text
  assert 'Test D², kappa and AUC (' in text


def test_trees_learn_every_kind_of_task(compared):
  """Better than a constant, which has AUC .5, R², D² and kappa 0."""
  test = compared['rows'][1]['test']
  least = {
    'churn': 0.9, 'segment': 0.6, 'value': 0.7, 'visits': 0.4, 'rating': 0.7,
    'tags': 0.9,
  }  # fmt: skip
  for task, metric in PRIMARY.items():
    assert test[task][metric]['mean'] > least[task], task


def test_a_report(finished, compared, folder):
  names = {
    path.name
    for path in page.make([folder / 'run', folder / 'compare'], folder / 'page')
  }
  assert {'outcomes_0.png', 'calibration.png', 'differences_0.png'} <= names
  text = (folder / 'page' / 'report.md').read_text()
  assert '![Predictions beside the truth: run](outcomes_0.png)' in text
