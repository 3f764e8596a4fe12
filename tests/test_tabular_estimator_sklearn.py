"""The Estimator inside scikit-learn: clone, validation, search, pipelines."""

import dataclasses
import inspect
import pathlib
import pickle
import re
import sys

import jax
import numpy as np
import pytest
from sklearn import base, model_selection, pipeline, preprocessing

from lplmtl import tabular
from lplmtl.tabular import arrays, parameters, tuning
from lplmtl.training import compiled
from tests.tiny_tables import (
  NUM_ROWS,
  NUM_VALIDATED,
  OPTIONS,
  VALIDATED,
  table,
)

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def X():
  return table()[['a', 'b']]


@pytest.fixture
def y():
  return table()['late']


@pytest.fixture
def late():
  return tabular.Estimator({'late': 'binary'}, **OPTIONS)


def test_every_option_is_a_parameter():
  names = {
    field.name
    for cls in (tabular.Settings, tabular.Options)
    for field in dataclasses.fields(cls)
  }
  model = tabular.Estimator('late')
  assert names < set(model.get_params())
  shown = inspect.signature(tabular.Estimator).parameters.values()
  assert {one.name: one.default for one in shown} == parameters.DEFAULTS
  assert len(parameters.DEFAULTS) == len(names) + 5  # none hides another
  model.set_params(dropout=0.25, ignore=['a'])
  assert repr(model) == "Estimator(targets='late', dropout=0.25, ignore=['a'])"
  with pytest.raises(ValueError, match="'learing_rate'.*'learning_rate'"):
    tabular.Estimator('late', learing_rate=1)


def test_the_readme_lists_the_settings_with_their_defaults():
  text = (ROOT / 'lplmtl' / 'tabular' / 'README.md').read_text()
  rows = text.partition('| setting |')[2].partition('\n\n')[0].splitlines()
  listed = {}
  for row in rows[2:]:
    names, defaults = (re.findall('`([^`]+)`', x) for x in row.split('|')[1:3])
    listed |= dict(zip(names, defaults, strict=True))
  assert listed == {
    field.name: getattr(field.default, '__name__', repr(field.default))
    for field in dataclasses.fields(tabular.Settings)
  }


@pytest.mark.slow
def test_clones_are_equal_and_not_fitted(late, X, y):
  late.fit(X, y)
  copy = base.clone(late)
  assert copy.get_params() == late.get_params()
  assert not hasattr(copy, 'predictor_')
  again = pickle.loads(pickle.dumps(late))
  np.testing.assert_array_equal(again.predict(X), late.predict(X))


@pytest.mark.parametrize(
  'values', [(0, 1), (1.0, 2.0), ('no', 'yes'), (False, True), ('1', '2')]
)
def test_predictions_look_like_y(late, X, y, values):
  labels = np.asarray(values)[y]
  late.fit(X, labels)
  found = late.predict(X)
  assert found.shape == (NUM_ROWS,) and set(found.tolist()) <= set(values)
  assert isinstance(found[0].item(), type(values[0]) | int)
  assert late.classes_.tolist() == list(values)
  chances = late.predict_proba(X)
  np.testing.assert_allclose(chances.sum(1), 1)
  np.testing.assert_array_equal(late.classes_[chances.argmax(1)], found)


def test_a_positive_class_does_not_change_the_order_of_classes(late, X, y):
  labels = np.where(y, 'late', 'punctual')
  late.set_params(positive={'late': 'late'}).fit(X, labels)
  assert late.classes_.tolist() == ['late', 'punctual']
  chances = late.predictor_.predict(X)['late_probability']
  np.testing.assert_allclose(late.predict_proba(X)[:, 0], chances)


@pytest.mark.slow
def test_five_equal_folds_compile_once(late, events):
  """Of 60 rows each fold trains on 48."""
  frame, counts = table(NUM_VALIDATED), []
  compiled.clear()

  def scoring(model, X, y):
    score = model.score(X, y)
    counts.append(sum('backend_compile' in event for event in events))
    return score

  X, y, cv = frame[['a', 'b']], frame['late'], model_selection.KFold(5)
  found = model_selection.cross_val_score(late, X, y, scoring=scoring, cv=cv)
  assert counts[0] > 0 and counts[1:] == [counts[0]] * 4
  # The metric of scikit-learn, and the one of the model.
  theirs = model_selection.cross_val_score(late, X, y, scoring='roc_auc', cv=cv)
  np.testing.assert_allclose(found, theirs, atol=1e-6)


