"""Roads and levers: what fits a budget, what is trained, and what it takes."""

import dataclasses
import functools
import json
import types

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import lplmtl
from experiments.comparison import plan as comparison
from experiments.comparison import rows
from experiments.datasets import base
from experiments.datasets.census import loading, protocol
from experiments.frontier import (
  abreast,
  abreast_picture,
  courses,
  dense,
  levers,
  net,
  options,
  refitting,
  rivals,
  roads,
  sequences,
  targets,
  ways,
)
from experiments.frontier import plan as frontier
from experiments.frontier.teacher import NETWORK, TREES, Teacher
from experiments.launcher import drawing
from experiments.launcher.options import Config
from lplmtl import tasks
from lplmtl.compression import (
  lessons,
  low_rank,
  merging,
  packing,
  quantization,
  recipe_settings,
  student,
)
from lplmtl.types import Batch
from tests import contracts

pytestmark = pytest.mark.slow
TRAIN = courses.train  # which the fixture replaces
SCHEME = quantization.Scheme(bits=4, scale_bits=8, vector_bits=8)


@pytest.fixture(scope='module')
def course():
  """Of two seeds and 300 rows; its PLE is not trained, but drawn."""
  raw = loading.read('sample', num_rows=300)
  data = protocol.encode(raw, ('income', 'marital'), num_bins=4)
  config = Config(
    num_seeds=2, architecture='ple', expert_widths=((8,), (8,)),
    tower_widths=(8,), num_crosses=1, cross_rank=2, batch_size=50,
  )  # fmt: skip
  found = courses.Course(config, data, data.train, False, 1)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(courses, 'train', _draw)
    assert found.trained
    yield found


def _draw(course, models, start, *rest, **options):
  """In place of training: what it starts from, or random numbers."""
  row = jax.tree.map(lambda x: x[:1], course.train.features)
  return start or [
    contracts.random_params(model, row, seed=i)
    for i, model in enumerate(models)
  ]


@pytest.mark.parametrize(
  'road, kind',
  [
    ('sple from scratch', lplmtl.SPLE),
    ('ple to sple', lplmtl.SPLE),
    ('ple by gates', lplmtl.PLE),
    ('ple by neurons', lplmtl.PLE),
    ('ple of low rank', low_rank.LowRank),
  ],
)
def test_a_road_leads_to_networks_that_fit(road, kind, course):
  """And that take nearly all of what they may."""
  model, seeds = course.trained
  whole = targets.Target(course, 0, SCHEME).num_bytes(model, seeds[0])
  target = targets.Target(course, round(0.8 * whole), SCHEME)
  ready = roads.ROADS[road](target)
  seeds = ready.seeds or [None, None]
  for model, params in zip(ready.models, seeds, strict=True):
    assert type(model) is kind
    # An expert, or a fifth of the units, may be too much by little.
    size = target.num_bytes(model, params)
    assert 0.6 * target.budget < size <= target.budget


@pytest.mark.parametrize(
  'road',
  [
    'sple from scratch',
    'ple by neurons',
    'ple by magnitude',
    'ple of low rank',
  ],
)
def test_no_road_leads_to_a_handful_of_bytes(road, course):
  with pytest.raises(merging.BudgetError, match='60 bytes are too few: the sm'):
    roads.ROADS[road](targets.Target(course, 60, SCHEME))


def test_what_is_scored_is_what_is_packed(course):
  target = targets.Target(course, 1200, SCHEME)
  (model, other), _, _, _ = roads.ROADS['shared_bottom from scratch'](target)
  seeds = _draw(course, [model, other], None)
  scored = courses.score(course, [model, other], seeds, SCHEME)
  for params, size in zip(seeds, scored.num_bytes, strict=True):
    frozen = quantization.freeze(quantization.Quantized(model, SCHEME), params)
    assert packing.pack(frozen, course.data.tables).num_bytes == size <= 1200
  for task, outputs in scored.test.items():
    assert outputs.shape == (2, len(course.data.test.labels[task]), 1)


@pytest.mark.parametrize('bits', [4, 8])
@pytest.mark.parametrize('share', [0.4, 0.5, 0.6])
def test_zeros_and_the_others_fit(bits, share, course):
  scheme = dataclasses.replace(SCHEME, bits=bits)
  model, seeds = course.trained
  whole = targets.Target(course, 0, scheme).num_bytes(model, seeds[0])
  target = targets.Target(course, round(share * whole), scheme)
  ready = roads.ROADS['ple by disparse'](target)
  for one, params in zip(ready.models, ready.seeds, strict=True):
    parts = courses.sparse(target.parts(one, params), params, scheme)
    assert 0.98 * target.budget < sum(parts.values()) <= target.budget


