"""What LightGBM is asked to learn for each kind of task, and what it answers.

| task | objective | rounds end by |
|---|---|---|
| binary | binary | AUC |
| multilabel | binary, one model per label | AUC |
| multiclass, ordinal | multiclass | log loss |
| regression | squared error | squared error |
| count | Poisson | Poisson deviance |

The answers are turned into the task's own outputs, so that its metrics score
trees and networks alike. An ordinal task's classes are learned by softmax: that
gives the probabilities of its thresholds, and so all of its metrics.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.launcher import kinds
from lplmtl import ordinal
from lplmtl.types import Task


class Model(NamedTuple):
  """One of the models that a task needs.

  Attributes:
    parameters: LightGBM's, which may not be tuned.
    column: of the labels `[N, K]` of a multilabel task; None for all labels.
  """

  parameters: dict[str, Any]
  column: int | None = None

  def labels(self, labels: np.ndarray) -> np.ndarray:
    """Returns what the model learns, `[N]`, from a task's labels."""
    return labels if self.column is None else labels[:, self.column]


def models(task: Task) -> list[Model]:
  """Returns the models of a task; none if LightGBM cannot learn it."""
  kind = kinds.of(task)
  if kind == kinds.BINARY:
    return [Model({'objective': 'binary', 'metric': 'auc'})]
  if kind == kinds.MULTILABEL:
    return [
      Model({'objective': 'binary', 'metric': 'auc'}, column)
      for column in range(task.num_outputs)
    ]
  if kind in (kinds.MULTICLASS, kinds.ORDINAL):
    # An ordinal task has a logit per threshold between two classes.
    size = task.num_outputs + (kind == kinds.ORDINAL)
    learned = {'objective': 'multiclass', 'metric': 'multi_logloss'}
    return [Model({**learned, 'num_class': size})]
  if kind == kinds.REGRESSION:
    return [Model({'objective': 'regression', 'metric': 'l2'})]
  if kind == kinds.COUNT:
    return [Model({'objective': 'poisson', 'metric': 'poisson'})]
  return []


def outputs(task: Task, raw: Sequence[np.ndarray]) -> np.ndarray:
  """Returns a task's outputs, `[N, K]` float32, from its models' raw scores."""
  scores = np.stack(raw, axis=1) if len(raw) > 1 else raw[0]
  if kinds.of(task) == kinds.ORDINAL:
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    scores = ordinal.logits(shares / shares.sum(axis=1, keepdims=True))
  return scores.reshape(len(scores), -1).astype(np.float32)
