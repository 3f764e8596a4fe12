"""Measures steps over embedding tables of several sizes."""

import functools
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lplmtl
from experiments.benchmark import out
from experiments.launcher import display, output, provenance
from experiments.launcher.display import TextTable
from experiments.launcher.errors import InputError
from lplmtl import balancing, sparse, tasks
from lplmtl.training import microbatch, parallel, steps

_TASKS = (tasks.binary('click'), tasks.binary('buy'))
_NUM_NUMBERS = 8
_DENSE = 'dense Adam'
_NOTE = (
  'Medians of the CPU time of a step, in ms; in brackets, relative to the '
  'first size.'
)


class Asked(NamedTuple):
  """What is measured.

  Attributes:
    sizes: rows of the table, several ones.
    columns: of categories, each with an equal part of the rows.
    width: of an embedding.
    batch_size: rows of a step.
    steps: of a turn.
    turns: of each contestant.
    out: JSON file for the figures, or None.
  """

  sizes: tuple[int, ...]
  columns: int
  width: int
  batch_size: int
  steps: int
  turns: int
  out: pathlib.Path | None


class Contestant(NamedTuple):
  """A way to train a table.

  Attributes:
    optimizer: an optax transformation.
    options: fields of the encoder, from the number of values of a column.
    in_parts: whether the rows of a step are taken in microbatches, as `fit`
      takes them. The gradient of a microbatch is dense where the optimiser is,
      so that dense contestants are faster without.
  """

  optimizer: optax.GradientTransformation
  options: Callable[[int], Mapping[str, Any]] = lambda _: {}
  in_parts: bool = True


def _composed(collisions: int) -> dict[str, Any]:
  return {
    'compose_by': 'multiply',
    'compose_above': 1,
    'collisions': collisions,
  }


CONTESTANTS = {
  _DENSE: Contestant(optax.adam(1e-3), in_parts=False),
  'lazy Adam': Contestant(sparse.lazy(optax.adam(1e-3))),
  'lazy Adagrad': Contestant(sparse.lazy(optax.adagrad(1e-2))),
  'composed, 4 values a row, lazy Adam': Contestant(
    sparse.lazy(optax.adam(1e-3)), lambda size: _composed(4)
  ),
  # As few rows as there can be.
  'composed, sqrt(V) values a row, dense Adam': Contestant(
    optax.adam(1e-3), lambda size: _composed(math.isqrt(size)), False
  ),
}


def sizes(texts: Sequence[str], columns: int) -> tuple[int, ...]:
  """Returns numbers of rows.

  Raises:
    InputError: one is no whole number, or has no row for each column.
  """
  found = []
  for text in texts:
    if not text.isdecimal() or not columns <= int(text) < 2**31:
      raise InputError(
        '--table_rows must be whole numbers from --columns to 2 billion, '
        f'joined by commas; found {text!r}'
      )
    found.append(int(text))
  return tuple(found)


def measure(asked: Asked) -> None:
  """Measures, prints a table, and writes the figures."""
  if asked.out:
    out.check(asked.out)
  console = display.make_console()
  running: dict[tuple[str, int], Callable[[], float]] = {}
  with display.steps(
    console, len(CONTESTANTS) * len(asked.sizes) + asked.turns
  ) as done:
    for size in asked.sizes:
      for name, contestant in CONTESTANTS.items():
        running[name, size] = _turns(asked, size, contestant)
        done(f'{name} of {size:,} rows is ready')
    spent: dict[tuple[str, int], list[float]] = {key: [] for key in running}
    for turn in range(asked.turns):
      for key in list(running)[:: 1 if turn % 2 == 0 else -1]:
        spent[key].append(running[key]())
      done(f'turn {turn + 1} of {asked.turns}')
  figures = {
    'measured': [
      {'contestant': name, 'rows': size, 'ms': values}
      for (name, size), values in spent.items()
    ],
    'asked': asked._replace(out=None)._asdict(),
    'command': provenance.command_line(sys.argv),
    **provenance.environment(),
  }
  console.print(_table(asked, spent).to_rich())
  console.print(_NOTE, soft_wrap=True)
  if asked.out is None:
    output.refuse_loss()
  else:
    out.write(asked.out, figures)


def _turns(
  asked: Asked, size: int, contestant: Contestant
) -> Callable[[], float]:
  """Returns a function that takes the steps of a turn; it returns ms a step."""
  of_column = size // asked.columns
  encoder = lplmtl.TabularEncoder(
    (of_column,) * asked.columns, asked.width, **contestant.options(of_column)
  )
  model = lplmtl.SharedBottom(_TASKS, encoder)
  method = model, _TASKS, contestant.optimizer, balancing.equal()
  rng = np.random.default_rng(0)
  data, rows = _rows(asked, size, rng)
  state = jax.jit(lambda key: steps.init_state(key, *method, data.features))(
    jax.random.key(0)
  )
  parts = microbatch.count_microbatches(
    asked.batch_size, parallel.rows_at_a_time(parallel.make_mesh(1))
  )
  step = steps.make_train_step(
    *method, num_microbatches=parts if contestant.in_parts else 1
  )
  # The state is given away, or each turn would copy the table once.
  run = jax.jit(functools.partial(steps.train_chunk, step), donate_argnums=0)
  compiled = run.lower(state, data, rows).compile()
  held = [state]

  def take_steps() -> float:
    # New values, or the rows of the table would be in the cache by now.
    drawn = _rows(asked, size, rng)
    start = time.process_time()
    held[0], _ = jax.block_until_ready(compiled(held[0], *drawn))
    return (time.process_time() - start) / asked.steps * 1000

  def turn() -> float:
    # The others have emptied the caches, also of addresses: these steps are
    # those of a training that goes on.
    take_steps()
    return take_steps()

  turn()  # the first one touches new memory
  return turn


def _rows(
  asked: Asked, size: int, rng: np.random.Generator
) -> tuple[lplmtl.Batch, jax.Array]:
  """Returns rows with random values, and the row numbers of each step."""
  num_rows = asked.steps * asked.batch_size
  shape = num_rows, asked.columns
  ids = rng.integers(0, size // asked.columns, shape, np.int32)
  numbers = rng.normal(size=(num_rows, _NUM_NUMBERS)).astype(np.float32)
  labels = {
    task.name: rng.integers(0, 2, num_rows).astype(np.float32)
    for task in _TASKS
  }
  data = lplmtl.Batch({'categories': ids, 'numeric': numbers}, labels)
  order = rng.permutation(num_rows).reshape(asked.steps, asked.batch_size)
  return jax.device_put(data), jnp.asarray(order, jnp.int32)


def _table(
  asked: Asked, spent: Mapping[tuple[str, int], Sequence[float]]
) -> TextTable:
  def cells(name: str) -> Iterator[str]:
    first = spent[name, asked.sizes[0]]
    for size in asked.sizes:
      values = spent[name, size]
      ratios = [a / b for a, b in zip(values, first, strict=True)]
      middle = statistics.median(values)
      yield f'{middle:.1f} ({statistics.median(ratios):.2f})'

  head = ['table rows', *(f'{size:,}' for size in asked.sizes)]
  rows = [[name, *cells(name)] for name in CONTESTANTS]
  title = (
    f'{asked.columns} columns, width {asked.width}, batch {asked.batch_size:,}'
  )
  return TextTable(title, head, rows, left=head[:1])
