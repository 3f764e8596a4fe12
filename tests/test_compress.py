"""The recipe: budgets, what it returns, rows coded anew, and mistakes."""

import dataclasses
import types

import jax
import numpy as np
import optax
import pandas as pd
import pytest

import lplmtl
from lplmtl import balancing, checkpoint, compression, tables, tasks
from lplmtl.compression import (
  dense,
  learning,
  lessons,
  merging,
  packing,
  quantization,
  recipe,
  recoding,
  reference,
  student,
)
from lplmtl.compression.student import Sizes
from lplmtl.types import Batch

RNG = np.random.default_rng(0)
N = 120
COLUMNS = {
  'city': RNG.choice(['Oslo', 'Rome', 'Lima', 'Bern', 'Cork'], N),
  'noise': RNG.choice(list('abcdefghijkl'), N),
  'age': np.where(RNG.random(N) < 0.1, np.nan, RNG.integers(18, 60, N)),
  'pay': RNG.normal(size=N).round(2),
}
CATEGORIES = {name: COLUMNS[name] for name in ('city', 'noise')}
FITTED = tables.fit(
  CATEGORIES,
  {'age': COLUMNS['age'], 'pay': COLUMNS['pay']},
  num_bins=8,
  rules=tables.Rules(fill_missing=True),
)
FEATURES = FITTED.encode(COLUMNS)
# The first metric of each is enough; others take their time to compile.
TASKS = tuple(
  dataclasses.replace(task, metric_fns=dict([*task.metric_fns.items()][:1]))
  for task in (tasks.binary('click'), tasks.regression('price'))
)
SIGNAL = COLUMNS['pay'] + (COLUMNS['city'] == 'Oslo')
ROWS = Batch(
  FEATURES,
  {'click': (SIGNAL > 0).astype(int), 'price': SIGNAL},
  where={'click': np.arange(N) < 100},
)
MODEL = lplmtl.SharedBottom(
  TASKS,
  encoder=lplmtl.TabularEncoder(
    FITTED.num_categories, embed_dim=2, num_ordered=FITTED.num_ordered
  ),
  bottom=lplmtl.MLP((8,)),
  tower=lplmtl.MLP(()),
)
BUDGET = 160
FEW = compression.Recipe(num_steps=12, batch_size=40)


def _keys(count):
  return jax.vmap(jax.random.key)(np.arange(count))


@pytest.fixture(scope='module')
def params():
  """Of two seeds."""
  return lplmtl.fit(
    _keys(2),
    MODEL,
    optax.adam(3e-2),
    balancing.equal(),
    ROWS,
    batch_size=40,
    num_epochs=15,
  ).params


@pytest.fixture(scope='module')
def small(params):
  return compression.compress(
    _keys(2), MODEL, params, FITTED, ROWS, validation=ROWS, budget=BUDGET,
    recipe=FEW,
  )  # fmt: skip


def _one(tree, seed=0):
  return jax.tree.map(lambda x: x[seed], tree)


def _compress(params, data=ROWS, validation=ROWS, **changes):
  given = {'model': MODEL, 'tables': FITTED, 'budget': BUDGET, **changes}
  return compression.compress(
    jax.random.key(0), given['model'], params, given['tables'], data,
    validation=validation, budget=given['budget'],
    recipe=given.get('recipe', FEW),
  )  # fmt: skip


def _sensitivity(fitted):
  """Of random embeddings."""
  rng = np.random.default_rng(1)
  count = sum(fitted.num_categories)
  roots = rng.normal(size=(count, 2, 2))
  return merging.Sensitivity(
    rng.normal(size=(count, 2)),
    {'click': roots @ roots.transpose(0, 2, 1)},
    {'click': 1.0},
    np.ones(count),
  )


def test_the_student_fits_the_budget(small):
  parts = student.count_bytes(TASKS, small.tables, small.sizes)
  for packed in small.packed:
    assert packed.num_bytes == small.num_bytes <= BUDGET
    assert packed.parts == small.parts == parts
  assert sum(parts.values()) == small.num_bytes
  assert sum(small.tables.num_categories) < sum(FITTED.num_categories)


def test_a_device_scores_as_the_student_does(small):
  """From the packed bytes and raw rows, without the old tables."""
  features = small.tables.encode(COLUMNS)
  for seed, packed in enumerate(small.packed):
    expected = lplmtl.predict(small.model, _one(small.params, seed), features)
    found = reference.score(packed, COLUMNS)
    for name in expected:
      np.testing.assert_allclose(found[name], expected[name], atol=1e-4)


