"""What a model predicts beside what is true, as JSON data for pictures.

Metrics say how good predictions are; this says what they are like: which
classes are taken for which, and how far numbers are off, in the user's unit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.launcher import kinds, scoring
from lplmtl import numeric, ordinal, statistics
from lplmtl.types import Batch, Task

# A point for more rows than this adds nothing to a picture.
MOST_POINTS = 500
# A table of more classes cannot be read.
MOST_CLASSES = 30


def describe(
  tasks: Sequence[Task],
  logits: Mapping[str, np.ndarray],
  rows: Batch,
  targets: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
  """Describes the predictions of the first seed for the labelled rows.

  Args:
    tasks: T tasks.
    logits: `{task: [S, N, ..., K]}`.
    rows: N rows.
    targets: `{task: {classes, columns, unit, mean, std}}`, any of them, and for
      any of the tasks.

  Returns:
    `{task: description}` of a kind each:

    - classes: `classes`, their names, and `counts`, `[K][K]`, the number of
      rows of each true class (the first axis) by predicted class;
    - numbers: `unit`, `error` (the mean absolute one), and `true` and
      `predicted` of at most MOST_POINTS rows;
    - labels: `labels`, their names, and `auc`, `[K]`, None where undefined.

    Tasks of other kinds, such as binary ones, which have a calibration, and
    tasks of more than MOST_CLASSES classes are left out.
  """
  described = {}
  for task in tasks:
    where = scoring.labelled(rows, task.name)
    outputs = logits[task.name][0][where]
    labels = np.asarray(rows.labels[task.name])[where]
    if not len(labels):
      continue
    found = _describe(task, outputs, labels, targets.get(task.name, {}))
    if found:
      described[task.name] = found
  return described


def _describe(
  task: Task, outputs: np.ndarray, labels: np.ndarray, target: Any
) -> dict[str, Any] | None:
  kind, size = kinds.of(task), task.num_outputs
  if kind == kinds.MULTILABEL:
    aucs = [
      statistics.roc_auc(outputs[:, k], labels[:, k]) for k in range(size)
    ]
    return {
      'kind': 'labels',
      'labels': _names(target.get('columns'), size),
      'auc': [None if np.isnan(auc) else round(auc, 6) for auc in aucs],
    }
  if kind == kinds.MULTICLASS:
    return _classes(outputs.argmax(axis=-1), labels, size, target)
  if kind == kinds.ORDINAL:
    return _classes(ordinal.classes(outputs), labels, size + 1, target)
  if kind in (kinds.REGRESSION, kinds.COUNT):
    return _numbers(kind, outputs[:, 0], labels, target)
  return None


def _classes(
  predicted: np.ndarray, labels: np.ndarray, size: int, target: Any
) -> dict[str, Any] | None:
  if size > MOST_CLASSES:
    return None
  counts = np.zeros((size, size), int)
  np.add.at(counts, (labels.astype(int), predicted), 1)
  names = _names(target.get('classes'), size)
  return {'kind': 'classes', 'classes': names, 'counts': counts.tolist()}


def _numbers(
  kind: str, outputs: np.ndarray, labels: np.ndarray, target: Any
) -> dict[str, Any]:
  mean, std = target.get('mean'), target.get('std')
  predicted, true = outputs.astype(np.float64), labels.astype(np.float64)
  if kind == kinds.COUNT:  # in units of the mean, of which it is the logarithm
    predicted = np.exp(np.minimum(predicted, numeric.MAX_LOG_RATE))
    centre, scale = 0.0, mean or 1.0
  else:
    centre, scale = mean or 0.0, std or 1.0
  predicted, true = centre + scale * predicted, centre + scale * true
  shown = np.linspace(0, len(true) - 1, min(len(true), MOST_POINTS)).astype(int)
  return {
    'kind': 'numbers',
    'unit': target.get('unit') or '',
    'error': float(np.mean(np.abs(predicted - true))),
    'true': _rounded(true[shown], max(abs(centre), scale)),
    'predicted': _rounded(predicted[shown], max(abs(centre), scale)),
  }


def _names(given: Sequence[Any] | None, size: int) -> list[str]:
  if given is not None and len(given) == size:
    return [str(name) for name in given]
  return [str(k) for k in range(size)]


def _rounded(values: np.ndarray, size: float) -> list[float]:
  """Returns numbers of six digits, which keep the files short.

  Args:
    values: computed in float32 from numbers of about `size`, so that a value of
      0 may have become some 1e-7 of it.
    size: more than 0.
  """
  values = np.round(values, 6 - int(np.floor(np.log10(size))))
  return [float(f'{value + 0.0:.6g}') for value in values]
