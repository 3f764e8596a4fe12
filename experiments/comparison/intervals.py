"""Intervals of a task's primary metric, and of differences in it.

All cover the variance of seeds and of test rows: AUCs of labels that are 0 or 1
by DeLong's formula, other metrics by resampling the rows; see
`lplmtl.statistics`. Only rows with a label for the task count, each once, as in
the metrics themselves: weights of rows act on losses only.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.launcher import scoring
from lplmtl import metrics, statistics
from lplmtl.types import Batch, Task

# Samples of the rows: the standard error of either end of a 95 % interval is
# then a twentieth of its width.
SAMPLES = 200
_UNDEFINED = statistics.Interval(math.nan, math.nan, math.nan, math.nan)


class Evidence(NamedTuple):
  """What intervals of one task need to know of one row of the table.

  Attributes:
    scores: `[S, n]`, logits of the n labelled test rows, if the metric's
      variance has a formula; otherwise None.
    labels: `[n]`, likewise.
    samples: the metric on samples of the rows; None if it has a formula, if no
      row is labelled, or if scores are not finite.
  """

  scores: np.ndarray | None
  labels: np.ndarray | None
  samples: statistics.Bootstrap | None


def gather(task: Task, scores: np.ndarray, test: Batch) -> Evidence:
  """Prepares the intervals of one task.

  Args:
    task: its first metric is the primary one; without metrics, its loss is.
    scores: `[S, N]` logits, or `[S, N, K]` for K > 1 outputs.
    test: the N rows.
  """
  where = scoring.labelled(test, task.name)
  scores, labels = scores[:, where], np.asarray(test.labels[task.name])[where]
  if not len(labels) or not np.isfinite(scores).all():
    return Evidence(None, None, None)
  is_auc = next(iter(task.metric_fns.values()), None) is metrics.roc_auc
  if is_auc and np.isin(labels, (0, 1)).all():
    return Evidence(scores, labels, None)
  if task.num_outputs == 1:
    scores = scores[..., np.newaxis]
  samples = statistics.bootstrap(
    _score(task), scores, labels, num_samples=SAMPLES
  )
  return Evidence(None, None, samples)


def interval(
  method: Evidence, baseline: Evidence | None = None
) -> statistics.Interval:
  """Returns the interval of the metric, or of its difference from a baseline.

  All of it is NaN if the test rows do not define the metric, such as an AUC of
  one class.
  """
  both = [method] if baseline is None else [method, baseline]
  samples: list[Any] = [one.samples for one in both if one.samples is not None]
  scores = [one.scores for one in both if one.scores is not None]
  of_auc: Any = (
    statistics.auc_difference if len(both) == 2 else statistics.auc_interval
  )
  try:
    if len(samples) == len(both):
      return statistics.bootstrap_interval(*samples)
    if len(scores) == len(both):
      return of_auc(*scores, method.labels)
  except ValueError:  # too few rows of a class
    pass
  return _UNDEFINED


def _score(task: Task) -> Callable[[Any, Any], Any]:
  """Returns `(scores [n, K], labels [n]) -> metric`, compiled."""
  metric = next(iter(task.metric_fns.values()), scoring.mean_loss(task))
  compiled = jax.jit(metric)  # once for all rows of the table, and all samples
  return lambda scores, labels: compiled(
    scores, labels, np.ones(len(labels), bool)
  )
