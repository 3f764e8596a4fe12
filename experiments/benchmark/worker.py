"""The library as a contestant; see `protocol`."""

import time

START = time.perf_counter()  # before the imports, which are timed too

import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

import lplmtl
from experiments.benchmark import protocol
from experiments.benchmark.protocol import Config
from experiments.launcher import build, errors, jax_setup, options
from lplmtl import tasks, training
from lplmtl.compression import cost
from lplmtl.training import (
  evaluation,
  microbatch,
  parallel,
  programs,
)
from lplmtl.types import PyTree

LEARNING_RATE = 1e-3  # the twin's as well
# Small products are repeated in one call, or the cost of calls would dominate.
LOOPS = 20
NUM_SINGLE_ROWS = 100  # different ones, so that caches do not flatter latency
# A compiled product and its factors.
Product = tuple[Callable[..., Any], tuple[Any, Any]]


class Engine:
  """The library, run as `fit` runs it; see `protocol.Engine`."""

  def __init__(self, config: Config):
    self.config = config
    rows, self.model = make(config)
    keys = _keys(config)
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
      (self.model, optax.adam(LEARNING_RATE), _balancer(config)),
      self.model.tasks,
      num_seeds=len(keys),
      batch_size=config['batch_size'],
      mesh=mesh,
    )
    self.single_rows = [
      jax.tree.map(lambda x, i=i: x[i : i + 1], rows.features)
      for i in range(NUM_SINGLE_ROWS)
    ]
    self.state = init(keys, None, self.single_rows[0], None)
    self.epoch = 0
    self.predict = jax.jit(
      parallel.over_table(evaluation.predictor(self.model), mesh)
    )
    self.forward = lambda params, x: self.model.apply({'params': params}, x)[0]

  def facts(self) -> dict[str, Any]:
    """Returns the FLOPs of one row's forward pass."""
    flops = cost.count_flops(self.forward, self._params(), self.single_rows[0])
    return {'flops_per_example': flops}

  def train(self, calls: int) -> int:
    """Trains `calls` epochs; returns the rows seen by all seeds."""
    seen = 0
    for _ in range(calls):
      rows = self.place(self.shuffle(self.epoch))
      self.epoch += 1
      self.state, metrics, _ = self.run(
        self.state, None, self.data, rows, 0, rows.shape[1]
      )
      np.asarray(metrics['losses'])  # waits until it is done
      seen += self.config['num_seeds'] * rows[0].size
    return seen

  def score(self, calls: int) -> int:
    """Scores the whole table `calls` times; returns rows."""
    params = self._params(self.mesh)
    for _ in range(calls):
      _fetch(self.predict(params, self.data.features))
    return self.num_rows * calls

  def latency(self, calls: int) -> int:
    """Scores single rows; returns how many."""
    for i in range(calls):
      _fetch(self._predictor(self.single_rows[i % len(self.single_rows)]))
    return calls

  def square(self, calls: int) -> int:
    """Multiplies large matrices; returns floating-point operations."""
    product, factors = self._square
    for _ in range(calls):
      product(*factors).block_until_ready()
    return 2 * int(np.prod(protocol.SQUARE)) * calls

  def products(self, calls: int) -> int:
    """Runs only the matrix products of training steps; returns their rows."""
    num_rows, products = self._products
    for _ in range(calls):
      for product, factors in products:
        product(*factors).block_until_ready()
    return num_rows * LOOPS * calls

  @functools.cached_property
  def _products(self) -> tuple[int, list[Product]]:
    """Rows of a microbatch, and the three products of each layer."""
    batch = self.config['batch_size']
    if parallel.splits_rows(self.mesh):
      batch //= self.mesh.size
    limit = parallel.rows_at_a_time(self.mesh)
    num_rows = batch // microbatch.count_microbatches(batch, limit)
    features = jax.tree.map(lambda x: x[:num_rows], self.data.features)
    shapes = cost.matrix_products(self.forward, self._params(), features)
    return num_rows, [
      _product(*shape)
      for m, k, n in shapes
      # Forward, gradient of the inputs, gradient of the weights.
      for shape in ((m, k, n), (m, n, k), (k, m, n))
    ]

  @functools.cached_property
  def _square(self) -> Product:
    m, k, n = protocol.SQUARE
    factors = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
    factors = jax.device_put(factors)
    return jax.jit(lambda a, b: a @ b).lower(*factors).compile(), factors

  @functools.cached_property
  def _predictor(self) -> Callable[[PyTree], PyTree]:
    """Compiled for single rows, with the current parameters."""
    return evaluation.make_predictor(self.model, self._params())

  def _params(self, mesh: Mesh | None = None) -> PyTree:
    """Returns the first seed's parameters, on a mesh or on one device."""
    params = jax.tree.map(lambda x: x[0], jax.device_get(self.state.params))
    return parallel.replicate(params, mesh) if mesh else jax.device_put(params)


def make(config: Config) -> tuple[lplmtl.Batch, nn.Module]:
  """Returns the rows and the model that a configuration asks for."""
  rows = protocol.read_rows(config['data'])
  num_tasks = rows.labels.shape[1]
  names = ['income', 'marital', *map(str, range(2, num_tasks))][:num_tasks]
  batch = lplmtl.Batch(
    rows.features, {name: rows.labels[:, i] for i, name in enumerate(names)}
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
  encoder = lplmtl.TabularEncoder(
    tuple(rows.num_categories), config['embed_dim']
  )
  todo = tuple(map(tasks.binary, names))
  return batch, build.make_model(settings, todo, encoder)


def whole(config: Config) -> dict[str, float]:
  """Reads the rows and trains on them; returns the seconds of each part."""
  imported = time.perf_counter()
  batch, model = make(config)
  read = time.perf_counter()
  result = lplmtl.fit(
    _keys(config),
    model,
    optax.adam(LEARNING_RATE),
    _balancer(config),
    batch,
    batch_size=config['batch_size'],
    num_epochs=config['epochs'],
  )
  return {
    'import': imported - START,
    'data': read - imported,
    **result.seconds,
  }


def main(config: Config) -> None:
  """Serves requests, or trains once, as the configuration asks."""
  with errors.one_line():
    protocol.pin(config['threads'])
    jax_setup.apply(
      options.Config(
        compilation_cache=config.get('cache', 'none'),
        cpu_devices=config['devices'],
      )
    )
    if config['epochs']:
      protocol.report(whole(config))
    else:
      protocol.serve(Engine(config))


def _keys(config: Config) -> jax.Array:
  return jax.vmap(jax.random.key)(jnp.arange(config['num_seeds']))


def _balancer(config: Config) -> Any:
  return build.balancer(config['balancer'])()


def _fetch(predictions: PyTree) -> None:
  for logits in predictions.values():
    np.asarray(logits)


def _product(m: int, k: int, n: int) -> Product:
  """Returns a compiled loop of one product, and its factors."""

  def loop(a: jax.Array, b: jax.Array) -> jax.Array:
    # Each product depends on the one before, so that none is optimised away;
    # 1e-30 times anything vanishes beside the ones in b.
    def body(shift: jax.Array, _: None) -> tuple[jax.Array, None]:
      product = jax.lax.optimization_barrier(a @ (b + shift))
      return product[0, 0] * 1e-30, None

    return jax.lax.scan(body, jnp.float32(0), length=LOOPS)[0]

  factors = jnp.ones((m, k)), jnp.ones((k, n))
  return jax.jit(loop).lower(*factors).compile(), factors


if __name__ == '__main__':
  main(json.loads(sys.argv[1]))
