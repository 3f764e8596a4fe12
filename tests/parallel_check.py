"""Run by test_parallel.py in a process with eight host devices.

Prints JSON: the losses of the first 50 steps, on one device and on eight.
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


BALANCERS = {
  'pcgrad': balancing.pcgrad(),
  'famo': balancing.famo(),  # this step's losses, and those after it
  'mgda': balancing.mgda(scope='representation'),
}


def split(num_seeds, devices):
  """A mesh, keys, the row numbers of 50 steps, and how many each device holds."""
  mesh = parallel.make_mesh(num_seeds, BATCH, devices)
  keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
  keys = parallel.fill(keys, mesh)
  shuffle = training.make_shuffle(keys, ROWS, BATCH)
  rows = np.concatenate([shuffle(e) for e in range(10)], axis=1)
  indices = parallel.split_batches(rows, mesh)
  held = [shard.data.shape for shard in indices.addressable_shards]
  return mesh, keys, held, indices


def run(devices, balancer):
  """Losses `[50, T]` of one seed."""
  mesh, keys, _, indices = split(1, devices)
  data = parallel.replicate(make_data(), mesh)
  init, run_chunk, _ = programs.make(
    (MODEL, optax.sgd(0.05), BALANCERS[balancer]),
    TASKS,
    num_seeds=len(keys),
    batch_size=BATCH,
    mesh=mesh,
  )
  state = init(keys, None, make_data().features, None)
  _, metrics, _ = run_chunk(state, None, data, indices, 0, indices.shape[1])
  return np.asarray(metrics['losses'])[0].tolist()


def resume_elsewhere(folder, num_seeds):
  """Losses of an uninterrupted run, and of one that resumes elsewhere.

  The first one's model, whose seeds live on devices of their own, is saved.
  """
  devices = jax.devices()
  keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))

  def fit(keeper=None):
    result = lplmtl.fit(
      keys, MODEL, optax.adam(1e-3), balancing.uncertainty(),
      make_data(), batch_size=BATCH, num_epochs=13, keeper=keeper,
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
      keys, MODEL, optax.sgd(0.05), balancing.uncertainty(), source,
      batch_size=BATCH, num_epochs=10, devices=devices,
    )  # fmt: skip
    return [record['losses'].tolist() for record in result.history]

  losses = fit(data)
  data.features[200] = np.nan
  try:
    fit(data)
  except training.NonFiniteError as error:
    return losses, str(error)


def main():
  devices = jax.devices()
  folder = pathlib.Path(sys.argv[1])
  found = {'devices': len(devices)}
  for seeds in (1, 5):
    found[f'{seeds} resumed'] = resume_elsewhere(folder / str(seeds), seeds)
    found[f'{seeds} held'] = split(seeds, devices)[2]
  for balancer in BALANCERS:
    one, many = run(devices[:1], balancer), run(devices, balancer)
    found[balancer] = {'one': one, 'many': many}
  for seeds in (1, 5):
    one, message = stream(seeds, devices[:1])
    many, found_too = stream(seeds, devices)
    assert message == found_too, (message, found_too)
    found[f'{seeds} streamed'] = {'one': one, 'many': many, 'error': message}
  print(json.dumps(found))


if __name__ == '__main__':
  main()
