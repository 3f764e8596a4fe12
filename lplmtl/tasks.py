"""The common kinds of task, with their usual losses and metrics.

| labels | task |
|---|---|
| yes or no | `binary`; `focal` for rare positives |
| one of K classes | `multiclass`; `ordinal` if the classes have an order |
| any of K classes | `multilabel` |
| a number | `regression`; `huber` if there are outliers |
| a count | `poisson` |
"""

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


def focal(name: str, gamma: float = 2.0) -> Task:
  """A yes/no label with few positives: one logit, with ROC AUC as metric.

  As `binary`, but rows that are already recognised count less. The sigmoid of
  the logit is then *not a calibrated probability*: use the scores to rank rows,
  or recalibrate them.

  Args:
    name: of the task.
    gamma: >= 0, of the loss; see `lplmtl.losses.Focal`.

  Raises:
    ValueError: `gamma` is negative.

  Example:
    >>> focal('fraud').loss_fn
    Focal(gamma=2.0)
  """
  return Task(
    name=name,
    loss_fn=losses.Focal(gamma),
    metric_fns={
      'auc': metrics.roc_auc,
      'average_precision': metrics.average_precision,
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
  num_classes = _at_least('num_classes', num_classes, 2, name)
  return Task(
    name=name,
    loss_fn=losses.softmax_cross_entropy,
    num_outputs=num_classes,
    metric_fns={'accuracy': metrics.accuracy, 'log_loss': metrics.log_loss},
    label_range=(0, num_classes - 1),
  )


def ordinal(name: str, num_classes: int) -> Task:
  """One of K ordered classes: K - 1 logits, with quadratic kappa as metric.

  Such as grades or ratings: the further from the label, the worse. One logit
  per threshold says whether the class is above it; `lplmtl.ordinal` turns them
  into a class or into the probabilities of the classes.

  Args:
    name: of the task.
    num_classes: K, at least 3; two classes are `binary`.

  Raises:
    ValueError: there are fewer than three classes.

  Example:
    >>> task = ordinal('rating', 5)
    >>> task.num_outputs, list(task.metric_fns)
    (4, ['kappa', 'accuracy'])
  """
  num_classes = _at_least('num_classes', num_classes, 3, name)
  return Task(
    name=name,
    loss_fn=losses.ordinal_cross_entropy,
    num_outputs=num_classes - 1,
    metric_fns={
      'kappa': metrics.quadratic_kappa,
      'accuracy': metrics.ordinal_accuracy,
    },
    label_range=(0, num_classes - 1),
  )


def multilabel(name: str, num_labels: int) -> Task:
  """Any of K classes, such as tags: K logits, labels `[B, K]` of 0 or 1.

  The primary metric is the mean ROC AUC of the labels, over those that are
  defined. A row either has all its labels or, under `Batch.where`, none.

  Args:
    name: of the task.
    num_labels: K, at least 2; one label is `binary`.

  Raises:
    ValueError: there are fewer than two labels.

  Example:
    >>> multilabel('tags', 12).num_outputs
    12
  """
  return Task(
    name=name,
    loss_fn=losses.multilabel_cross_entropy,
    num_outputs=_at_least('num_labels', num_labels, 2, name),
    metric_fns={
      'auc': metrics.macro_roc_auc,
      'average_precision': metrics.macro_average_precision,
    },
    label_range=(0, 1),
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


def huber(name: str, delta: float = 1.0) -> Task:
  """A number with outliers (standardise it first): Huber loss, R^2 as metric.

  The prediction lies between the mean and the median of the label.

  Args:
    name: of the task.
    delta: > 0, the error beyond which the loss is linear; see
      `lplmtl.losses.Huber`.

  Raises:
    ValueError: `delta` is not positive.

  Example:
    >>> list(huber('income', delta=1.5).metric_fns)
    ['r2', 'mae']
  """
  return Task(
    name=name,
    loss_fn=losses.Huber(delta),
    metric_fns={'r2': metrics.r2, 'mae': metrics.mean_absolute_error},
  )


def poisson(name: str) -> Task:
  """A count: the logarithm of its rate, with the deviance explained as metric.

  The rate, `exp` of the output, is the expected count, which need not be a
  whole number. Labels are numbers >= 0, not standardised; but if their mean is
  far from 1, divide them by it, and multiply the rates by it afterwards.
  Training then starts at the mean, and the loss is not larger than that of
  other tasks because the counts are. The metric does not depend on the unit.

  Example:
    >>> task = poisson('visits')
    >>> list(task.metric_fns), task.label_range
    (['d2'], (0, inf))
  """
  return Task(
    name=name,
    loss_fn=losses.half_poisson_deviance,
    metric_fns={'d2': metrics.poisson_d2},
    label_range=(0, float('inf')),
  )


def _at_least(argument: str, value: int, least: int, name: str) -> int:
  if not hasattr(value, '__index__') or value < least:
    raise ValueError(
      f'{argument} of task {name!r} must be a whole number of at least '
      f'{least}, found {value!r}'
    )
  return int(value)
