"""What a comparison says: differences, verdicts, tables, files."""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.comparison.folder import (
  CSV,
  DIFFERENCES,
  JSON,
  MARKDOWN,
  SIZES,
)
from experiments.launcher import display, files, plots, provenance, quality
from lplmtl import metrics, statistics
from lplmtl.types import Task

SAMPLES = 200  # of the rows, for metrics whose variance has no formula


def results(plan: Any, cells: Any, finished: Sequence[str]) -> dict[str, Any]:
  """All that is known of the finished rows, as JSON data."""
  finals = {name: cells.final(name) for name in finished}
  todo = {task.name: task for task in cells.tasks}
  tasks = list(cells.labels)
  base = finals[plan.baseline].scores
  single = finals.get(plan.single)
  rows = []
  for name, found in finals.items():
    row: dict[str, Any] = {
      'name': name,
      'setting': cells.chosen(name),
      'fits': cells.num_fits(name),
      'difference': None,
      'verdict': 'baseline',
      'mtl_gain': None,
      **found.facts,
      'fitted': cells.environment(name),
    }
    if name != plan.baseline:
      differences = {
        task: interval(
          todo[task], found.scores[task], cells.labels[task], base[task]
        )
        for task in tasks
      }
      row['difference'] = {t: d._asdict() for t, d in differences.items()}
      row['verdict'] = verdict(differences, plan.margin)
    if single is not None and name != plan.single:
      row['mtl_gain'] = _gain(found.facts['test'], single.facts['test'], tasks)
    row['interval'] = {
      task: interval(
        todo[task], found.scores[task], cells.labels[task]
      )._asdict()
      for task in tasks
    }
    rows.append(row)
  return {
    'title': f'{", ".join(tasks)}; {cells.facts["dataset"]}',
    'tasks': tasks,
    'baseline': plan.baseline,
    'single': plan.single,
    'margin': plan.margin,
    'num_seeds': plan.base.num_seeds,
    'tuning_seeds': plan.tuning_seeds,
    'settings': list(plan.settings),
    'tree_settings': list(plan.tree_settings),
    'config': plan.base.to_json(),
    'rows': rows,
    'data': cells.facts,
    'command': sys.argv,
    **provenance.environment(),
  }


def interval(
  task: Task, scores: np.ndarray, labels: Any, baseline: Any = None
) -> statistics.Interval:
  """The interval of a task's primary metric, or of a difference in it.

  Of an AUC by DeLong's variance; of any other metric, and of soft labels, by
  drawing test rows anew, so that it does not hold the variance of seeds.

  Args:
    task: whose first metric counts.
    scores: `[S, N, ...]` logits.
    labels: `[N]`.
    baseline: `[S', N, ...]` logits to differ from; None for the metric itself.
  """
  metric = next(iter(task.metric_fns.values()))
  labels = np.asarray(labels)
  is_soft = bool(((labels > 0) & (labels < 1)).any())
  if metric is metrics.roc_auc and not is_soft:
    if baseline is None:
      return statistics.auc_interval(scores, labels)
    return statistics.auc_difference(scores, baseline, labels)
  every = [*scores, *(() if baseline is None else baseline)]
  size = len(labels)

  def score(numbers: np.ndarray, own: np.ndarray) -> Any:
    """Of rows by number, counted through all lines of logits."""
    line, rows = int(numbers[0]) // size, numbers.astype(int) % size
    if line == len(every):
      return 0.0  # what the metric itself differs from
    return metric(*map(jnp.asarray, (every[line][rows], own, rows >= 0)))

  count = len(every) + (baseline is None)
  lines = np.arange(float(count * size)).reshape(count, size)
  ours, theirs = lines[: len(scores)], lines[len(scores) :]
  return statistics.paired_bootstrap(
    score, ours, theirs, labels, num_samples=SAMPLES
  )


def _gain(
  test: Mapping[str, Any], single: Mapping[str, Any], tasks: Sequence[str]
) -> float | None:
  """MTL gain; None where a metric is no share of a positive one."""
  ours, others = (
    [found[task][quality.primary(found[task])]['mean'] for task in tasks]
    for found in (test, single)
  )
  if not (np.isfinite(ours).all() and np.min(others) > 0):
    return None
  return statistics.mtl_gain(ours, others)


def verdict(
  differences: Mapping[str, statistics.Interval], margin: float
) -> str:
  """What the intervals of the differences allow to say."""
  if all(found.within(margin) for found in differences.values()):
    return 'equivalent'
  parts = [
    f'{word} on {", ".join(names)}'
    for word, names in (
      ('better', [t for t, d in differences.items() if d.low > 0]),
      ('worse', [t for t, d in differences.items() if d.high < 0]),
    )
    if names
  ]
  return '; '.join(parts) or 'undecided'


def write(folder: pathlib.Path, found: Mapping[str, Any]) -> None:
  """Writes the tables as Markdown, CSV and JSON, and the pictures."""
  import pandas as pd

  files.write_text(folder / MARKDOWN, markdown(found))
  frame = pd.DataFrame([_flat(row, found) for row in found['rows']])
  files.write_text(folder / CSV, frame.to_csv(index=False))
  for name in (SIZES, DIFFERENCES):  # those of an older table
    (folder / name).unlink(missing_ok=True)
  if plots.is_available():
    plots.sizes(folder / SIZES, found)
    if len(found['rows']) > 1:
      plots.differences(folder / DIFFERENCES, found)
  files.write_json(folder / JSON, found)


