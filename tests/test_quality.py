"""Tables and pictures of tasks that are not binary; nothing is trained."""

import dataclasses
import io

import jax
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

import lplmtl
from experiments.comparison import (
  boosting,
  intervals,
  plan,
  results,
  rows,
  tables,
)
from experiments.comparison import plots as comparison_plots
from experiments.datasets.base import Data
from experiments.launcher import (
  display,
  drawing,
  gate_map,
  outcomes,
  panels,
  plots,
  quality,
  scoring,
  summary,
)
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from experiments.reporting import contents
from experiments.reporting import tables as report_tables
from lplmtl import losses, metrics, statistics, tasks
from tests import contracts

TASKS = (
  tasks.regression('price'),
  tasks.multiclass('kind', 3),
  tasks.binary('click'),
  lplmtl.Task('count', losses.squared_error),  # without a metric
)
NAMES = [task.name for task in TASKS]


def _metrics(seeds=2, shift=0.0):
  """`{task: {metric: {mean, std, per_seed}}}`, as scoring gives it."""
  values = np.linspace(0.7, 0.8, seeds) + shift
  return {
    task.name: {
      name: scoring.over_seeds(values + 0.001 * i)
      for i, name in enumerate((*task.metric_fns, 'loss'))
    }
    for task in TASKS
  }


def _results():
  weights = {name: scoring.over_seeds(np.ones(2)) for name in NAMES}
  return {
    'title': 'a fork', 'config': {'num_seeds': 2}, 'test': _metrics(),
    'validation': _metrics(shift=0.1), 'loss_weights': weights, 'gates': [],
    'parameters': 10, 'flops_per_example': 20, 'examples_per_second': 30.0,
  }  # fmt: skip


def _history():
  return [
    {
      'epoch': epoch,
      'losses': np.full((2, 4), 1.0 / epoch),
      'loss_weights': np.ones((2, 4)),
      'validation': {
        task.name: {
          name: np.array([0.5, 0.6]) for name in (*task.metric_fns, 'loss')
        }
        for task in TASKS
      },
    }
    for epoch in (1, 2)
  ]


def _text(table):
  file = io.StringIO()
  display.Console(file=file, width=120, no_color=True).print(table)
  return file.getvalue()


def test_results_table_has_each_tasks_own_metrics():
  lines = _text(summary.table(_results())).splitlines()
  cells = {
    line.split('│')[1].strip(): [c.strip() for c in line.split('│')[2:-1]]
    for line in lines
    if line.startswith('│')
  }
  assert list(cells) == [
    'test AUC', 'test accuracy', 'test R²', 'test log loss',
    'test average precision', 'test calibration error', 'test loss',
    'validation R²', 'validation accuracy', 'validation AUC',
    'validation loss',
  ]  # fmt: skip
  assert cells['test R²'] == ['0.7500 ± 0.0707', '', '', '']
  assert cells['test loss'][3] == '0.7500 ± 0.0707'
  assert cells['validation accuracy'] == ['', '0.8500 ± 0.0707', '', '']
  line = display.epoch_line(_history()[0], 2, NAMES)
  assert line == (
    'epoch 1/2 | losses 4.0000 | price val r2 0.5500 | kind val accuracy '
    '0.5500 | click val auc 0.5500 | count val loss 0.5500'
  )
  record = _history()[0] | {'losses': np.ones((2, 2))}
  assert display.epoch_line(record, 2, NAMES[:2]) == (
    'epoch 1/2 | price loss 1.0000 val r2 0.5500 | '
    'kind loss 1.0000 val accuracy 0.5500'
  )


def _many(given):
  """Returns the tasks' parts four times over, under other names."""
  return {f'{n}{i}': value for i in range(4) for n, value in given.items()}


def test_many_tasks_stand_below_one_another():
  found = _results()
  for part in ('test', 'validation', 'loss_weights'):
    found[part] = _many(found[part])
  found['predictions'] = _many({n: {'auc': 0.5} for n in NAMES})
  text = _text(summary.table(found))
  cells = {
    line.split('│')[1].strip(): [c.strip() for c in line.split('│')[2:-1]]
    for line in text.splitlines()
    if line.startswith('│')
  }
  assert list(cells) == [f'{name}{i}' for name in NAMES for i in range(4)]
  assert cells['price3'] == ['0.7500 ± 0.0707', '0.8500 ± 0.0707']
  assert text.count('test R²') == text.count(found['title']) == 1
  assert summary.predictions(found) == (
    'test predictions (mean of 2 seeds): AUC 0.5000 (mean of 16 tasks); those '
    'of each task are in results.json'
  )
  names = [f'{name}{i}' for i in range(4) for name in NAMES]
  record = _history()[0]
  record |= {
    'losses': np.ones((2, 16)),
    'loss_weights': np.array([[1.0] * 15 + [0.5]] * 2),
    'validation': _many(record['validation']),
  }
  record['validation']['price0'] = {'r2': np.array([np.nan, 1.0])}
  assert display.epoch_line(record, 2, names) == (
    'epoch 1/2 | losses 16.0000 | val R² 0.5500 (mean of 3 of 4 tasks) | val '
    'accuracy 0.5500 (mean of 4 tasks) | val AUC 0.5500 (mean of 4 tasks) | '
    'val loss 0.5500 (mean of 4 tasks) | weights 0.500 to 1.000'
  )


