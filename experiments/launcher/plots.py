"""Pictures of a run. Needs the extra `plots`; without it there are none."""

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.launcher import quality
from lplmtl.storage import files

# Who made a picture, as PNG's tEXt chunk says it.
_MARK = b'Software\0lplmtl'
# Told apart in grey, too.
_STYLES = ('-', '--', ':', '-.')
_MARKERS = 'os^vD*PX'  # filled, then open


def is_available() -> bool:
  """Whether Matplotlib is there."""
  try:
    import matplotlib  # noqa: F401
  except ImportError:
    return False
  return True


def is_own(path: pathlib.Path) -> bool:
  """Whether a file is a picture that was written here."""
  try:
    with files.open_regular(path) as file:
      return _MARK in file.read(256)
  except OSError:
    return False


def curves(
  path: pathlib.Path,
  history: Sequence[Mapping[str, Any]],
  task_names: Sequence[str],
  title: str,
) -> None:
  """Learning curves and loss weights as a PNG.

  One column a task: training loss, primary validation metric, loss weight.
  Lines are means, bands reach from the lowest to the highest seed.
  """
  from matplotlib.figure import Figure

  epochs = np.array([record['epoch'] for record in history])
  scored = [record for record in history if 'validation' in record]
  scored_epochs = np.array([record['epoch'] for record in scored])
  num_tasks = len(task_names)
  figure = Figure(figsize=(4 * num_tasks + 0.6, 8), layout='constrained')
  axes = figure.subplots(3, num_tasks, sharex=True, squeeze=False)
  for i, name in enumerate(task_names):
    style = _STYLES[i % len(_STYLES)]
    losses = np.stack([record['losses'][:, i] for record in history])
    own = scored[0]['validation'][name]
    metric = quality.primary(own)
    scores = np.stack([record['validation'][name][metric] for record in scored])
    weights = np.stack([record['loss_weights'][:, i] for record in history])
    rows = (
      (epochs, losses, quality.training_loss(own)),
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
    axes[-1, i].set_xlabel('epoch')
    axes[-1, i].xaxis.get_major_locator().set_params(integer=True)
  seeds = history[0]['losses'].shape[0]
  band = f'mean of {seeds} seeds, band: lowest to highest' if seeds > 1 else ''
  figure.suptitle(f'{title}\n{band}' if band else title, fontsize=10)
  _write(figure, path)


def gates(
  path: pathlib.Path, levels: Sequence[Mapping[str, Any]], title: str
) -> None:
  """A heat map a level of the mean weight of each expert in each gate.

  Of the first seed, as experts of different seeds have nothing in common;
  written atomically as a PNG.

  Args:
    path: the file.
    levels: `usage` of each, `{selector: {pool: [S][E_p]}}`.
    title: of the picture.
  """
  from matplotlib.figure import Figure

  tables = [_table(level['usage']) for level in levels]
  widest = max(values.shape[1] for values, _, _ in tables)
  height = sum(values.shape[0] + 2.2 for values, _, _ in tables)
  figure = Figure(
    figsize=(max(0.62 * widest + 2.4, 6), 0.42 * height + 0.8),
    layout='constrained',
  )
  axes = figure.subplots(
    len(tables), 1, squeeze=False,
    height_ratios=[values.shape[0] + 1 for values, _, _ in tables],
  )[:, 0]  # fmt: skip
  for i, (axis, (values, rows, columns)) in enumerate(
    zip(axes, tables, strict=True)
  ):
    shown = axis.imshow(values, cmap='Greys', vmin=0, vmax=1, aspect='auto')
    for (row, column), value in np.ndenumerate(values):
      if np.isfinite(value):
        axis.text(
          column, row, f'{value:.2f}', ha='center', va='center', fontsize=7,
          color='white' if value > 0.6 else 'black',
        )  # fmt: skip
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.set_xticks(range(len(columns)), columns, fontsize=7)
    axis.set_xlim(-0.5, widest - 0.5)
    axis.set_ylabel(f'level {i}\ngate of', fontsize=8)
    axis.spines[:].set_visible(False)
  bar = figure.colorbar(shown, ax=list(axes), shrink=0.9)
  bar.set_label('mean gate weight', fontsize=8)
  figure.suptitle(
    f"{title}\nover the test rows, first seed; blank: not this gate's",
    fontsize=9,
  )
  _write(figure, path)


def sizes(path: pathlib.Path, found: Mapping[str, Any]) -> None:
  """Primary metrics against parameters and FLOPs, a column a task; a PNG.

  Bars are the 95 % intervals of the differences to the baseline, which all rows
  share with it: intervals of the metrics themselves would mostly show how test
  rows vary, which is the same for all.

  Args:
    path: the file.
    found: of `compare_tables.results`.
  """
  from matplotlib import ticker
  from matplotlib.figure import Figure

  tasks, rows = found['tasks'], found['rows']
  figure = Figure(figsize=(4.6 * len(tasks) + 2.6, 7.2), layout='constrained')
  axes = figure.subplots(2, len(tasks), squeeze=False, sharey='col')
  kinds = (('parameters', 'parameters'), ('flops_per_example', 'FLOPs a row'))
  for i, task in enumerate(tasks):
    metric = quality.primary(rows[0]['test'][task])
    for j, (field, label) in enumerate(kinds):
      axis = axes[j, i]
      for number, row in enumerate(rows):
        mean = row['test'][task][metric]['mean']
        if row['name'] == found['baseline']:
          axis.axhline(mean, color='0.6', lw=0.8, zorder=0)
        if row.get(field) is None:
          continue
        reach = 0.0
        if row['difference']:
          interval = row['difference'][task]
          reach = (interval['high'] - interval['low']) / 2
        marker = _MARKERS[number % len(_MARKERS)]
        color = f'C{number % 10}'
        is_open = number // len(_MARKERS) % 2
        axis.errorbar(
          row[field], mean, yerr=reach or None, fmt=marker, label=row['name'],
          color=color, mfc='white' if is_open else color, ms=7, lw=0.9,
          mec=color if is_open else 'black', mew=1.2 if is_open else 0.5,
          capsize=2,
        )  # fmt: skip
      axis.set_xscale('log')
      axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5, 7)))
      axis.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:,.0f}'))
      axis.xaxis.set_minor_formatter(ticker.NullFormatter())
      axis.tick_params(axis='x', labelsize=8)
      axis.set_xlabel(label)
      axis.set_ylabel(f'{task}: test {quality.label(metric)}')
      axis.grid(alpha=0.3)
    axes[0, i].set_title(task)
  _legend(figure, axes)
  figure.suptitle(
    f'{found["title"]}: means of {found["num_seeds"]} seeds\n'
    f'bars: 95 % interval of the difference to {found["baseline"]} (line)',
    fontsize=9,
  )
  _write(figure, path)