def test_metrics_are_those_of_the_returned_model(small, params):
  features = small.tables.encode(COLUMNS)
  evaluate = jax.jit(lplmtl.make_eval_step(small.model, TASKS))
  for seed in range(2):
    found = evaluate(_one(small.params, seed), ROWS._replace(features=features))
    for task, metrics in found.items():
      for name, value in metrics.items():
        at = small.validation[task][name][seed]
        np.testing.assert_allclose(at, value, rtol=1e-4)
  evaluate = jax.jit(lplmtl.make_eval_step(MODEL, TASKS))
  each = [evaluate(_one(params, seed), ROWS) for seed in range(2)]
  mean = np.mean([one['click']['auc'] for one in each])
  np.testing.assert_allclose(small.dense['click']['auc'], mean, rtol=1e-5)
  # The mean of predictions has a smaller squared error than the predictions.
  assert small.teacher['price']['loss'] < small.dense['price']['loss']


def test_a_student_is_saved_like_any_model(small, tmp_path):
  """And packed from what was saved, its bytes are the same."""
  path = tmp_path / 'small'
  checkpoint.save(
    path, small.model, small.params, tables=small.tables, num_seeds=2
  )
  model, params, loaded = checkpoint.load(path)
  assert (model, loaded) == (small.model, small.tables)
  jax.tree.map(np.testing.assert_array_equal, params, small.params)
  for seed, packed in enumerate(small.packed):
    frozen = quantization.freeze(model, _one(params, seed))
    again = packing.pack(frozen, loaded)
    assert again.sections.keys() == packed.sections.keys()
    for name, section in again.sections.items():
      np.testing.assert_array_equal(section, packed.sections[name])


@pytest.mark.slow
def test_one_key_gives_no_axis_and_labels_alone_will_do(params):
  """With another teacher's outputs in the rows, which `share=0` ignores."""
  logits = {'click': np.where(ROWS.labels['click'], 9.0, -9.0)[:, None]}
  rows = compression.with_teacher(TASKS, ROWS, logits)
  settings = compression.Recipe(
    num_steps=3, batch_size=1000, share=0, rounded=False, sizes=Sizes(1, 1, 2)
  )
  # Labels may be columns of pandas, as for `fit`.
  labels = {**rows.labels, 'price': pd.Series(SIGNAL, np.arange(N) + 7)}
  rows = rows._replace(labels=labels)
  found = _compress(_one(params), rows, rows, recipe=settings)
  assert found.sizes == Sizes(1, 1, 2)
  assert np.ndim(found.validation['click']['auc']) == 0
  shapes = jax.tree.map(np.shape, found.params)
  assert shapes['tower_click']['head']['kernel'] == (2, 1)
  assert found.packed.num_bytes == found.num_bytes
  assert len(found.history) == 3
  # The mean with a teacher that is certain of the labels.
  assert found.teacher['click']['loss'] < found.dense['click']['loss']
  assert found.teacher['price'] == pytest.approx(found.dense['price'], rel=1e-5)


@pytest.mark.parametrize('num_ids', [6, 12, 20])
@pytest.mark.parametrize('kind', ['bins', 'hashed', 'interpolate'])
def test_rows_are_coded_anew_as_by_the_new_tables(num_ids, kind):
  columns = {
    **COLUMNS,
    'day': np.array(['2024-01-02', '2024-03-04', '2025-05-06'])[
      np.arange(N) % 3
    ],
    'id': np.arange(N).astype(str),
  }
  rules = {'fill_missing': True}
  if kind == 'hashed':
    rules |= {'max_vocabulary': 50, 'num_buckets': 16}
  categories = dict(CATEGORIES)
  if kind == 'hashed':
    categories['id'] = columns['id']
  fitted = tables.fit(
    categories,
    {'age': COLUMNS['age'], 'pay': COLUMNS['pay']},
    num_bins=8,
    interpolate=kind == 'interpolate',
    dates={'day': (columns['day'], '')},
    rules=tables.Rules(**rules),
  )
  features = fitted.encode(columns)
  found = _sensitivity(fitted)
  new = merging.merge_by(fitted, found, num_ids=num_ids).tables
  again = recoding.recode(features, fitted, new)
  expected = new.encode(columns)
  assert again.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(again[name], array)
    assert again[name].dtype == array.dtype


