"""A frontier: what is fitted, kept, counted and reported."""

import functools
import json
import pathlib
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from experiments import census, compare, compress
from experiments.comparison import cells, networks
from experiments.comparison import plan as comparison
from experiments.datasets.census import loading, protocol
from experiments.frontier import (
  additive,
  candidates,
  dense,
  families,
  knees,
  options,
  outputs,
  plan,
  points,
  rivals,
  run,
  trees,
)
from experiments.frontier import net as net_family
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import checkpoint, tables
from lplmtl.compression import merging, packing, quantization, teachers
from tests import launching

launch = functools.partial(launching.launch, compress.main)
pytestmark = pytest.mark.slow  # all of it takes a minute
TINY = (
  '--dataset=sample', '--num_rows=1500', '--epochs=12', '--num_bins=4',
  '--learning_rate=0.02', '--num_crosses=0',
  '--compilation_cache=none', '--num_seeds=3', '--bottom_widths=8',
  '--tower_widths=', '--dense=shared_bottom', '--dense=single_task',
  '--budgets=600,900,1800', '--families=net',
  '--validation=test_half',  # as many rows as for testing: both are scored alike
)  # fmt: skip
POINTS = families.points
made: list[int] = []  # the budgets of the points that were fitted


def _points(asked, network, raw, store, note):
  """A family that costs nothing: noise on the labels, less with more bytes."""

  def make(budget):
    made.append(budget)
    if budget < 900:
      raise merging.BudgetError(
        f'{budget} bytes are too few: the smallest is 900', 900
      )
    rng = np.random.default_rng(budget)
    noise = 2 * 900 / budget

    def outputs(rows):
      return {
        name: (labels + noise * rng.normal(size=(3, len(labels))))[..., None]
        for name, labels in rows.labels.items()
      }

    return points.Scored(
      [budget, budget - 2, budget - 4],
      {'weights': budget},
      outputs(network.data.validation),
      outputs(network.data.test),
      parameters=7,
    )

  return [
    points.Point(
      f'net {budget}', 'net', {'x': 1}, network.data,
      functools.partial(make, budget), budget, 3,
    )
    for budget in asked.budgets
  ]  # fmt: skip


@pytest.fixture(scope='module', autouse=True)
def one_metric():
  """The others take long to compile; test_experiments.py has them all."""
  with pytest.MonkeyPatch.context() as patch:
    launching.keep_first_metrics(patch)
    yield


