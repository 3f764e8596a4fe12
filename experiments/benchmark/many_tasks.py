"""Measures programs for several numbers of tasks."""

import functools
import itertools
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lplmtl
from experiments.benchmark import out
from experiments.launcher import build, display, output, provenance
from experiments.launcher.display import TextTable
from experiments.launcher.errors import InputError
from lplmtl import tasks
from lplmtl.training import parallel, programs

_BATCH_SIZE = 256
_NUM_FEATURES = 100
_NUM_ROWS = 2048
_NUM_STEPS = 10  # of a turn
_MOST = 10_000  # tasks
# Of models that have such fields; all else is as by default.
_FIELDS = {'num_specific': 1, 'num_shared': 2}
_TITLE = f'Batch {_BATCH_SIZE}, {_NUM_FEATURES} features'
_NOTE = (
  'CPU time. init: the program of the first state, until it is compiled. '
  'lower and compile: the program of the steps; its trace counts as lowering.'
)


class Asked(NamedTuple):
  """What is measured.

  Attributes:
    architectures: by their file names.
    balancers: names of functions of `lplmtl.balancing`.
    counts: numbers of tasks.
    turns: of `_NUM_STEPS` steps.
    out: JSON file for the figures, or None.
  """

  architectures: tuple[str, ...]
  balancers: tuple[str, ...]
  counts: tuple[int, ...]
  turns: int
  out: pathlib.Path | None


class Measured(NamedTuple):
  """The figures of one program.

  Attributes:
    init: CPU seconds until the program of the first state is compiled.
    lower: CPU seconds until the program of steps is lowered.
    compile: CPU seconds in which it is compiled.
    gflop: of a step.
    step_ms: CPU milliseconds of a step, in each turn.
  """

  init: float
  lower: float
  compile: float
  gflop: float
  step_ms: list[float]


def counts(texts: Sequence[str]) -> tuple[int, ...]:
  """Returns numbers of tasks.

  Raises:
    InputError: one is no whole number from 1 to 10,000.
  """
  for text in texts:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
      raise InputError(
        f'--task_counts must be whole numbers from 1 to {_MOST:,}, joined by '
        f'commas; found {text!r}'
      )
  return tuple(map(int, texts))


def measure(asked: Asked) -> None:
  """Measures, prints a table, and writes the figures."""
  for name in asked.architectures:
    build.architecture(name)
  for name in asked.balancers:
    build.balancer(name)
  if asked.out:
    out.check(asked.out)
  rows = list(
    itertools.product(asked.architectures, asked.balancers, asked.counts)
  )
  console = display.make_console()
  figures: dict[tuple[str, str, int], Measured] = {}
  with display.steps(console, len(rows) + 1) as done:
    of(*rows[0], turns=2)  # what JAX does once in a process is not counted
    done('warmed up')
    for row in rows:
      figures[row] = of(*row, turns=asked.turns)
      done('{} with {} and {} tasks'.format(*row))
  console.print(_table(figures).to_rich())
  console.print(_NOTE, soft_wrap=True)
  if asked.out is None:
    output.refuse_loss()
    return
  names = 'architecture', 'balancer', 'num_tasks'
  measured = [
    dict(zip(names, row, strict=True)) | found._asdict()
    for row, found in figures.items()
  ]
  out.write(
    asked.out,
    {
      'measured': measured,
      'command': provenance.command_line(sys.argv),
      **provenance.environment(),
    },
  )


def of(
  architecture: str, balancer: str, num_tasks: int, *, turns: int
) -> Measured:
  """Measures the programs of `fit` for a number of tasks.

  Raises:
    InputError: there is no such architecture or balancer.
  """
  todo = tuple(tasks.binary(f'task{i}') for i in range(num_tasks))
  kind: Any = build.architecture(architecture)
  fields = {
    name: value
    for name, value in _FIELDS.items()
    if name in kind.__dataclass_fields__
  }
  method = kind(todo, **fields), optax.adam(1e-3), build.balancer(balancer)()
  mesh = parallel.make_mesh(1, _BATCH_SIZE, jax.devices()[:1])
  made = programs.make(
    method, todo, num_seeds=1, batch_size=_BATCH_SIZE, mesh=mesh
  )
  data, order = _rows(num_tasks)
  first = jax.vmap(jax.random.key)(jnp.arange(1)), None, data.features[:1], None
  init_seconds, init = _timed(lambda: made.init.lower(*first).compile())
  state = init(*first)
  data = parallel.replicate(data, mesh)
  order = parallel.split_batches(order, mesh=mesh)
  lower, lowered = _timed(
    lambda: made.run_chunk.lower(state, None, data, order, 0, _NUM_STEPS)
  )
  compiling, run = _timed(lowered.compile)
  spent = []
  for _ in range(turns + 1):
    seconds, (state, *_) = _timed(
      functools.partial(run, state, None, data, order, 0, _NUM_STEPS)
    )
    spent.append(seconds / _NUM_STEPS * 1000)
  # The first turn touches new memory. A loop's FLOPs are those of one step.
  flops = run.cost_analysis()['flops']
  return Measured(init_seconds, lower, compiling, flops / 1e9, spent[1:])


def _timed(fn: Callable[[], Any]) -> tuple[float, Any]:
  """Returns the CPU seconds that a call takes, and its result."""
  start = time.process_time()
  result = jax.block_until_ready(fn())
  return time.process_time() - start, result


def _rows(num_tasks: int) -> tuple[lplmtl.Batch, jax.Array]:
  """Returns random rows, and the row numbers of each step, `[1, N, B]`."""
  rng = np.random.default_rng(0)
  features = rng.normal(size=(_NUM_ROWS, _NUM_FEATURES)).astype(np.float32)
  labels = {
    f'task{i}': rng.integers(0, 2, _NUM_ROWS, np.int32)
    for i in range(num_tasks)
  }
  order = rng.integers(0, _NUM_ROWS, (1, _NUM_STEPS, _BATCH_SIZE))
  return lplmtl.Batch(features, labels), jnp.asarray(order, jnp.int32)


def _table(figures: dict[tuple[str, str, int], Measured]) -> TextTable:
  head = [
    'model', 'balancer', 'tasks', 'init s', 'lower s', 'compile s', 'sum s',
    'step GFLOP', 'step ms',
  ]  # fmt: skip
  rows = [
    [
      architecture, balancer, f'{num_tasks}',
      f'{x.init:.1f}', f'{x.lower:.1f}', f'{x.compile:.1f}',
      f'{x.init + x.lower + x.compile:.1f}', f'{x.gflop:.2f}',
      f'{statistics.median(x.step_ms):.1f}',
    ]
    for (architecture, balancer, num_tasks), x in figures.items()
  ]  # fmt: skip
  return TextTable(_TITLE, head, rows, left=head[:2])
