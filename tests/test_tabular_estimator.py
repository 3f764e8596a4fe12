"""From a table to predictions by name: train, Predictor, Estimator."""

import functools
import io

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from rich.console import Console
from sklearn import metrics

import lplmtl
from lplmtl import checkpoint, data, tabular, tasks
from tests.tiny_tables import (
  NUM_ROWS,
  NUM_VALIDATED,
  OPTIONS,
  VALIDATED,
  table,
)

TARGETS = {
  'churn': 'binary',
  'segment': 'multiclass',
  'value': 'regression',
  'visits': 'count',
}


@pytest.fixture(scope='module')
def frame():
  # One column of every kind; each more would make compiling longer.
  kept = ['plan', 'newsletter', 'age', 'last_visit', *TARGETS]
  index = np.random.default_rng(0).permutation(400)
  return pd.DataFrame(data.customers(400))[kept].set_index(index)


@pytest.fixture(scope='module')
def fitted(frame):
  """Two seeds, trained on columns of every kind."""
  options = OPTIONS | {'num_seeds': 2, 'seed': 3, 'batch_size': 64}
  options |= {
    'architecture': functools.partial(lplmtl.MMoE, num_experts=2),
    'schedule': 'free',
  }
  return tabular.Estimator(TARGETS, **options).fit(frame)


@pytest.fixture(scope='module')
def predicted(frame, fitted):
  return fitted.predict(frame)


def test_predictions_have_names_order_and_index(frame, fitted, predicted):
  segments = sorted(set(frame['segment'].dropna()))
  assert list(predicted) == [
    'churn', 'churn_probability', 'segment',
    *(f'segment_probability_{name}' for name in segments),
    'value', 'visits',
  ]  # fmt: skip
  pd.testing.assert_index_equal(predicted.index, frame.index)
  assert set(predicted['churn']) <= {'yes', 'no'}
  likely = predicted['churn_probability'] > 0.5
  assert ((predicted['churn'] == 'yes') == likely).all()
  columns = {name: frame[name] for name in frame}
  arrays = fitted.predict(columns)
  for name in predicted:
    np.testing.assert_array_equal(arrays[name], predicted[name])


def test_predictions_are_means_over_seeds(frame, fitted, predicted):
  predictor = fitted.predictor_
  logits = predictor.logits(frame)
  assert {x.shape[:2] for x in logits.values()} == {(2, len(frame))}
  assert not np.array_equal(logits['churn'][0], logits['churn'][1])
  sigmoid = 1 / (1 + np.exp(-logits['churn'].astype(float)))
  np.testing.assert_allclose(
    predicted['churn_probability'], sigmoid.mean(0)[:, 0]
  )
  target = predictor.schema.targets['value']
  values = target.mean + target.std * logits['value'].mean(0)[:, 0]
  np.testing.assert_allclose(predicted['value'], values, rtol=1e-6)


def test_values_that_training_did_not_hold(frame, fitted):
  """Counted by the Predictor; the Estimator warns if most are new."""
  predictor = fitted.predictor_
  assert predictor.unseen(frame) == {}
  some = frame.copy()
  some.iloc[:3, some.columns.get_loc('plan')] = 'Gold'
  assert predictor.unseen(some) == {'plan': 3}
  fitted.predict(some)
  with pytest.warns(UserWarning, match="training: 'plan' in 400 of 400 rows"):
    fitted.predict(frame.assign(plan='Gold'))
  fitted.predict(frame.assign(plan='Gold').iloc[:9])


def test_a_predictor_is_shown_in_a_line(fitted):
  shown = repr(fitted.predictor_)
  assert shown.startswith(
    'Predictor(targets=[churn: binary, segment: multiclass, value: regression, '
    'visits: count], inputs=['
  )
  assert 'model=MMoE' in shown and 'num_seeds=2' in shown
  assert len(shown) < 300 and '\n' not in shown


