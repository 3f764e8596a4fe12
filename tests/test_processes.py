"""Several processes of one command: flags, children, and how they end."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from absl import flags

import lplmtl
from experiments import census, tabular
from experiments.launcher import build, children, processes, together
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import data
from lplmtl.training import hosts
from tests import launching

ROOT = pathlib.Path(__file__).parent.parent


def parsed(*arguments):
  values = flags.FlagValues()
  for name in ('coordinator', 'num_processes', 'process_id', 'local_processes'):
    values[name] = flags.FLAGS[name]
  values.unparse_flags()
  for name in values:
    values[name].unparse()
  values(['command', *arguments])
  return values


@pytest.fixture(autouse=True)
def restored():
  yield
  parsed()


def test_places():
  assert processes.from_flags(parsed()) is None
  place = processes.from_flags(
    parsed('--coordinator=a:1', '--num_processes=3', '--process_id=2')
  )
  assert place == processes.Place('a:1', 3, 2)
  local = processes.from_flags(parsed('--local_processes=2'))
  assert local.is_local and local.num_processes == 2
  assert local.coordinator.startswith('127.0.0.1:')


@pytest.mark.parametrize(
  'arguments, complaint',
  [
    (['--coordinator=a:1'], '--num_processes is missing'),
    (['--num_processes=2', '--process_id=0'], '--coordinator is missing'),
    (
      ['--coordinator=a:1', '--num_processes=2', '--process_id=2'],
      '--process_id=2 must be below --num_processes=2',
    ),
    (
      ['--coordinator=a', '--num_processes=2', '--process_id=0'],
      '--coordinator=a must be host:port',
    ),
    (['--local_processes=2', '--process_id=1'], 'leave out --process_id'),
  ],
)
def test_flags_that_do_not_fit(arguments, complaint):
  with pytest.raises(InputError, match=complaint):
    processes.from_flags(parsed(*arguments))


def test_scoring_takes_one_process():
  with pytest.raises(InputError, match='scoring takes one process'):
    processes.refuse(parsed('--local_processes=2'), 'scoring')
  processes.refuse(parsed(), 'scoring')


def test_a_notebook_cannot_fork():
  with pytest.raises(InputError, match='a notebook'):
    children.split(processes.Place('127.0.0.1:1', 2, 0, True))


TASK = {
  'SLURM_JOB_ID': '1', 'SLURM_STEP_NODELIST': 'a[1-2]', 'SLURM_PROCID': '1',
  'SLURM_LOCALID': '0', 'SLURM_STEP_NUM_TASKS': '2',
}  # fmt: skip


@pytest.mark.parametrize(
  'environment, expected',
  [
    (TASK, True),
    ({**TASK, 'SLURM_STEP_NUM_TASKS': '1'}, False),
    # In a script of sbatch, outside srun, no step has these tasks.
    ({'SLURM_JOB_ID': '1', 'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'}, False),
    ({}, False),
  ],
)
def test_slurm(environment, expected):
  assert processes._in_slurm(environment) == expected


def test_hosts_of_a_tpu_pod():
  assert processes._in_tpu_pod({'TPU_WORKER_HOSTNAMES': 'a,b'})
  assert not processes._in_tpu_pod({'TPU_WORKER_HOSTNAMES': 'localhost'})
  assert not processes._in_tpu_pod({})  # no TPU here


# What a run does, without JAX.
PROGRAM = """
import os, signal, sys, time
from experiments.launcher import children, frame, interrupts, processes
children._PATIENCE = 0.5
def leave(code, text=''):
  print(text, file=sys.stderr)
  children.end(code)
def main(argv):
  place = children.split(processes.Place('a:1', COUNT, 0, True))
  own = place.process_id
  os.write(1, b'chatter of a library\\n')
  print(f'output of {own}', flush=True)
  WORK