@pytest.fixture(autouse=True)
def cheap_families(monkeypatch):
  monkeypatch.setattr(families, 'points', _points)
  made.clear()


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A finished frontier: its folder."""
  folder = tmp_path_factory.mktemp('compress') / 'a'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(families, 'points', _points)
    assert launch(*TINY, f'--out_dir={folder}') == 0
  return folder


def _results(folder):
  return json.loads((folder / 'frontier.json').read_text())


def _without_times(found):
  times = ('latency', 'examples_per_second', 'seconds', 'fitted')
  return [
    {k: v for k, v in row.items() if k not in times} for row in found['rows']
  ]


@pytest.fixture
def no_fits(monkeypatch):
  """Nothing may be fitted."""
  for name in ('tune', 'train'):
    monkeypatch.setattr(networks, name, None)


def test_files(finished):
  assert {path.name for path in finished.iterdir()} == {
    'frontier.json', 'frontier.md', 'frontier.csv', 'frontier.png', 'cells',
    '.lock',
  }  # fmt: skip
  assert (finished / 'frontier.png').read_bytes().startswith(b'\x89PNG')
  rows = _results(finished)['rows']
  assert [row['name'] for row in rows] == [
    'shared_bottom', 'shared_bottom float16', 'shared_bottom int8',
    'single_task', 'single_task float16', 'single_task int8',
    'net 900', 'net 1800',
  ]  # fmt: skip
  for row in rows:
    for task in ('income', 'marital'):
      assert len(row['test'][task]['auc']['per_seed']) == 3


def test_the_baseline_is_the_best_dense_network_on_validation_rows(finished):
  found = _results(finished)
  quality = {
    row['name']: np.mean(
      [task['auc']['mean'] for task in row['validation'].values()]
    )
    for row in found['rows']
    if row['name'] in ('shared_bottom', 'single_task')
  }
  assert found['baseline'] == max(quality, key=quality.get)
  for row in found['rows']:
    is_baseline = row['name'] == found['baseline']
    assert (row['difference'] is None) == is_baseline


def test_bytes_are_those_of_the_packed_networks(finished):
  by_name = {row['name']: row for row in _results(finished)['rows']}
  (cell,) = (
    path
    for path in (finished / 'cells').glob('*.npz')
    for text in [path.with_suffix('.json').read_text()]
    if '"dense"' in text and '"shared_bottom"' in text and '"form"' not in text
  )
  with np.load(cell) as arrays:
    kept = {
      name.removeprefix('parameter: '): array[0]
      for name, array in arrays.items()
      if name.startswith('parameter: ')
    }
  # Steps of bins are added to the embeddings, which have the same width.
  numbers = sum(a.size for n, a in kept.items() if not n.endswith('/steps'))
  described = by_name['shared_bottom']['num_bytes'] - 4 * numbers
  assert described > 0
  assert by_name['shared_bottom']['num_bytes'] == sum(
    by_name['shared_bottom']['parts'].values()
  )
  half = by_name['shared_bottom float16']['num_bytes']
  assert half == 2 * numbers + described
  eighth = by_name['shared_bottom int8']['num_bytes']
  assert numbers + described < eighth < half
  assert by_name['net 1800']['num_bytes'] == 1798  # the mean of the seeds


def test_float16_scores_like_float32(finished):
  by_name = {row['name']: row for row in _results(finished)['rows']}
  for name in ('shared_bottom', 'single_task'):
    ours, half = by_name[name]['test'], by_name[f'{name} float16']['test']
    for task in ours:
      np.testing.assert_allclose(
        half[task]['auc']['per_seed'], ours[task]['auc']['per_seed'], atol=2e-3
      )


def test_tables(finished):
  found = _results(finished)
  frame = pd.read_csv(finished / 'frontier.csv')
  assert list(frame['bytes']) == [row['num_bytes'] for row in found['rows']]
  assert frame['income_auc_mean'][0] == pytest.approx(
    found['rows'][0]['test']['income']['auc']['mean']
  )
  text = (finished / 'frontier.md').read_text()
  assert '| net 1800 |' in text and 'generated sample, not UCI' in text
  for table in outputs.tables(found):
    assert all(len(row) == len(table.head) for row in table.rows)


def test_resumes_to_the_same_table(finished, tmp_path, capsys, no_fits):
  """A point and the table are lost; the dense networks are not trained."""
  folder = tmp_path / 'killed'
  shutil.copytree(finished, folder)
  for name in ('frontier.json', 'frontier.md'):
    (folder / name).unlink()
  (lost,) = (
    path
    for path in (folder / 'cells').glob('*.json')
    if json.loads(path.read_text())['identity']['what'].get('budget') == 1800
  )
  lost.unlink()
  assert launch(*TINY, f'--out_dir={folder}') == 0
  assert made == [600, 1800]
  assert _without_times(_results(folder)) == _without_times(_results(finished))
  assert 'left out: net 600: 600 bytes are too few' in ' '.join(
    capsys.readouterr().out.split()
  )


def test_what_is_published(finished, tmp_path, no_fits):
  """Its table and picture, but not each seed's metrics."""
  folder, target = tmp_path / 'small', tmp_path / 'results'
  shutil.copytree(finished, folder)
  target.mkdir()
  page = target / 'README.md'
  page.write_text('<!-- small: frontier -->\n<!-- end -->\n')
  assert launch(*TINY, f'--out_dir={folder}', f'--publish_to={target}') == 0
  assert {path.name for path in target.iterdir()} == {
    'README.md', 'small.json', 'small.csv', 'small_frontier.png',
  }  # fmt: skip
  assert '| net 1800 | 1,798 |' in page.read_text()
  kept = json.loads((target / 'small.json').read_text())
  assert 'per_seed' not in json.dumps(kept['rows'])
  assert outputs.csv(kept) == (target / 'small.csv').read_text()
  page.write_text('<!-- small: frontier -->\n<!-- end -->\n')
  assert launching.launch(compare.main, f'--publish_to={target}') == 0
  assert '| net 1800 | 1,798 |' in page.read_text()


