"""Run by test_parallel.py in a process with eight host devices.

Prints JSON: the losses of runs on one device and on eight.
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lplmtl
from lplmtl import balancing, checkpoint, resume, tasks, training
from lplmtl.data import sharded
from lplmtl.training import parallel, programs
from tests import contracts

TASKS = (tasks.binary('zebra'), tasks.regression('apple'))
# Small: the programs of eight devices are most of the time.
MODEL = lplmtl.SharedBottom(
  TASKS, bottom=lplmtl.MLP((8,), dropout_rate=0.2), tower=lplmtl.MLP(())
)
ROWS, BATCH = 320, 64


def make_data():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(ROWS, 5)).astype(np.float32)
  labels = {
    'zebra': (x[:, 0] > x[:, 1]).astype(np.int32),
    'apple': (x[:, 0] * x[:, 2]).astype(np.float32),
  }
  # A shard's own mean would differ: labels are missing unevenly, and the weights
  # of one task's rows differ.
  where = {'apple': np.arange(ROWS) % 3 > 0}
  weights = {'zebra': np.linspace(0, 2, ROWS, dtype=np.float32)}
  return lplmtl.Batch(x, labels, where, weights)


# How a batch is split, and seeds, with each kind of balancer; momentum is a state
# of the optimizer that is saved.
RESUMED = {
  1: (balancing.pcgrad(), optax.sgd(0.05, momentum=0.9)),
  5: (balancing.uncertainty(), optax.adam(1e-3)),
}
STREAMED = {
  1: balancing.mgda(scope='representation'),
  5: balancing.famo(),  # this step's losses, and those after it
}


def held(num_seeds, devices):
  """The shape of the row numbers of 50 steps that each device holds."""
  mesh = parallel.make_mesh(num_seeds, BATCH, devices)
  keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
  shuffle = training.make_shuffle(parallel.fill(keys, mesh), ROWS, BATCH)
  rows = np.concatenate([shuffle(e) for e in range(10)], axis=1)
  indices = parallel.split_batches(rows, mesh)
  return [shard.data.shape for shard in indices.addressable_shards]


def resume_elsewhere(folder, num_seeds):
  """Losses of an uninterrupted run, and of one that resumes elsewhere.

  The first one's model, whose seeds live on devices of their own, is saved.
  """
  devices = jax.devices()
  keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
  balancer, optimizer = RESUMED[num_seeds]

  def fit(keeper=None):
    result = lplmtl.fit(
      keys, MODEL, optimizer, balancer, make_data(),
      batch_size=BATCH, num_epochs=13, keeper=keeper,
      devices=devices if keeper is None or keeper.pauses else devices[:1],
    )  # fmt: skip
    losses = [record['losses'].tolist() for record in result.history]
    return losses, result.params

  with contracts.Interrupting(folder, 5, every_steps=3) as keeper:
    try:
      fit(keeper)
    except resume.Interrupted:
      left = keeper.steps()[-1]
  whole, params = fit()
  kernel = params['tower_zebra']['head']['kernel']
  checkpoint.save(folder / 'model', MODEL, params, None, num_seeds=num_seeds)
  with contracts.Interrupting(folder, 0, every_steps=3) as keeper:
    resumed, _ = fit(keeper)
  return {
    'whole': whole, 'resumed': resumed, 'left': left,
    'saved': np.asarray(kernel).tolist(), 'devices': len(kernel.devices()),
  }  # fmt: skip


def stream(num_seeds, devices):
  """Losses of 10 epochs of two chunks, and where rows that are NaN are found."""
  data = make_data()
  keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))

  def fit(data):
    source = sharded.Sharded(data, num_chunks=2)
    result = lplmtl.fit(
      keys, MODEL, optax.sgd(0.05), STREAMED[num_seeds], source,
      batch_size=BATCH, num_epochs=10, devices=devices,
    )  # fmt: skip
    return [record['losses'].tolist() for record in result.history]

  losses = fit(data)
  data.features[200] = np.nan
  try:
    fit(data)
  except training.NonFiniteError as error:
    return losses, str(error)


def look(devices, num_rows):
  """Loss and use of gates for rows that devices share unevenly."""
  model = lplmtl.MMoE(TASKS, num_experts=2, expert=lplmtl.MLP((4,)))
  rows = jax.tree.map(lambda x: x[:num_rows], make_data())
  params = model.init(jax.random.key(0), rows.features)['params']
  mesh = parallel.make_mesh(1, len(devices), devices)
  evaluate = programs.make_scores(
    model, TASKS, num_rows=num_rows, num_seeds=1, mesh=mesh
  )
  metrics, usage = evaluate(jax.tree.map(lambda x: x[None], params), rows)
  loss = float(metrics['zebra']['loss'][0])
  return [loss, *usage[0]['zebra']['experts'][0].tolist()]


def main():
  devices = jax.devices()
  folder = pathlib.Path(sys.argv[1])
  found = {'devices': len(devices)}
  for seeds in (1, 5):
    found[f'{seeds} resumed'] = resume_elsewhere(folder / str(seeds), seeds)
    found[f'{seeds} held'] = held(seeds, devices)
    one, message = stream(seeds, devices[:1])
    many, found_too = stream(seeds, devices)
    assert message == found_too, (message, found_too)
    found[f'{seeds} streamed'] = {'one': one, 'many': many, 'error': message}
  for rows in (3, 13):
    found[f'{rows} looked at'] = {
      'one': look(devices[:1], rows), 'many': look(devices, rows)
    }  # fmt: skip
  print(json.dumps(found))


if __name__ == '__main__':
  main()
