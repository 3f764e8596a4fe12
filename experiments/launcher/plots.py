"""Pictures of runs: learning curves, calibration.

Each function writes a PNG atomically and needs Matplotlib (the extra `plots`).
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.launcher import drawing, quality

# Bins with fewer rows per seed than this show chance rather than calibration.
_FEWEST_ROWS = 20
# Columns of learning curves, of which each is 4 inches wide.
_MOST_COLUMNS = 12


def curves(
  path: pathlib.Path,
  history: Sequence[Mapping[str, Any]],
  task_names: Sequence[str],
  title: str,
) -> None:
  """Draws the learning curves and loss weights of one run.

  One column for each of the first 12 tasks: training loss, primary validation
  metric, and loss weight unless all weights are equal.
  Lines are means over the seeds; bands span the lowest to the highest seed.
  """
  epochs = np.array([record['epoch'] for record in history])
  scored = [record for record in history if 'validation' in record]
  scored_epochs = np.array([record['epoch'] for record in scored])
  has_weights = quality.weights_differ([r['loss_weights'] for r in history])
  height, shown = 3 if has_weights else 2, task_names[:_MOST_COLUMNS]
  if len(shown) < len(task_names):
    title = f'{title}, {len(shown)} of {len(task_names)} tasks'
  figure = drawing.new_figure(4 * len(shown) + 0.6, 2.6 * height + 0.2)
  axes = figure.subplots(height, len(shown), sharex=True, squeeze=False)
  for i, name in enumerate(shown):
    style = drawing.STYLES[i % len(drawing.STYLES)]
    losses = np.stack([record['losses'][:, i] for record in history])
    metrics = scored[0]['validation'][name]
    metric = quality.primary(metrics)
    scores = np.stack([record['validation'][name][metric] for record in scored])
    weights = np.stack([record['loss_weights'][:, i] for record in history])
    rows = (
      (epochs, losses, quality.training_loss(metrics)),
      (scored_epochs, scores, f'validation {quality.label(metric)}'),
      (epochs, weights, 'loss weight'),
    )
    for axis, (x, values, label) in zip(axes[:, i], rows, strict=False):
      (line,) = axis.plot(x, values.mean(axis=1), f'C{i}{style}o', ms=3)
      if values.shape[1] > 1:
        axis.fill_between(
          x, values.min(axis=1), values.max(axis=1),
          color=line.get_color(), alpha=0.2, linewidth=0,
        )  # fmt: skip
      axis.set_ylabel(label)
      axis.grid(alpha=0.3)
    axes[0, i].set_title(name)
    drawing.label_epochs(axes[-1, i])
  seeds = history[0]['losses'].shape[0]
  band = f'mean of {seeds} seeds, band: lowest to highest' if seeds > 1 else ''
  figure.suptitle(f'{title}\n{band}' if band else title, fontsize=10)
  drawing.save(figure, path)


def learning(
  path: pathlib.Path,
  runs: Mapping[str, Sequence[Mapping[str, Any]]],
  task_names: Sequence[str],
) -> None:
  """Draws the learning curves and, if they differ, loss weights of some runs.

  Args:
    path: the file.
    runs: `{name: history}`; lines are means over the seeds.
    task_names: one column each.
  """
  has_weights = any(
    quality.weights_differ([record['loss_weights'] for record in history])
    for history in runs.values()
  )
  height = 3 if has_weights else 2
  figure = drawing.new_figure(4 * len(task_names) + 2.6, 2.6 * height + 0.2)
  axes = figure.subplots(height, len(task_names), sharex=True, squeeze=False)
  for i, task in enumerate(task_names):
    metrics = next(
      history[-1]['validation'][task]
      for history in runs.values()
      if task in history[-1]['validation']
    )
    metric = quality.primary(metrics)
    labels = (
      quality.training_loss(metrics),
      f'validation {quality.label(metric)}',
      'loss weight',
    )
    for number, (name, history) in enumerate(runs.items()):
      if metric not in history[-1]['validation'].get(task, ()):
        continue
      place = list(history[-1]['validation']).index(task)
      scored = [record for record in history if 'validation' in record]
      rows = (
        (history, [r['losses'][:, place].mean() for r in history]),
        (scored, [r['validation'][task][metric].mean() for r in scored]),
        (history, [r['loss_weights'][:, place].mean() for r in history]),
      )
      style = drawing.line_style(number)
      for axis, (records, values) in zip(axes[:, i], rows, strict=False):
        epochs = [record['epoch'] for record in records]
        axis.plot(epochs, values, label=name, ms=4, **style)
    for axis, label in zip(axes[:, i], labels, strict=False):
      axis.set_ylabel(label)
      axis.grid(alpha=0.3)
    axes[0, i].set_title(task)
    drawing.label_epochs(axes[-1, i])
  drawing.add_legend(figure, axes)
  figure.suptitle('Learning curves, means over seeds', fontsize=10)
  drawing.save(figure, path)


def calibration(
  path: pathlib.Path,
  runs: Mapping[str, Mapping[str, Any]],
  task_names: Sequence[str],
  targets: Mapping[str, Any],
) -> None:
  """Draws the reliability diagrams of several runs.

  Args:
    path: the file.
    runs: `{name: {task: {part: [S][bins]}}}`, see `scoring.Scores`.
    task_names: one column each.
    targets: `{task: {positive}}`, for any of the tasks.
  """
  figure = drawing.new_figure(4 * len(task_names) + 2.6, 4.3)
  axes = figure.subplots(1, len(task_names), squeeze=False)
  for axis, task in zip(axes[0], task_names, strict=True):
    diagrams = {name: of.get(task) for name, of in runs.items()}
    reliability(axis, diagrams, positive_rows(task, targets))
    axis.set_title(task)
  drawing.add_legend(figure, axes)
  figure.suptitle('Calibration on the test rows, 15 bins', fontsize=10)
  drawing.save(figure, path)


def positive_rows(task: str, targets: Mapping[str, Any]) -> str:
  """Returns which rows a binary task's probability is that of, as text.

  Args:
    task: its name.
    targets: `{task: {positive}}`, for any of the tasks.
  """
  positive = targets.get(task, {}).get('positive')
  return (
    'positive rows' if positive is None else f'rows with {task} = {positive}'
  )


def reliability(
  axis: Any, diagrams: Mapping[str, Any], positive: str = 'positive rows'
) -> None:
  """Draws one task's reliability diagrams.

  Args:
    axis: Matplotlib's.
    diagrams: `{name: {part: [S][bins]}}`; None for a run without the task. The
      rows of a bin are added up over the seeds.
    positive: which rows count as positive.
  """
  axis.plot([0, 1], [0, 1], color='0.6', lw=0.8, label='perfect')
  for number, (name, diagram) in enumerate(diagrams.items()):
    if diagram is None:
      continue
    count, predicted, observed = (
      np.array(diagram[part], float)
      for part in ('num_rows', 'predicted', 'observed')
    )
    total = count.sum(axis=0)
    is_shown = total >= _FEWEST_ROWS * len(count)
    x, y = (
      np.nansum(count * values, axis=0)[is_shown] / total[is_shown]
      for values in (predicted, observed)
    )
    axis.plot(x, y, label=name, ms=4, **drawing.line_style(number))
  axis.set_xlabel('mean predicted probability')
  axis.set_ylabel(f'share of {positive}')
  axis.set_aspect('equal')
  axis.grid(alpha=0.3)
