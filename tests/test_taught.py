"""Rows of a comparison that learn from trees."""

import types

import jax
import numpy as np
import pytest
from absl import flags

from experiments import compare  # noqa: F401  (defines the flags)
from experiments.comparison import (
  boosting,
  cells,
  networks,
  plan,
  taught,
  teaching,
  winner,
)
from experiments.datasets.census import loading, protocol
from experiments.launcher.errors import InputError
from lplmtl.compression import teachers

ROW = 'shared_bottom teacher=trees dropout=0'


def _plan(*arguments):
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  flags.FLAGS(['compare', '--dataset=sample', '--num_bins=4', *arguments])
  return plan.from_flags(flags.FLAGS)


@pytest.fixture(scope='module')
def encode():
  raw = loading.read('sample', num_rows=300)
  return lambda num_bins: protocol.encode(
    raw, ('income', 'marital'), num_bins=num_bins
  )


@pytest.fixture
def row(encode, tmp_path):
  made = _plan(
    f'--row={ROW}', '--tree_setting=num_leaves=7', '--tuning_seeds=2'
  )
  store = cells.Store(tmp_path, {})
  return taught.Taught(ROW, made, encode, print, store)


def _forests(monkeypatch, make):
  """Replaces LightGBM; `make(labels, seed)` returns `[N]` logits."""
  asked = []

  def fit(parameters, task, data, seed):
    asked.append((task.name, seed, parameters))
    assert data.tables.num_ordered == 0  # trees read no bins
    return types.SimpleNamespace(scores=make(task.name, seed)[:, np.newaxis])

  monkeypatch.setattr(boosting, 'fit', fit)
  return asked


def test_what_a_taught_row_is():
  made = _plan(f'--row={ROW}', '--row=sple')
  assert made.rows[ROW] == {'architecture': 'shared_bottom', 'dropout': 0.0}
  assert made.taught == {ROW: 'trees'}
  assert list(made.tree_settings) == list(plan.TREE_SETTINGS)
  for wrong in ('teacher=me', 'teacher=best teacher=trees'):
    with pytest.raises(InputError, match=f'trees or best, found {wrong}'):
      _plan(f'--row=sple {wrong}')
  # No command trains it: another network is the best to go on with.
  score = {'validation': {'income': {'auc': {'mean': 0.9}}}, 'setting': {}}
  assert winner.line(made, {'rows': [{'name': ROW, **score}]}) == ''


def test_it_learns_the_mean_prediction_of_the_trees(row, encode, monkeypatch):
  data = encode(4)

  def outputs(task, seed):
    both = [data.train.labels[task], data.validation.labels[task]]
    return (2 + seed) * (2 * np.concatenate(both) - 1)

  asked = _forests(monkeypatch, outputs)
  lesson = row.lesson(row.plan.base)
  num_train = data.facts['rows']['train']
  assert {seed for _, seed, _ in asked} == {0, 1} and len(asked) == 4
  for task in data.tasks:
    name = task.name
    members = [outputs(name, seed)[:, np.newaxis] for seed in (0, 1)]
    mean = teachers.ensemble_logits(task, members)
    for split, expected in (
      ('train', mean[:num_train]),
      ('validation', mean[num_train:]),
    ):
      found = getattr(lesson, split).labels[name]
      np.testing.assert_allclose(found['soft'], expected)
      np.testing.assert_array_equal(
        found['hard'], getattr(data, split).labels[name]
      )
  # The teacher alone, whatever the label.
  loss = lesson.tasks[0].loss_fn
  assert loss.share == 1
  jax.tree.map(
    np.testing.assert_array_equal, lesson.test.labels, data.test.labels
  )
  row.lesson(row.plan.base)
  assert len(asked) == 4  # kept in the store


def test_a_useless_teacher_is_refused(row, encode, monkeypatch):
  facts = encode(4).facts['rows']
  num_rows = facts['train'] + facts['validation']
  _forests(monkeypatch, lambda task, seed: np.full(num_rows, 5.0))
  with pytest.raises(teachers.TeacherError, match='income'):
    row.lesson(row.plan.base)


def test_the_best_teacher_of_each_task(encode):
  """Networks know one task, trees the other; or each knows half of the rows."""
  data = encode(4)
  labels = {
    name: np.concatenate([data.train.labels[name], of_validation])
    for name, of_validation in data.validation.labels.items()
  }
  knows = {name: 8.0 * y[:, np.newaxis] - 4 for name, y in labels.items()}
  noise = {name: np.flip(x, axis=0) for name, x in knows.items()}
  trees = {'income': knows['income'], 'marital': noise['marital']}
  others = {'income': noise['income'], 'marital': knows['marital']}
  outputs, names = teaching.best(data, trees, others)
  assert names == {'income': 'trees', 'marital': 'networks'}
  for name, one in outputs.items():
    np.testing.assert_array_equal(one, knows[name])
  even = np.arange(len(labels['income'])) % 2 == 0
  halves = [
    {name: np.where(part[:, np.newaxis], x, 0) for name, x in knows.items()}
    for part in (even, ~even)
  ]
  _, names = teaching.best(data, *halves)
  assert names['marital'] == 'both'


def test_networks_that_teach(encode, tmp_path, monkeypatch):
  """They are the architecture as the flags say, with the best setting."""
  name = 'shared_bottom teacher=best bottom_widths=8'
  made = _plan(
    f'--row={name}', '--tree_setting=num_leaves=7', '--tuning_seeds=2',
    '--bottom_widths=32', '--setting=dropout=0.1', '--setting=dropout=0.3',
  )  # fmt: skip
  store = cells.Store(tmp_path, {})
  row = taught.Taught(name, made, encode, print, store)
  scores = {'dropout=0.1': [0.6, 0.7], 'dropout=0.3': [0.8, 0.7]}
  tuned = {
    setting: {'income': values, 'marital': values}
    for setting, values in scores.items()
  }
  monkeypatch.setattr(networks, 'tune', lambda configs, data: tuned)
  fitted = []

  def fit_one(config, data):
    fitted.append(config)
    return object(), {'kernel': np.zeros((2, 3))}

  def predict(model, params, features):
    assert params['kernel'].shape == (3,)  # of one seed
    count = len(features['numeric'])
    return {n: np.full((count, 1), 2.0) for n in ('income', 'marital')}

  monkeypatch.setattr(networks, 'fit_one', fit_one)
  monkeypatch.setattr(teaching.evaluation, 'predict', predict)
  found = teaching.from_networks(row.networks.plan, row.networks, store)
  (config,) = fitted
  assert config.dropout == 0.3 and config.bottom_widths == (32,)
  assert (config.seed, config.num_seeds) == (0, 2)
  facts = encode(4).facts['rows']
  assert found['income'].shape == (facts['train'] + facts['validation'], 1)
  np.testing.assert_allclose(found['marital'], 2.0, rtol=1e-5)


def test_its_fits_are_its_own(row, encode):
  alone = networks.Networks(ROW, row.plan, encode, print)
  chosen = {'income': '', 'marital': ''}
  own, other = row.final(chosen), alone.final(chosen)
  assert own.kind != other.kind
  assert own.inputs['networks'] == other.inputs
  assert own.inputs['teacher']['settings'] == {
    'num_leaves=7': {'num_leaves': 7}
  }
  # Two tasks, two forests each.
  assert row.num_fits == alone.num_fits + 4
