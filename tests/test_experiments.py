"""Training runs: their files, how they resume, and all mistakes users make."""

import contextlib
import dataclasses
import functools
import gzip
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

import lplmtl
from experiments import census
from experiments.datasets.census import files as census_files
from experiments.datasets.census import loading as census_loading
from experiments.datasets.census import sample as census_sample
from experiments.launcher import (
  build,
  display,
  interrupts,
  jax_setup,
  lock,
  options,
)
from experiments.launcher.options import Config
from lplmtl import checkpoint, tasks
from lplmtl.training import progress
from tests import launching, stress_resume

ROOT = pathlib.Path(__file__).parent.parent
FLAG_FILES = sorted((ROOT / 'experiments' / 'flags').glob('census*.flags'))
TINY = (
  '--dataset=sample', '--num_rows=2000', '--epochs=2', '--expert_widths=8',
  '--tower_widths=4', '--num_bins=8',
)  # fmt: skip
# What three tests train; on 1,000 rows, written to files or not, it compiles once.
ONE_TASK = (
  '--tasks=marital', '--architecture=shared_bottom', '--bottom_widths=8',
  '--balancer=equal', '--schedule=cosine', '--optimizer=adamw', '--epochs=2',
  '--batch_size=64',
)  # fmt: skip
# The fastest to compile; `!` removes a flag of TINY.
SMALL = ('--architecture=shared_bottom', '--bottom_widths=4', '!expert_widths')

launch = functools.partial(launching.launch, census.main)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """Returns the folder of a finished run."""
  folder = tmp_path_factory.mktemp('runs') / 'a'
  assert launch(*TINY, '--num_seeds=2', f'--out_dir={folder}') == 0
  return folder


def test_a_run_writes_what_it_should(finished):
  names = {path.name for path in finished.iterdir()}
  assert names == {
    'results.json', 'history.jsonl', 'curves.png', 'gates.png', 'outcomes.png', 'model',
    '.lock',
  }  # fmt: skip
  assert (finished / '.lock').read_text() == str(os.getpid())
  results = json.loads((finished / 'results.json').read_text())
  for split in ('test', 'validation'):
    for task in ('income', 'marital'):
      for metric in (
        'auc',
        'log_loss',
        'average_precision',
        'calibration_error',
      ):
        value = results[split][task][metric]
        assert len(value['per_seed']) == 2
        np.testing.assert_allclose(value['mean'], np.mean(value['per_seed']))
        np.testing.assert_allclose(
          value['std'], np.std(value['per_seed'], ddof=1)
        )
  assert 0.5 < results['test']['marital']['auc']['mean'] < 1
  assert set(results['loss_weights']) == {'income', 'marital'}
  assert results['parameters'] > 0 and results['flops_per_example'] > 0
  assert results['config']['architecture'] == 'sple'
  assert results['data']['rows']['test'] == 667
  assert 'not UCI data' in results['data']['statement']
  assert (
    results['data']['optimum']['income']
    > results['test']['income']['auc']['mean']
  )
  assert results['versions']['jax'] == jax.__version__
  assert results['device']['platform'] == 'cpu'
  assert set(results['seconds']) == {
    'data',
    'init',
    'compile',
    'train',
    'scoring',
    'total',
  }
  lines = (finished / 'history.jsonl').read_text().splitlines()
  history = [json.loads(line) for line in lines]
  assert [record['epoch'] for record in history] == [1, 2]
  # Validation metrics are those of each seed's best epoch.
  for seed, epoch in enumerate(results['best_epoch']):
    record = history[epoch - 1]['validation']['income']['auc'][seed]
    found = results['validation']['income']['auc']['per_seed'][seed]
    np.testing.assert_allclose(found, record, rtol=1e-5)
  png = (finished / 'curves.png').read_bytes()
  assert png.startswith(b'\x89PNG') and len(png) > 20_000


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers(finished, tmp_path):
  assert launch(*TINY, '--num_seeds=2', f'--out_dir={tmp_path / "b"}') == 0
  first = json.loads((finished / 'results.json').read_text())
  again = json.loads((tmp_path / 'b' / 'results.json').read_text())
  for key in ('test', 'validation', 'loss_weights', 'best_epoch'):
    assert again[key] == first[key]
  for name in ('history.jsonl', 'curves.png'):
    assert (tmp_path / 'b' / name).read_bytes() == (
      finished / name
    ).read_bytes()


