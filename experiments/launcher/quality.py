"""Which metrics tell how good a task is, and how to call them.

The first metric of a task is its primary one; results keep the order.
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
  """A metric's name as a person writes it."""
  return LABELS.get(metric, metric.replace('_', ' '))


def primary(metrics: Mapping[str, Any]) -> str:
  """The name of the metric by which a task's epochs are chosen."""
  return next(iter(metrics))


def names(tasks: Iterable[Mapping[str, Any]]) -> list[str]:
  """All metrics of some tasks, each once; the loss of those alone without."""
  found: dict[str, None] = {}
  for metrics in tasks:
    own = [name for name in metrics if name != 'loss']
    found |= dict.fromkeys(own or ['loss'])
  known = [name for name in LABELS if name in found]
  return [*known, *(name for name in found if name not in LABELS)]


def training_loss(metrics: Mapping[str, Any]) -> str:
  """What an axis of training losses is called: log losses have a unit."""
  return f'training loss{" (nats)" if "log_loss" in metrics else ""}'