def _twin(kind, column):
  """The same values in another dtype, or another container."""
  if kind == 'object':
    return column.astype(object)
  if kind == 'text' and column.name == 'age':
    return column.map(lambda x: None if pd.isna(x) else str(x))
  if kind == 'integer' and column.name == 'age':
    return column.astype('Int64')
  if kind == 'boolean' and column.name == 'newsletter':
    return column == 'yes'
  if kind == 'category' and column.dtype == object:
    return column.astype('category')
  if kind == 'datetime' and column.name == 'last_visit':
    return pd.to_datetime(column)
  return column


@settings(
  deadline=None, max_examples=25,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
  rows=strategies.lists(strategies.integers(0, 399), min_size=1, max_size=9),
  kind=strategies.sampled_from(
    'none object text integer boolean category datetime'.split()
  ),
  reverse=strategies.booleans(),
  as_dict=strategies.booleans(),
)
def test_equal_rows_get_equal_bits(
  frame, fitted, predicted, rows, kind, reverse, as_dict
):
  """However they arrive: alone or among others, in any order and dtype."""
  part = frame.iloc[rows].drop(columns=['churn', 'segment', 'value'])
  part = part.assign(unknown=1.0)
  arrived = pd.DataFrame({name: _twin(kind, part[name]) for name in part})
  if reverse:
    arrived = arrived[arrived.columns[::-1]]
  given = {n: arrived[n].tolist() for n in arrived} if as_dict else arrived
  found = fitted.predict(given)
  for name in predicted:
    expected = predicted[name].iloc[rows].to_numpy()
    np.testing.assert_array_equal(np.asarray(found[name]), expected)


def test_many_rows_get_the_bits_of_few(frame, fitted, predicted):
  """More rows than one call of the model takes, and none at all."""
  many = pd.concat([frame] * 3)
  found = fitted.predict(many)
  assert len(found) == 1200
  for name in found:
    np.testing.assert_array_equal(
      found[name].to_numpy()[-400:], predicted[name].to_numpy()
    )
  empty = fitted.predict(frame.iloc[:0])
  assert len(empty) == 0 and list(empty) == list(predicted)


def test_a_model_reads_the_columns_of_its_schema_only(frame, fitted):
  with pytest.raises(ValueError, match="'age'"):
    fitted.predict(frame.drop(columns='age'))
  targets = fitted.predictor_.schema.targets
  assert not set(targets) & set(fitted.predictor_.schema.inputs)


def test_scores_are_those_of_scikit_learn(frame, fitted, predicted):
  found = fitted.scores(frame)
  known = frame['churn'].notna()
  labels = frame.loc[known, 'churn'] == 'yes'
  chances = predicted.loc[known, 'churn_probability']
  classes = frame['segment'].notna()
  numbers = frame['value'].notna()
  value = frame['value'][numbers], predicted['value'][numbers]
  counts = frame['visits'], predicted['visits']
  for (target, metric), expected in {
    ('churn', 'auc'): metrics.roc_auc_score(labels, chances),
    ('churn', 'log_loss'): metrics.log_loss(labels, chances),
    ('segment', 'accuracy'): metrics.accuracy_score(
      frame['segment'][classes], predicted['segment'][classes]
    ),
    ('value', 'r2'): metrics.r2_score(*value),
    ('value', 'mae'): metrics.mean_absolute_error(*value),
    ('value', 'rmse'): metrics.mean_squared_error(*value) ** 0.5,
    ('visits', 'd2'): metrics.d2_tweedie_score(*counts, power=1),
    ('visits', 'mae'): metrics.mean_absolute_error(*counts),
  }.items():
    assert found[target][metric] == pytest.approx(expected, rel=1e-4, abs=1e-5)
  primary = [next(iter(values.values())) for values in found.values()]
  assert fitted.score(frame) == np.mean(primary)


def test_a_saved_model_predicts_the_same_bits(
  frame, fitted, predicted, tmp_path
):
  fitted.save(tmp_path / 'model')
  loaded = tabular.load(tmp_path)  # what a command leaves is a folder of a run
  pd.testing.assert_frame_equal(
    loaded.predict(frame), predicted, check_exact=True
  )
  assert loaded.schema == fitted.predictor_.schema
  for old, new in zip(fitted.predictor_.history, loaded.history, strict=True):
    np.testing.assert_array_equal(old['losses'], new['losses'])


