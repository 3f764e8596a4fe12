"""Damaged checkpoints, by the thousand.

    python -m tests.fuzz_checkpoints --count=1000

Files of the newest checkpoint of two, or of both, are cut short, changed,
swapped, removed or added to. Each must end in exactly what was kept, the newest
that is whole, or in one line of complaint; within a minute, or the process
dies.
"""

import collections
import faulthandler
import pathlib
import shutil
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging

import lplmtl
from lplmtl import balancing, progress, resume, steps, storage, tasks
from tests import contracts

TASKS = (tasks.binary('zebra'), tasks.regression('apple'))
MODEL = lplmtl.SharedBottom(
  TASKS, bottom=lplmtl.MLP((6,), dropout_rate=0.1), tower=lplmtl.MLP(())
)
KEYS = jax.vmap(jax.random.key)(jnp.arange(3))
RUN = {'rate': 0.1, 'data': {'train': 'a'}}
KINDS = ('truncate', 'flip', 'delete', 'append', 'swap', 'folder', 'zero')


def make_data(rows, seed):
  """Rows of two tasks."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(rows, 4)).astype(np.float32)
  hidden = x[:, 0] - x[:, 1] + rng.normal(size=rows)
  labels = {'zebra': (hidden > 0).astype(np.int32), 'apple': hidden}
  return lplmtl.Batch(x, jax.tree.map(np.float32, labels))


def fit(keeper=None, **changes):
  """A short run, two of whose seeds stop early."""
  arguments = {
    'key': KEYS,
    'model': MODEL,
    'tasks': TASKS,
    'optimizer': optax.adam(0.1),
    'balancer': balancing.uncertainty(is_regression=(False, True)),
    'data': make_data(160, 0),
    'validation': make_data(60, 1),
    'batch_size': 16,
    'num_epochs': 7,
    'patience': 1,
    **changes,
  }
  return lplmtl.fit(**arguments, keeper=keeper)


def keep(folder):
  """Makes a folder with two checkpoints, of steps 23 and 26."""
  with contracts.Interrupting(folder, 10, every_steps=3, run=RUN) as keeper:
    try:
      fit(keeper)
    except resume.Interrupted:
      assert keeper.steps() == [23, 26]


def like():
  """What `restore` is asked for: the shapes of that run."""
  make = jax.vmap(
    lambda key: steps.init_state(
      key,
      MODEL,
      TASKS,
      optax.adam(0.1),
      balancing.uncertainty(is_regression=(False, True)),
      make_data(160, 0).features,
    )
  )
  return progress.start(make(KEYS), 3, 10, 2)


def damage(folder, kind, rng):
  """Spoils one file of a checkpoint; returns which."""
  files = sorted(p for p in folder.rglob('*') if p.is_file())
  file = files[rng.integers(len(files))]
  content = bytearray(file.read_bytes())
  if kind == 'delete' or (not content and kind != 'append'):
    file.unlink()
  elif kind == 'truncate':
    file.write_bytes(content[: rng.integers(len(content))])
  elif kind == 'flip':
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    file.write_bytes(content)
  elif kind == 'append':
    file.write_bytes(content + rng.bytes(rng.integers(1, 100)))
  elif kind == 'zero':  # what a file system may leave after a power failure
    file.write_bytes(bytes(len(content)))
  elif kind == 'swap':
    other = files[rng.integers(len(files))]
    if other.read_bytes() == bytes(content):
      file.unlink()
    else:
      file.write_bytes(other.read_bytes())
  else:
    shutil.rmtree(file.parent)
  return file


def restore(folder, shapes):
  """`(progress, notes)`."""
  notes = []
  keeper = resume.Checkpoints(folder, run=RUN, on_note=notes.append)
  return keeper.restore(shapes), notes


def check(kept, folder, shapes, expected, rng):
  """One damaged copy; what came of it."""
  shutil.rmtree(folder, ignore_errors=True)
  shutil.copytree(kept, folder)
  both = rng.random() < 0.3
  for step in (23, 26) if both else (26,):
    damage(folder / f'step_{step:010}', rng.choice(KINDS), rng)
  try:
    found, notes = restore(folder, shapes)
  except storage.CheckpointError as error:
    assert both, error
    assert '\n' not in str(error), error
    return 'none is whole'
  left = len(list(folder.iterdir()))
  if found is None:
    assert both and not left
    return 'nothing is left'
  assert not both
  assert ('passed over' in notes[0]) == (left == 2), notes
  assert not any('\n' in note for note in notes), notes
  contracts.assert_trees_equal(_data(found), expected)
  return 'the one before'


def _data(found):
  return resume.to_data(found)


def run(count, seed, folder):
  """So many cases; counts what came of them."""
  keep(folder / 'kept')
  shapes = like()
  shutil.copytree(folder / 'kept', folder / 'old')
  shutil.rmtree(folder / 'old' / 'step_0000000026')
  expected = _data(restore(folder / 'old', shapes)[0])
  found = collections.Counter()
  for number in range(count):
    rng = np.random.default_rng([seed, number])
    faulthandler.dump_traceback_later(60, exit=True)
    try:
      case = check(folder / 'kept', folder / 'run', shapes, expected, rng)
    except Exception as error:
      raise AssertionError(f'seed {seed}, case {number}') from error
    finally:
      faulthandler.cancel_dump_traceback_later()
    found[case] += 1
  return found


def main(_):
  """Prints how the cases ended."""
  logging.set_verbosity(logging.WARNING)  # Orbax tells its life at INFO
  with tempfile.TemporaryDirectory() as folder:
    found = run(COUNT.value, SEED.value, pathlib.Path(folder))
  print(f'{COUNT.value} cases, none of them a failure: {dict(found)}')


if __name__ == '__main__':
  COUNT = flags.DEFINE_integer('count', 1000, 'Cases.', lower_bound=1)
  SEED = flags.DEFINE_integer('seed', 0, 'Seed of the cases.')
  app.run(main)
