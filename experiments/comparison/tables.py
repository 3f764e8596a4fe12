"""A comparison as tables and files: Markdown, CSV, JSON and pictures.

All functions take the JSON data that `results.make` returns.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.comparison import plots
from experiments.comparison.folder import (
  CSV,
  DIFFERENCES,
  JSON,
  MARKDOWN,
  SIZES,
)
from experiments.launcher import display, drawing, files, provenance, quality

Results = Mapping[str, Any]
MOST_TASKS = 3  # side by side: more would not fit a screen
_CHOSEN = (
  ' Each setting was chosen by the primary validation metrics of other seeds, '
  'averaged over tasks; trees choose one for each task separately.'
)


def write(directory: pathlib.Path, results: Results) -> None:
  """Writes the tables, the pictures and, last, comparison.json."""
  files.write_text(directory / MARKDOWN, markdown(results))
  files.write_text(directory / CSV, csv(results))
  for name in (SIZES, DIFFERENCES):  # of an older table
    (directory / name).unlink(missing_ok=True)
  if drawing.is_available():
    plots.sizes(directory / SIZES, results)
    if len(results['rows']) > 1:
      plots.differences(directory / DIFFERENCES, results)
  files.write_json(directory / JSON, results)


def markdown(results: Results) -> str:
  """Returns the tables, how to read them, and the command."""
  return page(tables(results), notes(results), results['command'])


def page(
  shown: Sequence[display.TextTable], notes: str, command: Sequence[str]
) -> str:
  """Returns tables, how to read them, and the command, in Markdown."""
  return '\n'.join(
    [
      *(table.to_markdown() for table in shown),
      f'{notes}\n',
      f'```sh\n{provenance.command_line(command)}\n```\n',
    ]
  )


def tables(results: Results) -> list[display.TextTable]:
  """Returns quality, cost, and the settings that were tried."""
  tasks = results['tasks']
  return [
    *(
      quality_table(results, tasks[i : i + MOST_TASKS])
      for i in range(0, len(tasks), MOST_TASKS)
    ),
    cost_table(results),
    settings_table(results),
  ]


def quality_table(
  results: Results, tasks: Sequence[str] = ()
) -> display.TextTable:
  """Returns each row's primary test metrics, and their differences.

  Args:
    results: of the comparison.
    tasks: those to show; by default all.
  """
  tasks, baseline = tasks or results['tasks'], results['baseline']
  metric = primary_metrics(results)
  has_gain = results['single'] or not is_table(results)
  gain = ['MTL gain'] if has_gain else []
  heads = (
    x
    for task in tasks
    for x in (f'{task} {quality.label(metric[task])}', f'Δ {task}')
  )
  rows = [
    [
      row['name'],
      *(
        x
        for task in tasks
        for x in (
          display.plus_minus(row['test'][task][metric[task]]),
          difference_text(row, task, 1 if is_table(results) else 1e4),
        )
      ),
      row['verdict'],
      *([_optional(row['mtl_gain'], '{:+.2f} %')] if gain else []),
    ]
    for row in results['rows']
  ]
  names = primary_names(results, tasks)
  unit = '' if is_table(results) else ', in units of .0001'
  return display.TextTable(
    f'Test {names} ({results["title"]}; mean ± std over '
    f'{results["num_seeds"]} seeds; Δ: difference from {baseline} with its '
    f'95 % interval{unit})',
    ['row', *heads, f'against {baseline}', *gain],
    rows,
    left=('row', f'against {baseline}'),
  )


def cost_table(results: Results) -> display.TextTable:
  """Returns sizes, speeds, average precision, and the chosen settings."""
  letters = _letters(results)
  first = results['rows'][0]['test']
  ranked = [t for t in results['tasks'] if 'average_precision' in first[t]]
  tried = ['settings tried'] if is_table(results) else []
  rows = [
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
      *([str(row['num_settings'])] if is_table(results) else []),
      str(row['fits']),
      ' '.join(dict.fromkeys(letters[s] for s in row['setting'].values())),
    ]
    for row in results['rows']
  ]
  return display.TextTable(
    f'Cost, {"average precision, " if ranked else ""}and what was chosen '
    f'({results["title"]})',
    [
      'row', 'parameters', 'FLOPs', *(f'{task} AP' for task in ranked),
      'train ex/s', 'latency', *tried, 'fits', 'setting',
    ],
    rows,
    left=('row', 'setting'),
  )  # fmt: skip


def settings_table(results: Results) -> display.TextTable:
  """Returns what the letters in the cost table stand for."""
  who = 'every row'
  if len(results['settings']) < 2:
    who = 'the trees alone'
  seeds = results['tuning_seeds']
  title = (
    f'Settings: {who} tried each of them with {seeds} '
    f'{"seeds" if seeds > 1 else "seed"} and took the best by validation '
    f'{primary_names(results, results["tasks"])}'
  )
  if not _is_tuned(results):
    title = 'Settings: one for all rows, as nothing was tuned'
  return display.TextTable(
    title,
    ['', 'setting'],
    [
      [letter, name or 'as given'] for name, letter in _letters(results).items()
    ],
    left=('', 'setting'),
  )


def _is_tuned(results: Results) -> bool:
  return max(len(results['settings']), len(results['tree_settings'])) > 1


def notes(results: Results) -> str:
  """Returns a paragraph on how to read the tables."""
  environments = [row['fitted'] for row in results['rows']]
  differ = any(other != environments[0] for other in environments)
  return (
    f'{results["data"]["statement"]}. Intervals cover the variance of seeds '
    f'and of test rows; equivalent: inside {margins_text(results)}, whether or '
    'not 0 is inside the interval; no correction is made for the number of '
    f'rows. The standard deviation is that of the seeds. {_gain(results)}'
    'FLOPs: to score one row. Training examples per second: over all seeds, '
    'validation included. Latency: the median time to score one row.'
    + (_CHOSEN if _is_tuned(results) else '')
    + (' Rows were fitted on different machines or commits.' if differ else '')
  )


def _gain(results: Results) -> str:
  """Returns what MTL gain means, if there is any."""
  if all(row['mtl_gain'] is None for row in results['rows']):
    return ''
  return (
    'MTL gain: by how many percent the primary test metric is better than that '
    f'of {results["single"]}, the mean over tasks. '
  )


def margins_text(results: Results) -> str:
  """Returns the margins of equivalence."""
  margins = quality.margins(results)
  if len(set(margins.values())) == 1:
    return f'±{next(iter(margins.values())):g} on every task'
  return ', '.join(f'±{margin:g} on {task}' for task, margin in margins.items())


def csv(results: Results) -> str:
  """Returns all figures, one line per row of the comparison."""
  frame = pd.DataFrame([flat(row, results) for row in results['rows']])
  return frame.to_csv(index=False)


def flat(row: Mapping[str, Any], results: Results) -> dict[str, Any]:
  """Returns a row of the CSV file."""
  flat = {
    'row': row['name'],
    'setting': json.dumps(row['setting']),
    'fits': row['fits'],
    'parameters': row['parameters'],
    'flops_per_example': row.get('flops_per_example'),
    'examples_per_second': row.get('examples_per_second'),
    'latency_seconds': row.get('latency'),
    'mtl_gain_percent': row['mtl_gain'],
    'verdict': row['verdict'],
  }
  for task in results['tasks']:
    scored = row['test'][task]
    for metric, values in scored.items():
      flat[f'{task}_{metric}_mean'] = values['mean']
      flat[f'{task}_{metric}_std'] = values['std']
    for kind in ('interval', 'difference'):
      for part in ('estimate', 'low', 'high'):
        value = row[kind][task][part] if row[kind] else np.nan
        flat[f'{task}_{quality.primary(scored)}_{kind}_{part}'] = value
  return flat


def primary_metrics(results: Results) -> dict[str, str]:
  """Returns `{task: metric}`."""
  first = results['rows'][0]['test']
  return {task: quality.primary(first[task]) for task in results['tasks']}


def primary_names(results: Results, tasks: Sequence[str]) -> str:
  """Returns the primary metrics of some tasks, as text."""
  primary = primary_metrics(results)
  metrics = [primary[task] for task in tasks]
  *others, last = dict.fromkeys(map(quality.label, metrics))
  return f'{", ".join(others)} and {last}' if others else last


def _letters(results: Results) -> dict[str, str]:
  """Returns `{setting: letter}`; settings of the trees have numbers."""
  networks = results['settings'] or ['']
  trees = {s: str(i + 1) for i, s in enumerate(results['tree_settings'])}
  return {s: _letter(i) for i, s in enumerate(networks)} | trees


def _letter(number: int) -> str:
  """Returns a, b, ..., z, aa, ab, ..."""
  last = chr(ord('a') + number % 26)
  return last if number < 26 else _letter(number // 26 - 1) + last


def is_table(results: Results) -> bool:
  """Whether the rows are a user's table.

  Its few rows leave differences that are best read beside the metrics, in their
  unit; those of published comparisons on Census-Income are far smaller.
  """
  return bool(results.get('config', {}).get('data'))


def difference_text(row: Mapping[str, Any], task: str, scale: float) -> str:
  """Returns `+3.1 [-2.4, +8.6]`, or `+0.0003 [...]`, if there is one."""
  if row['difference'] is None:
    return ''
  parts = ('estimate', 'low', 'high')
  estimate, low, high = (scale * row['difference'][task][p] for p in parts)
  if not np.isfinite(estimate):
    return 'undefined'
  digits = 4 if scale == 1 else 1
  return f'{estimate:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]'


def _optional(value: float | None, form: str) -> str:
  return '' if value is None else form.format(value)