def differences(path: pathlib.Path, found: Mapping[str, Any]) -> None:
  """Each row's difference to the baseline with its interval; a PNG.

  Args:
    path: the file.
    found: of `compare_tables.results`.
  """
  from matplotlib import ticker
  from matplotlib.figure import Figure

  tasks = found['tasks']
  rows = [row for row in found['rows'] if row['difference']]
  figure = Figure(
    figsize=(3.6 * len(tasks) + 2.6, 0.34 * max(len(rows), 3) + 1.6),
    layout='constrained',
  )
  axes = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
  places = np.arange(len(rows))[::-1]
  for axis, task in zip(axes, tasks, strict=True):
    shown = [row['difference'][task] for row in rows]
    estimates = np.array([d['estimate'] for d in shown])
    ends = np.array([[d['low'], d['high']] for d in shown]).reshape(-1, 2)
    axis.axvspan(-found['margin'], found['margin'], color='0.9', zorder=0)
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
  axes[0].set_yticks(
    places,
    [f'{row["name"]} ({row["parameters"]:,})' for row in rows],
    fontsize=8,
  )
  figure.suptitle(
    f'{found["title"]}: difference to {found["baseline"]}\n95 % intervals over '
    f'seeds and rows; grey: ±{found["margin"]:g}; in brackets: parameters',
    fontsize=9,
  )
  _write(figure, path)


