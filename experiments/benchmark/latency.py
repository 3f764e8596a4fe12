"""Measures the time of single rows, and prints and writes it."""

import gc
import importlib.metadata
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmark import compiled, equal_trees, out, single_rows
from experiments.benchmark.single_rows import FLOAT, Contestant
from experiments.datasets.base import Data, Dataset, Source
from experiments.exporting import forms, writing
from experiments.launcher import (
  display,
  evaluation,
  output,
  provenance,
  quality,
  run_folder,
)
from experiments.launcher.display import Console, TextTable
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import checkpoint, predict

BITS = 8  # to which weights are rounded, unless they are codes already
LEAST = 0.02  # seconds of a turn, for clocks to tell
_PACKAGES = ('lightgbm', 'onnx', 'onnxruntime')
_FIRST = f'C {single_rows.LEVELS[-1]}, {FLOAT}'  # what others are compared with
_NOTE = (
  'Medians of the CPU time of a row, scored for all tasks; times: relative to '
  f'{_FIRST}, for encoded rows.'
)


class Asked(NamedTuple):
  """What is measured.

  Attributes:
    folder: of a run, or its model.
    seed: of the trained ones, counted from 0.
    has_trees: whether trees are among the contestants.
    turns: of each contestant.
    out: JSON file for the figures, or None.
  """

  folder: pathlib.Path
  seed: int
  has_trees: bool
  turns: int
  out: pathlib.Path | None


def measure(
  asked: Asked, config: Config, find: Callable[[Config], Dataset]
) -> None:
  """Trains trees, measures, prints a table, and writes the figures.

  Args:
    asked: what to measure.
    config: only where it finds the rows (`data_dir` or `data`) matters.
    find: returns the data set that a Config names.

  Raises:
    InputError: a package, a compiler or the rows are missing, the model cannot
      be exported, or trees cannot learn its tasks.
  """
  if asked.out:
    out.check(asked.out)
  single_rows.check()
  found = writing.read(asked.folder, asked.seed)
  if asked.has_trees:
    equal_trees.check(found.model.tasks)
  folder = run_folder.model_of(asked.folder)
  extra = checkpoint.load_extra(folder)
  config = evaluation.config_of(extra, config, folder)
  console = display.make_console()
  source = find(config).load(config, console, extra)
  models = {FLOAT: found}
  if found.frozen is None:
    models[f'{BITS} bits'] = writing.read(asked.folder, asked.seed, BITS)
  data = source.encode(config.num_bins, found.tables)
  scores = {name: _scores(one, data) for name, one in models.items()}
  trees = _grown(asked, source, scores[FLOAT]) if asked.has_trees else {}
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place)
    try:
      contestants = [
        *single_rows.network(models, data.test.features, folder),
        *(single_rows.trees(trees, folder) if trees else ()),
      ]
    except ValueError as error:  # of an export
      raise InputError(f'--model={asked.folder}: {error}') from error
    seconds = _alternate(contestants, asked.turns, console)
  figures = {
    'measured': [
      {'contestant': one.name, 'reads': one.reads, **spent}
      for one, spent in zip(contestants, seconds, strict=True)
    ],
    'scores': scores,
    'trees': {name: one.facts for name, one in trees.items()},
    'command': provenance.command_line(sys.argv),
    'compiler': compiled.version(),
    **_environment(),
  }
  console.print(_table(figures).to_rich())
  for line in _lines(figures):
    console.print(line, soft_wrap=True)
  if asked.out is None:
    output.refuse_loss()
  else:
    out.write(asked.out, figures)


def _scores(found: forms.Model, data: Data) -> dict[str, dict[str, float]]:
  """Returns `{task: {split: the primary metric}}`."""
  scores: dict[str, dict[str, float]] = {}
  for split, rows in (('validation', data.validation), ('test', data.test)):
    logits = predict(found.model, found.params, rows.features)
    for task in data.tasks:
      outputs = np.asarray(logits[task.name])
      value = equal_trees.score(task, outputs, rows)
      scores.setdefault(task.name, {})[split] = value
  return scores


