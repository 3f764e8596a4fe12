"""Trains in several real processes, and kills one of them again and again.

    python -m tests.stress_hosts --kills=10

First PLE and MMoE under three balancers, several seeds and rows of a source, in
one, two and four processes: the losses of 50 steps must agree to 1e-5. Then a
run of the launcher in four or two processes, of which one is killed by SIGKILL
at any moment: the others must end within 30 seconds with a line that says how to
go on, the next start must resume from the last save, and the scores in the end
must be those of a run that nobody disturbed, within the noise of seeds.
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

ROOT = pathlib.Path(__file__).parent.parent
CASES = (
  *(f'{m} {b}' for m in ('ple', 'mmoe') for b in ('uncertainty', 'mgda', 'moco')),
  'mmoe uncertainty seeds', 'mmoe mgda source', 'ple moco source seeds',
  'mmoe uncertainty source late',
)  # fmt: skip
SETTINGS = (
  '--dataset=sample', '--num_rows=20000', '--expert_widths=8',
  '--tower_widths=4', '--num_bins=8', '--batch_size=64', '--cpu_devices=1',
  '--save_every_steps=100',
)  # fmt: skip
SEEDS = 5
LIMIT = 600.0  # seconds for one process


def free_port():
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


def trained(cases, count):
  """What a number of processes find for each case."""
  port = free_port()
  processes = [
    subprocess.Popen(
      [sys.executable, '-m', 'tests.hosts_check', ','.join(cases), '',
       str(port), str(count), str(number), '1'],
      cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    for number in range(count)
  ]  # fmt: skip
  (output, errors), *_ = (p.communicate(timeout=LIMIT) for p in processes)
  assert all(process.returncode == 0 for process in processes), errors
  return json.loads(output.splitlines()[-1])


def compare(cases):
  """The largest difference between numbers of processes, over all cases."""
  one, largest = trained(cases, 1), 0.0
  for count in (2, 4):
    many = trained(cases, count)
    for case in cases:
      assert many[case]['best_epoch'] == one[case]['best_epoch'], case
      gaps = np.subtract(many[case]['losses'], one[case]['losses'])
      gap = float(np.abs(gaps).max())
      print(
        f'{case}: {count} processes differ from one by {gap:.1e}', flush=True
      )
      assert gap < 1e-5
      largest = max(largest, gap)
  return largest


def start(folder, epochs, *more):
  """The launcher, in a process of its own; its output goes to a file."""
  log = folder.with_suffix('.log')
  with log.open('w') as file:
    process = subprocess.Popen(
      [sys.executable, '-m', 'experiments.census', *SETTINGS, *more,
       f'--epochs={epochs}', f'--out_dir={folder}'],
      cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
    )  # fmt: skip
  return process, log


def children(process):
  found = subprocess.run(
    ['ps', '--ppid', str(process.pid), '-o', 'pid='],
    capture_output=True, text=True, check=False,
  )  # fmt: skip
  return sorted(map(int, found.stdout.split()))


def newest(folder):
  steps = [int(path.name[5:]) for path in folder.glob('checkpoints/step_*')]
  return max(steps, default=0)


def kill(folder, epochs, count, at_once, rng):
  """Starts a run, kills one of its processes; returns where it was, and how long
  the others took to end.
  """
  process, log = start(folder, epochs, f'--local_processes={count}')
  began, saved = time.monotonic(), newest(folder)
  while len(children(process)) < count:
    assert process.poll() is None, log.read_text()
  if not at_once:
    while 'epoch' not in log.read_text():
      assert process.poll() is None, log.read_text()
      assert time.monotonic() - began < LIMIT
      time.sleep(0.01)
  time.sleep(rng.uniform(0, 8 if at_once else 3))
  pids = children(process)
  victim = int(rng.integers(count))
  os.kill(pids[victim], signal.SIGKILL)
  killed = time.monotonic()
  code = process.wait(LIMIT)
  seconds, text = time.monotonic() - killed, log.read_text()
  assert code == 1, f'finished, or {code}: {text[-500:]}'
  assert f'process {victim} has ended (signal 9)' in text, text
  assert 'resumes from the last save' in text
  assert not any(is_running(pid) for pid in pids)
  assert seconds < 30, seconds
  resumed = re.search('resuming from step ([0-9,]+)', text)
  if resumed:  # nothing is lost but what was done since the last save
    assert int(resumed[1].replace(',', '')) == saved
  return 'training' if 'epoch' in text else 'starting', seconds


def is_running(pid):
  try:
    status = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return False
  return status.rpartition(')')[2].split()[0] != 'Z'


def finish(folder, epochs, *more):
  """The test AUC of each task and seed, once a run has ended well."""
  process, log = start(folder, epochs, *more)
  assert process.wait(LIMIT) == 0, log.read_text()
  results = json.loads((folder / 'results.json').read_text())
  return {
    task: np.array(metrics['auc']['per_seed'])
    for task, metrics in results['test'].items()
  }, log.read_text()


def run(kills, epochs, seed, folder):
  """Kills a run, and compares its end with that of others."""
  rng = np.random.default_rng(seed)
  whole, _ = finish(folder / 'whole', epochs, f'--num_seeds={SEEDS}')
  seconds = []
  for number in range(kills):
    count = 4 if number % 2 == 0 else 2
    where, took = kill(folder / 'killed', epochs, count, number % 3 == 2, rng)
    seconds.append(took)
    print(
      f'killed one of {count} while {where}: the others ended in {took:.1f} s; '
      f'{newest(folder / "killed"):,} steps are saved'
    )
  saved = newest(folder / 'killed')
  killed, text = finish(folder / 'killed', epochs, '--local_processes=2')
  assert f'resuming from step {saved:,}' in text, text
  for task, scores in whole.items():
    noise = scores.std(ddof=1)
    gap = killed[task][0] - scores[0]
    print(f'{task}: test AUC {gap:+.5f}, of noise {noise:.5f} between seeds')
    assert abs(gap) < 2 * noise
  return max(seconds, default=0.0)


def main(_):
  """Prints what was found; fails if anything is lost or differs."""
  if CASES_OF.value:
    gap = compare(CASES_OF.value)
    print(f'1, 2 and 4 processes agree to {gap:.1e}')
  if not KILLS.value:
    return
  with tempfile.TemporaryDirectory() as folder:
    longest = run(KILLS.value, EPOCHS.value, SEED.value, pathlib.Path(folder))
  print(f'{KILLS.value} kills: all ended within {longest:.1f} s, nothing lost')


if __name__ == '__main__':
  KILLS = flags.DEFINE_integer(
    'kills', 10, 'How often to kill; 0 only compares.', lower_bound=0
  )
  EPOCHS = flags.DEFINE_integer('epochs', 60, 'Length of the run.')
  SEED = flags.DEFINE_integer('seed', 0, 'Seed of the moments.')
  CASES_OF = flags.DEFINE_list('cases', [*CASES], 'What to compare first.')
  app.run(main)
