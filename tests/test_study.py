"""Studies of generated problems: what is fitted, kept and reported."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags
from scipy import stats
from sklearn import datasets
from sklearn import metrics as oracle

import lplmtl
from experiments import compare, study
from experiments.comparison import (
  cells,
  networks,
  populations,
  publish,
  rows,
)
from experiments.comparison import folder as kept_fits
from experiments.launcher.errors import InputError
from experiments.studies import outputs, plan, problems, workers
from lplmtl.training import evaluation
from tests import launching

launch = functools.partial(launching.launch, study.main)
ROOT = pathlib.Path(__file__).parent.parent
FLAG_FILES = sorted((ROOT / 'experiments' / 'flags').glob('study*.flags'))
STUDIES = ROOT / 'experiments' / 'results' / 'studies'
SINGLE = 'single_task learning_rate=0.01'
TINY = (
  '--problem=correlation=@ features=4 rows=60 validation_rows=30 test_rows=40 '
  'labels=0,20', '--values=0,1', '--factor=cosine',
  '--row=shared_bottom', '--row=single_task learning_rate=0.01', '--epochs=1', '--batch_size=20',
  '--dropout=0', '--bottom_widths=4', '--tower_widths=', '--balancer=equal',
  '--setting=learning_rate=0.001', '--setting=learning_rate=0.01',
  '--tuning_seeds=1', '--num_seeds=3', '--compilation_cache=none',
)  # fmt: skip


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A finished study: its folder."""
  folder = tmp_path_factory.mktemp('study') / 'a'
  assert launch(*TINY, f'--out_dir={folder}') == 0
  return folder


@pytest.fixture
def no_fits(monkeypatch):
  """Nothing may be fitted."""
  monkeypatch.setattr(networks, 'tune_each', None)
  monkeypatch.setattr(populations, 'fit_each', None)


def _results(folder):
  return json.loads((folder / 'study.json').read_text())


@pytest.mark.slow
def test_files(finished):
  names = {path.name for path in finished.iterdir()}
  assert names == {*outputs.NAMES, 'cells', '.lock'}
  assert (finished / 'regret.png').read_bytes().startswith(b'\x89PNG')
  lines = (finished / 'study.csv').read_text().splitlines()
  assert len(lines) == 1 + 4 and lines[0].startswith('row,cosine,setting,')
  page = (finished / 'study.md').read_text()
  assert '| method \\ cosine | 0 | 1 |' in page
  assert f'| {SINGLE} |' in page
  config = _results(finished)['config']
  assert config['epochs'] == 1 and config['num_bins'] == 0
  assert not {'dataset', 'tasks', 'targets', 'architecture'} & config.keys()


@pytest.mark.slow
def test_regret_is_what_is_lost_to_the_optimum(finished):
  """Student's interval of means over draws; differences are paired."""
  found = {(r['name'], r['value']): r for r in _results(finished)['rows']}
  assert len(found) == 4
  own, base = found[SINGLE, '1'], found['shared_bottom', '1']
  lost = {}
  for row in (own, base):
    lost[row['name']] = np.mean(
      [
        np.array(row['optimum'][task]) - row['test'][task]['r2']['per_seed']
        for task in ('task_1', 'task_2')
      ],
      axis=0,
    )
    np.testing.assert_allclose(row['per_draw'], lost[row['name']])
  assert own['optimum'] == base['optimum']  # the same draws
  gap = lost[SINGLE] - lost['shared_bottom']
  reach = stats.t.ppf(0.975, 2) * gap.std(ddof=1) / np.sqrt(3)
  assert own['difference']['estimate'] == pytest.approx(gap.mean())
  assert own['difference']['high'] == pytest.approx(gap.mean() + reach)
  assert base['difference'] is None
  assert own['fits'] == 3 and base['fits'] == 2 * 1 + 3
  # Two trunks, each with a head, in place of one with two.
  assert own['parameters'] - base['parameters'] == 4 * 4 + 4


@pytest.mark.slow
def test_a_finished_study_fits_nothing(finished, no_fits):
  before = _results(finished)['rows']
  other = (*TINY, f'--baseline={SINGLE}', '--regret_of=task_2')
  assert launch(*other, f'--out_dir={finished}') == 0
  after = _results(finished)
  assert [r['test'] for r in after['rows'] if r['name'] == 'shared_bottom'] == [
    r['test'] for r in before if r['name'] == 'shared_bottom'
  ]
  row = next(r for r in after['rows'] if r['name'] == 'shared_bottom')
  lost = (
    np.array(row['optimum']['task_2']) - row['test']['task_2']['r2']['per_seed']
  )
  np.testing.assert_allclose(row['per_draw'], lost)
  assert row['difference'] is not None