def tables(found: Mapping[str, Any]) -> list[display.TextTable]:
  """Quality, cost, and the settings that were tried."""
  tasks, baseline = found['tasks'], found['baseline']
  letters = _letters(found)
  first = found['rows'][0]['test']
  metric = {task: quality.primary(first[task]) for task in tasks}
  name = {task: quality.label(metric[task]) for task in tasks}
  shown = ' and '.join(dict.fromkeys(name.values()))
  ranked = [task for task in tasks if 'average_precision' in first[task]]
  ranking = display.TextTable(
    f'Test {shown} ({found["title"]}; mean ± std over {found["num_seeds"]} '
    f'seeds; Δ: difference to {baseline} with its 95 % interval, in units of '
    '.0001)',
    [
      'row',
      *(x for t in tasks for x in (f'{t} {name[t]}', f'Δ {t}')),
      f'against {baseline}',
      'MTL gain',
    ],
    [
      [
        row['name'],
        *(
          x
          for task in tasks
          for x in (
            display.plus_minus(row['test'][task][metric[task]]),
            _difference(row, task),
          )
        ),
        row['verdict'],
        _optional(row['mtl_gain'], '{:+.2f} %'),
      ]
      for row in found['rows']
    ],
    left=('row', f'against {baseline}'),
  )
  cost = display.TextTable(
    f'Cost, {"average precision, " if ranked else ""}and what was chosen '
    f'({found["title"]})',
    [
      'row', 'parameters', 'FLOPs', *(f'{task} AP' for task in ranked),
      'train ex/s', 'latency', 'fits', 'setting',
    ],
    [
      [
        row['name'],
        f'{row["parameters"]:,}',
        _optional(row.get('flops_per_example'), '{:,}'),
        *(
          display.plus_minus(row['test'][task]['average_precision'])
          for task in ranked
        ),
        _optional(row.get('examples_per_second'), '{:,.0f}'),
        f'{1e6 * row["latency"]:.0f} µs',
        str(row['fits']),
        ' '.join(dict.fromkeys(letters[s] for s in row['setting'].values())),
      ]
      for row in found['rows']
    ],
    left=('row', 'setting'),
  )  # fmt: skip
  tried = display.TextTable(
    f'Settings: every row tried each with {found["tuning_seeds"]} seeds, '
    f'and took the best by validation {shown}',
    ['', 'setting'],
    [[letter, setting or 'as it is'] for setting, letter in letters.items()],
    left=('', 'setting'),
  )
  return [ranking, cost, tried]


def _letters(found: Mapping[str, Any]) -> dict[str, str]:
  """`{setting: letter}`; those of the trees are numbers."""
  networks = found['settings'] or ['']
  trees = {s: str(i + 1) for i, s in enumerate(found['tree_settings'])}
  return {s: _letter(i) for i, s in enumerate(networks)} | trees


def _letter(number: int) -> str:
  """a, b, ..., z, aa, ab, ..."""
  last = chr(ord('a') + number % 26)
  return last if number < 26 else _letter(number // 26 - 1) + last


def markdown(found: Mapping[str, Any]) -> str:
  """The tables, and what they were made from."""
  return '\n'.join(
    [
      *(table.to_markdown() for table in tables(found)),
      f'{notes(found)}\n',
      f'```sh\n{provenance.command_line(found["command"])}\n```\n',
    ]
  )


def notes(found: Mapping[str, Any]) -> str:
  """How to read the tables."""
  fitted = [row['fitted'] for row in found['rows']]
  test = found['rows'][0]['test']
  others = [t for t in found['tasks'] if quality.primary(test[t]) != 'auc']
  rows_alone = f' (of {", ".join(others)}: rows alone)' if others else ''
  differ = any(other != fitted[0] for other in fitted)
  return (
    f'{found["data"]["statement"]}. Intervals hold the variance of seeds and '
    f'of test rows{rows_alone}; equivalent: inside ±{found["margin"]:g} on '
    'every task, a difference from 0 or not; nothing is corrected for the '
    'number of rows. '
    'The standard deviation is that of the seeds. FLOPs: of scoring a row. '
    'Training examples per second: all seeds, validation included. Latency: '
    'the median of scoring one row. Each setting was chosen by the primary '
    'validation metrics of other seeds, their mean over tasks; trees choose '
    'for each task.'
    + (' Rows were fitted on different machines or commits.' if differ else '')
  )


def _difference(row: Mapping[str, Any], task: str) -> str:
  """`+3.1 [-2.4, +8.6]`, in units of .0001."""
  if row['difference'] is None:
    return ''
  found = row['difference'][task]
  estimate, low, high = (
    1e4 * found[part] for part in ('estimate', 'low', 'high')
  )
  return f'{estimate:+.1f} [{low:+.1f}, {high:+.1f}]'


def _optional(value: float | None, form: str) -> str:
  return '' if value is None else form.format(value)


def _flat(row: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
  """A row of the CSV: names and numbers."""
  flat = {
    'row': row['name'],
    'setting': json.dumps(row['setting']),
    'fits': row['fits'],
    'parameters': row['parameters'],
    'flops_per_example': row.get('flops_per_example'),
    'examples_per_second': row.get('examples_per_second'),
    'latency_seconds': row['latency'],
    'mtl_gain_percent': row['mtl_gain'],
    'verdict': row['verdict'],
  }
  for task in found['tasks']:
    scored = row['test'][task]
    for metric, values in scored.items():
      flat[f'{task}_{metric}_mean'] = values['mean']
      flat[f'{task}_{metric}_std'] = values['std']
    for kind in ('interval', 'difference'):
      for part in ('estimate', 'low', 'high'):
        value = row[kind][task][part] if row[kind] else np.nan
        flat[f'{task}_{quality.primary(scored)}_{kind}_{part}'] = value
  return flat