def test_time_runs_out(finished, tmp_path, capsys, no_fits):
  late = '--max_minutes=1e-9'
  folder = tmp_path / 'late'
  shutil.copytree(finished, folder)
  for path in (folder / 'cells').glob('*.json'):
    if json.loads(path.read_text())['identity']['what'].get('budget') == 900:
      path.unlink()
  assert launch(*TINY, late, f'--out_dir={folder}') == 0
  assert 'the same command resumes' in capsys.readouterr().out
  assert launch(*TINY, late, f'--out_dir={tmp_path / "new"}') == 1
  assert 'shared_bottom was not finished' in capsys.readouterr().err


def test_runs_comparisons_and_frontiers_keep_apart(finished, capsys):
  common = ('--dataset=sample', '--num_rows=500', f'--out_dir={finished}')
  assert launching.launch(census.main, *common) == 1
  assert 'holds a comparison (cells)' in capsys.readouterr().err
  assert launching.launch(compare.main, *common, '--row=shared_bottom') == 1
  assert 'holds a frontier (frontier.json)' in capsys.readouterr().err


@pytest.mark.parametrize(
  'flags, said',
  [
    (['--budgets=1k'], "whole numbers of bytes, .* found '1k'"),
    (['--budgets=5'], 'from 16 to .* found 5'),
    (['--budgets=600,600'], 'twice'),
    (['--families=nets'], "there is no 'nets'; expected some of .* net"),
    (['--dense=trees'], 'only networks'),
    (['--dense=ples'], "error: --dense=ples: unknown architecture 'ples'"),
    (['--interpolate'], 'bytes cannot be counted'),
    (['--architecture=ple'], '--architecture has no effect'),
    (['--num_seeds=2'], 'at least 3'),
  ],
)
def test_mistakes_are_one_line(flags, said, tmp_path, capsys):
  rest = [x for x in TINY if x.split('=')[0] != flags[0].split('=')[0]]
  assert launch(*rest, *flags, f'--out_dir={tmp_path / "run"}') == 1
  (line,) = capsys.readouterr().err.strip().splitlines()
  assert re.search(said, line), line
  assert not (tmp_path / 'run').exists()


def test_the_readme_names_every_family():
  page = pathlib.Path(options.__file__).with_name('README.md').read_text()
  for family in options.FAMILIES:
    assert f'`{family}`' in page


def test_columns_that_cannot_be_packed_are_named():
  days = {'day': (['2020-01-01', '2020-02-02'], '')}
  fitted = tables.fit({}, {}, booleans={'late': [True, False]}, dates=days)
  said = "dates .*'day'.*'late'.*: --categories=late --ignore=day$"
  with pytest.raises(InputError, match=said):
    dense.check(fitted)


def test_what_is_made_without_lightgbm_is_named(monkeypatch, tmp_path, capsys):
  def missing():
    raise InputError('trees need LightGBM')

  monkeypatch.setattr(run.boosting, 'package', missing)
  flags = '--families=net,trees,additive', f'--out_dir={tmp_path}'
  assert launch('--dataset=sample', *flags) == 1
  assert '(--families=net,additive)' in capsys.readouterr().err


