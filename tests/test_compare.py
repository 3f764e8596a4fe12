"""A comparison: what is fitted, kept and reported."""

import dataclasses
import functools
import json
import pathlib
import re
import shlex
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from absl import flags

from experiments import census, compare, compress
from experiments.comparison import (
  boosting,
  cells,
  networks,
  plan,
  populations,
  results,
  tables,
  trees,
  winner,
)
from experiments.datasets import base
from experiments.datasets.census import loading, protocol
from experiments.launcher import build, options, provenance
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import statistics, training
from tests import launching

launch = functools.partial(launching.launch, compare.main)
pytestmark = pytest.mark.slow  # all of it takes a minute
ROOT = pathlib.Path(__file__).parent.parent
FLAG_FILES = sorted((ROOT / 'experiments' / 'flags').glob('compare*.flags'))
TINY = (
  '--dataset=sample', '--num_rows=1500', '--epochs=1', '--num_bins=4',
  '--compilation_cache=none', '--num_seeds=3', '--tuning_seeds=2',
  '--optimizer=sgd', '--tower_widths=', '--balancer=equal',
  # Of the second row both settings are one, so that it has nothing to tune.
  '--row=shared_bottom', '--row=single_task bottom_widths=8 dropout=0.2',
  '--setting=dropout=0.0 bottom_widths=16', '--setting=dropout=0.2 bottom_widths=16',
  '--baseline=shared_bottom', '--single=single_task  bottom_widths=8 dropout=0.2',
)  # fmt: skip