SEVERAL = {'tall': 'binary', 'late': 'binary'}


def tagged(num_rows):
  rows = table(num_rows)
  return rows.assign(tall=(rows['a'] > 0) * 1)


@pytest.mark.slow
def test_validation_of_one_of_several_targets():
  frame = tagged(96)
  found = model_selection.cross_validate(
    tabular.Estimator(SEVERAL, **OPTIONS),
    frame,
    scoring={
      'auc': tabular.Scorer('late'),
      'log_loss': tabular.Scorer('late', 'neg_log_loss'),
    },
    cv=2,
    return_estimator=True,
  )
  half = frame.iloc[48:]  # what the second of two models is tested on
  model = found['estimator'][1]
  scores = model.scores(half)['late']
  assert found['test_auc'][1] == scores['auc']
  assert found['test_log_loss'][1] == -scores['log_loss']
  for target, metric, message in (
    ('lat', '', "'lat', which is not a target; did you mean 'late'"),
    ('late', 'r2', "the metrics of 'late' are"),
  ):
    with pytest.raises(ValueError, match=message):
      tabular.Scorer(target, metric)(model, half)
  with pytest.raises(ValueError, match="write 'neg_rmse'"):
    tabular.Scorer('total', 'rmse')
  with pytest.raises(ValueError, match="no metric; did you mean 'neg_rmse'"):
    tabular.Scorer('total', 'neg_rsme')
  with pytest.raises(ValueError, match="is no metric; did you mean .*'auc'"):
    tabular.Scorer('late', 'neg_auc')


def test_grid_search(late):
  rows = table(96)
  X, y = rows[['a', 'b']], rows['late']
  search = model_selection.GridSearchCV(
    late, {'learning_rate': [0.0, 0.1]}, scoring='roc_auc', cv=2, refit=False
  ).fit(X, y)
  assert search.best_params_ == {'learning_rate': 0.1}
  assert search.cv_results_['mean_test_score'][1] > 0.7


def test_the_last_step_of_a_pipeline(late, X, y):
  """With arrays, whose columns have no names, and with frames."""
  scaled = pipeline.make_pipeline(preprocessing.StandardScaler(), late)
  assert base.is_classifier(scaled)
  scaled.fit(X, y)
  assert scaled.predict(X).shape == (NUM_ROWS,)
  assert scaled.score(X, y) == pytest.approx(
    late.score(preprocessing.StandardScaler().fit_transform(X), y)
  )
  frame = X.assign(late=y)
  named = pipeline.make_pipeline(
    preprocessing.FunctionTransformer(), base.clone(late)
  ).fit(frame)
  assert list(named.predict(X)) == ['late', 'late_probability']
  assert tabular.Scorer('late')(named, frame) == named.score(frame)


def test_several_columns_of_y():
  """An array, or a frame in another order, as the labels of two targets."""
  rows = tagged(NUM_ROWS)
  X, y = rows[['a', 'b']], rows[['tall', 'late']]
  model = tabular.Estimator(SEVERAL, **OPTIONS).fit(X, y.to_numpy())
  found = model.predict(X)
  assert found.shape == (NUM_ROWS, 2)
  np.testing.assert_array_equal(
    model.fit(X, y[['late', 'tall']]).predict(X), found
  )
  chances = model.predict_proba(X, 'late')
  np.testing.assert_array_equal(chances[:, 1] > 0.5, found[:, 1] == 1)
  with pytest.raises(ValueError, match='pass target'):
    model.predict_proba(X)
  assert not hasattr(model, 'classes_')
  with pytest.raises(ValueError, match='a column for each of the targets'):
    model.fit(X, y.to_numpy()[:, :1])


