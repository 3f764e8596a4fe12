"""One contestant of experiments/throughput.py, in a process of its own.

Reads a line `<what> <calls>` at a time from standard input, does it, and
answers with a JSON list: units done, wall seconds, CPU seconds.
"""

import functools
import json
import os
import sys
import time
from typing import Any

import numpy as np

MATMULS = {'square': (2048, 2048, 2048)}


def main(config: dict[str, Any]) -> None:
  """Builds the contestant, warms it up, and serves requests."""
  if config['threads'] == 1 and hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  from experiments import census_data

  raw = census_data.read('sample', num_rows=config['num_rows'])
  data = census_data.encode(raw, ('income', 'marital'), num_bins=0)
  config['num_categories'] = data.tables.num_categories
  if config['engine'] == 'pytorch':
    from experiments import pytorch_twin

    labels = np.stack(list(data.train.labels.values()), axis=1)
    engine: Any = pytorch_twin.Twin(config, data.train.features, labels)
  else:
    engine = Ours(config, data.train)
  for what in ('train', 'score', 'latency'):
    _do(engine, what, 10)
  print(json.dumps(engine.flops()), flush=True)
  for line in sys.stdin:
    what, calls = line.split()
    wall, cpu = time.perf_counter(), time.process_time()
    units = _do(engine, what, int(calls))
    spent = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps([units, *spent]), flush=True)


def _do(engine: Any, what: str, calls: int) -> int:
  if what in ('train', 'score'):
    return getattr(engine, what)()
  if what == 'latency':
    return engine.latency(calls)
  return engine.matmul(MATMULS[what], calls)


class Ours:
  """The library, as `fit` runs it."""

  def __init__(self, config: dict[str, Any], train: Any):
    import jax
    import jax.numpy as jnp
    import optax

    import lplmtl
    from experiments import options, runner
    from lplmtl import balancing, parallel, steps, tasks, training

    todo = (tasks.binary('income'), tasks.binary('marital'))
    width = (config['expert_width'],)
    settings = options.Config(
      architecture=config['architecture'],
      expert_widths=(width, width),
      num_experts=config['num_experts'],
      num_specific=config['num_specific'],
      num_shared=config['num_shared'],
      bottom_widths=(config['bottom_width'],),
      tower_widths=(config['tower_width'],),
      dropout=0.0,
    )
    encoder = lplmtl.TabularEncoder(
      config['num_categories'], config['embed_dim']
    )
    model = runner.make_model(settings, todo, encoder)
    optimizer, balancer = optax.adam(1e-3), balancing.equal()
    keys = jax.random.key(0)[None]
    mesh = parallel.make_mesh(1)
    self.data = parallel.replicate(train, mesh)
    self.rows = len(train.labels['income'])
    self.shuffle = training.make_shuffle(keys, self.rows, config['batch_size'])
    self.place = functools.partial(parallel.split_batches, mesh=mesh)
    self.state, self.run, _ = training.compile_programs(
      keys,
      model,
      todo,
      optimizer,
      balancer,
      None,
      self.data,
      None,
      self.place(self.shuffle(0)),
      mesh,
    )
    self.epoch = 0
    self.one_row = [
      jax.tree.map(lambda x, i=i: x[i : i + 1], train.features)
      for i in range(100)
    ]
    self.predict = jax.jit(functools.partial(steps.predict, model))
    self.forward = jax.jit(
      lambda params, x: jnp.concatenate(
        list(model.apply({'params': params}, x)[0].values()), axis=1
      )
    )

  def _params(self) -> Any:
    import jax

    return jax.tree.map(lambda x: x[0], self.state.params)

  def flops(self) -> int:
    """Of one row's forward pass."""
    from lplmtl.compression import cost

    return cost.count_flops(self.forward, self._params(), self.one_row[0])

  def train(self) -> int:
    """One epoch; returns the rows seen."""
    rows = self.place(self.shuffle(self.epoch))
    self.epoch += 1
    self.state, metrics = self.run(self.state, None, self.data, rows)
    np.asarray(metrics['losses'])
    return rows.size

  def score(self) -> int:
    """The whole table; returns the rows seen."""
    found = self.predict(self._params(), self.data.features)
    for logits in found.values():
      np.asarray(logits)
    return self.rows

  def latency(self, calls: int) -> int:
    """So many calls with one row each."""
    params = self._params()
    for i in range(calls):
      np.asarray(self.forward(params, self.one_row[i % len(self.one_row)]))
    return calls

  def matmul(self, shape: tuple[int, int, int], calls: int) -> int:
    """So many matrix products; returns their floating-point operations."""
    import jax

    m, k, n = shape
    a, b = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
    a, b = jax.device_put((a, b))
    product = jax.jit(lambda a, b: a @ b)
    for _ in range(calls):
      product(a, b).block_until_ready()
    return 2 * m * k * n * calls


if __name__ == '__main__':
  main(json.loads(sys.argv[1]))
