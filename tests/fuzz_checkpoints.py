"""Damaged, planted and forged saves, by the thousand.

    python -m tests.fuzz_checkpoints --count=1000

Files of the newest checkpoint of two, or of both, are cut short, changed,
swapped, removed or added to; links, FIFOs, devices, folders and huge files take
their place. Each restore must return exactly what was saved, from the newest
intact checkpoint, or fail with one line. Others are forged: damaged, or with other
metadata, but with correct sizes and checksums; so are saved models. These fail
with one line, or return what was forged. All within a minute, or the process dies.
"""

import collections
import faulthandler
import functools
import json
import os
import pathlib
import shutil
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging

import lplmtl
from lplmtl import balancing, checkpoint, resume, tables, tasks
from lplmtl.storage import folders, pytrees
from lplmtl.training import progress, steps
from tests import contracts

TASKS = (tasks.binary('zebra'), tasks.regression('apple'))
MODEL = lplmtl.SharedBottom(
  TASKS, bottom=lplmtl.MLP((6,), dropout_rate=0.1), tower=lplmtl.MLP(())
)
KEYS = jax.vmap(jax.random.key)(jnp.arange(3))
RUN = {'rate': 0.1, 'data': {'train': 'a'}}
DAMAGE = ('truncate', 'flip', 'delete', 'append', 'swap', 'folder', 'zero')
PLANTED = ('link', 'whole link', 'fifo', 'device', 'no file', 'huge')
FORGED = ('forged bytes', 'forged metadata')
# Values that forged metadata may hold anywhere.
VALUES = (
  None, True, -1, 0, 1, 7, 10**30, 1.5, float('nan'), float('inf'), '', 'x',
  '\ud800', [], {}, [[]], [1, [2]], [None], {'class': 'jax.nn:relu'},
  {'class': ['x'], 'fields': {}}, {'function': 'os:system'}, {'dict': 3},
  {'dtype': 'object'}, {'class': 'lplmtl.experts:MLP'}, {'a': {'b': 'c'}},
  functools.reduce(lambda inner, _: [inner], range(3000), 0),
)  # fmt: skip


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
    'optimizer': optax.adam(0.1),
    'balancer': balancing.uncertainty(),
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
      balancing.uncertainty(),
      make_data(160, 0).features,
    )
  )
  return progress.start(make(KEYS), 3, 10, 2)


def damage(folder, kind, rng):
  """Spoils one file of a folder."""
  files = sorted(p for p in folder.rglob('*') if p.is_file())
  if kind == 'forged bytes':  # what is summed up
    files = [p for p in files if p.name not in ('LPLMTL', 'SHA256SUMS')]
  file = files[rng.integers(len(files))]
  if kind == 'forged metadata':
    forge(folder / 'meta' / 'metadata', rng)
  elif kind in PLANTED:
    plant(file, kind, rng)
  else:
    spoil(file, files, rng.choice(DAMAGE) if kind in FORGED else kind, rng)
  if kind in FORGED and folder.exists():
    for name in ('LPLMTL', 'SHA256SUMS'):
      (folder / name).unlink(missing_ok=True)
    folders.seal(folder, rng.choice(['model', 'checkpoint']))


def spoil(file, files, kind, rng):
  """What happens to files by accident."""
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


def plant(file, kind, rng):
  """What somebody puts in the place of a file, or beside it."""
  outside = pathlib.Path(tempfile.gettempdir(), f'fuzz-{os.getpid()}')
  shutil.copy(file, outside)
  if kind == 'huge' and rng.random() < 0.5:
    file = file.with_name('added')
  file.unlink(missing_ok=True)
  if kind == 'whole link':
    file.symlink_to(outside)
  elif kind == 'link':
    outside.write_bytes(outside.read_bytes() + b'more')
    file.symlink_to(outside if rng.random() < 0.5 else 'nowhere')
  elif kind == 'fifo':
    os.mkfifo(file)
  elif kind == 'device':
    file.symlink_to('/dev/zero')
  elif kind == 'huge':
    with file.open('wb') as sparse:
      sparse.truncate(40 * 2**30)
  else:
    file.mkdir()