def learning(
  path: pathlib.Path,
  runs: Mapping[str, Sequence[Mapping[str, Any]]],
  task_names: Sequence[str],
) -> None:
  """Learning curves and loss weights of several runs, means over seeds; a PNG.

  Args:
    path: the file.
    runs: `{name: history}`.
    task_names: a column each.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(4 * len(task_names) + 2.6, 8), layout='constrained')
  axes = figure.subplots(3, len(task_names), sharex=True, squeeze=False)
  for i, task in enumerate(task_names):
    own = next(
      history[-1]['validation'][task]
      for history in runs.values()
      if task in history[-1]['validation']
    )
    metric = quality.primary(own)
    labels = (
      quality.training_loss(own),
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
      for axis, (records, values) in zip(axes[:, i], rows, strict=True):
        axis.plot(
          [record['epoch'] for record in records], values, label=name, ms=4,
          color=f'C{number % 10}', marker=_MARKERS[number % len(_MARKERS)],
          linestyle=_STYLES[number % len(_STYLES)],
        )  # fmt: skip
    for axis, label in zip(axes[:, i], labels, strict=True):
      axis.set_ylabel(label)
      axis.grid(alpha=0.3)
    axes[0, i].set_title(task)
    axes[-1, i].set_xlabel('epoch')
    axes[-1, i].xaxis.get_major_locator().set_params(integer=True)
  _legend(figure, axes)
  figure.suptitle('Learning curves, means over seeds', fontsize=10)
  _write(figure, path)


def calibration(
  path: pathlib.Path,
  runs: Mapping[str, Mapping[str, Any]],
  task_names: Sequence[str],
) -> None:
  """Reliability diagrams of several runs; a PNG.

  The rows of a bin are added up over the seeds; bins of fewer than 20 rows a
  seed are left out.

  Args:
    path: the file.
    runs: `{name: {task: {part: [S][bins]}}}`, see `scoring.calibration`.
    task_names: a column each.
  """
  from matplotlib.figure import Figure

  figure = Figure(
    figsize=(4 * len(task_names) + 2.6, 4.3), layout='constrained'
  )
  axes = figure.subplots(1, len(task_names), squeeze=False)
  for i, task in enumerate(task_names):
    axis = axes[0, i]
    axis.plot([0, 1], [0, 1], color='0.6', lw=0.8, label='perfect')
    for number, (name, found) in enumerate(runs.items()):
      if task not in found:
        continue
      count, predicted, observed = (
        np.array(found[task][part], float)
        for part in ('num_rows', 'predicted', 'observed')
      )
      total = count.sum(axis=0)
      shown = total >= 20 * len(count)
      x, y = (
        np.nansum(count * values, axis=0)[shown] / total[shown]
        for values in (predicted, observed)
      )
      axis.plot(
        x, y, label=name, ms=4, color=f'C{number % 10}',
        marker=_MARKERS[number % len(_MARKERS)],
        linestyle=_STYLES[number % len(_STYLES)],
      )  # fmt: skip
    axis.set_title(task)
    axis.set_xlabel('mean predicted probability')
    axis.set_ylabel('share of positive rows')
    axis.set_aspect('equal')
    axis.grid(alpha=0.3)
  _legend(figure, axes)
  figure.suptitle('Calibration on the test rows, 15 bins', fontsize=10)
  _write(figure, path)


def _legend(figure: Any, axes: Any) -> None:
  """One legend beside all axes, each name once."""
  found: dict[str, Any] = {}
  for axis in axes.ravel():
    for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
      found.setdefault(label, handle)
  figure.legend(
    list(found.values()), list(found), loc='outside right center', fontsize=8
  )


def _table(
  usage: Mapping[str, Mapping[str, Any]],
) -> tuple[np.ndarray, list[str], list[str]]:
  """`[selectors, experts]` weights of the first seed, NaN where not chosen."""
  widths: dict[str, int] = {}
  for pools in usage.values():
    for pool, weights in pools.items():
      widths[pool] = len(weights[0])
  # Each task's own before what is shared.
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
  """`specific_experts_income` is `income`."""
  name = pool.replace('specific_experts_', '').replace('_experts', '')
  return 'expert' if name == 'experts' else name.removeprefix('experts_')


def _write(figure: Any, path: pathlib.Path) -> None:
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  content = io.BytesIO()
  _, software = _MARK.decode().split('\0')
  FigureCanvasAgg(figure).print_png(content, metadata={'Software': software})
  files.write(path, content.getvalue())
