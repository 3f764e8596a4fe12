"""The rivals of small networks: their bytes, and what scores from these say."""

import itertools

import jax
import numpy as np
import pytest

from experiments.datasets.base import Data
from experiments.frontier import (
  additive,
  bitstream,
  candidates,
  drafts,
  growing,
  inputs,
  refitting,
  sequences,
  shapes,
  sharing,
  tree_bytes,
  trees,
)
from lplmtl import tables, tasks
from lplmtl.types import Batch

TASKS = (
  tasks.binary('bought'),
  tasks.multiclass('kind', 3),
  tasks.regression('spent'),
  tasks.poisson('visits'),
)
BUDGETS = 400, 1500


def _columns(n, seed):
  random = np.random.default_rng(seed)
  age = np.round(random.uniform(18, 90, n))
  age[random.random(n) < 0.1] = np.nan
  return {
    'city': random.choice([f'city {i}' for i in range(20)], n),
    'plan': random.choice(['free', 'paid', 'trial'], n, p=[0.6, 0.3, 0.1]),
    'age': age,
    'sold': np.round(random.exponential(20, n), 1),
  }


def _rows(columns, seed, encoder):
  random = np.random.default_rng(seed)
  north = np.array([int(city[5:]) % 4 == 0 for city in columns['city']])
  paid = columns['plan'] == 'paid'
  old = np.where(np.isnan(columns['age']), 1.0, columns['age'] > 50)
  x = 2.0 * north * paid + 1.5 * old - 1.5 * (columns['sold'] > 25)
  labels = {
    'bought': (x + random.logistic(size=len(x)) > 1).astype(np.int32),
    'kind': np.clip(np.round(x + random.normal(size=len(x))), 0, 2).astype(
      np.int32
    ),
    'spent': (1e3 * (x + random.normal(size=len(x)))).astype(np.float32),
    'visits': random.poisson(np.exp(0.5 * x)).astype(np.float32),
  }
  where = {'spent': random.random(len(x)) < 0.9}
  labels['spent'][~where['spent']] = np.nan
  return Batch(encoder.encode(columns), labels, where)


@pytest.fixture(scope='module')
def raw():
  return {
    split: _columns(n, seed)
    for split, n, seed in (
      ('train', 2000, 0),
      ('validation', 800, 1),
      ('test', 800, 2),
    )
  }


@pytest.fixture(scope='module')
def data(raw):
  names = ('city', 'plan'), ('age', 'sold')
  encoder = tables.fit(
    *({name: raw['train'][name] for name in part} for part in names),
    num_bins=32,
    rules=tables.Rules(fill_missing=True),
  )
  rows = {
    split: _rows(raw[split], 10 + i, encoder) for i, split in enumerate(raw)
  }
  return Data(TASKS, **rows, tables=encoder, facts={}, optimum={})


def _test_quality(data, found):
  return {
    task.name: candidates.measure(task, data.test)(found.test[task.name])
    for task in data.tasks
  }


def test_shapes_are_numbered_without_gaps():
  for num_splits in range(7):
    made = [
      shapes.unrank(i, num_splits) for i in range(shapes.count(num_splits))
    ]
    assert len({tuple(shape) for shape in made}) == len(made)
    assert [shapes.rank(shape) for shape in made] == list(range(len(made)))