@pytest.mark.parametrize('count', [6, 7])
def test_a_long_compilation_is_announced(count):
  file = io.StringIO()
  console = display.Console(file=file, width=120)
  with display.epochs(console, 1, [f't{i}' for i in range(count)]) as show:
    show.note('ready')
  said = 'compiling the training program for 7 tasks\n' if count == 7 else ''
  assert file.getvalue() == f'{said}ready\n'


def test_loss_weights_are_shown_where_they_differ(drawn):
  weights = np.array([[1.0, 1.0, 1.0, 0.5]] * 2)
  history = [{**record, 'loss_weights': weights} for record in _history()]
  line = display.epoch_line(history[0], 2, NAMES)
  assert line.endswith('count val loss 0.5500 weight 0.500')
  plots.curves('', history, NAMES, 'title')
  plots.learning('', {'a': _history(), 'b': history}, NAMES)
  for figure in drawn:
    assert _labels(figure)[8:12] == ['loss weight'] * 4
  found = _results()
  found['loss_weights']['count'] = scoring.over_seeds(weights[:, 3])
  assert 'final loss weight' in _text(summary.table(found))
  price, *_ = report_tables.run_tables([contents.Run('a', found, history)])
  assert price.head[-1] == 'loss weight'


@pytest.fixture
def drawn(monkeypatch):
  """The figures that would be written."""
  pytest.importorskip('matplotlib')
  found = []
  monkeypatch.setattr(
    drawing, 'save', lambda figure, path: found.append(figure)
  )
  return found


def _labels(figure):
  return [axis.get_ylabel() for axis in figure.axes]


def test_curves_are_of_the_primary_metrics(drawn):
  plots.curves('', _history(), NAMES, 'title')
  plots.learning('', {'a': _history(), 'b': _history()}, NAMES)
  for figure in drawn:
    assert _labels(figure)[:8] == [
      'training loss', 'training loss (nats)', 'training loss (nats)',
      'training loss', 'validation R²', 'validation accuracy',
      'validation AUC', 'validation loss',
    ]  # fmt: skip


def test_curves_of_many_tasks_are_those_of_the_first(drawn, monkeypatch):
  monkeypatch.setattr(plots, '_MOST_COLUMNS', 3)
  plots.curves('', _history(), NAMES, 'title')
  (figure,) = drawn
  assert len(figure.axes) == 6
  assert figure.get_suptitle().startswith('title, 3 of 4 tasks')


@pytest.mark.parametrize(
  ('targets', 'label'),
  [
    ({'click': {'positive': False}}, 'share of rows with click = False'),
    ({}, 'share of positive rows'),
  ],
)
def test_calibration_says_which_rows_are_positive(targets, label, drawn):
  diagram = {key: [[40.0]] for key in ('num_rows', 'predicted', 'observed')}
  runs = {'a': {'click': diagram}}
  plots.calibration('', runs, ['click'], targets)
  found = {**_results(), 'calibration': runs['a'], 'data': {'targets': targets}}
  panels.outcomes('', found)
  assert [_labels(figure)[0] for figure in drawn] == [label, label]


def test_numbers_are_plain(drawn):
  values = {'true': [0.0, 1.2e6], 'predicted': [1e5, 1e6]}
  found = {'kind': 'numbers', 'unit': 'EUR', 'error': 43750.2, **values}
  results = {**_results(), 'outcomes': {'price': found}, 'data': {}}
  panels.outcomes('', results)
  axis = drawn[0].axes[0]
  assert axis.get_title() == 'price (EUR)\nR² 0.7500; mean error 43,750'
  assert '400,000' in axis.xaxis.get_major_formatter()(4e5)
  assert drawing.number(0.04375) == '0.04375'


def test_a_true_zero_stays_zero():
  task = tasks.regression('price')
  mean, std = 0.3, 0.7
  true = np.array([0.0, 2e-3, 1.0])
  labels = ((true - mean) / std).astype(np.float32)
  rows_of = lplmtl.Batch(None, {'price': labels})
  found = outcomes.describe(
    [task], {'price': labels[None, :, None]}, rows_of,
    {'price': {'mean': mean, 'std': std}},
  )  # fmt: skip
  assert found['price']['true'] == [0.0, 2e-3, 1.0]