@pytest.mark.slow
def test_the_saved_model_scores_the_same(finished, capsys):
  before = {p: p.read_bytes() for p in finished.iterdir() if p.is_file()}
  results = json.loads((finished / 'results.json').read_text())
  capsys.readouterr()
  again = census.run(Config(out_dir=str(finished), eval_only=True))
  for split in ('test', 'validation'):
    assert again[split] == results[split]
  auc = display.plus_minus(results['test']['income']['auc'])
  assert auc in capsys.readouterr().out
  assert {
    p: p.read_bytes() for p in finished.iterdir() if p.is_file()
  } == before
  model, params, tables = checkpoint.load(finished / 'model', seed=1)
  raw = census_loading.read('sample', num_rows=2000)
  rows = {c: f.take(np.arange(5)) for c, f in raw.test.items()}
  predictions, _ = model.apply({'params': params}, tables.encode(rows))
  assert predictions['income'].shape == (5, 1)


@pytest.mark.slow
def test_one_plain_line_per_epoch(capsys, tmp_path):
  command = ('--dataset=sample', '--num_rows=1000', *ONE_TASK)
  assert launch(*command, f'--out_dir={tmp_path / "run"}') == 0
  out = capsys.readouterr().out
  lines = [line for line in out.splitlines() if line.startswith('epoch')]
  assert len(lines) == 2
  assert lines[1].startswith('epoch 2/2 | marital loss 0.')
  assert 'val auc 0.' in lines[1] and 'weight' not in lines[1]
  assert '\x1b' not in out
  assert 'generated sample, not UCI data' in out
  assert 'best possible test AUC on this sample: marital' in out


def _weights(balancer):
  key, losses = jax.random.key(0), jnp.ones(2)
  if isinstance(balancer, lplmtl.Aggregator):
    state = balancer.init(key, {'w': jnp.ones(3)}, 2)
    return balancer.update({'w': jnp.ones((2, 3))}, losses, state)[1]
  state = balancer.init(key, 2)
  return balancer.update(losses, state, gramian=jnp.eye(2))[0]


def test_every_architecture_and_balancer_by_one_flag():
  pair = (tasks.binary('a'), tasks.regression('b'))
  for name in build.architecture_names():
    config = Config(architecture=name, dropout=0.25)
    model = build.make_model(config, pair, None)
    assert type(model).__module__ == f'lplmtl.architectures.{name}'
    assert model.tower.dropout_rate == 0.25
  unequal = build.make_model(Config(expert_widths=((9, 8), (4,))), pair, None)
  assert [level.widths for level in unequal.levels] == [(9, 8), (4,)]
  for name in build.balancer_names():
    balancer = build.make_balancer(Config(balancer=name), pair, 10)
    weights = jax.eval_shape(functools.partial(_weights, balancer))
    assert weights.shape == (2,)
  config = Config(balancer='static', loss_weights=(1.0, 0.25))
  weights, _ = build.make_balancer(config, pair).update(np.ones(2), ())
  np.testing.assert_array_equal(weights, [1.0, 0.25])
  config = dataclasses.replace(config, loss_weight_sum=5.0)
  weights, _ = build.make_balancer(config, pair).update(np.ones(2), ())
  np.testing.assert_allclose(weights, [4.0, 1.0])
  config = Config(balancer='mgda', balancer_scope='representation')
  assert build.make_balancer(config, pair).scope == 'representation'


