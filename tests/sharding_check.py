"""Run by test_sharding.py in a process with eight host devices.

Prints JSON: what a model with large tables learns on one device, and on eight
that hold a part of the tables each.
"""

import json
import pathlib
import sys

import jax
import numpy as np
import optax

import lplmtl
from lplmtl import resume, sparse, tasks
from tests import contracts

TASKS = (tasks.binary('zebra'), tasks.regression('apple'))
SIZES, BATCH = (40, 57, 5), 64
ENCODER = lplmtl.TabularEncoder(
  SIZES, 4, num_ordered=1, num_buckets=(9,), multiple_of=8,
  compose_by='multiply', compose_above=50,
)  # fmt: skip
MODEL = lplmtl.SharedBottom(
  TASKS, ENCODER, bottom=lplmtl.MLP((8,), dropout_rate=0.2),
  tower=lplmtl.MLP(()),
)  # fmt: skip
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01))


def make_data(rows, seed):
  rng = np.random.default_rng(seed)
  ids = np.stack([rng.integers(0, size, rows) for size in SIZES], axis=1)
  features = {
    'categories': ids.astype(np.int32),
    'numeric': rng.normal(size=(rows, 2)).astype(np.float32),
    'hashed': rng.integers(0, 9, (rows, 1, 2)).astype(np.int32),
  }
  labels = {
    'zebra': ids[:, 0] % 2,
    'apple': (ids[:, 1] / 10).astype(np.float32),
  }
  where = {'apple': np.arange(rows) % 3 > 0}
  return lplmtl.Batch(features, labels, where)


def fit(devices, keeper=None, model=MODEL):
  """Takes 50 steps in five epochs, and evaluates after each."""
  return lplmtl.fit(
    jax.random.key(0), model, sparse.lazy(OPTIMIZER, sharded=True),
    contracts.by_gramian(), make_data(10 * BATCH, 0),
    validation=make_data(100, 1), batch_size=BATCH, num_epochs=5,
    devices=devices, keeper=keeper,
  )  # fmt: skip


def described(result):
  """Returns losses `[5, 2, T]`, of training and validation, and the tables."""
  losses = [
    [
      record['losses'][0].tolist(),
      [record['validation'][task.name]['loss'].item() for task in TASKS],
    ]
    for record in result.history
  ]
  tables = {}
  for tree in (result.params, result.state.opt_state):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      tables[jax.tree_util.keystr(path, simple=True, separator='/')] = {
        'shape': leaf.shape,
        'parts': [shard.data.shape for shard in leaf.addressable_shards],
        'sum': float(np.asarray(leaf, np.float64).sum()),
      }
  return {'losses': losses, 'tables': tables}


def main():
  devices, folder = jax.devices(), pathlib.Path(sys.argv[1])
  found = {'one': described(fit(devices[:1]))}
  # Eight devices stop within the third epoch, and go on.
  with contracts.Interrupting(folder, 9, every_steps=3) as keeper:
    try:
      fit(devices, keeper)
    except resume.Interrupted:
      found['left'] = keeper.steps()[-1]
  with contracts.Interrupting(folder, 0, every_steps=3) as keeper:
    found['many'] = described(fit(devices, keeper))
  try:
    fit(devices, model=MODEL.clone(encoder=ENCODER.clone(multiple_of=3)))
  except ValueError as error:
    found['error'] = str(error)
  print(json.dumps(found))


if __name__ == '__main__':
  main()