def test_gates_are_in_the_order_of_the_tasks(drawn):
  long = 'x' * 100
  names = ['price', 'kind', long]
  pools = [*(f'specific_experts_{name}' for name in names), 'shared_experts']
  own = {name: {pool: [[0.25]] for pool in pools} for name in sorted(names)}
  usage = {**own, 'shared': {'shared_experts': [[1.0]]}}
  gate_map.gates('', [{'usage': usage}], 'title', names)
  axis = drawn[0].axes[0]
  rows, columns = (
    [text.get_text() for text in labels]
    for labels in (axis.get_yticklabels(), axis.get_xticklabels())
  )
  cut = f'{long[:27]}...'
  assert rows == ['price', 'kind', cut, 'shared']
  assert [columns[i] for i in (0, 1, 3)] == ['price', 'kind', 'shared']
  assert max(map(len, columns[2].split('\n'))) <= 11  # no wider than an expert
  assert len(columns[2].split('\n')) == 3


def test_a_report_of_other_tasks():
  run = contents.Run('a', _results(), _history())
  price, kind, click, count, _ = report_tables.run_tables([run])
  assert price.head == ['run', 'seeds', 'R²']  # all loss weights are 1
  assert kind.head == ['run', 'seeds', 'accuracy', 'log loss']
  assert click.head[2] == 'AUC' and count.head[2] == 'loss'
  assert price.rows[0][2] == '0.7500 ± 0.0707'


def _comparison(todo):
  """What a comparison makes of two rows of 60 test rows."""
  rng = np.random.default_rng(0)
  truth = rng.normal(size=60)
  labels = {
    'price': np.where(truth > 1, np.nan, truth),
    'kind': rng.integers(0, 3, 60), 'click': truth > 0, 'count': truth,
  }  # fmt: skip
  where = {'price': np.isfinite(labels['price'])}
  finished = []
  for i, name in enumerate(('base', 'better')):
    scores = {
      'price': truth + rng.normal(size=(3, 60)) / (1 + i),
      'kind': rng.normal(size=(3, 60, 3)),
      'click': truth + rng.normal(size=(3, 60)) / (1 + i),
      'count': truth + rng.normal(size=(3, 60)) / (1 + i),
    }
    facts = {'test': _metrics(3, 0.1 * i), 'parameters': 5, 'latency': 1e-5}
    facts['test'] = {task.name: facts['test'][task.name] for task in todo}
    finished.append(rows.Finished(name, {'price': ''}, 3, facts, scores, {}))
  data = Data(
    tasks=todo, train=None, validation=None,
    test=lplmtl.Batch(truth, labels, where), tables=None, facts={'dataset': 'a fork', 'statement': 'Rows'}, optimum={},
  )  # fmt: skip
  asked = plan.Plan(
    Config(num_seeds=3), rows={'base': {}, 'better': {}}, settings={},
    tree_settings={}, tuning_seeds=1, baseline='base', single='base',
  )  # fmt: skip
  return results.make(asked, data, finished), labels, finished


def test_a_comparison_of_other_tasks(drawn, monkeypatch):
  monkeypatch.setattr(intervals, 'SAMPLES', 20)
  found, labels, (base, other) = _comparison(TASKS)
  better = found['rows'][1]
  there = np.isfinite(labels['price'])  # the labelled rows count, no others
  r2 = [
    np.mean(
      [sklearn_metrics.r2_score(labels['price'][there], s[there]) for s in own]
    )
    for own in (base.scores['price'], other.scores['price'])
  ]
  price, click = better['difference']['price'], better['difference']['click']
  assert price['estimate'] == pytest.approx(r2[1] - r2[0], rel=1e-4)
  assert 0 < price['low'] < price['estimate'] < price['high']
  own = better['interval']['price']
  assert own['estimate'] == pytest.approx(r2[1], rel=1e-4)
  assert own['low'] < r2[1] < own['high']
  assert (
    click
    == statistics.auc_difference(
      other.scores['click'], base.scores['click'], labels['click']
    )._asdict()
  )
  assert abs(better['difference']['kind']['estimate']) < 0.5
  # Less of a loss is better.
  assert better['difference']['count']['high'] < 0
  assert better['verdict'] == 'better on price, click, count'
  gains = [0.1, 0.1, 0.1, -0.1]
  assert better['mtl_gain'] == pytest.approx(100 * np.mean(gains) / 0.75)
  ranking, more, cost, _ = tables.tables(found)
  assert ranking.head[1:7:2] == ['price R²', 'kind accuracy', 'click AUC']
  assert more.head[1] == 'count loss' and more.title.startswith('Test loss (')
  assert cost.head[3:5] == ['click AP', 'train ex/s']
  margins = {'price': 0.01, 'kind': 0.005, 'click': 0.002, 'count': 0.0}
  assert found['margin'] == margins
  assert 'inside ±0.01 on price, ±0.005 on kind,' in tables.notes(found)
  assert '±0.002 on every task' in tables.notes({**found, 'margin': 0.002})
  assert f',{price["low"]},' in tables.csv(found).splitlines()[2]
  own = {**found, 'config': {'data': 'own.csv'}}
  ranking, _, cost, _ = tables.tables(own)
  assert ranking.rows[1][2] == (
    f'{price["estimate"]:+.4f} [{price["low"]:+.4f}, {price["high"]:+.4f}]'
  )
  assert 'units of' not in ranking.title and ranking.head[-1] == 'MTL gain'
  assert cost.rows[1][cost.head.index('settings tried')] == '1'
  assert 'better than that of base, the mean over tasks' in tables.notes(own)
  for row in own['rows']:
    row['mtl_gain'] = None
  assert 'MTL gain' not in tables.notes({**own, 'single': ''})
  assert 'MTL gain' not in tables.quality_table({**own, 'single': ''}).head
  comparison_plots.sizes('', found)
  comparison_plots.differences('', found)
  assert _labels(drawn[0])[0] == 'price: test R²'
  assert drawn[1].axes[2].get_xlabel() == 'difference in test AUC'