def _grown(
  asked: Asked, source: Source, scores: Mapping[str, Mapping[str, float]]
) -> dict[str, equal_trees.Trees]:
  data = source.encode(0, is_last=True)
  return {
    task.name: equal_trees.grow(
      task, data, scores[task.name]['validation'], asked.seed
    )
    for task in data.tasks
  }


def _alternate(
  contestants: Sequence[Contestant], turns: int, console: Console
) -> list[dict[str, list[float]]]:
  """Returns the seconds of a row, `{clock: [turns]}`, of each contestant.

  They take turns, in an order that is reversed each time.
  """
  gc.collect()
  gc.freeze()  # or calls that allocate would look through all rows of the data
  counts = [_calibrated(one) for one in contestants]
  spent: list[dict[str, list[float]]] = [
    {'cpu': [], 'wall': []} for _ in contestants
  ]
  order = range(len(contestants))
  with display.steps(console, turns) as done:
    for turn in range(turns):
      for i in order[:: -1 if turn % 2 else 1]:
        cpu, wall = _timed(contestants[i], turn * counts[i], counts[i])
        spent[i]['cpu'].append(cpu / counts[i])
        spent[i]['wall'].append(wall / counts[i])
      done(f'turn {turn + 1} of {turns}')
  return spent


def _calibrated(contestant: Contestant) -> int:
  """Returns how many rows take LEAST.

  Raises:
    InputError: a row cannot be scored.
  """
  if contestant.run(0, single_rows.NUM_ROWS):  # also compiles, if need be
    raise InputError(f'{contestant.name} cannot score a row')
  count = 1
  while _timed(contestant, 0, count)[0] < LEAST:
    count *= 2
  return count


def _timed(
  contestant: Contestant, first: int, count: int
) -> tuple[float, float]:
  """Returns seconds of CPU time, of all threads, and by the clock."""
  cpu, wall = time.process_time(), time.perf_counter()
  contestant.run(first, count)
  return time.process_time() - cpu, time.perf_counter() - wall


def _environment() -> dict[str, Any]:
  found = provenance.environment()
  installed = {d.name for d in importlib.metadata.distributions()}
  found['versions'] |= {
    name: importlib.metadata.version(name)
    for name in _PACKAGES
    if name in installed
  }
  return found


def _table(figures: Mapping[str, Any]) -> TextTable:
  measured = figures['measured']
  first = next(
    one['cpu']
    for one in measured
    if (one['contestant'], one['reads']) == (_FIRST, single_rows.ENCODED)
  )
  return TextTable(
    'One row',
    ('contestant', 'row', 'us', 'times'),
    [
      (
        one['contestant'],
        one['reads'],
        f'{1e6 * statistics.median(one["cpu"]):.2f}',
        f'{_times(one["cpu"], first):.1f}',
      )
      for one in measured
    ],
    left=('contestant', 'row'),
  )


def _times(spent: Sequence[float], first: Sequence[float]) -> float:
  """Returns the median of the ratios within turns."""
  return statistics.median(x / y for x, y in zip(spent, first, strict=True))


def _lines(figures: Mapping[str, Any]) -> list[str]:
  """Returns what the table needs to be understood."""
  lines = [_NOTE]
  for weights, tasks in figures['scores'].items():
    listed = ', '.join(
      f'{task} {quality.shown(found["test"], ".5f")}'
      for task, found in tasks.items()
    )
    lines.append(f'network, {weights}: test {listed}')
  lines += [
    f'trees for {task}: {facts["trees"]} of {facts["leaves"]} leaves; test '
    f'{facts["test"]:.5f}, validation {facts["validation"]:.5f} (network '
    f'{figures["scores"][FLOAT][task]["validation"]:.5f})'
    for task, facts in figures['trees'].items()
  ]
  return lines