@pytest.mark.parametrize('path', FLAG_FILES, ids=lambda p: p.name)
def test_flag_files_parse(path):
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  rest = flags.FLAGS(['census', f'--flagfile={path}'])
  assert rest == ['census']
  config = options.from_flags(flags.FLAGS)
  encoder = None
  build.make_model(config, (tasks.binary('a'),), encoder)
  header = path.read_text().splitlines()[0]
  assert header.startswith('# ') and len(header) > 20


# Mistakes end in one line and exit code 1, and leave no files behind.


def _content(rows=40):
  table = census_sample.make(100).train
  columns = [
    [str(v) for v in table[c].values[table[c].codes][:rows]] for c in table
  ]
  return '\n'.join(
    ', '.join(row) for row in zip(*columns, strict=True)
  ).encode()


def _folder(tmp_path, change):
  folder = tmp_path / 'files'
  folder.mkdir()
  good = _content()
  for name in census_files.SPLITS.values():
    (folder / f'{name}.gz').write_bytes(change(good))
  return folder


def _drop_a_field(content):
  lines = content.split(b'\n')
  lines[4] = lines[4].rsplit(b',', 1)[0]
  return gzip.compress(b'\n'.join(lines))


def _misspell_a_number(content):
  lines = content.split(b'\n')
  lines[6] = b'old' + lines[6][2:]
  return gzip.compress(b'\n'.join(lines))


def _one_class(content):
  return gzip.compress(content.replace(b'50000+.', b'- 50000.'))


@pytest.mark.parametrize(
  'arguments, complaint',
  [
    (['--architecture=resnet'], "unknown architecture 'resnet'.* adatt, cgc"),
    (['--balancer=magic'], "unknown balancer 'magic'.* aligned_mtl, "),
    (['--tasks=income,age'], 'income, marital, education'),
    (['--tasks='], 'found none'),
    (['--batch_size=100000'], '1,200 training rows'),
    (['--expert_widths=8,4', '--top=identity'], 'equal widths'),
    (['--expert_widths=0'], "found '0'"),
    (['--num_rows=10'], 'num_rows .* 100'),
    (['--num_rows=100'], 'one class only'),
    (['--learning_rate=1e9', *SMALL], "step 2 of epoch 1 .*task 'income' is inf"),
    (['quickstart.flags'], "unexpected argument 'quickstart.flags'"),
    (['--dataset=census', '--data_dir=nowhere', '!num_rows'], '--data_dir=nowhere'),
    (['--eval_only'], 'model folder'),
    (['--num_bins=1'], 'num_bins must be 0 or at least 2'),
    (['--learning_rate=nan'], 'learning_rate must be a finite number'),
    (['--out_dir=a[1]'], 'brackets'),
    (['--architecture=esmm'], 'esmm is for tasks in a chain'),
    (['--balancer=static', '--loss_weights=1'], '--balancer=static: .*weight.* task'),
    (['--balancer=static', '--loss_weights=1,x'], "--loss_weights: .*numbers.*found '1,x'"),
    (['--balancer=normalized'], "unknown balancer 'normalized'"),
    (['--architecture=dselect_k', '--num_experts=6'], 'power of 2.* 6'),
    (['--architecture=dselect_k', '--num_selected=9'], 'number of experts, 8'),
    (['--architecture=mtan', '--expert_widths=8x8'], 'one layer'),
    (['--architecture=single_task', '--balancer=mgda', '!expert_widths'], 'SingleTask shares no parameters'),
    (['--balancer=mgda', '--loss_weight_learning_rate=0.1'], '--balancer=mgda takes no --loss_weight_learning_rate'),
    (['--balancer=equal', '--loss_weights=1,2'], '--balancer=equal takes no --loss_weights'),
    (['--balancer=mgda', '--balancer_scope=representation'], r'represent\(features\)'),
    (['--balancer=moco', '--loss_weight_sum=2'], '--balancer=moco: .*Balancer'),
    (['--loss_weight_sum=0'], 'total must be a finite number'),
    (['--architecture=x', '--dataset=census'], "unknown architecture 'x'"),
    (['--weight_decay=0.5'], '--optimizer=adam takes no --weight_decay'),
    (['--architecture=shared_bottom'], '--architecture=shared_bottom takes no --expert_widths'),
    (['--num_experts=999'], '--architecture=sple takes no --num_experts'),
    (['--num_experts=8'], 'or choose --architecture=dselect_k or mmoe or omoe or stacked_mmoe'),  # the default, but given explicitly
    (['--cross_rank=8'], '--num_crosses=0 takes no --cross_rank'),
    (['--dataset=census66k'], '--dataset=census66k takes no --num_rows'),
    (['--expert_widths=99999999999999999999'], '10,000,000 units'),
    (['--tower_widths=' + 'x'.join('4' * 101)], 'at most 100'),
    (['--num_seeds=10000', '--expert_widths=100000x100000'], 'this model does not fit'),
  ],
)  # fmt: skip
def test_mistakes_in_flags(arguments, complaint, tmp_path, capsys):
  folder = tmp_path / 'run'
  given = [x for x in arguments if x[0] != '!']
  base = [x for x in TINY if f'!{x[2:].split("=")[0]}' not in arguments]
  assert launch(*base, f'--out_dir={folder}', *given) == 1
  last = capsys.readouterr().err.strip().splitlines()[-1]
  assert re.match(f'error: .*{complaint}', last), last
  assert not folder.exists()


