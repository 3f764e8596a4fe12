"""Kills a training run again and again, and takes it up each time.

    python -m tests.stress_resume --kills=50

Every run is the launcher's own process on the generated sample, killed by
SIGKILL: every third at any moment, the others once they have kept something of
their own, half of these while they write a checkpoint. In the end model, history and scores
must be those of a run that nobody disturbed, to the bit.
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

ROOT = pathlib.Path(__file__).parent.parent
SETTINGS = (
  '--dataset=sample', '--num_rows=20000', '--expert_widths=8,8',
  '--tower_widths=4', '--num_bins=8', '--num_seeds=2',
  '--batch_size=16', '--save_every_steps=300', '--cpu_devices=2',
)  # fmt: skip
LIMIT = 600.0  # seconds for one process


def start(folder, epochs):
  """The launcher, in a process of its own."""
  return subprocess.Popen(
    [
      sys.executable, '-m', 'experiments.census', *SETTINGS,
      f'--epochs={epochs}', f'--out_dir={folder}',
    ],
    cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
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


def run(kills, epochs, seed, folder):
  """Returns how the kills went; fails if anything is lost."""
  import jax

  rng = np.random.default_rng(seed)
  finish(start(folder / 'whole', epochs))
  found = collections.Counter()
  for number in range(kills):
    when = ('saving', 'any time', 'kept')[number % 3]
    found[kill(folder / 'killed', epochs, when, rng)] += 1
  finish(start(folder / 'killed', epochs))
  *whole, params = outcome(folder / 'whole')
  *killed, own = outcome(folder / 'killed')
  assert killed == whole
  jax.tree.map(np.testing.assert_array_equal, own, params)
  assert not (folder / 'killed' / 'checkpoints').exists()
  return found


def main(_):
  """Prints how often it was killed, and where."""
  logging.set_verbosity(logging.WARNING)  # Orbax tells its life at INFO
  with tempfile.TemporaryDirectory() as folder:
    found = run(KILLS.value, EPOCHS.value, SEED.value, pathlib.Path(folder))
  print(f'{dict(found)}; nothing lost, every bit the same')


if __name__ == '__main__':
  KILLS = flags.DEFINE_integer('kills', 50, 'How often to kill.', lower_bound=1)
  EPOCHS = flags.DEFINE_integer('epochs', 300, 'Length of the run.')
  SEED = flags.DEFINE_integer('seed', 0, 'Seed of the moments.')
  app.run(main)