def test_folders_that_are_no_model_of_a_table(tmp_path):
  with pytest.raises(checkpoint.CheckpointError, match='found none at'):
    tabular.load(tmp_path / 'nowhere')
  model = lplmtl.SharedBottom((tasks.binary('click'),))
  params = jax.jit(model.init)(jax.random.key(0), np.ones((1, 3)))['params']
  checkpoint.save(tmp_path / 'plain', model, params)
  with pytest.raises(checkpoint.CheckpointError, match='without the schema'):
    tabular.load(tmp_path / 'plain')


def test_gates_are_means_over_seeds_and_rows(frame, fitted):
  (level,) = fitted.predictor_.gates(frame)
  assert set(level) == set(TARGETS)
  assert level['churn']['experts'].shape == (2,)
  assert level['churn']['experts'].sum() == pytest.approx(1)


def test_importance_is_the_drop_when_raw_columns_are_shuffled(frame, fitted):
  """For categories, numbers with bins and flags, and dates with parts."""
  predictor = fitted.predictor_
  found = tabular.permutation_importance(
    predictor, frame, num_repeats=1, seed=5
  )
  order = np.random.default_rng(5).permutation(len(frame))
  before = predictor.score(frame)
  assert set(found['churn']) == set(
    name for name, one in predictor.schema.inputs.items()
    if one.kind in ('category', 'number', 'date', 'boolean')
  )  # fmt: skip
  for column in ('plan', 'age', 'last_visit', 'newsletter'):
    shuffled = frame.assign(**{column: frame[column].to_numpy()[order]})
    after = predictor.score(shuffled)
    for target, metric in (('churn', 'auc'), ('value', 'r2')):
      drop = before[target][metric] - after[target][metric]
      assert found[target][column].mean == pytest.approx(drop, abs=1e-9)
      assert found[target][column].std == 0
  means = [one.mean for one in found['churn'].values()]
  assert means == sorted(means, reverse=True)
  with pytest.raises(ValueError, match='two rows'):
    tabular.permutation_importance(predictor, frame.iloc[:1])


@pytest.fixture(scope='module')
def one():
  """A model of numbers, and one target."""
  return tabular.Estimator('late', **OPTIONS).fit(table())


def _assert_equal(old, new):
  """Two estimators or predictors have the same parameters, to the bit."""
  old, new = (jax.tree.leaves(_predictor(one).params) for one in (old, new))
  for x, y in zip(old, new, strict=True):
    np.testing.assert_array_equal(x, y)


def _predictor(model):
  return getattr(model, 'predictor_', model)


def test_one_target_and_numbers_only(one):
  assert list(one.predict(table())) == ['late', 'late_probability']
  assert one.predictor_.tables.vocabularies == {}


def test_training_is_a_pure_function(one):
  """And the Estimator a wrapper of it."""
  schema = tabular.infer(table(), 'late')
  for _ in range(2):
    trained = tabular.train(table(), schema, tabular.Settings(**OPTIONS))
    _assert_equal(trained, one)
  assert trained.schema == one.predictor_.schema


@pytest.mark.slow
def test_a_share_of_the_rows_is_split_off():
  rows = table(NUM_VALIDATED)
  part = tabular.split(rows, tabular.Schema({}, {}), share=0.2)
  schema = tabular.infer(rows.iloc[part['train']], 'late')
  model = tabular.Estimator('late', **VALIDATED).fit(rows)
  assert model.predictor_.schema == schema
  trained = tabular.train(rows, schema, tabular.Settings(**VALIDATED))
  _assert_equal(trained, model)