@pytest.mark.parametrize(
  'change, complaint',
  [
    (lambda c: gzip.compress(c)[:-20], 'damaged'),
    (_drop_a_field, 'census-income.data.gz, line 5: expected 42 fields'),
    (_misspell_a_number, 'line 7: expected a finite number in age'),
    (_one_class, 'hold one class only'),
  ],
)
def test_mistakes_in_files(change, complaint, tmp_path, capsys):
  data_dir = _folder(tmp_path, change)
  folder = tmp_path / 'run'
  arguments = (
    '--dataset=census',
    f'--data_dir={data_dir}',
    f'--out_dir={folder}',
  )
  assert launch(*arguments, '--batch_size=8') == 1
  error = capsys.readouterr().err.strip()
  assert complaint in error and '\n' not in error
  assert not folder.exists()


def test_no_network(tmp_path, capsys, monkeypatch):
  import urllib.error
  import urllib.request

  def urlopen(url, timeout):
    raise urllib.error.URLError('Name or service not known')

  monkeypatch.setattr(urllib.request, 'urlopen', urlopen)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert launch('--dataset=census', f'--out_dir={tmp_path / "run"}') == 1
  error = capsys.readouterr().err
  assert 'cannot download https://' in error and '--data_dir=FOLDER' in error
  assert not (tmp_path / 'run').exists()


