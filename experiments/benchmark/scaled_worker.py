"""One of several processes that train one model together, and time it.

Its argument is its configuration, as JSON. All processes do the same; the first
one prints a line of JSON: `parameters`, `steps` (seconds a step by batch size),
`exchanges` (seconds by bytes).
"""

import json
import os
import statistics
import sys
import time
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import lplmtl
from experiments.benchmark import streamed_rows
from lplmtl import balancing
from lplmtl.compression import count_parameters
from lplmtl.training import hosts

_LEARNING_RATE = 1e-3
_CALLS = 20  # exchanges in one program, or the call would be timed as well


def time_exchange(num_bytes: int, turns: int) -> float:
  """Returns the seconds to add up a float32 vector over all processes."""
  mesh = jax.make_mesh((jax.process_count(),), ('data',))
  place = NamedSharding(mesh, P('data'))
  shape = jax.process_count(), num_bytes // 4
  vectors = jax.make_array_from_callback(
    shape, place, lambda _: np.ones((1, shape[1]), np.float32)
  )

  def add_up(x: jax.Array) -> jax.Array:
    def again(_: int, x: jax.Array) -> jax.Array:
      return jax.lax.psum(x, 'data') / shape[0]

    return jax.lax.fori_loop(0, _CALLS, again, x)

  run = jax.jit(
    jax.shard_map(
      add_up, mesh=mesh, in_specs=P('data'), out_specs=P('data'),
      check_vma=False,
    )
  )  # fmt: skip
  run(vectors).block_until_ready()
  seconds = []
  for _ in range(turns):
    start = time.perf_counter()
    run(vectors).block_until_ready()
    seconds.append((time.perf_counter() - start) / _CALLS)
  return statistics.median(seconds)


class Trainer:
  """A model, and generated rows that all processes hold."""

  def __init__(self, config: dict[str, Any]):
    self.config = config
    rows = streamed_rows.piece(0, config['steps'] * max(config['batch_sizes']))
    encode = streamed_rows.Encoder(iter([rows]))
    self.data = encode(rows)
    widths = lplmtl.MLP((config['width'],))
    self.model = getattr(lplmtl, config['model'])(
      streamed_rows.TODO,
      encoder=lplmtl.TabularEncoder(encode.tables.num_categories),
      **(
        {'expert': widths}
        if config['model'] == 'MMoE'
        else {'levels': (widths, widths)}
      ),
    )

  def num_parameters(self) -> int:
    """Returns how many numbers are added up in a step."""
    init = jax.eval_shape(
      self.model.init, jax.random.key(0), self.data.features
    )
    return count_parameters(init)

  def time_step(self, batch_size: int) -> float:
    """Returns the median seconds of a step, over epochs after the first."""
    num_steps = self.config['steps']
    data = jax.tree.map(lambda x: x[: num_steps * batch_size], self.data)
    times: list[float] = []
    lplmtl.fit(
      jax.random.key(0), self.model, optax.adam(_LEARNING_RATE),
      balancing.uncertainty(), data, batch_size=batch_size,
      num_epochs=1 + self.config['turns'],
      on_epoch=lambda _: times.append(time.perf_counter()),
    )  # fmt: skip
    return statistics.median(np.diff(times)) / num_steps


def pin(number: int) -> None:
  """Gives this process one core; several share one if there are too few."""
  if hasattr(os, 'sched_setaffinity'):  # only on Linux
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})
  jax.config.update('jax_num_cpu_devices', 1)


def measure(config: dict[str, Any]) -> dict[str, Any]:
  """Times all steps and exchanges."""
  trainer = Trainer(config)
  return {
    'parameters': trainer.num_parameters(),
    'steps': {b: trainer.time_step(b) for b in config['batch_sizes']},
    'exchanges': {
      n: time_exchange(n, config['turns']) for n in config['messages']
    },
  }


def main() -> None:
  """Joins the others, if there are any, and measures."""
  config = json.loads(sys.argv[1])
  count, number = config['processes'], config['number']
  pin(number)
  if count > 1:
    hosts.initialize(f'127.0.0.1:{config["port"]}', count, number)
  found = measure(config)
  if number == 0:
    print(json.dumps(found), flush=True)


if __name__ == '__main__':
  main()