@pytest.fixture(scope='module', autouse=True)
def one_metric():
  """The others take long to compile; test_experiments.py has them all."""
  with pytest.MonkeyPatch.context() as patch:
    launching.keep_first_metrics(patch)
    yield


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A finished comparison: its folder."""
  folder = tmp_path_factory.mktemp('compare') / 'a'
  assert launch(*TINY, f'--out_dir={folder}') == 0
  return folder


@pytest.mark.parametrize('what', ['compare', 'compress'])
def test_an_interrupt_says_whether_anything_is_kept(
  what, tmp_path, monkeypatch, capsys
):
  def interrupt(*_):
    raise KeyboardInterrupt

  command, module, asked = {
    'compare': (compare, 'comparison', '--row=shared_bottom'),
    'compress': (compress, 'frontier', '--families=net'),
  }[what]
  monkeypatch.setattr(f'experiments.{module}.run._{what}', interrupt)
  call = (
    '--dataset=sample', '--compilation_cache=none', asked,
    f'--out_dir={tmp_path}',
  )  # fmt: skip
  assert launching.launch(command.main, *call) == 130
  assert 'no fit was finished' in capsys.readouterr().err
  (tmp_path / 'cells').mkdir()
  (tmp_path / 'cells' / f'{"0" * 20}.json').touch()
  assert launching.launch(command.main, *call) == 130
  assert 'finished fits are kept' in capsys.readouterr().err


def _results(folder):
  return json.loads((folder / 'comparison.json').read_text())


def _without_times(found):
  """What must be the same however often the comparison was interrupted."""
  times = ('latency', 'examples_per_second', 'seconds', 'fitted')
  rows = [
    {k: v for k, v in row.items() if k not in times} for row in found['rows']
  ]
  return rows, found['tasks'], found['data']


@pytest.fixture
def no_fits(monkeypatch):
  """Nothing may be fitted."""
  for name in ('tune', 'train'):
    monkeypatch.setattr(networks, name, None)


def test_files(finished):
  names = {path.name for path in finished.iterdir()}
  assert names == {
    'comparison.json', 'comparison.md', 'comparison.csv', 'sizes.png',
    'differences.png', 'cells', '.lock',
  }  # fmt: skip
  for name in ('sizes.png', 'differences.png'):
    assert (finished / name).read_bytes().startswith(b'\x89PNG')
  found = _results(finished)
  assert found['versions']['jax'] and found['command']
  assert len(list((finished / 'cells').glob('*.json'))) == 3


def test_rows(finished):
  found = _results(finished)
  ours, single = found['rows']
  assert ours['name'] == 'shared_bottom'
  assert single['name'] == 'single_task bottom_widths=8 dropout=0.2'
  assert ours['fits'] == 2 * 2 + 3 and single['fits'] == 3
  assert ours['verdict'] == 'baseline' and ours['difference'] is None
  assert single['mtl_gain'] is None
  aucs = [ours['test'][t]['auc']['mean'] for t in found['tasks']]
  others = [single['test'][t]['auc']['mean'] for t in found['tasks']]
  assert ours['mtl_gain'] == pytest.approx(statistics.mtl_gain(aucs, others))
  assert len(ours['test']['income']['auc']['per_seed']) == 3
  # Two trunks of 8 units, each half of one of 16 units, and two encoders.
  assert single['parameters'] > ours['parameters']
  for row in found['rows']:
    assert set(row['setting'].values()) <= set(found['settings'])
    assert row['latency'] > 0 and row['examples_per_second'] > 0
    for interval in row['interval'].values():
      assert interval['low'] < interval['estimate'] < interval['high']


def test_differences_are_those_of_the_kept_scores(finished):
  found = _results(finished)
  scores = {}
  for path in (finished / 'cells').glob('*.npz'):
    cell = json.loads(path.with_suffix('.json').read_text())
    with np.load(path) as arrays:
      scores[cell['identity']['what']['architecture']] = dict(arrays)
  raw = loading.read('sample', num_rows=1500)
  labels = protocol.encode(raw, found['tasks'], num_bins=4).test.labels
  want = statistics.auc_difference(
    scores['single_task']['income'], scores['shared_bottom']['income'],
    labels['income'],
  )  # fmt: skip
  assert found['rows'][1]['difference']['income'] == want._asdict()
  aucs, _ = statistics.delong(
    scores['shared_bottom']['marital'], labels['marital']
  )
  np.testing.assert_allclose(
    aucs, found['rows'][0]['test']['marital']['auc']['per_seed'], atol=1e-6
  )


def test_tables(finished):
  found = _results(finished)
  frame = pd.read_csv(finished / 'comparison.csv')
  assert list(frame['row']) == [row['name'] for row in found['rows']]
  assert frame['income_auc_mean'][0] == pytest.approx(
    found['rows'][0]['test']['income']['auc']['mean']
  )
  text = (finished / 'comparison.md').read_text()
  assert '| shared_bottom |' in text and 'generated sample, not UCI' in text
  assert '| a | dropout=0.0 bottom_widths=16 |' in text
  for table in tables.tables(found):
    assert all(len(row) == len(table.head) for row in table.rows)


def test_another_baseline_fits_nothing(finished, tmp_path, no_fits):
  folder = tmp_path / 'again'
  shutil.copytree(finished, folder)
  other = '--baseline=single_task bottom_widths=8 dropout=0.2'
  assert launch(*TINY, other, f'--out_dir={folder}') == 0
  first, again = _results(finished), _results(folder)
  assert again['rows'][1]['verdict'] == 'baseline'
  assert again['rows'][0]['difference']['income']['estimate'] == pytest.approx(
    -first['rows'][1]['difference']['income']['estimate']
  )


def test_another_comparison_is_refused(finished, tmp_path, capsys, no_fits):
  folder = tmp_path / 'again'
  shutil.copytree(finished, folder)
  for other, said in (
    ('--epochs=2', 'another comparison, which differs in epochs (1, now 2):'),
    ('--num_rows=1600', 'differs in data.'),
  ):
    assert launch(*TINY, other, f'--out_dir={folder}') == 1
    assert said in capsys.readouterr().err


def test_what_was_lost_is_fitted_again(finished, tmp_path):
  """After a kill between two files: a half-written file, a damaged array."""
  folder = tmp_path / 'killed'
  shutil.copytree(finished, folder)
  for name in ('comparison.json', 'comparison.md'):
    (folder / name).unlink()
  tuned, final = [], []
  for path in sorted((folder / 'cells').glob('*.json')):
    kind = json.loads(path.read_text())['identity']['kind']
    (tuned if kind == 'tune' else final).append(path)
  (folder / 'cells' / f'.{tuned[0].name}.part').write_text(
    tuned[0].read_text()[:50]
  )
  tuned[0].unlink()
  arrays = final[0].with_suffix('.npz')
  arrays.write_bytes(arrays.read_bytes()[:-10])
  assert launch(*TINY, f'--out_dir={folder}') == 0
  assert _without_times(_results(folder)) == _without_times(_results(finished))


def test_time_runs_out(finished, tmp_path, capsys, monkeypatch, no_fits):
  """After the first row, and before it."""
  folder = tmp_path / 'late'
  shutil.copytree(finished, folder)
  for path in (folder / 'cells').glob('*.json'):
    what = json.loads(path.read_text())['identity']['what']
    if 'single_task' in json.dumps(what):
      path.unlink()
  late = '--max_minutes=1e-9'
  assert launch(*TINY, late, f'--out_dir={folder}') == 0
  assert ' 1 of 2 rows' in ' '.join(capsys.readouterr().out.split())
  assert [row['name'] for row in _results(folder)['rows']] == ['shared_bottom']
  assert launch(*TINY, late, f'--out_dir={tmp_path / "new"}') == 1
  assert '1e-09 minutes' in capsys.readouterr().err


def test_settings_that_diverge(finished, tmp_path, capsys, monkeypatch):
  """They are left out; a row with no other setting fails, after the rest."""
  (path,) = (
    path.with_suffix('.json')
    for path in (finished / 'cells').glob('*.npz')
    if 'shared_bottom' in path.with_suffix('.json').read_text()
  )
  facts = json.loads(path.read_text())['facts']
  with np.load(path.with_suffix('.npz')) as arrays:
    fitted = cells.Fitted(facts, dict(arrays))

  def tune(configs, data):
    if any(config.learning_rate > 1 for config in configs.values()):
      raise training.NonFiniteError('not finite')
    return {name: {'income': [0.7], 'marital': [0.8]} for name in configs}

  def train(config, data):  # of a row whose only setting diverges
    tune({'': config}, data)
    return fitted

  monkeypatch.setattr(networks, 'tune', tune)
  monkeypatch.setattr(networks, 'train', train)
  arguments = [
    x
    for x in TINY
    if not x.startswith(('--setting', '--row', '--base', '--single'))
  ]
  folder = tmp_path / 'run'
  code = launch(
    *arguments, '--row=shared_bottom bottom_widths=8', f'--out_dir={folder}',
    '--row=shared_bottom bottom_widths=8 learning_rate=1e9',
    '--setting=learning_rate=0.001', '--setting=learning_rate=1e9',
  )  # fmt: skip
  assert code == 1
  printed = capsys.readouterr()
  last = printed.err.strip().splitlines()[-1]
  assert 'row shared_bottom bottom_widths=8 learning_rate=1e9 cannot be' in last
  (row,) = _results(folder)['rows']
  assert set(row['setting'].values()) == {'learning_rate=0.001'}
  assert 'learning_rate=1e9: left out' in ' '.join(printed.out.split())


def test_fields_of_a_row_win():
  made = plan.Plan(
    Config(num_seeds=3),
    rows={'a': {'architecture': 'mmoe', 'dropout': 0.5}},
    settings={'x': {'dropout': 0.1}, 'y': {'dropout': 0.2}, 'z': {'epochs': 1}},
    tree_settings={}, tuning_seeds=2, baseline='a',
  )  # fmt: skip
  tried = made.tuning_configs('a')
  assert list(tried) == ['x', 'z'] and tried['x'].dropout == 0.5
  final = made.final_config('a', 'z')
  assert final.seed == 2 and final.num_seeds == 3


def test_settings_that_a_row_does_not_take_count_once():
  settings = {
    f'{rate} {weights}': {'learning_rate': rate, 'loss_weights': weights}
    for rate in (0.1, 0.2)
    for weights in ((1.0, 1.0), (1.0, 9.0))
  }
  made = plan.Plan(
    Config(num_seeds=3),
    rows={
      name: {'architecture': 'mmoe', 'balancer': name}
      for name in ('equal', 'static')
    },
    settings=settings, tree_settings={}, tuning_seeds=2, baseline='equal',
  )  # fmt: skip
  assert list(made.tuning_configs('static')) == list(settings)
  assert list(made.tuning_configs('equal')) == list(settings)[::2]


def test_runs_and_comparisons_keep_apart(finished, tmp_path, capsys):
  assert launching.launch(
    census.main, '--dataset=sample', '--num_rows=500', f'--out_dir={finished}'
  )
  assert 'holds a comparison (cells)' in capsys.readouterr().err
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'results.json').write_text('{}')
  assert launch(*TINY, f'--out_dir={tmp_path / "run"}') == 1
  assert 'holds a single run (results.json)' in capsys.readouterr().err


def test_the_command_can_be_typed_again(monkeypatch):
  command = ['/a/experiments/compare.py', '--row=sple top=x']
  found = provenance.command_line(command)
  assert found == "python -m experiments.compare '--row=sple top=x'"
  # As the console script marks the package, also one installed for editing.
  monkeypatch.setattr(
    sys.modules['experiments'], 'CALLER', 'lplmtl ', raising=False
  )
  found = provenance.command_line(command)
  assert found == "lplmtl compare '--row=sple top=x'"


def test_settings_that_compile_once_are_fitted_together():
  base = Config()
  configs = {
    'a': base,
    'b': dataclasses.replace(base, dropout=0.5, learning_rate=1e-2),
    'c': dataclasses.replace(base, embed_dim=8),
    'd': dataclasses.replace(base, embed_dim=8, weight_decay=0.1),
  }
  found = [sorted(group) for group in populations.groups(configs)]
  assert found == [['a', 'b'], ['c', 'd']]


def test_a_population_of_settings_is_its_members():
  """Both settings at once, and the second by itself."""
  raw = loading.read('sample', num_rows=1500)
  data = protocol.encode(raw, ('income', 'marital'), num_bins=4)
  base = Config(
    architecture='shared_bottom', bottom_widths=(8,), tower_widths=(),
    balancer='equal', epochs=1, num_seeds=2, num_bins=4, schedule='cosine',
    optimizer='adamw',
  )  # fmt: skip
  other = dataclasses.replace(
    base, dropout=0.0, learning_rate=1e-2, weight_decay=0.1
  )
  both = networks.tune({'base': base, 'other': other}, data)
  alone = networks.tune({'other': other}, data)
  assert list(both) == ['base', 'other']
  for task in ('income', 'marital'):
    np.testing.assert_allclose(
      both['other'][task], alone['other'][task], atol=1e-4
    )
    assert not np.allclose(both['base'][task], both['other'][task], atol=1e-4)


def test_a_small_table_has_smaller_batches():
  fields = {'batch_size': 5000, 'num_seeds': 3}
  for config, size in (
    (Config(data='shop.csv', targets=('churn',), **fields), 100),
    (Config(**fields), 5000),
  ):
    made = plan.Plan(config, {'sple': {}}, {}, {}, 2, 'sple').fitting(100)
    assert made.tuning_configs('sple')[''].batch_size == size


def test_chosen_is_the_best_mean_of_the_tasks():
  made = plan.Plan(
    Config(num_seeds=3), rows={'mmoe': {}, 'trees': None}, settings={},
    tree_settings={'a': {}, 'b': {'num_leaves': 7}}, tuning_seeds=2,
    baseline='mmoe',
  )  # fmt: skip
  scores = {
    'a': {'income': [0.9, 0.8], 'marital': [0.7, 0.7]},
    'b': {'income': [0.8, 0.8], 'marital': [0.9, 0.9]},
  }
  todo = protocol.make_tasks(['income', 'marital'])

  def encode(num_bins):
    return base.Data(todo, None, None, None, None, facts={}, optimum={})

  ours = networks.Networks('mmoe', made, encode, note=None)
  assert ours.choose(scores) == {'income': 'b', 'marital': 'b'}
  assert ours.num_fits == 3 and not ours.tuning()  # nothing to choose
  assert ours.choose({}) == {'income': '', 'marital': ''}
  forest = trees.Trees('trees', made, encode)
  assert forest.choose(scores) == {'income': 'a', 'marital': 'b'}
  assert forest.num_fits == 2 * (2 * 2 + 3)


def test_rows_of_trees_with_parameters_of_their_own():
  few = 'trees max_depth=2 num_leaves=4'
  made = plan.Plan(
    Config(num_seeds=3), rows={'trees': None, few: None}, settings={},
    tree_settings={
      'a': {'num_leaves': 7, 'max_bin': 63}, 'b': {'num_leaves': 15},
      'c': {'num_leaves': 31},
    },
    tuning_seeds=2, baseline='trees',
    tree_rows={few: {'max_depth': 2, 'num_leaves': 4}},
  )  # fmt: skip
  assert made.tree_configs('trees') == made.tree_settings
  assert made.tree_configs(few) == {
    'a': {'num_leaves': 4, 'max_bin': 63, 'max_depth': 2},
    'b': {'num_leaves': 4, 'max_depth': 2},  # c is the same
  }
  todo = protocol.make_tasks(['income'])

  def encode(num_bins):
    return base.Data(todo, None, None, None, None, facts={}, optimum={})

  every, fewer = (trees.Trees(name, made, encode) for name in made.rows)
  assert (every.num_fits, fewer.num_fits) == (3 * 2 + 3, 2 * 2 + 3)
  assert len(fewer.tuning()) == 2
  assert fewer.final({'income': 'b'}).inputs['income']['max_depth'] == 2


def _interval(low, high):
  return statistics.Interval((low + high) / 2, low, high, 0.0)


@pytest.mark.parametrize(
  'income, marital, said',
  [
    ((-0.001, 0.001), (0.0001, 0.0005), 'equivalent'),
    ((0.001, 0.003), (-0.001, 0.001), 'better on income'),
    ((-0.003, -0.001), (0.001, 0.003), 'better on marital; worse on income'),
    ((-0.003, 0.003), (-0.001, 0.001), 'undecided'),
  ],
)
def test_verdict(income, marital, said):
  found = {'income': _interval(*income), 'marital': _interval(*marital)}
  margins, auc = ({t: x for t in found} for x in (0.002, 'auc'))
  assert results.verdict(found, margins, auc) == said


def test_what_tables_show_as_zero_decides_nothing():
  """A network in float16 and in float32, by a metric without a margin."""
  none, wide = _interval(1e-9, 2e-9), _interval(-0.003, 0.003)
  margins, loss = {'a': 0.0, 'b': 0.002}, {'a': 'loss', 'b': 'auc'}
  say = lambda a, b: results.verdict({'a': a, 'b': b}, margins, loss)  # noqa: E731
  assert say(none, _interval(0, 0)) == say(_interval(0, 0), none)
  assert say(none, _interval(0, 0)) == 'equivalent'
  assert say(none, wide) == 'undecided'
  assert say(_interval(1e-5, 2e-5), none) == 'worse on a'


@pytest.mark.parametrize(
  'arguments, complaint',
  [
    (['--baseline=mmoe'], '--baseline=mmoe .* shared_bottom'),
    (['--num_seeds=2'], '--num_seeds .* 3'),
    (['--row=shared_bottom'], '--row=shared_bottom .* twice'),
    (['--row=nonsense'], "'nonsense'"),
    (['--row=esmm'], 'chain'),
    (['--row=ple bottom'], "--row=ple bottom: 'bottom' .*embed_dim"),
    (['--row=ple tasks=income'], "'tasks=income' sets no field"),
    (['--row=ple dropout=2'], '--row=ple dropout=2: .*dropout'),
    (['--setting=dropout=x'], '--setting=dropout=x: .*dropout'),
    (['--setting=expert_widths=0'], 'widths'),
    (['--row=dselect_k num_experts=6'], 'row dselect_k num_experts=6: .* power'),
    (['--batch_size=5000'], '--batch_size=5000'),
    (['--tree_setting=num_leaves'], "LightGBM .* found 'num_leaves'"),
    (['--tree_setting=num_leafs=3'], "LightGBM .* found 'num_leafs=3'"),
    (['--row=ple dropout=0.1 dropout=0.2'], 'dropout twice'),
    (['--row=trees max_deep=2'], "--row=trees max_deep=2 .*found 'max_deep=2'"),
    (['--row=trees max_depth=2 max_depth=3'], '--row=.* max_depth twice'),
    (['--setting=dropout=0.2  bottom_widths=16'], 'twice'),
    (['--margin=nan'], '--margin'),
    (['--row='], '--row '),
    (['--single=mmoe'], '--single=mmoe '),
    (['--eval_only'], '--eval_only '),
    (['word'], "'word'"),
  ],
)  # fmt: skip
def test_mistakes(arguments, complaint, tmp_path, capsys, no_fits):
  folder = tmp_path / 'run'
  assert launch(*TINY, f'--out_dir={folder}', *arguments) == 1
  last = capsys.readouterr().err.strip().splitlines()[-1]
  assert last.startswith('error: ')
  assert re.search(complaint, last), last


@pytest.mark.parametrize('path', FLAG_FILES, ids=lambda p: p.name)
def test_flag_files(path):
  """Each has a header and can be fitted, with as many settings for all."""
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  assert flags.FLAGS(['compare', f'--flagfile={path}']) == ['compare']
  made = plan.from_flags(flags.FLAGS)
  assert path.read_text().startswith('# ')
  # many rows, none of which decides anything
  few = 'balancers' in path.name or 'profile' in path.name
  taught = bool(made.taught)  # whose settings differ in more than sizes
  assert len(made.settings) >= (3 if taught else 4 if few else 6)
  assert made.tuning_seeds >= (2 if few else 3)
  assert made.base.num_seeds >= (3 if few else 10)
  for name, own in made.rows.items():
    if own is None:
      assert len(made.tree_settings) == len(made.settings)
      continue
    configs = made.tuning_configs(name)
    assert len(set(configs.values())) == len(configs)
    for config in configs.values():
      build.check_names(config)


def test_defaults_of_a_first_comparison():
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  flags.FLAGS(
    ['compare', '--data=x.csv', '--targets=churn,value', '--row=sple', '--row=trees']
  )  # fmt: skip
  made = plan.from_flags(flags.FLAGS)
  assert made.base.num_seeds == 5 and made.baseline == 'sple'
  assert list(made.tree_settings) == list(plan.TREE_SETTINGS)
  assert list(made.tuning_configs('sple')) == ['']  # nothing is tuned
  assert made.margin is None
  # Samples of rows and columns: without them, seeds would not differ.
  for parameters in made.tree_settings.values():
    assert parameters['bagging_fraction'] < 1 and parameters['bagging_freq']


def test_the_command_that_trains_the_best_network():
  def parsed(*arguments):
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
      flags.FLAGS[name].unparse()
    flags.FLAGS(['compare', *arguments])
    return flags.FLAGS

  setting = 'dropout=0.3 learning_rate=0.01'
  made = plan.from_flags(
    parsed(
      '--data=my shop.csv', '--targets=churn,"a, b"', '--seed=7', '--row=trees',
      '--row=sple', '--row=shared_bottom dropout=0.1 bottom_widths=8x4',
      f'--setting={setting}', '--setting=dropout=0.2', '--out_dir=x',
    )
  )  # fmt: skip
  scores = {
    'trees': 0.9,
    'sple': 0.6,
    'shared_bottom dropout=0.1 bottom_widths=8x4': 0.7,
  }
  found = {
    'command': ['/a/experiments/compare.py'],
    'rows': [
      {
        'name': name, 'setting': {'churn': setting},
        'validation': {
          'churn': {'auc': {'mean': score}},
          'a, b': {'auc': {'mean': np.nan}},  # undefined in every row
        },
      }
      for name, score in scores.items()
    ],
  }  # fmt: skip
  said, command = winner.line(made, found).splitlines()
  best = 'best network by validation metrics: shared_bottom dropout=0.1 bottom'
  assert said.startswith(best) and 'trees do better' in said
  start = 'python -m experiments.tabular '
  assert command.startswith(start)
  config = options.from_flags(parsed(*shlex.split(command.removeprefix(start))))
  asked = made.final_config(
    'shared_bottom dropout=0.1 bottom_widths=8x4', setting
  )
  own = {'num_seeds': config.num_seeds, 'seed': 7, 'out_dir': config.out_dir}
  assert config == dataclasses.replace(asked, **own)
  assert winner.line(made, {**found, 'rows': found['rows'][:1]}) == ''


def test_nothing_to_compare(capsys):
  assert launch('--dataset=sample') == 1
  assert '--row' in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(tmp_path, capsys, no_fits):
  (tmp_path / 'file').write_text('')
  assert launch(*TINY, f'--out_dir={tmp_path / "file"}') == 1
  assert 'is a file: choose a folder' in capsys.readouterr().err


def test_trees(tmp_path):
  """On a table on which LightGBM must do well."""
  pytest.importorskip('lightgbm')
  raw = loading.read('sample', num_rows=4000)
  data = protocol.encode(raw, ('income',), num_bins=0)
  (todo,) = data.tasks
  found = boosting.fit(
    boosting.parse('num_leaves=7 learning_rate=0.1'), todo, data, 0
  )
  auc = boosting.score(todo, found.scores[np.newaxis], data.test)['auc'][0]
  assert 0.75 < auc < 1.0 and 0.7 < found.validation < 1.0
  # Trees of at most 7 leaves: 7 values and 6 thresholds each.
  assert found.parameters % 1 == 0 and found.parameters > 13
  assert found.latency > 0
  with pytest.raises(InputError, match='num_leaves=0: LightGBM rejects it: .'):
    boosting.check({'num_leaves=0': {'num_leaves': 0}})
  with pytest.raises(InputError, match='^--row=trees x: --tree_setting=a: '):
    boosting.check({'a': {'max_bin': 0}}, '--row=trees x: ')


def test_trees_without_lightgbm(monkeypatch, capsys, tmp_path, no_fits):
  monkeypatch.setitem(sys.modules, 'lightgbm', None)
  arguments = ('--row=trees', '--tree_setting=num_leaves=7')
  assert launch(*TINY, *arguments, f'--out_dir={tmp_path / "run"}') == 1
  assert "pip install 'lplmtl[trees]'" in capsys.readouterr().err
