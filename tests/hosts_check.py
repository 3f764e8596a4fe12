"""Run by test_hosts.py and stress_hosts.py as one of several processes.

    python -m tests.hosts_check CASES FOLDER PORT PROCESSES NUMBER DEVICES

Prints JSON: what each case has computed on all devices of all processes; or, with
a folder, what one case has, and how it went on after mishaps.
"""

import json
import os
import pathlib
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lplmtl
from lplmtl import balancing, data, resume, tasks, training
from lplmtl.training import hosts

TASKS = (tasks.binary('zebra'), tasks.regression('apple'))
EXPERT, TOWER = lplmtl.MLP((4,), dropout_rate=0.2), lplmtl.MLP(())
MODELS = {
  'ple': lplmtl.PLE(
    TASKS, levels=(EXPERT,) * 2, num_specific=1, num_shared=1, tower=TOWER
  ),
  'mmoe': lplmtl.MMoE(TASKS, expert=EXPERT, num_experts=2, tower=TOWER),
}
NUM_ROWS, BATCH, EPOCHS = 160, 32, 10  # 50 steps
# Large enough to overfit within them, so that an early epoch is the best. At 0.2
# Adam amplifies the rounding of two devices in a single process to 1e-5, too.
RATE = 0.1


def rows(seed, count):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(count, 5)).astype(np.float32)
  labels = {
    'zebra': (x[:, 0] > x[:, 1]).astype(np.int32),
    'apple': (x[:, 0] * x[:, 2]).astype(np.float32),
  }
  # The mean of a process's own rows would differ: labels are missing unevenly.
  where = {'apple': np.arange(count) % 3 > 0}
  return lplmtl.Batch(x, labels, where)


class Spoiled(data.Sharded):
  """Rows of which one process cannot read some any more."""

  def chunk(self, epoch, number, shards):
    if epoch and 3 in shards:
      raise ValueError('shard 3 has changed')
    return super().chunk(epoch, number, shards)

  def scan(self, shards):
    yield from super().scan(shards)
    if jax.process_index() == 1:
      raise ValueError('a held-out shard is missing')


class Late(data.Sharded):
  """Rows that one process reads for longer than an exchange waits."""

  def chunk(self, epoch, number, shards):
    if epoch == 1 and jax.process_index() == 1:
      time.sleep(35)
    return super().chunk(epoch, number, shards)


def train(
  case, *, rate=RATE, batch_size=BATCH, keeper=None, on_epoch=None,
  spoiled=(),
):  # fmt: skip
  """Trains a case, such as `ple moco`, `mmoe mgda source` or `ple mgda seeds`."""
  model, balancer, *options = case.split()
  key, rates = jax.random.key(0), np.float32(rate)
  table, held_out = rows(0, NUM_ROWS), rows(1, 50)
  if 'seeds' in options:
    key = jax.vmap(jax.random.key)(jnp.arange(3))
    rates = rate * np.array([1.0, 0.5, 0.25], np.float32)  # a population
  if 'source' in options:
    made = dict.fromkeys(spoiled, Spoiled)
    if 'late' in options:
      made['data'] = Late
    table, held_out = (
      made.get(name, data.Sharded)(x, num_shards=4)
      for name, x in (('data', table), ('validation', held_out))
    )
  result = lplmtl.fit(
    key, MODELS[model], lambda h: optax.adam(h['rate']),
    getattr(balancing, balancer)(), table, hyperparams={'rate': rates},
    validation=held_out, batch_size=batch_size, num_epochs=EPOCHS,
    keeper=keeper, on_epoch=on_epoch,
  )  # fmt: skip
  return {
    'losses': [record['losses'].tolist() for record in result.history],
    'best_epoch': np.asarray(result.best_epoch).tolist(),
    'params': [float(jnp.sum(leaf)) for leaf in jax.tree.leaves(result.params)],
  }


def error_of(call):
  """The kind and the text of what a call raises."""
  try:
    call()
  except (hosts.HostsError, ValueError, training.NonFiniteError) as error:
    return [type(error).__name__, str(error)]
  except resume.Interrupted as stopped:
    return ['Interrupted', str(stopped)]


def stop_and_resume(case, folder, who):
  """One process is asked to stop after three epochs; then all resume."""
  with resume.Checkpoints(folder / 'kept', every_steps=4) as keeper:

    def on_epoch(record):
      if record['epoch'] == 3 and jax.process_index() == who:
        keeper.stop.set()

    stopped = error_of(lambda: train(case, keeper=keeper, on_epoch=on_epoch))
  with resume.Checkpoints(folder / 'kept', every_steps=4) as keeper:
    return stopped, train(case, keeper=keeper)


def mishaps(case, folder, count, number):
  """What becomes of a case after mishaps; the last one ends process 1."""
  found = {'case': train(case)}
  found['stopped'], found['resumed'] = stop_and_resume(case, folder, count - 1)
  found['differs'] = error_of(
    lambda: train(case, batch_size=BATCH // (1 + (number == 1)))
  )
  found['not finite'] = error_of(lambda: train(case, rate=1e30))
  found['odd'] = error_of(lambda: train(case, batch_size=BATCH - 1))
  for name in 'data', 'validation':
    found[f'spoiled {name}'] = error_of(
      lambda n=name: train(case, spoiled=(n,))
    )
  if number == 1:
    os.kill(os.getpid(), signal.SIGKILL)
  start = time.monotonic()
  found['lost'] = error_of(lambda: train(case))
  found['seconds'] = time.monotonic() - start
  return found


def main():
  """Trains cases; with a folder, goes through all mishaps with one."""
  names, folder, *place = sys.argv[1:]
  port, count, number, devices = map(int, place)
  jax.config.update('jax_num_cpu_devices', devices)
  before = signal.getsignal(signal.SIGTERM)
  if count > 1:
    hosts.initialize(f'127.0.0.1:{port}', count, number, timeout=120)
  is_kept = signal.getsignal(signal.SIGTERM) == before
  if folder:
    found = mishaps(names, pathlib.Path(folder), count, number)
  else:
    found = {case: train(case) for case in names.split(',')}
  print(json.dumps({**found, 'handler': is_kept}), flush=True)
  os._exit(0)  # JAX would wait for a process that is lost


if __name__ == '__main__':
  main()