def test_sparse_bytes_are_masks_and_values():
  params = {'kernel': np.eye(8, dtype=np.float32), 'bias': np.ones(3)}
  found = courses.sparse({'weights': 1, 'biases': 12}, params, SCHEME)
  assert found == {'biases': 12, 'weights': 8 + 4}


def test_equal_models_train_as_one_population(course, monkeypatch):
  """The others by themselves, and all from their own parameters."""
  calls, asked = [], []

  def fit(keys, model, optimizer, balancer, data, **options):
    calls.append((model, len(keys), options['start']))
    asked.append((optimizer, options['validation']))
    start = options['start']
    return type('Result', (), {'params': jax.tree.map(lambda x: x + 1, start)})

  monkeypatch.setattr(courses.training, 'fit', fit)
  models = ['a', 'b', 'a']
  seeds = [{'x': np.array([i])} for i in range(3)]
  found = TRAIN(course, models, seeds, 1)
  assert [(model, count) for model, count, _ in calls] == [('a', 2), ('b', 1)]
  assert calls[0][2]['x'].tolist() == [[0], [2]]
  assert [int(one['x'][0]) for one in found] == [1, 2, 3]
  assert asked[0][1] is course.data.validation
  # What becomes sparse is that of the last epoch.
  TRAIN(course, ['a'], seeds[:1], 2, change=lambda _, num_steps: num_steps)
  num_rows = course.data.facts['rows']['train']
  assert asked[-1] == (2 * (num_rows // course.config.batch_size), None)


def test_forms_differ_from_the_first_in_one_respect():
  first, *others = roads.FORMS
  for form in others:
    assert sum(a != b for a, b in zip(first, form, strict=True)) == 1


@pytest.fixture
def teacher(course):
  """Whose network says 0, and which has no trees."""
  data = course.data
  outputs = {
    task.name: np.zeros((len(data.train.labels[task.name]), 1), np.float32)
    for task in data.tasks
  }
  config = dataclasses.replace(course.config, num_seeds=3)
  network = dense.Trained('ple', config, None, None, data)
  return Teacher(network, {}, {NETWORK: outputs, TREES: {}}, outputs, {})


def _plan(teacher, family):
  base = comparison.Plan(teacher.network.config, {'ple': {}}, {}, {}, 1, 'ple')
  return frontier.Plan(base, (family,), (1536,), net_steps=1000)


@pytest.fixture
def asked(teacher, monkeypatch):
  """The points of the levers, which call `compress` in name only."""
  data = teacher.network.data

  def from_lesson(keys, lesson, budget, recipe):
    quality = recipe.learning_rate * (recipe.num_steps == 250)
    return types.SimpleNamespace(
      lesson=lesson, budget=budget, recipe=recipe, num_seeds=len(keys),
      validation={'income': {'auc': np.full(2, quality)}},
    )  # fmt: skip

  lesson = lessons.Lesson(data.tasks, data.tables, None, None, None, {}, {}, ())
  monkeypatch.setattr(net, 'lesson', lambda teacher, recipe: lesson)
  monkeypatch.setattr(net, 'scored', lambda found, data: found)
  monkeypatch.setattr(levers.compressing, 'from_lesson', from_lesson)
  plan = _plan(teacher, options.LEVERS)
  return {point.name: point for point in levers.points(plan, teacher)}


def test_a_lever_changes_one_part_of_the_recipe(asked):
  recipe = recipe_settings.Recipe(num_steps=1000)
  changed = {}
  for name, point in asked.items():
    found = point.make()
    assert found.budget == 1536 or name == 'nothing merged 1536'
    changed[name.removesuffix(' 1536')] = {
      field.name: getattr(found.recipe, field.name)
      for field in dataclasses.fields(recipe)
      if getattr(found.recipe, field.name) != getattr(recipe, field.name)
    }
  assert changed['recipe'] == changed['network as teacher'] == {}
  assert changed['rounded afterwards'] == {'rounded': False}
  assert changed['1/10 of the steps'] == {'num_steps': 100}
  for bits in (16, 32):
    (sizes,) = changed[f'float{bits} scales, biases'].values()
    assert sizes.scheme.scale_bits == sizes.scheme.vector_bits == bits
  # The best of several, each worse at other numbers of steps.
  assert changed['labels alone'] == {'share': 0.0, 'num_steps': 250}
  assert asked['nothing merged 1536'].make().budget > 1e9
  assert 'LightGBM as teacher 1536' not in asked  # it has learnt no task


def test_a_lever_teaches_by_other_labels(asked):
  alone = asked['labels alone 1536'].make().lesson.data
  assert alone.labels['income'].ndim == 1
  taught = asked['network as teacher 1536'].make().lesson.data
  assert not taught.labels['income']['soft'].any()
  assert asked['recipe 1536'].make().lesson.data is None  # the lesson's own


def _points(teacher, family):
  plan = _plan(teacher, family)
  taught = {'net': net.points, 'levers': levers.points, 'roads': roads.points}
  if family in taught:
    return taught[family](plan, teacher)
  return rivals.points(family, plan, teacher.network, None, None)


RECIPE = functools.partial(recipe_settings.Recipe, weight_decay=0.5)
SIZES = ((0, student.Sizes(3, 3, 3)),)


@pytest.mark.parametrize(
  'family, module, name, value',
  [
    ('net', net.compression, 'Recipe', RECIPE),
    ('net', student, '_BY_BUDGET', SIZES),
    ('levers', levers, 'Recipe', RECIPE),
    ('levers', student, '_BY_BUDGET', SIZES),
    ('roads', roads, '_NUM_IDS', 7),
    ('roads', courses, 'RATE', 1.0),
    ('roads', targets, '_HALVINGS', 1),
    ('roads', ways, '_ROUND', 0.5),
    ('trees', sequences, '_NODES', 9.0),
    ('additive', refitting, '_CUT', 0.5),
  ],
)
def test_with_other_constants_every_point_is_fitted_anew(
  family, module, name, value, teacher, monkeypatch
):
  def inputs():
    return [
      json.dumps(point.final({}).inputs) for point in _points(teacher, family)
    ]

  before = inputs()
  assert before == inputs()
  monkeypatch.setattr(module, name, value)
  for old, new in zip(before, inputs(), strict=True):
    assert old != new


def _finished(name, road, scores):
  facts = {'family': road, 'test': {'a': {'auc': {'mean': 0.5, 'std': 0.1}}}}
  return rows.Finished(name, {}, 1, facts, {'a': scores}, {}, 1)


def test_roads_are_compared_with_sple_at_the_same_bytes(tmp_path):
  rng = np.random.default_rng(0)
  labels = np.arange(400) % 2
  test = Batch(np.zeros((400, 1)), {'a': labels})
  todo = (tasks.binary('a'),)
  data = base.Data(todo, None, None, test, None, facts={}, optimum={})
  noise = [3 * rng.normal(size=(2, 400)) for _ in range(3)]
  form = '900 int4 merged taught'
  every = [
    _finished(f'sple from scratch {form}', 'sple from scratch', labels + noise[0]),
    _finished(f'ple to sple {form}', 'ple to sple', 9 * labels + noise[1]),
    _finished('ple to sple 900 int4 merged', 'ple to sple', labels + noise[2]),
    _finished('net 900', 'net', labels + noise[2]),
  ]  # fmt: skip
  found = abreast.differences(every, data)
  assert list(found) == [f'ple to sple {form}']  # the others have no baseline
  auc = [
    np.mean([roc_auc_score(labels, x) for x in row.scores['a']])
    for row in every[:2]
  ]
  difference = found[f'ple to sple {form}']['a']
  np.testing.assert_allclose(difference['estimate'], auc[1] - auc[0], rtol=1e-4)
  assert 0 < difference['low'] < difference['high']
  results = {
    'title': 'x', 'tasks': ['a'], 'budgets': [900], 'num_seeds': 2,
    'rows': [{**row.facts, 'name': row.name} for row in every],
    'abreast': found, 'config': {}, 'margin': {'a': 0.002},
  }  # fmt: skip
  first, second, third = abreast.table(results).rows
  assert first[:2] == ['int4 merged taught', 'sple from scratch']
  assert '±' in first[2] and second[2].startswith('+') and '[' in second[2]
  assert third[:2] == ['int4 merged', 'ple to sple']
  pytest.importorskip('matplotlib')
  abreast_picture.draw(tmp_path / 'a.png', results)
  assert drawing.is_own(tmp_path / 'a.png')
