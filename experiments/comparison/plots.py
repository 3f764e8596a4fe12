"""Pictures of a comparison: quality against size, differences.

Each function takes the contents of comparison.json, writes a PNG atomically and
needs Matplotlib (the extra `plots`).
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.launcher import drawing, quality


def sizes(path: pathlib.Path, comparison: Mapping[str, Any]) -> None:
  """Draws primary metrics against parameters and FLOPs, one column per task.

  Bars are the 95 % intervals of the differences from the baseline. Intervals of
  the metrics themselves would mostly show the variance of the test rows, which
  all rows of the table share.
  """
  tasks = comparison['tasks']
  figure = drawing.new_figure(4.6 * len(tasks) + 2.6, 7.2)
  axes = figure.subplots(2, len(tasks), squeeze=False, sharey='col')
  kinds = (('parameters', 'parameters'), ('flops_per_example', 'FLOPs per row'))
  for i, task in enumerate(tasks):
    for axis, (field, label) in zip(axes[:, i], kinds, strict=True):
      _draw_sizes(axis, comparison, task, field)
      axis.set_xlabel(label)
    axes[0, i].set_title(task)
  drawing.add_legend(figure, axes)
  figure.suptitle(
    f'{comparison["title"]}: means of {comparison["num_seeds"]} seeds\n'
    f'bars: 95 % interval of the difference from {comparison["baseline"]} '
    '(line)',
    fontsize=9,
  )
  drawing.save(figure, path)


def _draw_sizes(
  axis: Any, comparison: Mapping[str, Any], task: str, field: str
) -> None:
  """Draws one task's primary metric against one measure of size."""
  metric = quality.primary(comparison['rows'][0]['test'][task])
  for number, row in enumerate(comparison['rows']):
    mean = row['test'][task][metric]['mean']
    if row['name'] == comparison['baseline']:
      axis.axhline(mean, color='0.6', lw=0.8, zorder=0)
    if row.get(field) is None:
      continue
    reach = 0.0
    if row['difference']:
      interval = row['difference'][task]
      reach = (interval['high'] - interval['low']) / 2
    style = drawing.line_style(number)
    # Once all markers are used up, they repeat with a white face.
    is_open = number // len(drawing.MARKERS) % 2
    axis.errorbar(
      row[field], mean, yerr=reach or None, fmt=style['marker'],
      label=row['name'], color=style['color'], ms=7, lw=0.9, capsize=2,
      mfc='white' if is_open else style['color'],
      mec=style['color'] if is_open else 'black', mew=1.2 if is_open else 0.5,
    )  # fmt: skip
  ticker = drawing.matplotlib().ticker
  axis.set_xscale('log')
  axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5, 7)))
  axis.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:,.0f}'))
  axis.xaxis.set_minor_formatter(ticker.NullFormatter())
  axis.tick_params(axis='x', labelsize=8)
  axis.set_ylabel(f'{task}: test {quality.label(metric)}')
  axis.grid(alpha=0.3)


def differences(path: pathlib.Path, comparison: Mapping[str, Any]) -> None:
  """Draws each row's difference from the baseline, with its interval."""
  ticker = drawing.matplotlib().ticker
  tasks = comparison['tasks']
  margins = quality.margins(comparison)
  rows = [row for row in comparison['rows'] if row['difference']]
  names = [f'{row["name"]} ({row["parameters"]:,})' for row in rows]
  # A character of 8 points is about 0.065 inches wide.
  margin = max(2.6, 0.065 * max(map(len, names)))
  figure = drawing.new_figure(
    3.6 * len(tasks) + margin, 0.34 * max(len(rows), 3) + 1.6
  )
  axes = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
  places = np.arange(len(rows))[::-1]
  for axis, task in zip(axes, tasks, strict=True):
    intervals = [row['difference'][task] for row in rows]
    estimates = np.array([d['estimate'] for d in intervals])
    ends = np.array([[d['low'], d['high']] for d in intervals]).reshape(-1, 2)
    axis.axvspan(-margins[task], margins[task], color='0.9', zorder=0)
    axis.axvline(0, color='0.4', lw=0.8)
    axis.errorbar(
      estimates, places, xerr=np.abs(ends.T - estimates), fmt='o', ms=4,
      color='black', capsize=3, lw=1,
    )  # fmt: skip
    axis.set_title(task)
    metric = quality.primary(rows[0]['test'][task])
    axis.set_xlabel(f'difference in test {quality.label(metric)}')
    axis.xaxis.set_major_locator(ticker.MaxNLocator(5))
    axis.grid(axis='x', alpha=0.3)
  axes[0].set_yticks(places, names, fontsize=8)
  figure.suptitle(
    f'{comparison["title"]}: difference from {comparison["baseline"]}\n95 % '
    f'intervals over seeds and rows; grey: {_listed(margins)}; in brackets: '
    'parameters',
    fontsize=9,
  )
  drawing.save(figure, path)


def _listed(margins: Mapping[str, float]) -> str:
  """Returns the margins as text, one for all tasks if they are equal."""
  return ', '.join(f'±{m:g}' for m in dict.fromkeys(margins.values()))