@pytest.mark.slow
def test_a_draw_is_scored_by_its_own_test_rows(finished):
  """The first final fit, done once more, by scikit-learn's metric."""
  _parse(*TINY)
  asked = plan.from_flags(flags.FLAGS)
  method = workers.methods(asked, print)[0]
  row = next(
    r
    for r in _results(finished)['rows']
    if (r['name'], r['value']) == (method.method, method.value)
  )
  config = asked.compared.final_config(method.method, row['setting'])
  data = asked.setups['0'].draw(config.seed)
  fitted, model = populations.fit(
    [dataclasses.replace(config, num_seeds=1)], data
  )
  one = jax.tree.map(lambda x: x[0], fitted.params)
  predicted = evaluation.predict(model, one, data.test.features)['task_1']
  expected = oracle.r2_score(data.test.labels['task_1'], predicted[:, 0])
  assert row['test']['task_1']['r2']['per_seed'][0] == pytest.approx(
    expected, abs=1e-5
  )


def _parse(*arguments):
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  flags.FLAGS(['study', *arguments])


def test_draws_are_alike_only_if_their_seeds_are():
  setup = problems.parse(
    'features=3 rows=20 validation_rows=10 test_rows=15 labels=0,5', ''
  )
  one, again, other = setup.draw(4), setup.draw(4), setup.draw(5)
  np.testing.assert_array_equal(
    one.train.labels['task_1'], again.train.labels['task_1']
  )
  every = [
    np.ravel(batch.labels['task_1'])
    for data in (one, other)
    for batch in (data.train, data.validation, data.test)
  ]
  assert len(np.unique(np.concatenate(every))) == 2 * (20 + 10 + 15)
  assert one.train.where['task_2'].sum() == 5
  assert one.validation.where['task_2'].sum() == round(5 * 10 / 20)
  assert one.test.where is None
  assert one.optimum['task_1'] > 0.9


def test_overlaid_digits():
  """The corners that one digit covers are those of a digit of its class."""
  asked = 'digits offset=8 rows=40 validation_rows=20 test_rows=30'
  data, again = (problems.parse(asked, '').draw(1) for _ in range(2))
  source = datasets.load_digits()
  corners = {  # of an enlarged digit: the 8 pixels that nothing can cover
    'left': source.images[:, :4, :4].repeat(2, 1).repeat(2, 2),
    'right': source.images[:, 4:, 4:].repeat(2, 1).repeat(2, 2),
  }
  scalers = list(data.tables.numerics.values())
  mean, std = (
    np.array([getattr(s, f) for s in scalers]) for f in ('mean', 'std')
  )
  for split in ('train', 'validation', 'test'):
    batch = getattr(data, split)
    images = (batch.features['numeric'] * std + mean).reshape(-1, 24, 24) * 16
    shown = {'left': images[:, :8, :8], 'right': images[:, 16:, 16:]}
    assert (batch.labels['left'] != batch.labels['right']).all()
    for name, parts in shown.items():
      for part, label in zip(parts, batch.labels[name], strict=True):
        alike = np.abs(corners[name] - part).max(axis=(1, 2)) < 1e-3
        assert label in source.target[alike]
  np.testing.assert_array_equal(
    data.train.features['numeric'], again.train.features['numeric']
  )
  encoder = data.make_encoder()
  assert isinstance(encoder, lplmtl.ImageEncoder)
  assert data.optimum == {'left': 1.0, 'right': 1.0}


