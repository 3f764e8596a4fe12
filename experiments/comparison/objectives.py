"""What LightGBM is asked to learn for each kind of task, and what it answers.

| task | objective | rounds end by |
|---|---|---|
| binary | binary | AUC |
| multilabel | binary, one model per label | AUC |
| ordinal | binary, one model per threshold | log loss |
| multiclass | multiclass | log loss |
| regression | squared error | squared error |
| count | Poisson | Poisson deviance |

The answers are the task's own outputs, so that its metrics score trees and
networks alike.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.launcher import kinds
from lplmtl.types import Task


class Model(NamedTuple):
  """One of the models that a task needs.

  Attributes:
    parameters: LightGBM's, which may not be tuned.
    part: which label of a multilabel task, or threshold of an ordinal one, the
      model learns.
  """

  parameters: dict[str, Any]
  part: int = 0


def models(task: Task) -> list[Model]:
  """Returns the models of a task; none if LightGBM cannot learn it."""
  kind, size = kinds.of(task), task.num_outputs
  if kind in (kinds.BINARY, kinds.MULTILABEL):
    learned = {'objective': 'binary', 'metric': 'auc'}
    return [Model(learned, part) for part in range(size)]
  if kind == kinds.ORDINAL:
    # As networks do (Frank and Hall 2001). On two columns of ggplot2's diamonds
    # (5 and 7 classes, 8,000 rows) kappa was .820 and .719; by softmax .812 and
    # .679, by regression .803 and .735.
    learned = {'objective': 'binary', 'metric': 'binary_logloss'}
    return [Model(learned, part) for part in range(size)]
  if kind == kinds.MULTICLASS:
    # The log loss ends training later than the error does, with fewer errors on
    # the same columns (.232 and .593 against .248 and .596).
    learned = {'objective': 'multiclass', 'metric': 'multi_logloss'}
    return [Model({**learned, 'num_class': size})]
  if kind == kinds.REGRESSION:
    return [Model({'objective': 'regression', 'metric': 'l2'})]
  if kind == kinds.COUNT:
    return [Model({'objective': 'poisson', 'metric': 'poisson'})]
  return []


def labels_of(task: Task, model: Model, labels: np.ndarray) -> np.ndarray:
  """Returns what a model learns, `[N]`, from its task's labels, `[N, ...]`."""
  kind = kinds.of(task)
  if kind == kinds.MULTILABEL:
    return labels[:, model.part]
  return labels > model.part if kind == kinds.ORDINAL else labels


def outputs(raw: Sequence[np.ndarray]) -> np.ndarray:
  """Returns a task's outputs, `[N, K]` float32, from its models' raw scores."""
  scores = np.stack(raw, axis=1) if len(raw) > 1 else raw[0]
  return scores.reshape(len(scores), -1).astype(np.float32)
