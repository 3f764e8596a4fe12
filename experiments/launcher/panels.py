"""The picture of what a run predicts: one panel for each task.

Needs Matplotlib (the extra `plots`).
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.launcher import drawing, plots, quality

_MOST_LABELLED = 12  # classes whose names and shares still have room
_MOST_BESIDE = 3  # panels
_SHARES = 0.6  # above this share a cell is too dark for black text


def outcomes(path: pathlib.Path, results: Mapping[str, Any]) -> None:
  """Draws what is predicted beside what is true on the test rows.

  A reliability diagram for a binary task, a confusion table for classes,
  predicted against true numbers, the AUC of each of several labels; see
  `outcomes.describe` and `scoring.Scores`.

  Args:
    path: the file.
    results: of a run; its `test`, `calibration`, `outcomes` and `title`.
  """
  tasks = [task for task in results['test'] if _has_panel(results, task)]
  width = min(len(tasks), _MOST_BESIDE)
  height = -(-len(tasks) // width)
  figure = drawing.new_figure(4.4 * width + 0.4, 4.4 * height + 0.4)
  axes = figure.subplots(height, width, squeeze=False).ravel()
  for axis in axes[len(tasks) :]:
    axis.set_axis_off()
  targets = results['data'].get('targets', {})
  for axis, task in zip(axes, tasks, strict=False):
    found = results.get('outcomes', {}).get(task)
    remark = unit = ''
    if found is None:
      positive = plots.positive_rows(task, targets)
      plots.reliability(axis, {'': results['calibration'][task]}, positive)
    elif found['kind'] == 'classes':
      _confusion(axis, found)
    elif found['kind'] == 'labels':
      _labels(axis, found)
    else:
      _numbers(axis, found)
      remark = f'; mean error {drawing.number(found["error"])}'
      unit = f' ({found["unit"]})' if found['unit'] else ''
    metrics = results['test'][task]
    metric = quality.primary(metrics)
    value = f'{quality.label(metric)} {quality.shown(metrics[metric]["mean"])}'
    axis.set_title(f'{task}{unit}\n{value}{remark}', fontsize=10)
  several = 'classes and numbers: the first seed; metrics: means over seeds'
  note = f'\n{several}' if results['config']['num_seeds'] > 1 else ''
  figure.suptitle(f'{results["title"]}: test rows{note}', fontsize=10)
  drawing.save(figure, path)


def can_be_drawn(results: Mapping[str, Any]) -> bool:
  """Whether any task of a run has a panel."""
  return any(_has_panel(results, task) for task in results['test'])


def _has_panel(results: Mapping[str, Any], task: str) -> bool:
  return any(
    task in results.get(part, ()) for part in ('outcomes', 'calibration')
  )


def _confusion(axis: Any, found: Mapping[str, Any]) -> None:
  """Draws the share of each true class that each predicted class gets."""
  counts = np.array(found['counts'], float)
  totals = counts.sum(axis=1, keepdims=True)
  shares = counts / np.maximum(totals, 1)
  size = len(counts)
  axis.imshow(shares, cmap='Greys', vmin=0, vmax=1)
  if size <= _MOST_LABELLED:
    for (row, column), share in np.ndenumerate(shares):
      axis.text(
        column, row, f'{share:.0%}', ha='center', va='center', fontsize=8,
        color='white' if share > _SHARES else 'black',
      )  # fmt: skip
    sizes = [f'{n:,.0f}' for n in totals[:, 0]]
    axis.set_yticks(
      range(size),
      [f'{n} ({c})' for n, c in zip(found['classes'], sizes, strict=True)],
      fontsize=8,
    )
    axis.set_xticks(
      range(size), found['classes'], fontsize=8, rotation=45, ha='right'
    )
  axis.set_xlabel('predicted class')
  axis.set_ylabel('true class (rows)')


def _numbers(axis: Any, found: Mapping[str, Any]) -> None:
  """Draws predicted against true numbers."""
  true, predicted = (
    np.array(found[part], float) for part in ('true', 'predicted')
  )
  both = np.concatenate([true, predicted[np.isfinite(predicted)]])
  ends = [both.min(), both.max()]
  axis.plot(ends, ends, color='0.6', lw=0.8, zorder=0)
  axis.plot(true, predicted, 'o', ms=3, alpha=0.4, mew=0)
  axis.set_xlabel('true value')
  axis.set_ylabel('predicted value')
  for ticks in (axis.xaxis, axis.yaxis):
    drawing.plain_numbers(ticks)
  axis.grid(alpha=0.3)


def _labels(axis: Any, found: Mapping[str, Any]) -> None:
  """Draws the AUC of each label; none where it is undefined."""
  aucs = [np.nan if auc is None else auc for auc in found['auc']]
  places = np.arange(len(aucs))[::-1]
  axis.plot(aucs, places, 'o', color='black', ms=5)
  axis.axvline(0.5, color='0.6', lw=0.8)
  axis.set_yticks(places, found['labels'], fontsize=8)
  axis.set_xlabel('AUC (line: chance)')
  axis.grid(alpha=0.3)
