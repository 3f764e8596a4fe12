"""The three common kinds of task, with their usual losses and metrics."""

from lplmtl import losses, metrics
from lplmtl.types import Task


def binary(name: str) -> Task:
  """A yes/no label: one logit, with ROC AUC as the primary metric.

  Labels may be probabilities; see `lplmtl.metrics` for what AUC then means.

  Example:
    >>> task = binary('click')
    >>> task.num_outputs, list(task.metric_fns)[:2]
    (1, ['auc', 'average_precision'])
  """
  return Task(
    name=name,
    loss_fn=losses.binary_cross_entropy,
    metric_fns={
      'auc': metrics.roc_auc,
      'average_precision': metrics.average_precision,
      'log_loss': metrics.log_loss,
      'calibration_error': metrics.calibration_error,
    },
    label_range=(0, 1),
  )


def multiclass(name: str, num_classes: int) -> Task:
  """One of K classes: K logits, with accuracy as the primary metric.

  Raises:
    ValueError: there are fewer than two classes, which leaves nothing to learn.

  Example:
    >>> multiclass('colour', 3).num_outputs
    3
  """
  if not hasattr(num_classes, '__index__') or num_classes < 2:
    raise ValueError(
      f'num_classes of task {name!r} must be a whole number of at least 2, '
      f'found {num_classes!r}'
    )
  return Task(
    name=name,
    loss_fn=losses.softmax_cross_entropy,
    num_outputs=int(num_classes),
    metric_fns={'accuracy': metrics.accuracy, 'log_loss': metrics.log_loss},
    label_range=(0, int(num_classes) - 1),
  )


def regression(name: str) -> Task:
  """A number (standardise it first): half the squared error, R^2 as metric.

  The half makes the loss the negative log likelihood of a Gaussian of variance
  1, up to a constant: comparable with cross-entropies, and what uncertainty
  weighting assumes (Kendall et al. 2018).

  Example:
    >>> list(regression('price').metric_fns)
    ['r2']
  """
  return Task(
    name=name,
    loss_fn=losses.half_squared_error,
    metric_fns={'r2': metrics.r2},
  )