@pytest.mark.slow
def test_the_interval_of_an_auc_of_soft_labels(monkeypatch):
  monkeypatch.setattr(intervals, 'SAMPLES', 10)
  rng = np.random.default_rng(0)
  scores, labels = rng.normal(size=(2, 50)), rng.random(50)
  with pytest.raises(
    ValueError, match='needs labels that are 0 or 1, found pr'
  ):
    statistics.auc_interval(scores, labels)
  batch = lplmtl.Batch(None, {'click': labels})
  found = intervals.interval(intervals.gather(TASKS[2], scores, batch))
  own = [metrics.roc_auc(jax.numpy.asarray(s), labels) for s in scores]
  assert found.estimate == pytest.approx(np.mean(own), rel=1e-4)


@pytest.mark.parametrize(
  'labels, scores', [([1, 1, 1, 1], [0.0] * 4), ([0, 0, 1, 1], [np.nan] * 4)]
)
def test_what_the_test_rows_do_not_define_decides_nothing(labels, scores):
  batch = lplmtl.Batch(None, {'click': np.array(labels)})
  own = intervals.gather(TASKS[2], np.array([scores, scores]), batch)
  other = intervals.gather(TASKS[2], np.zeros((2, 4)), batch)
  for found in (intervals.interval(own), intervals.interval(own, other)):
    assert np.isnan(found).all()
  said = results.verdict({'click': found}, {'click': 0.1}, {'click': 'auc'})
  assert said == 'undecided'


def test_the_best_setting_where_a_metric_is_undefined():
  nan = [np.nan, np.nan]
  scores = {
    'a': {'x': nan, 'y': [0.1, 0.2], 'z': [0.9, 0.9]},
    'b': {'x': nan, 'y': [0.3, 0.2], 'z': [0.8, 0.8]},
    'c': {'x': nan, 'y': [0.9, np.nan], 'z': [0.9, 0.9]},
  }
  assert rows.best(scores, ['x', 'y']) == 'b'
  assert rows.best(scores, ['x', 'y', 'z']) == 'a'
  assert rows.best(scores, ['x']) == 'a'


def test_trees_refuse_losses_that_they_do_not_know():
  boosting.check_tasks(TASKS)
  own = dataclasses.replace(TASKS[0], loss_fn=lambda outputs, labels: labels)
  with pytest.raises(
    InputError, match='cannot learn price, whose loss is none'
  ):
    boosting.check_tasks((*TASKS, own))


def test_scores_of_other_tasks():
  """Only binary tasks have a calibration curve."""
  model = lplmtl.SharedBottom(
    TASKS, bottom=lplmtl.MLP((2,)), tower=lplmtl.MLP(())
  )
  x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
  labels = {'kind': np.arange(20) % 3, 'click': np.arange(20) % 2}
  labels |= {'price': x[:, 0], 'count': np.arange(20.0)}
  params = jax.tree.map(
    lambda leaf: leaf[None], contracts.random_params(model, x)
  )
  found = scoring.score(model, TASKS, params, lplmtl.Batch(x, labels))
  assert list(found.metrics) == NAMES and list(found.calibration) == ['click']
  assert quality.primary(found.metrics['price']) == 'r2'
  assert found.logits['kind'].shape == (1, 20, 3)
