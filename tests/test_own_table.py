"""Commands on a data set with several kinds of task, missing labels, weights."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from experiments.comparison import boosting, intervals, plan, tree_inputs
from experiments.comparison import run as comparison
from experiments.launcher import drawing, kinds, outcomes, run
from experiments.launcher.options import Config
from experiments.reporting import page
from lplmtl import ordinal, statistics, tables, tasks
from lplmtl.types import Batch
from tests import own_table

pytestmark = pytest.mark.slow  # together

CONFIG = Config(
  architecture='shared_bottom', bottom_widths=(8,), tower_widths=(),
  num_bins=0, epochs=1, batch_size=100, learning_rate=0.05,
  compilation_cache='none', optimizer='sgd',
)  # fmt: skip
COMPARED = {'churn': 'auc', 'value': 'r2', 'rating': 'kappa'}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Of the run and of the comparison."""
  return tmp_path_factory.mktemp('own')


@pytest.fixture(scope='module')
def finished(folder):
  """The results of a run; the tasks are the data set's, not the Config's."""
  config = dataclasses.replace(CONFIG, out_dir=str(folder / 'run'))
  return run.execute(config, lambda config: own_table.make(('value', 'tags')))


@pytest.fixture(scope='module')
def quick_trees():
  """Few trees."""
  pytest.importorskip('lightgbm')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(boosting, 'ROUNDS', 20)
    yield


@pytest.fixture(scope='module')
def compared(folder, quick_trees):
  """The results of a comparison of a network and trees."""
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
  dataset = own_table.make(tuple(COMPARED))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(intervals, 'SAMPLES', 20)
    patch.setattr(drawing, 'is_available', lambda: False)  # see test_quality
    return comparison.compare(asked, dataset, folder / 'compare')


def _scores(folder, kind):
  """Returns the kept logits of a row."""
  for path in (folder / 'compare' / 'cells').glob('*.npz'):
    cell = json.loads(path.with_suffix('.json').read_text())
    if cell['identity']['kind'] == kind:
      with np.load(path) as arrays:
        return dict(arrays)
  raise AssertionError(kind)


def _data(*names):
  return own_table.make(names).load(CONFIG, None).encode(0)


def _test_rows(names, task):
  """Returns the labels of a task and which test rows have one."""
  test = _data(*names).test
  return test.labels[task], test.where[task]


def test_a_run(finished, folder):
  primary = {t: next(iter(m)) for t, m in finished['test'].items()}
  assert primary == {'value': 'r2', 'tags': 'auc'}
  assert list(finished['loss_weights']) == ['value', 'tags']
  assert finished['calibration'] == {}  # no task is binary
  found = finished['outcomes']['value']
  labels, where = _test_rows(('value', 'tags'), 'value')
  own = own_table.MEAN + own_table.STD * labels[where]
  np.testing.assert_allclose(found['true'], own, rtol=1e-4)
  r2 = sklearn_metrics.r2_score(own, found['predicted'])
  assert r2 == pytest.approx(finished['test']['value']['r2']['mean'], abs=1e-3)
  assert found['unit'] == 'EUR'
  error = sklearn_metrics.mean_absolute_error(own, found['predicted'])
  assert found['error'] == pytest.approx(error, rel=1e-3)
  tags = finished['outcomes']['tags']
  assert tags['labels'] == ['new', 'large']
  auc = finished['test']['tags']['auc']['mean']
  assert np.mean(tags['auc']) == pytest.approx(auc, abs=1e-5)
  assert drawing.is_own(folder / 'run' / 'outcomes.png')


def test_a_comparison(compared, folder):
  network, trees = compared['rows']
  assert compared['tasks'] == list(COMPARED)
  for row in compared['rows']:
    assert {t: next(iter(m)) for t, m in row['test'].items()} == COMPARED
    assert set(row['interval']) == set(COMPARED)
  # One setting of networks leaves nothing to tune. Two of trees; a rating of
  # four classes takes three models.
  assert network['fits'] == 3 and trees['fits'] == (2 + 3) * 5
  ours, theirs = _scores(folder, 'final trees'), _scores(folder, 'final')
  labels, where = _test_rows(COMPARED, 'value')
  for scores, row in ((ours, trees), (theirs, network)):
    want = [
      sklearn_metrics.r2_score(labels[where], seed[where])
      for seed in scores['value']
    ]
    found = row['test']['value']['r2']['per_seed']
    assert found == pytest.approx(want, abs=1e-4)
    estimate = row['interval']['value']['estimate']
    assert estimate == pytest.approx(np.mean(want), abs=1e-4)
  labels, where = _test_rows(COMPARED, 'rating')
  kappa = sklearn_metrics.cohen_kappa_score(
    labels[where],
    ordinal.classes(ours['rating'][0, where]),
    weights='quadratic',
  )
  found = trees['test']['rating']['kappa']['per_seed'][0]
  assert found == pytest.approx(kappa, abs=1e-4)
  labels, where = _test_rows(COMPARED, 'churn')
  want = statistics.auc_difference(
    ours['churn'][:, where], theirs['churn'][:, where], labels[where]
  )
  assert trees['difference']['churn'] == want._asdict()
  text = (folder / 'compare' / 'comparison.md').read_text()
  assert 'Test AUC, R² and kappa (' in text and '±0.01 on value' in text


