"""Pictures of a run. Needs the extra `plots`; without it there are none."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Told apart in grey, too.
_STYLES = ('-', '--', ':', '-.')


def is_available() -> bool:
  """Whether Matplotlib is there."""
  try:
    import matplotlib  # noqa: F401
  except ImportError:
    return False
  return True


def curves(
  path: pathlib.Path,
  history: Sequence[Mapping[str, Any]],
  task_names: Sequence[str],
  title: str,
) -> None:
  """Learning curves and loss weights as a PNG, written atomically.

  One column a task: training loss, validation AUC, loss weight. Lines are
  means, bands reach from the lowest to the highest seed.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
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
    aucs = np.stack([record['validation'][name]['auc'] for record in scored])
    weights = np.stack([record['loss_weights'][:, i] for record in history])
    rows = (
      (epochs, losses, 'training loss (nats)'),
      (scored_epochs, aucs, 'validation ROC AUC'),
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
  part = path.with_name(f'.{path.stem}.part.png')
  FigureCanvasAgg(figure).print_png(str(part))
  part.replace(path)
