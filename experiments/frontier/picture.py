"""The picture of a frontier: bytes against each task's primary metric.

Needs Matplotlib (the extra `plots`).
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.launcher import drawing, quality

_MOST_BESIDE = 3  # panels


def draw(path: pathlib.Path, results: Mapping[str, Any]) -> None:
  """Draws a panel per task, with a line per family.

  Bars are the 95 % intervals of the differences from the dense network. Its own
  line has a band of the margin of equivalence around it.

  Args:
    path: the file, written atomically.
    results: the content of frontier.json.
  """
  tasks = results['tasks']
  width = min(len(tasks), _MOST_BESIDE)
  height = -(-len(tasks) // width)
  figure = drawing.new_figure(5.2 * width + 1.8, 4.4 * height + 0.6)
  axes = figure.subplots(height, width, squeeze=False)
  for axis in axes.ravel()[len(tasks) :]:
    axis.set_axis_off()
  for axis, task in zip(axes.ravel(), tasks, strict=False):
    _panel(axis, results, task)
  drawing.add_legend(figure, axes)
  knees = '; ring: knee' if results['knees'] else ''
  figure.suptitle(
    f'{results["title"]}: means of {results["num_seeds"]} seeds\n'
    f'bars: 95 % interval of the difference from {results["baseline"]} (line; '
    f'grey: margin of equivalence){knees}',
    fontsize=9,
  )
  drawing.save(figure, path)


def _panel(axis: Any, results: Mapping[str, Any], task: str) -> None:
  rows = results['rows']
  metric = quality.primary(rows[0]['test'][task])
  (baseline,) = (row for row in rows if row['name'] == results['baseline'])
  level = baseline['test'][task][metric]['mean']
  margin = quality.margins(results)[task]
  for number, family in enumerate(results['families']):
    line = sorted(
      (row for row in rows if row['family'] == family),
      key=lambda row: row['num_bytes'],
    )
    _line(axis, line, task, metric, drawing.line_style(number))
  for name in results['knees'].values():
    (row,) = (row for row in rows if row['name'] == name)
    axis.plot(
      row['num_bytes'], row['test'][task][metric]['mean'], 'o', ms=14,
      mfc='none', mec='black', mew=1.2,
    )  # fmt: skip
  limits = axis.get_ylim()  # of the points: the band may be much wider
  axis.axhspan(level - margin, level + margin, color='0.92', zorder=0)
  axis.axhline(level, color='0.5', lw=0.8, zorder=0)
  axis.set_ylim(limits)
  ticker = drawing.matplotlib().ticker
  axis.set_xscale('log', base=2)
  axis.xaxis.set_major_formatter(ticker.FuncFormatter(_bytes))
  axis.tick_params(axis='x', labelsize=8)
  axis.set_xlabel('bytes of constant data on the device')
  axis.set_ylabel(f'test {quality.label(metric)}')
  axis.set_title(task)
  axis.grid(alpha=0.3)


def _line(
  axis: Any,
  line: Sequence[Mapping[str, Any]],
  task: str,
  metric: str,
  style: Mapping[str, Any],
) -> None:
  """Draws one family, with a bar wherever there is a difference."""
  means = np.array([row['test'][task][metric]['mean'] for row in line])
  ends = np.array(
    [
      [row['difference'][task][end] for end in ('estimate', 'low', 'high')]
      if row['difference']
      else [0.0, 0.0, 0.0]
      for row in line
    ]
  ).T
  axis.errorbar(
    [row['num_bytes'] for row in line], means,
    yerr=np.stack([ends[0] - ends[1], ends[2] - ends[0]]),
    label=line[0]['family'].replace('_', ' '), ms=5, lw=1.2, elinewidth=0.8,
    capsize=2, mec='black', mew=0.5, **style,
  )  # fmt: skip


def _bytes(value: float, _: object) -> str:
  """Returns 512 B, 1 kB, 64 kB; a kB has 1,024 bytes."""
  if value < 1024:
    return f'{value:g} B'
  return f'{value / 1024:g} kB'