def forge(file, rng):
  """Changes one value of JSON metadata, anywhere in it."""
  data = json.loads(file.read_text())
  places = []

  def walk(node):
    for key in list(node) if isinstance(node, dict) else range(len(node)):
      places.append((node, key))
      if isinstance(node[key], dict | list):
        walk(node[key])

  walk(data)
  deep = [place for place in places if not isinstance(place[1], int)]
  node, key = (places, deep)[rng.integers(2)][rng.integers(len(deep))]
  if rng.random() < 0.2:
    del node[key]
  elif rng.random() < 0.3:
    other, name = places[rng.integers(len(places))]
    node[key] = json.loads(json.dumps(other[name]))
  else:
    node[key] = VALUES[rng.integers(len(VALUES))]
  limit = sys.getrecursionlimit()
  sys.setrecursionlimit(10_000)
  try:
    file.write_text(json.dumps(data))
  finally:
    sys.setrecursionlimit(limit)


def restore(folder, shapes):
  """`(progress, notes)`."""
  notes = []
  keeper = resume.Checkpoints(folder, run=RUN, on_note=notes.append)
  return keeper.restore(shapes), notes


def check(kept, folder, shapes, whole, rng):
  """Restores one damaged copy; returns the outcome, in words."""
  shutil.rmtree(folder, ignore_errors=True)
  shutil.copytree(kept, folder)
  both = rng.random() < 0.3
  chosen = rng.choice(DAMAGE + PLANTED + FORGED, 2 if both else 1)
  kinds = dict(zip((26, 23), chosen, strict=False))
  for step, kind in kinds.items():
    damage(folder / f'step_{step:010}', kind, rng)
  is_forged = bool(set(FORGED) & {*chosen})
  try:
    found, notes = restore(folder, shapes)
  except pytrees.CheckpointError as error:
    assert '\n' not in str(error), error
    if 'huge' in chosen and 'holds more than that' in str(error):
      return 'refused, as not ours'
    assert both or is_forged, error
    return 'refused, as forged' if is_forged else 'none is intact'
  if found is None:
    assert both and not list(folder.iterdir())
    return 'nothing is left'
  assert not any('\n' in note for note in notes), notes
  step = next(s for s in (26, 23) if f'resuming from step {s} ' in notes[-1])
  kind = kinds.get(step)
  if kind in FORGED:
    return 'taken, as forged'
  assert kind in (None, 'whole link')
  contracts.assert_trees_equal(_data(found), whole[step])
  is_there = (folder / f'step_{26:010}').exists()
  assert step == 26 or ('skipped' in notes[0]) == is_there, notes
  return 'the same through a link' if kind else 'the one before'


def check_model(kept, folder, rng):
  """One damaged copy of a saved model; what came of it."""
  shutil.rmtree(folder, ignore_errors=True)
  shutil.copytree(kept, folder)
  kind = rng.choice(PLANTED + FORGED + ('forged metadata',) * 20)
  damage(folder, kind, rng)
  try:
    model, _, _ = checkpoint.load(folder, seed=1)
    checkpoint.load_extra(folder)
  except pytrees.CheckpointError as error:
    assert '\n' not in str(error), error
    return 'model refused'
  assert kind in FORGED or kind == 'whole link', kind
  assert isinstance(model, lplmtl.SharedBottom) or kind in FORGED
  return 'model taken'


def save(folder):
  """A model with an encoder, tables and extra data."""
  columns = tables.fit({'a': ['x', 'y']}, {'n': [1.0, 2.5]}, num_bins=2)
  encoder = lplmtl.TabularEncoder(columns.num_categories, num_ordered=1)
  checkpoint.save(
    folder,
    lplmtl.SharedBottom(TASKS, encoder=encoder),
    {'w': np.ones((2, 3))},
    columns,
    num_seeds=2,
    extra={'config': {'a': 1}},
  )


def _data(found):
  return resume.to_data(found)


def run(count, seed, folder):
  """So many cases, every fourth of a model; counts what came of them."""
  keep(folder / 'kept')
  save(folder / 'model')
  shapes = like()
  shutil.copytree(folder / 'kept', folder / 'old')
  whole = {26: _data(restore(folder / 'old', shapes)[0])}
  shutil.rmtree(folder / 'old' / 'step_0000000026')
  whole[23] = _data(restore(folder / 'old', shapes)[0])
  found = collections.Counter()
  for number in range(count):
    rng = np.random.default_rng([seed, number])
    faulthandler.dump_traceback_later(60, exit=True)
    try:
      if number % 4 == 3:
        case = check_model(folder / 'model', folder / 'forged', rng)
      else:
        case = check(folder / 'kept', folder / 'run', shapes, whole, rng)
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