def test_other_tables_are_no_merged_ones():
  other = tables.fit({'city': ['Oslo', 'Paris']}, {})
  with pytest.raises(ValueError, match="column 'city' of the merged tables"):
    recoding.recode(FEATURES, FITTED, other)
  other = tables.fit({}, {'pay': np.arange(50.0)}, num_bins=8)
  with pytest.raises(ValueError, match="column 'pay' of the merged tables"):
    recoding.recode(FEATURES, FITTED, other)


def test_an_ensemble_of_equal_members_merges_as_one_of_them(params):
  one = _one(params)
  alone = dense.sensitivity(FITTED, MODEL, [one], ROWS)
  twice = dense.sensitivity(FITTED, MODEL, [one, one], ROWS)
  assert twice.vectors.shape[1] == 2 * alone.vectors.shape[1]
  for num_ids in (8, 16):
    found, expected = (
      merging.merge_by(FITTED, found, num_ids=num_ids)
      for found in (twice, alone)
    )
    assert found.tables == expected.tables
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-3)


def test_sizes_follow_the_budget():
  found = _sensitivity(FITTED)
  offered = [
    (start, student.costs(TASKS, sizes))
    for start, sizes in student.offered(TASKS)
  ]

  def sizes(budget):
    merged, chosen = student.fit_tables(FITTED, found, budget, offered)
    parts = student.count_bytes(TASKS, merged.tables, chosen)
    assert sum(parts.values()) <= budget
    return chosen, merged

  chosen, merged = sizes(130)
  assert chosen == offered[0][1].sizes and merged.loss > 0
  # With room for all values, the bytes go into a larger network.
  chosen, merged = sizes(20_000)
  assert chosen == offered[-1][1].sizes and merged.loss == 0
  with pytest.raises(merging.BudgetError, match=r'smallest student takes (\d+)'
  ) as error:  # fmt: skip
    sizes(15)
  smallest = int(error.value.smallest)
  sizes(smallest)
  with pytest.raises(merging.BudgetError):
    sizes(smallest - 1)
  many = [tasks.multiclass('item', 40)]
  assert {one.hidden for _, one in student.offered(many)} == {20, 32, 64}


@pytest.mark.slow
def test_few_values_are_measured_anew(monkeypatch):
  """By a network of those left, whatever was measured at first."""
  todo = TASKS[:1]
  found = _sensitivity(FITTED)
  sizes = FITTED.num_categories
  found.curvature['click'][sizes[0] : sizes[0] + sizes[1]] *= 100
  lesson = lessons.Lesson(todo, FITTED, found, ROWS, ROWS, {}, {}, (1.0,))
  options = [(0, student.costs(todo, Sizes(1, 1, 2)))]
  settings = compression.Recipe(
    num_steps=120, batch_size=40, share=0, learning_rate=3e-2
  )
  monkeypatch.setattr(learning, '_STAGE', 22)

  def kept(few):
    monkeypatch.setattr(learning, '_FEW', few)
    new, chosen = learning.fit_tables(_keys(2), lesson, 60, options, settings)
    assert chosen == options[0][1].sizes
    assert options[0][1].num_bytes(new) <= 60
    return new.columns

  assert 'noise' in kept(few=0)  # which the labels do not depend on
  assert 'noise' not in kept(few=100)


def _search(monkeypatch, aucs, **within):
  """Runs the search with students of known AUC; returns (result, tried)."""
  tried = []

  def compress(key, lesson, budget, settings):
    tried.append(budget)
    if budget < 300:
      raise merging.BudgetError('too small', 300)
    auc = aucs(budget)
    return types.SimpleNamespace(
      num_bytes=budget,
      validation={'click': {'auc': auc}, 'price': {'r2': np.nan}},
    )

  metrics = {'click': {'auc': 0.9}, 'price': {'r2': 0.5}}
  lesson = types.SimpleNamespace(tasks=TASKS, dense=metrics)
  monkeypatch.setattr(recipe, 'from_lesson', compress)
  monkeypatch.setattr(lessons, 'prepare', lambda *args: lesson)
  budget = compression.Within(**within)
  return _compress(None, budget=budget).num_bytes, tried