frame.run(main)
"""


def program(work, count=3):
  return [
    sys.executable, '-c',
    PROGRAM.replace('WORK', work).replace('COUNT', str(count)),
  ]  # fmt: skip


def run(work, count=3):
  found = subprocess.run(
    program(work, count), cwd=ROOT, capture_output=True, text=True, check=False,
    timeout=60,
  )  # fmt: skip
  assert found.stdout in ('output of 0\n', ''), found.stdout
  return found.returncode, found.stderr


def test_only_the_first_process_is_heard():
  code, errors = run('print("an aside", file=sys.stderr)')
  assert (code, errors) == (0, 'an aside\n')


@pytest.mark.parametrize('number', [0, 2])
def test_a_process_that_is_killed_ends_all(number):
  code, errors = run(
    f'os.kill(os.getpid(), 9) if own == {number} else leave(children.LOST)'
  )
  assert code == 1
  assert f'error: process {number} has ended (signal 9)' in errors
  assert 'resumes from the last save' in errors


def test_a_process_that_aborts_shows_what_it_said():
  code, errors = run('os.abort() if own == 1 else leave(children.LOST)')
  assert code == 1 and 'process 1 has ended (signal 6)' in errors
  assert 'process 1: chatter of a library' in errors


def test_processes_that_do_not_end_are_ended():
  code, errors = run('leave(1, "error: x") if own == 0 else time.sleep(60)')
  assert (code, errors) == (1, 'error: x\n')


def test_an_error_that_only_another_process_knows_is_shown():
  code, errors = run(
    'leave(7, "error: x") if own == 2 else leave(children.LOST)'
  )
  assert code == 7 and 'process 2: error: x' in errors
  assert 'resumes' not in errors


def test_an_error_that_all_know_is_shown_once():
  code, errors = run('leave(1, "error: process 1: x")')
  assert (code, errors) == (1, 'error: process 1: x\n')


def started(work, count=2):
  process = subprocess.Popen(
    program(f'print("ready", flush=True)\n  {work}', count), cwd=ROOT,
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  while process.stdout.readline() != 'ready\n':
    assert process.poll() is None
  return process


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_all_processes(number):
  work = (
    'with interrupts.watch(interrupts.leave) as request:\n'
    '    request.event.wait(30) and leave(request.exit_code)'
  )
  process = started(work)
  time.sleep(0.5)  # for the others
  process.send_signal(number)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 128 + number
  assert errors.count('stopping once') == 1


def test_children_end_with_their_parent(tmp_path):
  work = (
    f'open({str(tmp_path)!r} + f"/{{own}}", "w").write(str(os.getpid()))\n'
    '  time.sleep(60)'
  )
  process = started(work)
  while len(list(tmp_path.iterdir())) < 2:
    time.sleep(0.01)
  time.sleep(0.1)
  pids = [int(path.read_text()) for path in tmp_path.iterdir()]
  process.kill()
  process.communicate()
  for pid in pids:
    for _ in range(500):
      if not _is_running(pid):
        break
      time.sleep(0.01)
    else:
      pytest.fail(f'{pid} is still running')


def _is_running(pid):
  try:
    status = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return False
  return status.rpartition(')')[2].split()[0] != 'Z'


SIZES = (
  '--architecture=shared_bottom', '--num_bins=0', '--bottom_widths=4',
  '--tower_widths=4', '--embed_dim=2', '--batch_size=32',
)  # fmt: skip


@pytest.mark.slow
def test_a_shard_that_has_changed_is_named_by_all(tmp_path):
  """Process 1 alone reads it; process 0, whose word is printed, tells of it."""
  lines = (f'{i % 7},{("no", "yes", "yes")[i % 3]}' for i in range(400))
  table, run = tmp_path / 'table.csv', tmp_path / 'run'
  table.write_text('\n'.join(['size,paid', *lines]))
  process = subprocess.Popen(
    [sys.executable, '-m', 'experiments.tabular', f'--data={table}',
     f'--out_dir={run}', '--targets=paid', '--stream=always', '--num_seeds=1',
     '--epochs=100000', '--patience=0', '--local_processes=2', *SIZES],
    cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  shown = iter(process.stdout.readline, '')
  assert any(line.startswith('epoch') for line in shown)
  path = run / 'rows' / 'train' / '007_0000.rows'
  content = path.read_bytes()
  path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  _, errors = process.communicate(timeout=120)
  assert process.returncode == 1
  said = f'error: process 1: {path} has changed since it was written: '
  assert errors.startswith(said) and errors.count('\n') == 1, errors


def test_nothing_is_written_if_processes_disagree(
  tmp_path, monkeypatch, capsys
):
  compared = {}

  def compare(facts):
    compared.update(facts)
    raise hosts.HostsError('process 1 differs from the first one in data')

  monkeypatch.setattr(together, 'compare', compare)
  table = tmp_path / 'table.csv'
  lines = (f'{i % 7},{("no", "yes", "yes")[i % 3]}' for i in range(400))
  table.write_text('\n'.join(['size,paid', *lines]))
  code = launching.launch(
    tabular.main, f'--data={table}', '--targets=paid', *SIZES,
    f'--out_dir={tmp_path / "run"}',
  )  # fmt: skip
  assert code == 1 and 'differs from the first' in capsys.readouterr().err
  assert compared['data'].startswith('400 rows, SHA-256 ')
  assert [path.name for path in tmp_path.iterdir()] == ['table.csv']


def test_local_processes_are_checked_before_they_start(monkeypatch, capsys):
  four, config = processes.Place('a:1', 4, 0, True), Config()
  with pytest.raises(InputError, match='=30 must be a multiple of 4'):
    processes.check(four, dataclasses.replace(config, batch_size=30))
  many = dataclasses.replace(config, batch_size=2**20)
  processes.check(four._replace(num_processes=2**20), many)
  assert f'{2**20} processes take turns' in capsys.readouterr().out
  monkeypatch.delattr(os, 'sched_getaffinity', raising=False)  # as on macOS
  monkeypatch.setattr(os, 'cpu_count', lambda: 4)
  processes.check(four, many)
  assert not capsys.readouterr().out


def test_a_process_that_waits_says_so(monkeypatch, capsys):
  monkeypatch.setattr(together, '_SILENCE', 0.0)

  def initialize(*_):
    time.sleep(0.2)
    raise hosts.HostsError('process 1 of 2 did not report')

  monkeypatch.setattr(hosts, 'initialize', initialize)
  with pytest.raises(InputError, match='did not report'):
    together.connect(processes.Place('a:1', 2, 0), Config())
  assert 'waiting for all 2 processes to start' in capsys.readouterr().out


def test_fewer_rows_than_processes_are_refused(monkeypatch):
  config, shards = Config(), data.Sharded(lplmtl.Batch(np.zeros((9, 1)), {}))
  build.check_rows(config, shards, 9)
  with pytest.raises(InputError, match='^7 training rows .*, which takes 8: '):
    build.check_rows(config, shards, 7)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'device_count', lambda: 12)
  with pytest.raises(
    InputError, match='^9 training .* 12 devices of 2 processes: start fewer'
  ):
    build.check_rows(config, shards, 9)
  build.check_rows(dataclasses.replace(config, num_seeds=2), shards, 9)


def test_shards_that_devices_do_not_divide(monkeypatch):
  config, rows = Config(), lplmtl.Batch(np.zeros((48, 1)), {})
  shards = data.Sharded(rows)
  build.check_shares(config, shards)  # alone
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'device_count', lambda: 16)
  build.check_shares(dataclasses.replace(config, batch_size=32), rows)
  build.check_shares(dataclasses.replace(config, num_seeds=2), shards)
  with pytest.raises(InputError, match='the 8 shards .* more num_shards'):
    build.check_shares(config, shards)
  with pytest.raises(InputError, match='divide --batch_size=40 .*change one'):
    build.check_shares(dataclasses.replace(config, batch_size=40), rows)


def test_batches_of_small_tables_are_shared_evenly(monkeypatch):
  config = dataclasses.replace(Config(), data='rows.csv')
  assert build.fit_batch_size(config, 151).batch_size == 151  # alone
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'device_count', lambda: 4)
  assert build.fit_batch_size(config, 151).batch_size == 148
  assert build.fit_batch_size(config, 300) == config
  seeds = dataclasses.replace(config, num_seeds=2)
  assert build.fit_batch_size(seeds, 151).batch_size == 151


SETTINGS = (
  '--dataset=sample', '--num_rows=400', *SIZES, '--epochs=9',
  '--save_every_steps=4', '--tasks=income',
)  # fmt: skip


@pytest.mark.slow
def test_each_process_has_the_devices_that_were_asked_for(tmp_path):
  found = subprocess.run(
    [sys.executable, '-m', 'experiments.census', *SETTINGS, '--batch_size=30',
     '--cpu_devices=2', '--local_processes=2', f'--out_dir={tmp_path / "run"}'],
    cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
  )  # fmt: skip
  assert found.returncode == 1
  said = 'the 4 devices of 2 processes must divide --batch_size=30'
  assert said in found.stderr, found.stderr


@pytest.mark.slow
def test_two_processes_stop_and_one_resumes(tmp_path):
  """SIGTERM to process 1 ends both; tests.stress_hosts compares the ends."""
  folder = tmp_path / 'run'
  command = [
    sys.executable, '-m', 'experiments.census', *SETTINGS,
    f'--out_dir={folder}', '--local_processes=2',
  ]  # fmt: skip
  process = subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  lines = iter(process.stdout.readline, '')
  assert any(line.startswith('epoch') for line in lines)
  found = subprocess.run(
    ['ps', '--ppid', str(process.pid), '-o', 'pid='],
    capture_output=True, text=True, check=True,
  )  # fmt: skip
  _, second = sorted(map(int, found.stdout.split()))
  os.kill(second, signal.SIGTERM)
  _, errors = process.communicate(timeout=300)
  assert process.returncode == 143, errors
  assert 'the same command resumes from there' in errors
  assert launching.launch(census.main, *SETTINGS, f'--out_dir={folder}') == 0
  results = json.loads((folder / 'results.json').read_text())
  history = (folder / 'history.jsonl').read_text().splitlines()
  assert results['resumed_from_step'] > 0 and len(history) == 9
  assert not (folder / 'checkpoints').exists()