def test_trees_learn_every_kind_of_task(compared, quick_trees):
  """Better than a constant, which has AUC .5, R², D² and kappa 0."""
  test = compared['rows'][1]['test']
  least = {'churn': 0.9, 'value': 0.7, 'rating': 0.7}
  for task, metric in COMPARED.items():
    assert test[task][metric]['mean'] > least[task], task
  data = _data('segment', 'visits', 'tags')
  for task, at_least in zip(data.tasks, (0.6, 0.4, 0.9), strict=True):
    found = boosting.fit({'learning_rate': 0.2}, task, data, 0)
    assert found.validation > at_least, task.name
    score = boosting.score(task, found.scores[np.newaxis], data.test)
    assert next(iter(score.values()))[0] > at_least, task.name
    assert found.scores.shape == (200, task.num_outputs)


def test_trees_respect_weights_and_missing_labels(quick_trees):
  """Rows of no weight, or without a label, change nothing."""
  data = _data('value')
  (task,) = data.tasks
  train = data.train
  ignored = np.arange(len(train.where['value'])) % 3 == 0
  wrong = {'value': np.where(ignored, 100, train.labels['value'])}
  weights = {'value': np.where(ignored, 0, train.weights['value'])}
  where = {'value': train.where['value'] & ~ignored}
  parameters = {'learning_rate': 0.2, 'min_sum_hessian_in_leaf': 0}

  def r2(**changed):
    changes = data._replace(train=train._replace(**changed))
    return boosting.fit(parameters, task, changes, 0).validation

  assert r2(labels=wrong) < 0
  assert r2(labels=wrong, weights=weights) > 0.7
  assert r2(labels=wrong, where=where) > 0.7


def test_trees_read_what_is_missing_as_missing():
  """NaN in place of fill value and flag; pairs of buckets as one category."""
  columns = {'zip': ['a', 'b', 'c', 'a'], 'age': [1.0, np.nan, 3.0, 5.0]}
  made = tables.fit(
    {'zip': columns['zip']}, {'age': columns['age']},
    rules=tables.Rules(fill_missing=True, max_vocabulary=2, num_buckets=50),
  )  # fmt: skip
  assert made.num_buckets == (50,) and made.flags
  rows = Batch(made.encode(columns), {})
  encode, num_categories = tree_inputs.make_encoder(rows, made)
  found = encode(rows)
  assert found.shape == (4, 2) and num_categories == 1
  assert np.isnan(found[:, 1]).tolist() == [False, True, False, False]
  assert found[0, 0] == found[3, 0] and len(set(found[:, 0])) == 3
  new = Batch(made.encode({'zip': ['z'], 'age': [2.0]}), {})
  assert encode(new)[0, 0] == -1


def test_outcomes_of_every_kind():
  todo = (tasks.multiclass('a', 3), tasks.ordinal('b', 3), tasks.poisson('c'))
  logits = {
    'a': np.eye(3)[np.newaxis, [0, 2, 2, 1]],
    'b': np.array([[[1, 1], [1, -1], [-1, -1], [9, 9]]]),
    'c': np.log([[[0.5], [1.0], [2.0], [9.0]]]),
  }
  labels = {'a': np.array([0, 1, 2, 0]), 'b': np.array([2, 1, 1, 0])}
  where = dict.fromkeys('abc', np.array([True, True, True, False]))
  rows = Batch(np.zeros(4), {**labels, 'c': np.array([1, 1, 2, np.nan])}, where)
  targets = {'a': {'classes': [True, 'x', 7]}, 'c': {'mean': 4.0}}
  found = outcomes.describe(todo, logits, rows, targets)
  assert found['a']['classes'] == ['True', 'x', '7']
  assert found['a']['counts'] == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
  assert found['b']['counts'] == [[0, 0, 0], [1, 1, 0], [0, 0, 1]]
  assert found['b']['classes'] == ['0', '1', '2']
  assert found['c']['true'] == [4.0, 4.0, 8.0]
  assert found['c']['predicted'] == [2.0, 4.0, 8.0]
  assert found['c']['error'] == pytest.approx(2 / 3)
  many = tasks.multiclass('a', outcomes.MOST_CLASSES + 1)
  assert not outcomes.describe([many], logits, rows, {})


def test_every_task_has_a_kind():
  made = {
    'binary': (tasks.binary('x'), tasks.focal('x')),
    'multiclass': (tasks.multiclass('x', 2),),
    'ordinal': (tasks.ordinal('x', 3),),
    'multilabel': (tasks.multilabel('x', 2),),
    'regression': (tasks.regression('x'), tasks.huber('x')),
    'count': (tasks.poisson('x'),),
  }
  for kind, of_kind in made.items():
    assert [kinds.of(task) for task in of_kind] == [kind] * len(of_kind)


def test_a_report(finished, folder):
  written = page.make([folder / 'run'], folder / 'page')
  names = {path.name for path in written}
  assert names == {
    'report.html', 'report.md', 'learning.png', 'outcomes_0.png'
  }  # fmt: skip
  text = (folder / 'page' / 'report.md').read_text()
  assert '![Predictions beside the truth: run](outcomes_0.png)' in text
  assert '| run | seeds | R² | loss weight |' in text