def test_the_search_finds_the_fewest_bytes(monkeypatch):
  def aucs(budget):
    return np.array([0.88, 0.92 if budget >= 1000 else 0.90])

  found, tried = _search(monkeypatch, aucs, tolerance=0.002, least=256)
  assert 1000 <= found <= 1000 * 2 ** (1 / 4)
  assert len(tried) <= 6
  found, _ = _search(monkeypatch, aucs, tolerance=0.1, least=256)
  assert 300 <= found <= 300 * 2 ** (1 / 4)
  found, tried = _search(monkeypatch, aucs, least=1000, most=1000)
  assert (found, tried) == (1000, [1000])
  with pytest.raises(ValueError, match=r'below it by 0\.0100 \(click\)'):
    _search(monkeypatch, aucs, least=400, most=900)


def test_a_worse_teacher_is_named(params):
  one = lplmtl.predict(MODEL, _one(params), FEATURES)
  bad = {'click': -one['click']}
  rows = dense.read(TASKS, compression.with_teacher(TASKS, ROWS, bad), 'data')
  mixed = lessons.teach(TASKS, [one], {'click': 0.5 * one['click']})
  lessons.check_teacher(TASKS, mixed, [one], rows)  # worse by its loss only
  mixed['click'] = mixed['click'] + np.where(np.arange(N) % 2, 1, -1)[:, None]
  with pytest.warns(UserWarning, match=r"'click'.*worse \(auc .*leave it out"):
    lessons.check_teacher(TASKS, mixed, [one], rows)


@pytest.mark.parametrize(
  'labels, weight', [([0, 1] * 5, 1 / np.log(2)), ([0] * 10, 1)]
)
def test_losses_count_by_those_of_a_constant(labels, weight):
  rows = Batch(np.zeros((10, 1)), {'click': np.array(labels)})
  found = lessons._weight(tasks.binary('click'), rows)
  np.testing.assert_allclose(found, weight, 1e-5)


def test_mistakes_are_named(params):
  def fails(match, *args, **changes):
    with pytest.raises(ValueError, match=match):
      _compress(*args, **changes)

  other = lplmtl.MMoE(TASKS, encoder=MODEL.encoder)
  fails('not those of this MMoE, of which they lack', params, model=other)
  wider = MODEL.clone(bottom=lplmtl.MLP((9,)))
  fails(r'bottom/layer_0/bias must be \(9,\).*found \(2, 8\)', params,
        model=wider)  # fmt: skip
  odd = compression.Recipe(weights={'clik': 2})
  fails(r"names the task 'clik'; those of the model are \['click'", params,
        recipe=odd)  # fmt: skip
  fails('without', params, model=MODEL.clone(encoder=None))
  fewer = tables.fit({'city': COLUMNS['city']}, {})
  fails('pass the tables that the model was trained with', params, tables=fewer)
  none = jax.tree.map(lambda x: x[:0], ROWS)
  fails('data must have at least one row', params, none)
  fails('validation must have at least one row', params, ROWS, none)
  labels = {'price': SIGNAL}
  fails("no labels of task 'click'", params, ROWS._replace(labels=labels))
  hidden = ROWS._replace(where={'click': np.zeros(N, bool)})
  fails("no row of data has a label of task 'click'", params, hidden)
  fails('smallest student takes', params, budget=20)
  short = ROWS._replace(labels={**ROWS.labels, 'price': SIGNAL[:5]})
  fails(r"data\['price'\]|'price'.*the 120 rows", params, short)
  fails('whole number of bytes', params, budget=1e3)
  fails('recipe must be a Recipe', params, recipe={})
  constant = jax.tree.map(np.zeros_like, params)
  fails('than a constant|that of a constant', constant)


@pytest.mark.parametrize(
  ('settings', 'match'),
  [
    ({'num_steps': 0}, 'num_steps must be a whole number'),
    ({'learning_rate': -1.0}, 'learning_rate must be'),
    ({'weight_decay': -0.1}, 'weight_decay must be'),
    ({'share': 2.0}, 'share must be from 0 to 1'),
    ({'weights': {'click': 0}}, 'weights must be numbers > 0'),
  ],
)
def test_settings_are_checked(settings, match):
  with pytest.raises(ValueError, match=match):
    compression.Recipe(**settings)
  with pytest.raises(ValueError, match='tolerance must be'):
    compression.Within(-1.0)
  with pytest.raises(ValueError, match='the smaller one first'):
    compression.Within(least=100, most=50)
  with pytest.raises(ValueError, match='rank must be a whole number'):
    Sizes(rank=0)
  with pytest.raises(ValueError, match='scheme must be a Scheme'):
    Sizes(scheme=4)
