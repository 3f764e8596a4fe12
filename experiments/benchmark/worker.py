"""One contestant of experiments/throughput.py, in a process of its own.

`serve` reads a line `<what> <calls>` at a time from standard input, does it,
and answers with a JSON list: units done, wall seconds. `whole` trains once and
answers with the seconds of each part. The twin, in pytorch_twin.py, does the
same without importing JAX.
"""

import time

START = time.perf_counter()  # before the imports that are to be timed

import functools  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

Shape = tuple[int, int, int]
SQUARE: Shape = (2048, 2048, 2048)
LOOPS = 20  # products in one call, where they are small


def pin(threads: int) -> None:
  """Keeps this process on so many cores, the last ones."""
  if hasattr(os, 'sched_setaffinity'):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[-threads:]))


def load(path: str) -> tuple[dict[str, Any], np.ndarray, list[int]]:
  """Encoded rows that throughput.py wrote: features, labels, vocabularies."""
  with np.load(path, allow_pickle=False) as arrays:
    features = {name: arrays[name] for name in ('categories', 'numeric')}
    return features, arrays['labels'], arrays['num_categories'].tolist()


def serve(engine: Any) -> None:
  """Warms a contestant up and does what it is asked for."""
  for what in ('train', 'score', 'latency'):
    getattr(engine, what)(1)
  print(json.dumps(engine.facts()), flush=True)
  for line in sys.stdin:
    what, calls = line.split()
    start = time.perf_counter()
    units = getattr(engine, what)(int(calls))
    print(json.dumps([units, time.perf_counter() - start]), flush=True)


class Ours:
  """The library, as `fit` runs it."""

  def __init__(self, config: dict[str, Any]):
    import jax
    import jax.numpy as jnp
    import optax

    from lplmtl import balancing, training
    from lplmtl.training import parallel, programs, steps

    self.config = config
    rows, self.todo, self.model = make(config)
    keys = jax.vmap(jax.random.key)(jnp.arange(config['num_seeds']))
    mesh = parallel.make_mesh(len(keys), config['batch_size'])
    self.mesh = mesh
    keys = parallel.fill(keys, mesh)
    self.data = parallel.replicate(rows, mesh)
    self.num_rows = len(rows.labels['income'])
    self.shuffle = training.make_shuffle(
      keys, self.num_rows, config['batch_size']
    )
    self.place = functools.partial(parallel.split_batches, mesh=mesh)
    init, self.run, _ = programs.make(
      self.model,
      self.todo,
      optax.adam(1e-3),
      getattr(balancing, config['balancer'])(),
      num_seeds=len(keys),
      batch_size=config['batch_size'],
      mesh=mesh,
    )
    self.one_row = [
      jax.tree.map(lambda x, i=i: x[i : i + 1], rows.features)
      for i in range(100)
    ]
    self.state = init(keys, None, self.one_row[0])
    self.epoch = 0
    self.predict = jax.jit(
      parallel.over_table(functools.partial(steps.predict, self.model), mesh)
    )
    self.forward = lambda params, x: self.model.apply({'params': params}, x)[0]

  @functools.cached_property
  def _products(self) -> list[Any]:
    """Compiled: the three products of every layer, at the size of a part."""
    import jax

    from lplmtl.compression import cost
    from lplmtl.training import microbatch, parallel

    batch = self.config['batch_size']
    if parallel.splits_rows(self.mesh):
      batch //= self.mesh.size
    limit = parallel.rows_at_a_time(self.mesh)
    rows = batch // microbatch.number_of_parts(batch, limit)
    features = jax.tree.map(lambda x: x[:rows], self.data.features)
    shapes = cost.matrix_products(self.forward, self._params(), features)
    self.part = rows
    return [
      _product(*shape)
      for m, k, n in shapes
      for shape in ((m, k, n), (m, n, k), (k, m, n))
    ]

  @functools.cached_property
  def _square(self) -> Any:
    """Compiled: a large product."""
    import jax

    m, k, n = SQUARE
    factors = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
    factors = jax.device_put(factors)
    return jax.jit(lambda a, b: a @ b).lower(*factors).compile(), factors

  @functools.cached_property
  def _predictor(self) -> Any:
    """Compiled: the parameters of this moment, for single rows."""
    from lplmtl.training import steps

    return steps.make_predictor(self.model, self._params())

  def _params(self, mesh: Any = None) -> Any:
    """The first seed's: on a mesh, or on one device."""
    import jax

    from lplmtl.training import parallel

    params = jax.tree.map(lambda x: x[0], jax.device_get(self.state.params))
    return parallel.replicate(params, mesh) if mesh else jax.device_put(params)

  def facts(self) -> dict[str, Any]:
    """FLOPs of one row's forward pass."""
    from lplmtl.compression import cost

    flops = cost.count_flops(self.forward, self._params(), self.one_row[0])
    return {'flops_per_example': flops}

  def train(self, calls: int) -> int:
    """So many epochs; returns the rows seen, of all seeds."""
    seen = 0
    for _ in range(calls):
      rows = self.place(self.shuffle(self.epoch))
      self.epoch += 1
      self.state, metrics, _ = self.run(
        self.state, None, self.data, rows, 0, rows.shape[1]
      )
      np.asarray(metrics['losses'])
      seen += self.config['num_seeds'] * rows[0].size
    return seen

  def score(self, calls: int) -> int:
    """The whole table, so many times; returns the rows seen."""
    params = self._params(self.mesh)
    for _ in range(calls):
      found = self.predict(params, self.data.features)
      for logits in found.values():
        np.asarray(logits)
    return self.num_rows * calls

  def latency(self, calls: int) -> int:
    """So many calls with one row each."""
    for i in range(calls):
      found = self._predictor(self.one_row[i % len(self.one_row)])
      for logits in found.values():
        np.asarray(logits)
    return calls

  def square(self, calls: int) -> int:
    """Large matrix products; returns their floating-point operations."""
    product, factors = self._square
    for _ in range(calls):
      product(*factors).block_until_ready()
    return 2 * int(np.prod(SQUARE)) * calls

  def own(self, calls: int) -> int:
    """All products of a step, by themselves; returns the rows of the steps."""
    products = self._products
    for _ in range(calls):
      for product, factors in products:
        product(*factors).block_until_ready()
    return self.part * LOOPS * calls


