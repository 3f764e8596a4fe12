"""Which metrics describe a task, and how people write their names.

A task's first metric is its primary one; results keep the order.
"""

from collections.abc import Iterable, Mapping
from typing import Any

# In the order in which tables show them.
LABELS = {
  'auc': 'AUC',
  'accuracy': 'accuracy',
  'r2': 'R²',
  'log_loss': 'log loss',
  'average_precision': 'average precision',
  'calibration_error': 'calibration error',
}


def label(metric: str) -> str:
  """Returns a metric's name as a person writes it."""
  return LABELS.get(metric, metric.replace('_', ' '))


def primary(metrics: Mapping[str, Any]) -> str:
  """Returns the name of the metric by which epochs are selected."""
  return next(iter(metrics))


def names(tasks: Iterable[Mapping[str, Any]]) -> list[str]:
  """Returns all metrics of some tasks; the loss only for tasks without any."""
  shown: dict[str, None] = {}
  for metrics in tasks:
    named = [name for name in metrics if name != 'loss']
    shown |= dict.fromkeys(named or ['loss'])
  known = [name for name in LABELS if name in shown]
  return [*known, *(name for name in shown if name not in LABELS)]


def training_loss(metrics: Mapping[str, Any]) -> str:
  """Returns the label of an axis of training losses; log losses are in nats."""
  return f'training loss{" (nats)" if "log_loss" in metrics else ""}'