@pytest.mark.parametrize(
  ('text', 'value', 'field', 'expected'),
  [
    ('scale=1,@', '10', 'scale', (1.0, 10.0)),
    ('tasks=@ clusters=2', '6', 'tasks', 6),
    ('kind=binary noise=@', '0.5', 'noise', (0.5,)),
    ('labels=0,@', '100', 'labels', (0, 100)),
  ],
)
def test_the_factor_takes_its_place(text, value, field, expected):
  (setup,) = problems.setups(text, [value]).values()
  assert getattr(setup, field) == expected


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('corelation=@', 'did you mean correlation'),
    ('correlation=0.5', 'nothing varies; put @'),
    ('correlation=@ correlation=1', 'sets correlation twice'),
    ('correlation=@,1', 'correlation must be a number; found 0,1'),
    ('noise=@ tasks=three', 'tasks must be a whole number; found three'),
    ('correlation=@ noise=x', 'a number, or several separated by commas'),
    (
      'correlation=@ noise=1,2,3',
      'noise needs one value, or one for each of 2',
    ),
    ('correlation=@ rows=0', '1 to 10,000,000 rows'),
    ('correlation=@ kind=count', "found 'count'"),
    ('correlation=@ labels=20000', 'labels from 1 to rows=10000'),
    ('correlation=2@', 'from -1 to 1, found 20'),
    ('tasks=@', 'found clusters=1 tasks=0 features=100'),
    ('digits correlation=@', 'one of offset, channels, rows'),
    ('digits offset=@9', 'an offset from 0 to 8, found 9'),
    ('digits channels=@', 'channels must be at least 1'),
    ('digits offset=1@ rows=0', '1 to 10,000,000 rows'),
    ('', 'nothing varies'),
  ],
)
def test_problems_that_cannot_be(text, message):
  with pytest.raises(InputError) as caught:
    problems.setups(text, ['0'])
  assert message in str(caught.value)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--values=1,1'], '--values must be different'),
    (['--row=trees'], 'only networks can be studied'),
    ([f'--publish_to={__file__}'], 'is a file: expected a folder'),
    (['--problem=correlation=@', '--values=3'], 'from -1 to 1, found 3'),
    (['--row=ple teacher=best'], 'have no teacher; leave teacher=best out'),
    (['--dataset=sample'], '--dataset has no effect here'),
    (
      ['--regret_of=task_3'],
      '--regret_of=task_3 is not a task; at 0 there are',
    ),
    (['--batch_size=61'], 'rows=60 are fewer than --batch_size=61'),
    (['--baseline=ple'], '--baseline=ple is not in the table'),
    (['--margin=0.1'], '--margin has no effect here'),
    (['--num_experts=4'], 'takes no --num_experts'),
    (['--num_seeds=2'], '--num_seeds must be at least 3'),
  ],
)
def test_mistakes(arguments, message, tmp_path, capsys, no_fits):
  folder = tmp_path / 'run'
  assert launch(*TINY, f'--out_dir={folder}', *arguments) == 1
  last = capsys.readouterr().err.strip().splitlines()[-1]
  assert last.startswith('error: ') and message in last
  assert not (folder / 'study.json').exists()


@pytest.mark.slow
def test_a_process_of_its_own_fits_the_same(tmp_path, finished, monkeypatch):
  """And none is started for a study that is finished."""
  alike = '--row=single_task learning_rate=0.01', '--values=1'
  ours = [a for a in TINY if not a.startswith(('--row', '--values'))]
  folder = f'--out_dir={tmp_path / "run"}'
  assert launch(*ours, *alike, '--workers=2', folder) == 0
  (row,) = _results(tmp_path / 'run')['rows']
  monkeypatch.setattr(workers.process, 'ProcessPoolExecutor', None)
  assert launch(*TINY, '--workers=2', f'--out_dir={finished}') == 0
  (old,) = (
    r
    for r in _results(finished)['rows']
    if (r['name'], r['value']) == (SINGLE, '1')
  )
  assert row['setting'] == old['setting']
  # A process with one core rounds otherwise.
  np.testing.assert_allclose(row['per_draw'], old['per_draw'], rtol=1e-4)


def test_another_study_is_refused(tmp_path, capsys, no_fits):
  """Other methods, values and more draws are the same study."""
  _parse(*TINY)
  run = tmp_path / 'run'
  run.mkdir()
  kept = workers.store(plan.from_flags(flags.FLAGS), run, lambda: None)
  kept.save(cells.Cell('tune', {}, None), cells.Fitted({}, {}))
  for other, said in (
    ('--problem=correlation=@ rows=60', 'problem.features (4, now None), '),
    ('--epochs=2', ' differs in epochs (1, now 2): choose another --out_dir'),
    ('--tuning_seeds=2', 'tuning_seeds (1, now 2)'),
    ('--setting=dropout=0.1', 'learning_rate=0.01; dropout=0.1)'),
  ):
    assert launch(*TINY, other, f'--out_dir={run}') == 1
    assert said in capsys.readouterr().err
  _parse(*TINY, '--row=mmoe', '--values=0,1,0.5', '--num_seeds=4')
  shared = plan.from_flags(flags.FLAGS).shared()
  kept_fits.refuse_other(run, shared, 'study')