def test_small_networks_learn_from_the_teacher(
  finished, tmp_path, monkeypatch, capsys, no_fits
):
  """One budget by the recipe; another is too small for these columns.

  The dense networks are those of the finished frontier.
  """
  folder = tmp_path / 'net'
  shutil.copytree(finished, folder)
  monkeypatch.setattr(families, 'points', POINTS)
  flags = [x for x in TINY if not x.startswith(('--budgets', '--families'))]
  flags += ['--families=net,distilled_dense', '--budgets=16,400']
  flags += ['--net_steps=200', f'--out_dir={folder}']
  assert launch(*flags) == 0
  printed = ' '.join(capsys.readouterr().out.split())
  found = _results(folder)
  assert f'teacher: 3 seeds of {found["baseline"]}' in printed
  assert re.search(r'left out: net 16: .*16', printed)
  (net,) = (row for row in found['rows'] if row['family'] == 'net')
  assert net['name'] == 'net 400' and net['parameters'] > 0
  assert len(net['bytes_per_seed']) == 3 and max(net['bytes_per_seed']) <= 400
  assert sum(net['parts'].values()) == net['bytes_per_seed'][0]
  dense_rows = [row for row in found['rows'] if row['family'] != 'net']
  assert net['multiply_adds'] < min(r['multiply_adds'] for r in dense_rows)
  by_name = {row['name']: row for row in found['rows']}
  taught = by_name[f'{found["baseline"]} distilled']
  for key in ('num_bytes', 'parts', 'multiply_adds'):
    assert taught[key] == by_name[found['baseline']][key]
  for row in (net, taught):
    for task, scored in row['test'].items():
      assert scored['auc']['mean'] > 0.6
      assert scored != by_name[found['baseline']]['test'][task]
  # Its model is saved, and made again from the cell if it is lost.
  (saved,) = (folder / 'models').iterdir()
  assert f'--model={saved} --format=packed' in printed
  shutil.rmtree(folder / 'models')
  monkeypatch.setattr(net_family, '_make', lambda *_: pytest.fail('fitted'))
  assert launch(*flags, '--budgets=400') == 0
  model, params, fitted = checkpoint.load(saved, seed=1)
  packed = packing.pack(quantization.freeze(model, params), fitted)
  assert packed.num_bytes == net['bytes_per_seed'][1]


def test_another_frontier_is_refused(finished, tmp_path, capsys, no_fits):
  folder = tmp_path / 'again'
  shutil.copytree(finished, folder)
  before = {path: path.read_bytes() for path in folder.glob('*.*')}
  for other, said in (
    ('--epochs=2', 'another frontier, which differs in epochs (12, now 2):'),
    ('--num_rows=1600', 'differs in data.'),
  ):
    assert launch(*TINY, other, f'--out_dir={folder}') == 1
    assert said in capsys.readouterr().err
  assert all(path.read_bytes() == old for path, old in before.items())


def test_a_spoiled_teacher_is_reported_once(monkeypatch):
  tried, lines = [], []

  def fit(point, *_):
    tried.append(point.name)
    if point.family != 'trees':
      raise teachers.TeacherError("task 'a': its loss is that of a constant")
    return True

  monkeypatch.setattr(run.rows, 'fit', fit)
  todo = [
    points.Point(f'{family} {budget}', family, {}, None, None, budget)
    for family in ('net', 'levers', 'trees')
    for budget in (600, 900)
  ]
  assert run._fit_all(todo, None, None, lines.append)
  assert tried == ['net 600', 'levers 600', 'trees 600', 'trees 900']
  line, other = lines
  assert other == 'left out: all of levers, for the same reason'
  assert 'all of net:' in line and "'a'" in line and '--epochs' in line


def _rival(data, budgets, calls, **asked):
  """In place of trees: the labels, 3 bytes below the budget; 800 at least."""
  calls.append(asked)
  if max(budgets) < 800:
    raise candidates.NotMadeError('the smallest takes 800 bytes')
  return {
    budget: candidates.Candidate(
      budget - 3,
      {'income': {name: 1 for name in trees.Setting._fields}},
      *(
        {n: x[:, None].astype(np.float32) for n, x in rows.labels.items()}
        for rows in (data.validation, data.test)
      ),
    )
    for budget in budgets
    if budget >= 800
  }


