"""Which metrics describe a task, and how people write their names.

A task's first metric is its primary one; results keep the order.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# In the order in which tables show them.
LABELS = {
  'auc': 'AUC',
  'kappa': 'kappa',
  'accuracy': 'accuracy',
  'r2': 'R²',
  'd2': 'D²',
  'log_loss': 'log loss',
  'average_precision': 'average precision',
  'calibration_error': 'calibration error',
  'mae': 'mean absolute error',
}
# So many tasks stand side by side: their numbers still have room in a table of
# 100 columns. More are shown one below another, or by the means of a kind.
MOST_TASKS = 6
# Differences in test metrics that make none to a user, by metric: 0.002 in AUC
# is what seeds differ by; 0.01 of the variance, or of a kappa, and 5 rows in a
# thousand are as small beside what test sets of some 1,000 rows can tell.
MARGINS = {
  'auc': 0.002, 'accuracy': 0.005, 'r2': 0.01, 'd2': 0.01, 'kappa': 0.01,
}  # fmt: skip


def label(metric: str) -> str:
  """Returns a metric's name as a person writes it."""
  return LABELS.get(metric, metric.replace('_', ' '))


def shown(value: float, form: str = '.4f') -> str:
  """Formats a metric; that of too few rows or classes is undefined."""
  return format(value, form) if math.isfinite(value) else 'undefined'


def primary(metrics: Mapping[str, Any]) -> str:
  """Returns the name of the metric by which epochs are selected."""
  return next(iter(metrics))


def is_loss(metric: str) -> bool:
  """Whether less is better: the metric of a task that has none but its loss."""
  return metric == 'loss'


def margin(metric: str) -> float:
  """Returns the default margin of equivalence, in the metric's own unit.

  It is 0 for metrics that are not listed, in which nothing is equivalent.
  """
  return MARGINS.get(metric, 0.0)


def margins(comparison: Mapping[str, Any]) -> dict[str, float]:
  """Returns `{task: margin}` of a comparison; older ones have one for all."""
  found = comparison['margin']
  if isinstance(found, Mapping):
    return {**found}
  return dict.fromkeys(comparison['tasks'], found)


def names(tasks: Iterable[Mapping[str, Any]]) -> list[str]:
  """Returns all metrics of some tasks; the loss only for tasks without any."""
  shown: dict[str, None] = {}
  for metrics in tasks:
    named = [name for name in metrics if name != 'loss']
    shown |= dict.fromkeys(named or ['loss'])
  known = [name for name in LABELS if name in shown]
  return [*known, *(name for name in shown if name not in LABELS)]


def means(values: Iterable[tuple[str, float]]) -> list[str]:
  """Returns the mean of each metric over the tasks where it is defined.

  Args:
    values: a metric and its value, for each of some tasks.

  Returns:
    A text for each metric, such as `AUC 0.9312 (mean of 20 tasks)`.
  """
  of_metric: dict[str, list[float]] = {}
  for metric, value in values:
    of_metric.setdefault(metric, []).append(float(value))
  texts = []
  for metric, of_tasks in of_metric.items():
    defined = [value for value in of_tasks if math.isfinite(value)]
    mean = float(np.mean(defined)) if defined else math.nan
    of = f'{len(of_tasks)} tasks' if len(of_tasks) > 1 else 'one task'
    if len(defined) < len(of_tasks):
      of = f'{len(defined)} of {of}'
    texts.append(f'{label(metric)} {shown(mean)} (mean of {of})')
  return texts


def weights_differ(weights: Any) -> bool:
  """Whether loss weights say anything: those that are all equal do not.

  Args:
    weights: an array of the weights of tasks, in any number of seeds and
      epochs.
  """
  found = np.ravel(weights)
  return bool((found != found[0]).any())


def training_loss(metrics: Mapping[str, Any]) -> str:
  """Returns the label of an axis of training losses; log losses are in nats."""
  return f'training loss{" (nats)" if "log_loss" in metrics else ""}'
