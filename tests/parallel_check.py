"""Run by test_parallel.py in a process with eight host devices.

Prints JSON: the losses of the first 50 steps, on one device and on eight.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lplmtl
from lplmtl import balancing, parallel, steps, tasks, training

TASKS = (tasks.binary('zebra'), tasks.regression('apple'))
MODEL = lplmtl.PLE(
  TASKS,
  levels=(lplmtl.MLP((8,)),) * 2,
  num_shared=1,
  num_specific=1,
  tower=lplmtl.MLP((4,)),
)
ROWS, BATCH = 320, 64


def make_data():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(ROWS, 5)).astype(np.float32)
  labels = {
    'zebra': (x[:, 0] > x[:, 1]).astype(np.int32),
    'apple': (x[:, 0] * x[:, 2]).astype(np.float32),
  }
  # A shard's own mean would differ: labels are missing unevenly.
  where = {'apple': np.arange(ROWS) % 3 > 0}
  return lplmtl.Batch(x, labels, where)


def run(num_seeds, devices):
  """Losses `[S, 50, T]`, and how many rows each device holds."""
  mesh = parallel.make_mesh(num_seeds, BATCH, devices)
  optimizer = optax.adam(1e-3)
  balancer = balancing.uncertainty(is_regression=(False, True))
  keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
  keys = parallel.fill(keys, mesh)
  data = parallel.replicate(make_data(), mesh)
  shuffle = training.make_shuffle(keys, ROWS, BATCH)
  rows = np.concatenate([shuffle(e) for e in range(10)], axis=1)
  init = functools.partial(
    steps.init_state,
    model=MODEL,
    tasks=TASKS,
    optimizer=optimizer,
    balancer=balancer,
    features=make_data().features,
  )
  spread = functools.partial(
    parallel.over_seeds, num_seeds=num_seeds, mesh=mesh
  )
  home = parallel.leading(mesh)
  state = jax.jit(spread(init, in_axes=(0,)), out_shardings=home)(keys)
  step = steps.make_train_step(MODEL, TASKS, optimizer, balancer)
  chunk = functools.partial(steps.train_chunk, step)
  indices = parallel.split_batches(rows, mesh)
  _, metrics = jax.jit(spread(chunk, in_axes=(0, None, 0)))(
    state, data, indices
  )
  held = [shard.data.shape for shard in indices.addressable_shards]
  return np.asarray(metrics['losses'])[:num_seeds].tolist(), held


def main():
  devices = jax.devices()
  found = {'devices': len(devices)}
  for seeds in (1, 5, 8):
    one, _ = run(seeds, devices[:1])
    many, held = run(seeds, devices)
    found[seeds] = {'one': one, 'many': many, 'held': held}
  print(json.dumps(found))


if __name__ == '__main__':
  main()
