"""Run by test_hosts.py and stress_hosts.py as one of several processes.

    python -m tests.hosts_check CASE[,CASE...] FOLDER PORT NUM_PROCESSES PROCESS_ID

Prints JSON: what each case has computed on all devices, two in each process, and
how the first case went on after mishaps. The last one ends process 1.
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


def train(case, *, rate=0.2, batch_size=BATCH, keeper=None, on_epoch=None):
  """Trains a case, such as `ple moco`, `mmoe mgda source` or `ple mgda seeds`."""
  model, balancer, *options = case.split()
  key, rates = jax.random.key(0), np.float32(rate)
  table, held_out = rows(0, NUM_ROWS), rows(1, 50)
  if 'seeds' in options:
    key = jax.vmap(jax.random.key)(jnp.arange(3))
    rates = np.full(3, rate, np.float32)
  if 'source' in options:
    table, held_out = (data.Sharded(x, num_shards=4) for x in (table, held_out))
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


def main():
  """Trains the cases, and goes through all mishaps with the first one."""
  names, folder, *place = sys.argv[1:]
  port, count, number = map(int, place)
  jax.config.update('jax_num_cpu_devices', 2)
  before = signal.getsignal(signal.SIGTERM)
  hosts.initialize(f'127.0.0.1:{port}', count, number, timeout=120)
  cases = names.split(',')
  found = {'cases': {case: train(case) for case in cases}}
  case = cases[0]
  found['stopped'], found['resumed'] = stop_and_resume(
    case, pathlib.Path(folder), count - 1
  )
  found['differs'] = error_of(
    lambda: train(case, batch_size=BATCH // (1 + (number == 1)))
  )
  found['not finite'] = error_of(lambda: train(case, rate=1e30))
  found['odd'] = error_of(lambda: train(case, batch_size=BATCH - 1))
  found['handler'] = signal.getsignal(signal.SIGTERM) == before
  if number == 1:
    os.kill(os.getpid(), signal.SIGKILL)
  start = time.monotonic()
  found['lost'] = error_of(lambda: train(case))
  found['seconds'] = time.monotonic() - start
  print(json.dumps(found), flush=True)
  os._exit(0)  # JAX would wait for the one that is lost


if __name__ == '__main__':
  main()