def _rivals(folder, family, budgets, taught=None):
  """Returns the points of a family, and how `_rival` was called."""
  calls = []
  raw = loading.read('sample', num_rows=300)
  data = protocol.encode(raw, ('income', 'marital'), num_bins=4)
  config = Config(num_seeds=3, seed=5)
  network = dense.Trained('ple', config, None, None, data)
  asked = plan.Plan(
    comparison.Plan(config, {'ple': {}}, {}, {}, 1, 'ple'), (family,), budgets
  )
  with pytest.MonkeyPatch.context() as patch:
    make = functools.partial(_rival, calls=calls)
    patch.setattr(trees, 'candidates', make)
    patch.setattr(additive, 'candidates', make)
    store = cells.Store(folder, {})
    folder.mkdir(exist_ok=True)
    made = rivals.points(family, asked, network, taught, store)
    found = []
    for point in made:
      try:
        found.append(point.make())
      except candidates.NotMadeError as error:
        found.append(str(error))
  return found, calls


def test_trees_of_all_budgets_are_fitted_once_a_seed(tmp_path):
  """And kept: the first seed tries all settings, the others what it chose."""
  found, calls = _rivals(tmp_path / 'a', 'trees', (600, 900, 1800))
  assert [call['seed'] for call in calls] == [5, 6, 7]
  assert calls[0]['settings'] is None and calls[0]['teacher'] is None
  assert calls[1]['settings'] == calls[2]['settings']
  assert trees.Setting(1, 1, 1, 1, 1, 1) in calls[1]['settings']['income']
  small, *others = found
  assert small == '600 bytes are too few: the first budget that suffices is 900'
  for scored, size in zip(others, (897, 1797), strict=True):
    assert scored.num_bytes == [size] * 3 and scored.multiply_adds is None
    assert scored.test['marital'].shape[::2] == (3, 1)
  again, calls = _rivals(tmp_path / 'a', 'trees', (600, 900, 1800))
  assert not calls and again[0] == small
  np.testing.assert_array_equal(
    again[1].test['income'], found[1].test['income']
  )


def test_no_budget_suffices(tmp_path):
  found, calls = _rivals(tmp_path / 'a', 'trees', (100, 200))
  assert found == ['the smallest takes 800 bytes'] * 2 and len(calls) == 3


def test_an_additive_model_is_fitted_once(tmp_path):
  (scored,), calls = _rivals(tmp_path / 'a', 'additive', (900,))
  assert scored.num_bytes == [897] * 3 and len(calls) == 1


def _row(name, family, size, auc, verdict='undecided', budget=1):
  validation = {'a': {'auc': {'mean': auc}}}
  return {
    'name': name, 'family': family, 'num_bytes': size, 'verdict': verdict,
    'validation': validation, 'budget': budget,
  }  # fmt: skip


def test_knee_is_where_the_line_bends():
  line = [
    _row('c', 'net', 4096, 0.95), _row('a', 'net', 1024, 0.90),
    _row('b', 'net', 2048, 0.94), _row('d', 'net', 8192, 0.952),
    *(_row(f'x{i}', 'straight', 2**i, i / 100) for i in range(3, 6)),
    _row('y', 'dense', 4, 0.5, budget=None), _row('z', 'few', 1, 0.9),
  ]  # fmt: skip
  assert knees.find(line) == {'net': 'b'}


def test_smallest_equivalent():
  line = [
    _row('large', 'net', 90, 0.9, 'equivalent'),
    _row('small', 'net', 30, 0.9, 'equivalent'),
    _row('worse', 'net', 20, 0.8, 'worse on a'),
    _row('tree', 'trees', 70, 0.8),
  ]
  assert knees.smallest_equivalent(line) == {'net': 'small'}
