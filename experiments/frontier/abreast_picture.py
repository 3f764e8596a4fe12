"""The picture of roads side by side; see `abreast`.

Needs Matplotlib (the extra `plots`).
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.frontier.abreast import BASELINE
from experiments.frontier.roads import FORMS, ROADS
from experiments.launcher import drawing, quality

_APART = 0.17  # forms of one road, of whose lines the distance is 1


def draw(path: pathlib.Path, results: Mapping[str, Any]) -> None:
  """Draws a panel per budget and task: differences from `BASELINE`, with bars.

  A panel is as wide as the margin of equivalence; arrows stand for what is not.

  Args:
    path: the file, written atomically.
    results: the content of frontier.json.
  """
  tasks, budgets = results['tasks'], results['budgets']
  others = [road for road in ROADS if road != BASELINE]
  figure = drawing.new_figure(
    3.4 * len(tasks) + 3.4, (0.36 * len(others) + 0.9) * len(budgets) + 0.8
  )
  axes = figure.subplots(len(budgets), len(tasks), squeeze=False, sharey=True)
  for line, budget in zip(axes, budgets, strict=True):
    for axis, task in zip(line, tasks, strict=True):
      _panel(axis, results, task, budget, others)
    names = [road.replace('_', ' ') for road in others]
    line[0].set_yticks(range(len(others)), names, fontsize=8)
  axes[0, 0].invert_yaxis()  # which all share
  drawing.add_legend(figure, axes)
  figure.suptitle(
    f'{results["title"]}: difference from {BASELINE} at equal bytes\n95 % '
    'intervals over seeds and rows; panels end at the margin of equivalence, '
    'arrows are outside',
    fontsize=9,
  )
  drawing.save(figure, path)


def _panel(
  axis: Any,
  results: Mapping[str, Any],
  task: str,
  budget: int,
  others: list[str],
) -> None:
  margin = quality.margins(results)[task]
  axis.axvline(0, color='0.4', lw=0.8, zorder=0)
  for number, form in enumerate(FORMS):
    found = [
      (place, results['abreast'][name][task])
      for place, road in enumerate(others)
      if (name := f'{road} {budget} {form}') in results['abreast']
    ]
    places = np.array([place for place, _ in found], float)
    places += _APART * (number - (len(FORMS) - 1) / 2)
    ends = np.array(
      [[d['estimate'], d['low'], d['high']] for _, d in found]
    ).reshape(-1, 3)
    inside = np.abs(ends[:, 0]) <= margin
    shown = ends[inside]
    style = {**drawing.line_style(number), 'linestyle': 'none'}
    axis.errorbar(
      shown[:, 0], places[inside],
      xerr=np.abs(shown[:, 1:] - shown[:, :1]).T, label=str(form), ms=4,
      elinewidth=0.8, capsize=2, mec='black', mew=0.4, **style,
    )  # fmt: skip
    for place, end in zip(places[~inside], ends[~inside], strict=True):
      side = np.sign(end[0])
      axis.plot(
        side * margin * 0.96, place, marker='>' if side > 0 else '<', ms=6,
        color=style['color'], mec='black', mew=0.4,
      )  # fmt: skip
  axis.set_xlim(-margin, margin)
  axis.xaxis.set_major_locator(drawing.matplotlib().ticker.MaxNLocator(5))
  axis.tick_params(axis='x', labelsize=8)
  metric = quality.primary(results['rows'][0]['test'][task])
  axis.set_xlabel(f'difference in test {quality.label(metric)}', fontsize=8)
  axis.set_title(f'{task}, {budget:,} bytes', fontsize=9)
  axis.grid(axis='x', alpha=0.3)
