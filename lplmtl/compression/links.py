"""What the outputs of a task mean: expected labels, and back.

A link is that of generalised linear models. Averages (of an ensemble, of all
labels) are taken of expected labels, never of logits: the mean of sigmoids is a
probability, the sigmoid of a mean is another one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lplmtl import losses
from lplmtl.types import Task

# The probability 0 has no finite logit, nor the rate 0 a logarithm; float32
# tells 1 - 1e-7 from 1.
_LEAST = 1e-7


class Link(NamedTuple):
  """A pair of functions of `[..., K]` float64 NumPy arrays.

  Attributes:
    kind: `decisions`, `classes`, `number` or `count`.
    mean: from outputs to expected labels.
    outputs: from expected labels to outputs; 0 and 1 give finite ones.
  """

  kind: str
  mean: Callable[[np.ndarray], np.ndarray]
  outputs: Callable[[np.ndarray], np.ndarray]


def _special() -> Any:
  # Deferred: it would be a tenth of what a command that trains imports.
  from scipy import special  # a dependency of jax

  return special


def _expit(logits: np.ndarray) -> np.ndarray:
  return _special().expit(logits)


def _logit(probabilities: np.ndarray) -> np.ndarray:
  return _special().logit(probabilities.clip(_LEAST, 1 - _LEAST))


def _softmax(logits: np.ndarray) -> np.ndarray:
  return _special().softmax(logits, axis=-1)


def _log(values: np.ndarray) -> np.ndarray:
  return np.log(np.maximum(values, _LEAST))


DECISIONS = Link('decisions', _expit, _logit)
CLASSES = Link('classes', _softmax, _log)
NUMBER = Link('number', np.asarray, np.asarray)
COUNT = Link('count', np.exp, _log)

_LINKS: dict[Any, Link] = {
  losses.binary_cross_entropy: DECISIONS,
  losses.multilabel_cross_entropy: DECISIONS,
  losses.ordinal_cross_entropy: DECISIONS,
  losses.softmax_cross_entropy: CLASSES,
  losses.half_squared_error: NUMBER,
  losses.squared_error: NUMBER,
  losses.half_poisson_deviance: COUNT,
}


def of(task: Task) -> Link:
  """Returns the link of a task, which its loss determines.

  Raises:
    ValueError: the loss is none of `lplmtl.losses`.
  """
  if isinstance(task.loss_fn, losses.Focal):
    return DECISIONS
  if isinstance(task.loss_fn, losses.Huber):
    return NUMBER
  for loss_fn, link in _LINKS.items():
    if task.loss_fn is loss_fn:
      return link
  raise ValueError(
    f'task {task.name!r}: expected a loss of lplmtl.losses, whose outputs have '
    f'a known meaning; found {task.loss_fn!r}. For a loss of your own, set '
    'loss_fn to compression.Distilled(hard, soft)'
  )


def targets(task: Task, labels: np.ndarray) -> np.ndarray:
  """Returns labels as expected labels: `[N, K]` float64.

  Args:
    task: what the labels mean.
    labels: `[N]`, or `[N, K]` of a multilabel task.
  """
  if task.loss_fn is losses.ordinal_cross_entropy:
    above = np.arange(task.num_outputs)
    return (labels[:, None] > above).astype(np.float64)
  if task.loss_fn is losses.softmax_cross_entropy:
    classes = np.arange(task.num_outputs)
    return (labels[:, None] == classes).astype(np.float64)
  return np.asarray(labels, np.float64).reshape(len(labels), -1)