def test_training_reads_training_rows_alone():
  """Of the others, validation rows choose the epoch and test rows nothing."""
  n = NUM_ROWS
  rows = table(80).astype({'late': object})
  rows['part'] = np.repeat(['train', 'val', 'test'], [n, 12, 20])
  rows.loc[n:, 'b'] = 7.0
  rows.loc[60:, 'b'] = np.inf
  rows.loc[60:, 'late'] = 'neither'
  model = tabular.Estimator('late', split='part', **OPTIONS).fit(rows)
  schema, tables = model.predictor_.schema, model.predictor_.tables
  assert schema.targets['late'].classes == (0, 1)
  assert tables.numerics['b'].mean == pytest.approx(rows['b'][:n].mean())


@pytest.mark.slow
def test_validation_rows_may_be_passed():
  rows, others = table(NUM_ROWS), table(12, seed=1)
  schema, settings = tabular.infer(rows, 'late'), tabular.Settings(**OPTIONS)
  trained = tabular.train(rows, schema, settings, validation=others)
  best = max(r['validation']['late']['auc'][0] for r in trained.history)
  assert trained.score(others)['late']['auc'] == pytest.approx(best, abs=1e-6)
  model = tabular.Estimator('late', **OPTIONS)
  _assert_equal(model.fit(rows, validation=others), trained)
  X, y = rows[['a', 'b']], rows['late']
  model.fit(X, y, validation=(others[['a', 'b']], others['late']))
  _assert_equal(model, trained)


def test_warm_start_continues_with_parameters_and_tables():
  model = tabular.Estimator('late', warm_start=True, **OPTIONS).fit(table())
  first = model.predictor_
  model.set_params(learning_rate=0.0).fit(table(seed=1))
  _assert_equal(model, first)
  assert model.predictor_.tables == first.tables


def test_stops_early_and_reports_each_epoch():
  """Without a learning rate, no epoch improves on the first one."""
  seen, text = [], io.StringIO()
  options = VALIDATED | {'learning_rate': 0.0, 'patience': 2}
  with tabular.progress_bar(4, console=Console(file=text)) as show:

    def on_epoch(record):
      seen.append(record)
      show(record)

    model = tabular.Estimator('late', on_epoch=on_epoch, **options)
    model.fit(table(NUM_VALIDATED))
  assert [record['epoch'] for record in seen] == [1, 2, 3]
  assert len(model.predictor_.history) == 3
  auc = seen[0]['validation']['late']['auc'][0]
  assert f'validation {auc:.4f}' in text.getvalue()


def towns(label=5.0):
  """Categories only, one with many values; the labels of a third vary."""
  rng = np.random.default_rng(0)
  town = rng.integers(0, 30, 120)
  rent = rng.normal(size=120) + town
  return {
    'town': [f'town {i}' for i in town],
    'kind': rng.choice(['x', 'y'], 120),
    'rent': np.where(np.arange(120) < 40, label, rent),
    'sureness': (np.arange(120) >= 40).astype(float),
    'part': np.repeat(['train', 'val'], [100, 20]),
  }


@pytest.fixture(scope='module')
def hashed():
  schema = tabular.infer(
    towns(),
    {'rent': tabular.Target('regression', mean=15.0, std=9.0)},
    tabular.Options(
      weight='sureness', split='part', max_vocabulary=10, num_buckets=16
    ),
  )
  return tabular.Estimator(schema=schema, **OPTIONS).fit(towns())


@pytest.mark.slow
def test_categories_only_and_hashed_ones(hashed):
  tables = hashed.predictor_.tables
  assert tables.hashed == {'town': 16} and not tables.numerics
  new = {'town': ['town 3', 'elsewhere'], 'kind': ['x', None]}
  assert hashed.predict(new)['rent'].shape == (2,)
  importance = tabular.permutation_importance(hashed.predictor_, towns())
  assert set(importance['rent']) == {'town', 'kind'}
  assert hashed.predictor_.gates(towns()) == []  # it has none


@pytest.mark.slow
def test_rows_of_weight_0_do_not_count(hashed):
  other = tabular.Estimator(**hashed.get_params()).fit(towns(label=-3.0))
  _assert_equal(other, hashed)


