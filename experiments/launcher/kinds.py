"""What kind of label a task predicts, as its loss tells.

For pictures and trees, which depend on it; training does not.
"""

from lplmtl import losses
from lplmtl.types import Task

BINARY, MULTICLASS, ORDINAL = 'binary', 'multiclass', 'ordinal'
MULTILABEL, REGRESSION, COUNT = 'multilabel', 'regression', 'count'
_BY_LOSS = (
  (losses.binary_cross_entropy, BINARY),
  (losses.softmax_cross_entropy, MULTICLASS),
  (losses.ordinal_cross_entropy, ORDINAL),
  (losses.multilabel_cross_entropy, MULTILABEL),
  (losses.half_squared_error, REGRESSION),
  (losses.squared_error, REGRESSION),
  (losses.half_poisson_deviance, COUNT),
)
_BY_CLASS = ((losses.Focal, BINARY), (losses.Huber, REGRESSION))


def of(task: Task) -> str:
  """Returns one of the constants above; empty for a loss of one's own."""
  for loss, kind in _BY_LOSS:
    if task.loss_fn is loss:
      return kind
  for cls, kind in _BY_CLASS:
    if isinstance(task.loss_fn, cls):
      return kind
  return ''