def test_what_is_fitted_first_is_said(tmp_path, capsys, no_fits):
  folder = f'--out_dir={tmp_path / "run"}'
  assert launch(*TINY, '--max_minutes=1e-9', folder) == 1
  assert 'to fit: 4 of 4, first shared_bottom at 0; ' in capsys.readouterr().out


def test_a_line_of_progress_names_its_metric():
  kinds = [lplmtl.tasks.regression('a'), lplmtl.tasks.binary('b')]
  scores = {'x=1': {'a': [0.5, 0.7], 'b': [0.8, 0.8]}, 'x=2': None}
  facts = rows.tried(scores, kinds).facts
  assert rows._summary(facts) == 'validation R² 0.6000 a AUC 0.8000 b with x=1'
  test = {'test': {t: {'accuracy': {'mean': 0.5}} for t in 'ab'}}
  assert rows._summary(test) == 'test accuracy 0.5000 a 0.5000 b'


def test_help_shows_the_flags_and_defaults_of_a_study():
  command = [sys.executable, '-m', 'experiments.study', '--help']
  found = subprocess.run(
    command, capture_output=True, text=True, check=True, cwd=ROOT
  ).stdout
  for name in ('data', 'dataset', 'categories', 'margin', 'architecture'):
    assert f'  --{name}:' not in found
  assert 'Compare' not in found and '  --setting: Study: a setting' in found
  _, _, after = found.partition('  --num_seeds: ')
  assert "(default: '30')" in after.partition('  --')[0]
  assert 'runs/study.' in found


def test_several_processes_need_a_cpu(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  folder = f'--out_dir={tmp_path / "run"}'
  assert launch(*TINY, '--workers=2', folder) == 1
  assert '--workers=2 is for CPUs: use --workers=1' in capsys.readouterr().err


def test_cores_are_shared_out(monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1, 4}, False)
  assert workers._shares(2) == [{0, 4}, {1}]
  assert workers._shares(4) == [{0}, {1}, {4}, {0, 1, 4}]
  monkeypatch.delattr(os, 'sched_getaffinity')
  assert workers._shares(2) == [set(), set()]


def test_studies_and_comparisons_keep_apart(tmp_path, capsys, no_fits):
  (tmp_path / 'study.json').write_text('{}')
  arguments = ('--dataset=sample', '--row=sple', f'--out_dir={tmp_path}')
  assert launching.launch(compare.main, *arguments) == 1
  assert 'holds a study (study.json)' in capsys.readouterr().err
  (tmp_path / 'study.json').rename(tmp_path / 'comparison.json')
  assert launch(*TINY, f'--out_dir={tmp_path}') == 1
  assert 'holds a comparison (comparison.json)' in capsys.readouterr().err


@pytest.mark.parametrize('path', FLAG_FILES, ids=lambda p: p.name)
def test_flag_files(path):
  """Each has a header, enough draws, and can be fitted."""
  _parse(f'--flagfile={path}')
  asked = plan.from_flags(flags.FLAGS)
  assert path.read_text().startswith('# ')
  assert asked.compared.base.num_seeds >= 30
  assert len(asked.compared.settings) >= 2 and len(asked.setups) >= 3
  for name in asked.compared.rows:
    configs = asked.compared.tuning_configs(name)
    is_fixed = 'learning_rate' in asked.compared.rows[name]
    assert len(set(configs.values())) == len(configs) >= 2 - is_fixed


@pytest.mark.parametrize(
  'path', sorted(STUDIES.glob('study_*.json')), ids=lambda p: p.name
)
def test_published_files_hold_the_same_figures(path):
  results = json.loads(path.read_text(encoding='utf-8'))
  assert outputs.csv(results) == path.with_suffix('.csv').read_text()
  flag_file = ROOT / 'experiments' / 'flags' / f'{path.stem}.flags'
  _parse(f'--flagfile={flag_file}')
  asked = plan.from_flags(flags.FLAGS)
  assert results['problem'] == asked.problem
  assert results['methods'] == list(asked.compared.rows)
  assert len(results['rows']) == len(asked.compared.rows) * len(asked.setups)
  text = '\n'.join(page.read_text() for page in STUDIES.glob('*.md'))
  assert f'<!-- {path.stem}: difference -->' in text
  assert f']({path.stem}_{outputs.PICTURE})' in text


@pytest.mark.parametrize(
  'path', sorted(STUDIES.glob('*.md')), ids=lambda p: p.name
)
def test_published_tables_are_those_of_the_figures(path):
  """`python -m experiments.study --publish_to=experiments/results/studies`."""
  text = path.read_text(encoding='utf-8')
  assert publish.render(text, path, outputs.KINDS) == text