def make(config: dict[str, Any]) -> tuple[Any, Any, Any]:
  """Rows, tasks and the model that a configuration asks for."""
  import lplmtl
  from experiments.launcher import build as runner
  from experiments.launcher import options
  from lplmtl import tasks

  features, labels, num_categories = load(config['data'])
  names = ['income', 'marital', *map(str, range(2, labels.shape[1]))]
  todo = tuple(tasks.binary(name) for name in names[: labels.shape[1]])
  rows = lplmtl.Batch(
    features,
    {task.name: labels[:, i] for i, task in enumerate(todo)},
  )
  width = (config['expert_width'],)
  settings = options.Config(
    architecture=config['architecture'],
    expert_widths=(width, width),
    num_experts=config['num_experts'],
    num_specific=config['num_specific'],
    num_shared=config['num_shared'],
    num_top=config['num_shared'],
    bottom_widths=(config['bottom_width'],),
    tower_widths=(config['tower_width'],),
    compute_dtype=config['dtype'],
    dropout=0.0,
  )
  encoder = lplmtl.TabularEncoder(tuple(num_categories), config['embed_dim'])
  return rows, todo, runner.make_model(settings, todo, encoder)


def _product(m: int, k: int, n: int) -> tuple[Any, Any]:
  """A compiled loop of one product, and its factors."""
  import jax
  import jax.numpy as jnp

  def loop(a: Any, b: Any) -> Any:
    # Each product waits for the one before, so that none can be left out.
    def body(shift: Any, _: None) -> tuple[Any, None]:
      product = jax.lax.optimization_barrier(a @ (b + shift))
      return product[0, 0] * 1e-30, None

    return jax.lax.scan(body, jnp.float32(0), length=LOOPS)[0]

  factors = jnp.ones((m, k)), jnp.ones((k, n))
  return jax.jit(loop).lower(*factors).compile(), factors


def whole(config: dict[str, Any]) -> dict[str, float]:
  """Imports, reads, trains for some epochs; returns the seconds of each."""
  import jax
  import jax.numpy as jnp
  import optax

  import lplmtl
  from lplmtl import balancing

  imported = time.perf_counter()
  rows, _, model = make(config)
  read = time.perf_counter()
  result = lplmtl.fit(
    jax.vmap(jax.random.key)(jnp.arange(config['num_seeds'])),
    model,
    optax.adam(1e-3),
    getattr(balancing, config['balancer'])(),
    rows,
    batch_size=config['batch_size'],
    num_epochs=config['epochs'],
  )
  return {
    'import': imported - START,
    'data': read - imported,
    **result.seconds,
  }


def main(config: dict[str, Any]) -> None:
  """Serves or trains once, as the configuration asks."""
  from experiments.launcher import errors

  try:
    with errors.one_line():
      _main(config)
  except KeyboardInterrupt:  # it goes to all processes of a terminal
    sys.exit(130)


def _main(config: dict[str, Any]) -> None:
  pin(config['threads'])
  from experiments.launcher import build as runner
  from experiments.launcher import options

  runner.start(
    options.Config(
      compilation_cache=config.get('cache', 'none'),
      cpu_devices=config['devices'],
    )
  )
  if config['epochs']:
    print(json.dumps(whole(config)), flush=True)
  else:
    serve(Ours(config))


if __name__ == '__main__':
  main(json.loads(sys.argv[1]))