def test_an_edited_schema_takes_the_place_of_inference():
  schema = tabular.Schema(
    {
      'b': tabular.Input('number', log=True), 'a': tabular.Input('number'),
      'c': tabular.Input('ignored'),
    },
    {'late': tabular.Target('binary', positive=0)},
  )  # fmt: skip
  model = tabular.Estimator(schema=schema, **OPTIONS)
  model.fit(table().assign(c=np.arange(48)))
  assert list(model.predictor_.tables.numerics) == ['b', 'a']
  assert model.predictor_.schema.targets['late'].classes == (0, 1)
  assert model.predictor_.schema.targets['late'].positive == 0


BAD_SETTINGS = {
  'architecture must be a class such as lplmtl.SPLE': {'architecture': 'sple'},
  'widths must be a tuple': {'widths': 64},
  'num_epochs must be a whole number of at least 1': {'num_epochs': 0},
  'patience must be a whole number': {'patience': 1.5},
  'dropout must be a number of at least 0 and below 1': {'dropout': 1},
  'learning_rate must be a number of at least 0, found': {'learning_rate': -1},
  "schedule must be 'free', 'cosine' or 'constant'": {'schedule': 'linear'},
}


@pytest.mark.parametrize('message', BAD_SETTINGS)
def test_settings_out_of_range_get_one_line(message):
  with pytest.raises(ValueError, match=message) as error:
    tabular.Settings(**BAD_SETTINGS[message])
  assert '\n' not in str(error.value)


def _rare():
  """A second target, with labels in a few training rows only."""
  rows = table(NUM_VALIDATED)
  part = tabular.split(rows, tabular.Schema({}, {}), share=0.2)
  return rows.assign(rare=rows['a'].iloc[part['train'][:5]])


def _no_model(tasks, encoder):
  return tasks


BAD_FITS = {
  'architecture must return a model': {'architecture': _no_model},
  'must take the arguments tasks and encoder': {'architecture': lplmtl.MLP},
  'balancer must be a constructor': {'balancer': 'equal'},
  'widths must have an entry for each level': {
    'widths': (),
    'architecture': lplmtl.SPLE,
  },
  "'rare' has no label in the 12 validation rows": {
    'targets': {'late': 'binary', 'rare': 'regression'}
  },
  'name of a target must be a text, found 2': {'targets': 2},
  'num_seeds must be 1, as in the model': {'warm_start': True, 'num_seeds': 2},
  'schema must be a Schema': {'schema': {'inputs': {}}},
  "sum above 0 that fits in float32, found 0 .'zero'.": {'weight': 'zero'},
  'tune must be a whole number, .* found .yes.': {'tune': 'yes'},
  'tune must be a whole number, .* found 2.5': {'tune': 2.5},
  "positive must be a dict .*, such as {'late': 1}; found 1": {'positive': 1},
  "strptime's codes, .*; found 'DD.MM.YYYY'": {'dates': {'a': 'DD.MM.YYYY'}},
  'pair of a kind and a list of columns': {'targets': {'late': ('binary',)}},
}


@pytest.mark.parametrize('message', BAD_FITS)
def test_fits_that_cannot_work_get_one_line(one, message):
  options = {'targets': 'late', **VALIDATED, **BAD_FITS[message]}
  model = tabular.Estimator(**options)
  model.predictor_ = one.predictor_
  rows = _rare().assign(zero=0)
  if options['targets'] == 2:
    rows = rows.rename(columns={'late': 2})
  with pytest.raises(ValueError, match=message) as error:
    model.fit(rows)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('row', [0, 20, 47])
def test_errors_count_the_rows_of_the_table(row):
  rows = table()
  rows.loc[row, 'a'] = np.inf
  with pytest.raises(
    ValueError, match=f"'a' must .*found inf in row {row} .counted from 0.$"
  ):
    tabular.Estimator('late', **OPTIONS).fit(rows)


def test_predicting_before_fitting_gets_one_line():
  with pytest.raises(ValueError, match='call fit first'):
    tabular.Estimator('late').predict(table())


def test_nothing_is_printed(capfd):
  tabular.Estimator('late', **OPTIONS).fit(table()).score(table())
  assert capfd.readouterr() == ('', '')