def test_labels_of_several_columns_come_back_in_their_order():
  targets = {
    'tags': tabular.Target('multilabel', columns=('p', 'q')),
    'late': tabular.Target('binary'),
  }
  predictions = {'p': [1, 0], 'q': [2, 0], 'late': [3, 0]}
  labels = arrays.Labels(('q', 'late', 'p'), is_flat=False)
  found = labels.restore(predictions, tabular.Schema({}, targets))
  assert found.tolist() == [[2, 3, 1], [0, 0, 0]]
  targets = {n: tabular.Target('regression') for n in ('size', 'name')}
  predictions = {'size': [1.5, 2.0], 'name': ['x', 'y']}
  both = arrays.Labels(('size', 'name'), is_flat=False)
  found = both.restore(predictions, tabular.Schema({}, targets))
  assert found.tolist() == [[1.5, 'x'], [2.0, 'y']]  # not texts of numbers
  late = tabular.Target('binary')
  asked = {'tags': ('multilabel', ('p', 'q')), 'late': late}
  assert arrays.label_names(asked, None) == ['p', 'q', 'late']


def test_y_of_one_name_needs_no_targets(X, y):
  model = tabular.Estimator(**OPTIONS).fit(X, y)
  assert list(model.predictor_.schema.targets) == ['late']
  with pytest.raises(ValueError, match='targets must name the columns'):
    tabular.Estimator().fit(X)
  with pytest.raises(ValueError, match='X must be a DataFrame'):
    model.predict(np.zeros(3))
  with pytest.raises(ValueError, match=r'validation must be a pair \(X, y\)'):
    model.fit(X, y, validation=X)


@pytest.fixture
def fixed_sizes(monkeypatch):
  """Two settings at a time, all of one size: a single program."""
  pytest.importorskip('optuna')
  monkeypatch.setattr(tuning, '_POPULATION', 2)
  monkeypatch.setattr(tuning, '_SCALES', (1.0,))
  monkeypatch.setattr(tuning, '_EMBED_DIMS', (2,))
  monkeypatch.setattr(tuning, '_CROSSES', (0,))
  monkeypatch.setattr(tuning, '_MAX_DROPOUT', 0.0)


def test_trials_of_a_round_have_the_same_sizes():
  optuna = pytest.importorskip('optuna')
  settings = tabular.Settings()
  sampler = optuna.samplers.RandomSampler(seed=0)
  with tuning._silent(optuna):
    study = optuna.create_study(sampler=sampler)
  rounds = []
  for _ in range(4):
    members = [one for _, one in tuning._ask(study, settings, 3)]
    (sizes,) = {(one.widths, one.embed_dim, one.num_crosses) for one in members}
    rounds.append(sizes)
    assert len({(one.dropout, one.learning_rate) for one in members}) == 3
  assert len({*rounds}) > 1


@pytest.mark.slow
def test_tuning(fixed_sizes, monkeypatch, capfd):
  frame = table(NUM_VALIDATED)
  schema = tabular.infer(frame, 'late')
  settings, seen = tabular.Settings(**VALIDATED), []
  tuned = tabular.tune(
    frame, schema, settings, num_trials=3, on_trial=seen.append
  )
  assert len(tuned.trials) == 4 and list(tuned.trials) == seen
  assert tuned.trials[0].settings == settings
  assert len({trial.settings.learning_rate for trial in tuned.trials}) == 4
  best = max(tuned.trials, key=lambda trial: trial.score)
  assert tuned.settings == best.settings
  assert capfd.readouterr() == ('', '')
  with pytest.raises(ValueError, match='needs validation rows'):
    bare = dataclasses.replace(settings, validation_share=0)
    tabular.tune(frame, schema, bare)
  # The estimator tries the same settings, and trains with the best of them on
  # the same rows.
  again, tune_rows = [], tuning.tune_rows
  monkeypatch.setattr(
    tuning,
    'tune_rows',
    lambda *given: again.append(tune_rows(*given)) or again[-1],
  )
  model = tabular.Estimator({'late': 'binary'}, tune=3, **VALIDATED).fit(frame)
  assert again == [tuned]
  chosen = tabular.train(frame, schema, tuned.settings)
  for old, new in zip(
    jax.tree.leaves(chosen.params),
    jax.tree.leaves(model.predictor_.params),
    strict=True,
  ):
    np.testing.assert_array_equal(old, new)


def test_tuning_names_the_extra_that_it_needs(monkeypatch):
  monkeypatch.setitem(sys.modules, 'optuna', None)
  with pytest.raises(ImportError, match=r"pip install 'lplmtl\[tune\]'"):
    tabular.Estimator('late', tune=2, **VALIDATED).fit(table(NUM_VALIDATED))
