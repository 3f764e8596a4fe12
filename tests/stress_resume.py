"""Kills and stops a training run again and again, and takes it up each time.

    python -m tests.stress_resume --kills=50 --stops=48

Every run is the launcher's own process on the generated sample, killed by
SIGKILL: every third at any moment, the others once they have kept something of
their own, half of these while they write a checkpoint. Or it is stopped, in one
of the ways of tests/stopping.py, when nothing has been kept but what the stop
itself keeps. In the end model, history and scores must be those of a run that
nobody disturbed, to the bit.
"""

import collections
import contextlib
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags, logging

from lplmtl import checkpoint
from tests import stopping

ROOT = pathlib.Path(__file__).parent.parent
SETTINGS = (
  '--dataset=sample', '--num_rows=20000', '--architecture=shared_bottom',
  '--bottom_widths=8', '--tower_widths=', '--num_bins=0', '--num_seeds=2',
  '--batch_size=16', '--cpu_devices=2',
)  # fmt: skip
OFTEN = ('--save_every_steps=300',)
NEVER = ('--save_every_steps=0', '--save_every_seconds=1e6')
LIMIT = 600.0  # seconds for one process


def command(folder, epochs, saves=OFTEN):
  """The launcher's; to be run in ROOT."""
  return [
    sys.executable, '-m', 'experiments.census', *SETTINGS, *saves,
    f'--epochs={epochs}', f'--out_dir={folder}',
  ]  # fmt: skip


def start(folder, epochs):
  """The launcher, in a process of its own."""
  return subprocess.Popen(
    command(folder, epochs), cwd=ROOT,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
  )  # fmt: skip


def finish(process):
  """Its output; it must end well."""
  output, _ = process.communicate(timeout=LIMIT)
  assert process.returncode == 0, output
  assert 'Traceback' not in output, output
  return output


def checkpoints(folder):
  """Whole checkpoints, and ones that are being written or broke off.

  Each as its name and inode, as names come again.
  """
  whole, parts = set(), set()
  for path in (folder / 'checkpoints').glob('*'):
    with contextlib.suppress(FileNotFoundError):
      found = parts if path.name.startswith('.') else whole
      found.add((path.name, path.stat().st_ino))
  return whole, parts


def kill(folder, epochs, when, rng):
  """Starts a run and kills it.

  Args:
    folder: its own.
    epochs: its length.
    when: `any time`, also before it trains; `kept`, some time after a
      checkpoint of its own; `saving`, while it writes one.
    rng: for the moment.

  Returns:
    What it was doing: `starting`, `training` or `saving`.
  """
  before, old = checkpoints(folder)
  process = start(folder, epochs)
  began = time.monotonic()

  def wait_for(condition):
    while process.poll() is None and not condition():
      assert time.monotonic() - began < LIMIT, 'nothing was kept'
      time.sleep(0.0005)

  if when == 'any time':
    time.sleep(rng.uniform(0, 6))
  else:
    wait_for(lambda: checkpoints(folder)[0] - before)
    time.sleep(rng.uniform(0, 1))
  if when == 'saving':
    wait_for(lambda: checkpoints(folder)[1] - old)
    time.sleep(rng.uniform(0, 0.03))
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL, 'finished: more epochs, please'
  whole, parts = checkpoints(folder)
  if parts - old:
    return 'saving'
  return 'training' if whole - before else 'starting'


def stop(folder, epochs, kind, rng):
  """Starts a run and stops it.

  Returns:
    `kind`, or `lost (kind)`: nothing was kept, or the exit code is another.
  """
  before, _ = checkpoints(folder)
  how, expected = stopping.KINDS[kind]
  code = how(
    command(folder, epochs, NEVER),
    lambda: time.sleep(rng.uniform(0, 0.7)),
    folder.with_suffix('.log'),
  )
  assert code != 0, 'finished: more epochs, please'
  whole, _ = checkpoints(folder)
  is_kept = code == expected and whole - before
  return kind if is_kept else f'lost ({kind}, exit code {code})'


def outcome(folder):
  """All that a finished run has found out."""
  results = json.loads((folder / 'results.json').read_text())
  _, params, _ = checkpoint.load(folder / 'model')
  names = ('test', 'validation', 'best_epoch', 'loss_weights')
  return (
    {name: results[name] for name in names},
    (folder / 'history.jsonl').read_text(),
    params,
  )


def run(kills, stops, epochs, seed, folder):
  """Returns how kills and stops went; fails if the end is another one."""
  import jax

  rng = np.random.default_rng(seed)
  finish(start(folder / 'whole', epochs))
  found = collections.Counter()
  for number in range(kills):
    when = ('saving', 'any time', 'kept')[number % 3]
    found[kill(folder / 'killed', epochs, when, rng)] += 1
  for number in range(stops):
    kind = list(stopping.KINDS)[number % len(stopping.KINDS)]
    found[stop(folder / 'killed', epochs, kind, rng)] += 1
  # To its end, though nobody reads what it prints.
  assert stopping.unread(command(folder / 'killed', epochs)) == 0
  *whole, params = outcome(folder / 'whole')
  *killed, own = outcome(folder / 'killed')
  assert killed == whole
  jax.tree.map(np.testing.assert_array_equal, own, params)
  assert not (folder / 'killed' / 'checkpoints').exists()
  return found


def main(_):
  """Prints how often it was killed and stopped, and where."""
  logging.set_verbosity(logging.WARNING)  # Orbax tells its life at INFO
  for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:  # as in the background
      signal.signal(number, signal.SIG_DFL)
  with tempfile.TemporaryDirectory() as folder:
    numbers = KILLS.value, STOPS.value, EPOCHS.value, SEED.value
    found = run(*numbers, pathlib.Path(folder))
  lost = sum(n for what, n in found.items() if what.startswith('lost'))
  print(f'{dict(found)}; {lost} lost, every bit the same')
  sys.exit(lost > 0)


if __name__ == '__main__':
  KILLS = flags.DEFINE_integer('kills', 50, 'How often to kill.', lower_bound=0)
  STOPS = flags.DEFINE_integer('stops', 48, 'How often to stop.', lower_bound=0)
  EPOCHS = flags.DEFINE_integer('epochs', 300, 'Length of the run.')
  SEED = flags.DEFINE_integer('seed', 0, 'Seed of the moments.')
  app.run(main)