def test_ctrl_c_before_training(tmp_path, capsys, monkeypatch):
  def interrupt(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr('experiments.datasets.census.loading.read', interrupt)
  assert launch(*TINY, f'--out_dir={tmp_path / "run"}') == 130
  assert (
    capsys.readouterr().err
    == 'interrupted outside training: nothing new is kept\n'
  )
  assert not (tmp_path / 'run').exists()


class NobodyReads(io.StringIO):
  """Standard output after `| tee log` has exited."""

  def write(self, text):
    raise BrokenPipeError(32, 'Broken pipe')


@pytest.mark.slow
@pytest.mark.parametrize(
  'number, code, is_read',
  [(signal.SIGTERM, 143, True), (signal.SIGINT, 130, False)],
)
def test_a_signal_keeps_the_progress(
  number, code, is_read, finished, tmp_path, capsys
):
  """The same command resumes, with bit-identical results."""
  folder = tmp_path / 'run'
  command = (
    *TINY, '--num_seeds=2', f'--out_dir={folder}', '--save_every_steps=3'
  )  # fmt: skip
  end_epoch = progress.end_epoch

  watch, requests = interrupts.watch, []

  @contextlib.contextmanager
  def remember(on_again):
    with watch(on_again) as request:
      requests.append(request)
      yield request

  def end_an_epoch(*args):
    os.kill(os.getpid(), number)
    assert requests[0].event.wait(10)
    return end_epoch(*args)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(progress, 'end_epoch', end_an_epoch)
    if not is_read:
      patch.setattr(sys, 'stdout', NobodyReads())
    patch.setattr(interrupts, 'watch', remember)
    assert launch(*command) == code
  asked, stopped = capsys.readouterr().err.splitlines()
  assert asked.startswith('stopping once')
  assert stopped.startswith('stopped at step 4: the same command')
  assert {p.name for p in folder.iterdir()} == {'.lock', 'checkpoints'}
  assert launch(*command) == 0
  out = capsys.readouterr().out
  assert 'resuming from step 4' in out
  assert [line[:9] for line in out.splitlines() if line[:5] == 'epoch'] == [
    'epoch 2/2'
  ]
  for name in ('history.jsonl', 'curves.png'):
    assert (folder / name).read_bytes() == (finished / name).read_bytes()
  results = json.loads((folder / 'results.json').read_text())
  assert results['resumed_from_step'] == 4
  assert not (folder / 'checkpoints').exists()


def test_a_finished_run_is_shown(finished, capsys):
  before = {p: p.read_bytes() for p in finished.iterdir() if p.is_file()}
  command = (*TINY, '--num_seeds=2', f'--out_dir={finished}')
  # Settings that do not affect the results may differ.
  assert launch(*command, '--cpu_devices=1', '--save_every_steps=9') == 0
  out = capsys.readouterr().out
  assert 'finished' in out and 'test AUC' in out
  assert launch(*command, '--noresume') == 1
  assert 'already holds a run' in capsys.readouterr().err
  assert launch(*command, '--epochs=3', '--dropout=0.5') == 1
  error = capsys.readouterr().err
  assert 'differs in dropout (0.2, now 0.5), epochs (2, now 3): choose' in error
  assert {
    p: p.read_bytes() for p in finished.iterdir() if p.is_file()
  } == before


def test_silent_problems_are_reported(finished, tmp_path, capsys):
  folder = tmp_path / 'run'
  shutil.copytree(finished, folder)
  path = folder / 'results.json'
  command = (*TINY, '--num_seeds=2', f'--out_dir={folder}')
  assert launch(*command) == 0
  out = capsys.readouterr().out
  assert 'were missed' not in out and 'steps skipped' not in out
  results = json.loads(path.read_text())
  changes = {'solver_residual': [0.25, 0.0], 'skipped_steps': [0, 3]}
  path.write_text(json.dumps({**results, **changes}))
  assert launch(*command) == 0
  out = capsys.readouterr().out
  assert 'residuals of up to 0.25' in out
  assert 'skipped: [0, 3]' in out


@pytest.mark.slow
def test_resuming_with_other_data_is_refused(tmp_path, capsys):
  data_dir = tmp_path / 'files'
  data_dir.mkdir()
  sample = census_sample.make(1000)
  for name, part in (('data', sample.train), ('test', sample.test)):
    census_sample.write_text(part, data_dir / f'census-income.{name}')
  command = (
    '--dataset=census', f'--data_dir={data_dir}', f'--out_dir={tmp_path / "run"}',
    *ONE_TASK,
  )  # fmt: skip
  assert launch(*command) == 0
  test = data_dir / 'census-income.test'
  test.write_text(test.read_text().replace('race 0', 'race 1', 1))
  assert launch(*command) == 1
  assert (
    'differs in the content of census-income.test' in capsys.readouterr().err
  )
  assert launch(*command, '--overwrite') == 0
  table = tmp_path / 'run' / 'model' / 'meta' / 'metadata'
  content = table.read_bytes()
  table.write_bytes(content[:-1] + b'!')
  assert launch(*command) == 1
  assert 'has changed since it was saved: train it' in capsys.readouterr().err
  table.write_bytes(content)
  (tmp_path / 'run' / 'history.jsonl').unlink()
  assert launch(*command) == 1
  assert 'history.jsonl is missing' in capsys.readouterr().err
  results = tmp_path / 'run' / 'results.json'
  whole = json.loads(results.read_text())
  whole['config']['of_a_newer_release'] = 1
  results.write_text(json.dumps(whole))
  assert launch(*command) == 1
  assert 'is not what this release writes' in capsys.readouterr().err
  results.write_text('{')
  assert launch(*command, '--overwrite') == 1
  assert 'results.json was not written by a run' in capsys.readouterr().err
  (tmp_path / 'run' / 'results.json').unlink()
  (tmp_path / 'run' / 'results.json').mkdir()
  assert launch(*command, '--overwrite') == 0


def test_two_runs_on_one_folder(tmp_path, capsys):
  """The second is refused until the first ends, in whatever way."""
  folder = tmp_path / 'run'
  with lock.claim(folder):
    assert launch(*TINY, f'--out_dir={folder}') == 1
    error = capsys.readouterr().err
    assert f'another run (process {os.getpid()}) is writing to' in error
  assert not folder.exists()
  code = (
    'import os, pathlib; from experiments.launcher import lock\n'
    f'claim = lock.claim(pathlib.Path({str(folder)!r}))\n'
    'claim.__enter__(); os._exit(9)'
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=False)
  assert (folder / '.lock').exists()
  with lock.claim(folder):
    pass


@pytest.mark.slow
def test_a_disk_that_is_full(tmp_path, capsys, monkeypatch):
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(
    'shutil.disk_usage', lambda path: usage._replace(free=1000)
  )
  # Two seeds, as in `finished`, whose programs are in the cache.
  arguments = (*TINY, '--num_seeds=2', f'--out_dir={tmp_path / "run"}')
  assert launch(*arguments) == 1
  error = capsys.readouterr().err
  assert 'no space left: ' in error and len(error.splitlines()) == 1
  assert not (tmp_path / 'run' / 'results.json').exists()


@pytest.mark.slow
def test_a_run_that_is_killed(tmp_path, monkeypatch):
  """A short `python -m tests.stress_resume`; for signals see test_stops.py.

  All runs but the first find their programs in the cache.
  """
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  found = stress_resume.run(1, 0, 4, 0, tmp_path)
  assert found.total() == 1
  first_ended = (tmp_path / 'whole' / 'results.json').stat().st_mtime
  programs = list((tmp_path / 'cache' / 'lplmtl' / 'jax').glob('*-cache'))
  assert programs
  assert all(path.stat().st_mtime < first_ended for path in programs)


@pytest.mark.slow
def test_leaving_at_once(tmp_path, monkeypatch):
  """A second signal does not wait for the compilation to end."""
  monkeypatch.delenv('JAX_DISABLE_MOST_OPTIMIZATIONS')  # it should take long
  process = subprocess.Popen(
    [
      sys.executable, '-m', 'experiments.census', '--dataset=sample',
      '--compilation_cache=none', f'--out_dir={tmp_path / "run"}',
    ],
    cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  line = process.stdout.readline()
  assert line.startswith('data:')
  process.stdout.readline()
  time.sleep(1)
  process.send_signal(signal.SIGINT)
  assert process.stderr.readline().startswith('stopping')
  time.sleep(interrupts.AGAIN)
  process.send_signal(signal.SIGINT)
  assert process.wait(timeout=2) == 130
  process.stdout.close()
  process.stderr.close()


def test_out_dir_with_a_name_that_is_too_long(tmp_path, capsys):
  assert launch(*TINY, f'--out_dir={tmp_path / ("z" * 300)}') == 1
  error = capsys.readouterr().err
  assert 'cannot write to --out_dir' in error and len(error.splitlines()) == 1


def test_checkpoints_that_cannot_be_resumed(tmp_path, capsys):
  """The error comes before training, and says what to do."""
  folder = tmp_path / 'run'
  (folder / 'checkpoints' / 'step_0000000010').mkdir(parents=True)
  # Two seeds, as in `finished`, whose programs are in the cache.
  assert launch(*TINY, '--num_seeds=2', f'--out_dir={folder}') == 1
  error = capsys.readouterr().err
  assert 'is intact; the oldest: ' in error and '(--overwrite does)' in error
  shutil.rmtree(folder / 'checkpoints')
  (folder / 'checkpoints').write_text('')
  assert launch(*TINY, f'--out_dir={folder}') == 1
  assert 'not a folder' in capsys.readouterr().err


def test_out_dir_that_cannot_be_written(tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  assert launch(*TINY, f'--out_dir={tmp_path / "file" / "run"}') == 1
  assert 'cannot write to --out_dir' in capsys.readouterr().err


@pytest.mark.slow
def test_unseen_categories_are_reported(tmp_path, capsys):
  """They get the reserved id, and the run continues."""
  data_dir = tmp_path / 'files'
  data_dir.mkdir()
  sample = census_sample.make(1000)
  census_sample.write_text(sample.train, data_dir / 'census-income.data')
  census_sample.write_text(sample.test, data_dir / 'census-income.test')
  test = data_dir / 'census-income.test'
  test.write_text(test.read_text().replace('race 0', 'race new'))
  code = launch(
    '--dataset=census', f'--data_dir={data_dir}', f'--out_dir={tmp_path / "run"}',
    *ONE_TASK,
  )  # fmt: skip
  assert code == 0
  out = capsys.readouterr().out
  assert 'test rows hold values that no training row holds' in out
  assert 'race in ' in out
  assert 'neither the official ones nor census66k' in out
  results = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert results['data']['unseen']['test']['race'] > 200


def _command(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.census', *arguments],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip


@pytest.mark.slow
def test_quickstart_as_a_user_runs_it(tmp_path, monkeypatch):
  """In a separate process, with all compiler optimisations.

  The sample can be learned, but is not trivial.
  """
  monkeypatch.delenv('JAX_DISABLE_MOST_OPTIMIZATIONS')
  flag_file = ROOT / 'experiments' / 'flags' / 'quickstart.flags'
  found = _command(f'--flagfile={flag_file}', f'--out_dir={tmp_path / "run"}')
  assert found.returncode == 0, found.stderr
  assert found.stderr == ''
  results = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert results['seconds']['total'] < 120
  for task, optimum in results['data']['optimum'].items():
    if task in results['test']:
      auc = results['test'][task]['auc']['mean']
      assert 0.8 < auc < min(optimum, 0.95)


@pytest.mark.parametrize(
  'changes, expected',
  [
    ({'num_seeds': 3}, 3),
    ({'num_seeds': 9}, 4),
    ({'num_seeds': 1, 'batch_size': 256}, 2),
    ({'num_seeds': 1, 'batch_size': 4096}, 4),
    ({'num_seeds': 1, 'batch_size': 1001}, 1),
    ({'num_seeds': 1, 'batch_size': 32}, 1),
    ({'num_seeds': 1, 'cpu_devices': 7}, 7),
  ],
)
def test_host_devices_follow_the_work(changes, expected, monkeypatch):
  monkeypatch.setattr('os.sched_getaffinity', lambda _: {0, 1, 2, 3})
  found = {}
  monkeypatch.setattr('jax.config.update', found.__setitem__)
  jax_setup.apply(Config(compilation_cache='none', **changes))
  assert found == {'jax_num_cpu_devices': expected}
