"""Pictures of runs: learning curves, gates, calibration.

Each function writes a PNG atomically and needs Matplotlib (the extra `plots`).
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.launcher import drawing, quality

# Bins with fewer rows per seed than this show chance rather than calibration.
_FEWEST_ROWS = 20


def curves(
  path: pathlib.Path,
  history: Sequence[Mapping[str, Any]],
  task_names: Sequence[str],
  title: str,
) -> None:
  """Draws the learning curves and loss weights of one run.

  One column per task: training loss, primary validation metric, loss weight.
  Lines are means over the seeds; bands span the lowest to the highest seed.
  """
  epochs = np.array([record['epoch'] for record in history])
  scored = [record for record in history if 'validation' in record]
  scored_epochs = np.array([record['epoch'] for record in scored])
  num_tasks = len(task_names)
  figure = drawing.new_figure(4 * num_tasks + 0.6, 8)
  axes = figure.subplots(3, num_tasks, sharex=True, squeeze=False)
  for i, name in enumerate(task_names):
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
    for axis, (x, values, label) in zip(axes[:, i], rows, strict=True):
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
  """Draws the learning curves and loss weights of several runs.

  Args:
    path: the file.
    runs: `{name: history}`; lines are means over the seeds.
    task_names: one column each.
  """
  figure = drawing.new_figure(4 * len(task_names) + 2.6, 8)
  axes = figure.subplots(3, len(task_names), sharex=True, squeeze=False)
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
      for axis, (records, values) in zip(axes[:, i], rows, strict=True):
        epochs = [record['epoch'] for record in records]
        axis.plot(epochs, values, label=name, ms=4, **style)
    for axis, label in zip(axes[:, i], labels, strict=True):
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


def gates(
  path: pathlib.Path, levels: Sequence[Mapping[str, Any]], title: str
) -> None:
  """Draws the mean weight of each expert in each gate, one heat map per level.

  Only the first seed is shown, because the experts of different seeds have
  nothing in common.

  Args:
    path: the file.
    levels: each with its `usage`, `{gate: {pool: [S][E_p]}}`.
    title: of the picture.
  """
  tables = [_table(level['usage']) for level in levels]
  widest = max(values.shape[1] for values, _, _ in tables)
  height = sum(values.shape[0] + 2.2 for values, _, _ in tables)
  figure = drawing.new_figure(max(0.62 * widest + 2.4, 6), 0.42 * height + 0.8)
  axes = figure.subplots(
    len(tables), 1, squeeze=False,
    height_ratios=[values.shape[0] + 1 for values, _, _ in tables],
  )[:, 0]  # fmt: skip
  for i, (axis, table) in enumerate(zip(axes, tables, strict=True)):
    shown = _draw_gates(axis, *table)
    axis.set_xlim(-0.5, widest - 0.5)
    axis.set_ylabel(f'level {i}\ngate of', fontsize=8)
  bar = figure.colorbar(shown, ax=list(axes), shrink=0.9)
  bar.set_label('mean gate weight', fontsize=8)
  figure.suptitle(
    f"{title}\nover the test rows, first seed; blank: not this gate's",
    fontsize=9,
  )
  drawing.save(figure, path)


def _draw_gates(
  axis: Any, values: np.ndarray, rows: list[str], columns: list[str]
) -> Any:
  """Draws one level; returns its image, from which the colour bar is made."""
  image = axis.imshow(values, cmap='Greys', vmin=0, vmax=1, aspect='auto')
  for (row, column), value in np.ndenumerate(values):
    if np.isfinite(value):
      axis.text(
        column, row, f'{value:.2f}', ha='center', va='center', fontsize=7,
        color='white' if value > 0.6 else 'black',  # on dark, on light
      )  # fmt: skip
  axis.set_yticks(range(len(rows)), rows, fontsize=8)
  axis.set_xticks(range(len(columns)), columns, fontsize=7)
  axis.spines[:].set_visible(False)
  return image


def _table(
  usage: Mapping[str, Mapping[str, Any]],
) -> tuple[np.ndarray, list[str], list[str]]:
  """Returns the first seed's weights as a table, with its row and column names.

  Rows are gates, columns experts; NaN where a gate does not have an expert.
  """
  widths: dict[str, int] = {}
  for pools in usage.values():
    for pool, weights in pools.items():
      widths[pool] = len(weights[0])
  # Task-specific experts before shared ones.
  order = sorted(widths, key=lambda pool: ('shared' in pool, pool))
  rows = [
    [
      x
      for pool in order
      for x in (pools[pool][0] if pool in pools else [np.nan] * widths[pool])
    ]
    for pools in usage.values()
  ]
  columns = [
    _short(pool) + (f'\n{i}' if widths[pool] > 1 else '')
    for pool in order
    for i in range(widths[pool])
  ]
  return np.array(rows, float), list(usage), columns


def _short(pool: str) -> str:
  """Shortens, for example, `specific_experts_income` to `income`."""
  name = pool.replace('specific_experts_', '').replace('_experts', '')
  return 'expert' if name == 'experts' else name.removeprefix('experts_')