def test_numbers_of_any_width():
  writer = bitstream.Writer()
  sizes = [1, 2, 5, 256, 10**30]
  for size in sizes:
    writer.write(size - 1, size)
  bits = sum(map(bitstream.width, sizes))
  assert len(writer.content) == -(-bits // 8)
  reader = bitstream.Reader(writer.content)
  assert [reader.read(size) for size in sizes] == [s - 1 for s in sizes]
  with pytest.raises(ValueError, match='from 0 to 4'):
    writer.write(5, 5)


def test_trees_grown_are_lightgbms(data):
  """Its own predictions are ours, so that splits and leaves are understood."""
  lightgbm = pytest.importorskip('lightgbm')
  rows = inputs.encode(data)
  todo = inputs.targets(data, TASKS[0], None)
  given = sequences.grower(rows, todo, seed=0)
  made = sequences.grow(given, 16, 4, False, 5)
  codes = growing.cut(rows.codes['train'], given.ranks, made.pool)
  settings = {'num_leaves': 4, 'learning_rate': sequences.RATES[4]}
  (booster,) = growing.boosters(codes, todo, settings, 5, 0)
  assert isinstance(booster, lightgbm.Booster)
  right = given.sides('train', made.pool)
  ours = sum(
    tree_bytes.leaf_of(tree.nodes, right, tree.values) for (tree,) in made.rows
  )
  theirs = booster.predict(codes.astype(float), raw_score=True)
  np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_joined_rows_have_the_same_sums(data):
  rows = inputs.encode(data)
  todo = inputs.targets(data, TASKS[0], None)
  right = growing.sides(
    rows.codes['train'], inputs.ranks(rows, todo), [(0, 3), (1, 0), (2, 5)]
  )
  joined, kept = inputs.distinct(todo, right)
  assert len(joined.weights) == kept.shape[1] <= 8
  for pattern in itertools.product((False, True), repeat=3):
    mask = (right == np.array(pattern)[:, None]).all(axis=0)
    one = (kept == np.array(pattern)[:, None]).all(axis=0)
    total = joined.weights[one] @ joined.means[one, 0]
    assert np.isclose(todo.weights[mask] @ todo.means[mask, 0], total)


def test_refitting_one_group_finds_the_means():
  todo = inputs.Targets(
    TASKS[2],
    inputs.links.of(TASKS[2]),
    np.array([[1.0], [3.0], [10.0], [20.0]]),
    np.array([1.0, 1.0, 2.0, 0.0]),
  )
  group = refitting.Group(np.array([0, 0, 1, 1]), np.zeros(2))
  made = refitting.refit([group], todo, 8, ridge=0.0)
  assert made.codes[0][0] == 0
  found = made.bases[0] + made.scales[0] * made.codes[0]
  np.testing.assert_allclose(found, [2, 10], rtol=0.01)


@pytest.mark.slow
def test_trees_fit_their_budgets_and_learn(data, monkeypatch):
  pytest.importorskip('lightgbm')
  monkeypatch.setattr(trees, '_ROUNDS', 40)
  few = [
    trees.Setting(16, 4, False, 8, 4, 10),
    trees.Setting(16, 4, True, 30, 5, 100),
  ]
  settings = {task.name: few for task in TASKS}
  settings['bought'] = [trees.Setting(16, 4)]  # searches
  found = trees.candidates(data, (*BUDGETS, 1), settings=settings)
  assert 1500 in found and 1 not in found
  for budget, made in found.items():
    assert made.num_bytes <= budget
    for task in TASKS:
      assert made.test[task.name].shape == (800, task.num_outputs)
  best = _test_quality(data, found[1500])
  assert best['bought'] > 0.7 and best['spent'] > 0.4 and best['visits'] > 0.1
  assert best['kind'] > 0.5
  again = trees.candidates(
    data, BUDGETS[-1:], seed=1, settings=trees.tried(found.values())
  )
  assert again[1500].num_bytes <= 1500


def test_bytes_alone_score_raw_rows(data, raw):
  pytest.importorskip('lightgbm')
  rows = inputs.encode(data)
  parts = []
  for task, bits in zip(TASKS[:2], (4, 5), strict=True):
    todo = inputs.targets(data, task, None)
    given = sequences.grower(rows, todo, seed=0)
    made = sequences.grow(given, 24, 4, False, 12).refitted(12, bits, 10)
    parts += [(draft, given.ranks) for draft in made]
  shared, packed = drafts.pack(rows, parts)
  assert packed.num_bytes == sum(x.nbytes for x in packed.sections.values())
  ids = sharing.recode(shared, rows.codes['test'])
  expected = tree_bytes.score_ids(packed, ids)
  found = tree_bytes.score(packed, raw['test'])
  np.testing.assert_array_equal(found, expected)
  # The scores are those of the drafts, which never were bytes.
  for k, (draft, ranks) in enumerate(parts):
    right = growing.sides(rows.codes['test'], ranks, draft.splits)
    total = sum(
      tree_bytes.leaf_of(t.nodes, right, np.array(t.codes)) for t in draft.trees
    )
    np.testing.assert_allclose(
      expected[:, k], draft.base + draft.scale * total, rtol=1e-5, atol=1e-5
    )
  # Unseen texts are no error.
  one = {name: column[:1] for name, column in raw['test'].items()}
  one['city'] = np.array(['nowhere'])
  assert np.isfinite(tree_bytes.score(packed, one)).all()


def test_distilled_trees_learn_from_a_teacher(data):
  pytest.importorskip('lightgbm')
  one = data._replace(tasks=TASKS[:1])
  labels = data.train.labels['bought'][:, None]
  teacher = {'bought': np.where(labels, -2.0, 2.0)}  # the opposite
  settings = {'bought': [trees.Setting(16, 4, False, 20, 4, 10)]}
  found = trees.candidates(one, (400,), teacher=teacher, settings=settings)
  assert _test_quality(one, found[400])['bought'] < 0.3
  with pytest.raises(ValueError, match=r'must give \[2000, 1\] outputs'):
    trees.candidates(one, (400,), teacher={'bought': np.zeros((3, 1))})
  with pytest.raises(ValueError, match='no outputs for bought'):
    trees.candidates(one, (400,), teacher={'other': teacher['bought']})


def test_additive_models_fit_their_budgets_and_learn(data, monkeypatch):
  monkeypatch.setattr(additive, '_BINS', (8,))
  found = additive.candidates(data, (*BUDGETS, 1))
  assert 1500 in found and 1 not in found
  assert all(made.num_bytes <= budget for budget, made in found.items())
  best = _test_quality(data, found[1500])
  assert best['bought'] > 0.7 and best['spent'] > 0.4 and best['visits'] > 0.1
  with pytest.raises(ValueError, match='the smallest model takes'):
    additive.candidates(data._replace(tasks=TASKS[:1]), (1,))


def test_few_rows_keep_their_categories(data):
  train = jax.tree.map(lambda x: x[:300], data.train)
  rows = inputs.encode(data._replace(train=train))
  parts = additive._first_parts(rows)[: rows.num_unordered]
  assert all(part.max() for part in parts)


def test_a_front_and_its_split():
  points = {
    'a': [candidates.Offer(*p, None) for p in ((1, 0.1), (5, 0.5), (4, 0.05))],
    'b': [candidates.Offer(*p, None) for p in ((2, 0.1), (6, 0.2))],
  }
  fronts = {name: candidates.front(p) for name, p in points.items()}
  assert [p.num_bytes for p in fronts['a']] == [1, 5]

  def size(choice):
    return sum(point.num_bytes for point in choice.values())

  chosen = candidates.split(fronts, 8, size)
  assert [p.num_bytes for p in chosen.values()] == [5, 2]
  assert size(candidates.split(fronts, 11, size)) == 11
