"""Labels of a table to the arrays of training, and predictions back.

NumPy only, but for `make_tasks`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl import columns as raw
from lplmtl import numeric
from lplmtl.columns import Column
from lplmtl.tabular import checks, facts
from lplmtl.tabular.schema import Class, Schema, Target, label_columns
from lplmtl.types import Task


def make_tasks(schema: Schema) -> tuple[Task, ...]:
  """Returns one task per target, in the schema's order."""
  # Here, as nothing else in this module needs JAX.
  from lplmtl import tasks

  made = []
  for name, target in schema.targets.items():
    if target.kind == 'binary':
      made.append(tasks.binary(name))
    elif target.kind == 'multiclass':
      made.append(tasks.multiclass(name, len(target.classes)))
    elif target.kind == 'regression':
      made.append(tasks.regression(name))
    else:
      raise NotImplementedError(target.kind)
  return tuple(made)


def encode_labels(
  schema: Schema, frame: Any
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Any]:
  """Returns a table's labels as arrays.

  Args:
    schema: with the classes, means and standard deviations of training.
    frame: with the columns of the targets and of the weights.

  Returns:
    `(labels, where, weights)`: `{target: [N]}`, int32 indices of classes (the
    positive class of a binary target is 1) or float32 numbers, standardised for
    a regression, 0 where a label is missing; `{target: [N] bool}`, whether
    there is a label; None, `[N]` or `{target: [N]}` float32.
  """
  columns = checks.columns_of(frame)
  labels, where = {}, {}
  for name, target in schema.targets.items():
    (column,) = label_columns(name, target)
    checks.check_known('targets', (column,), columns)
    codes, texts = raw.texts_of(column, columns[column])
    lost = facts.missing_texts(schema.missing)
    known = [not facts.is_missing(raw.canonical(x), lost) for x in texts]
    where[name] = np.asarray(known, bool)[codes]
    if target.kind in ('binary', 'multiclass'):
      index = {
        raw.canonical(str(value)): i
        for i, value in enumerate(ordered_classes(target))
      }
      values = [index.get(raw.canonical(text), 0) for text in texts]
      labels[name] = np.asarray(values, np.int32)[codes]
    else:
      numbers = [
        (float(text) - (target.mean or 0)) / (target.std or 1)
        if is_known
        else 0
        for text, is_known in zip(texts, known, strict=True)
      ]
      labels[name] = np.asarray(numbers, np.float32)[codes]
  return labels, where, _weights(schema, columns)


def decode(schema: Schema, logits: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Returns predictions in the user's own names, values and units.

  Args:
    schema: the schema.
    logits: `{target: [N, K]}` float, or `[S, N, K]` for S seeds, whose
      probabilities or numbers are averaged.

  Returns:
    `{column: [N]}`: for a binary target `churn` its class and
    `churn_probability` that of the positive class; for a multiclass target
    `segment` its class and one `segment_probability_<class>` per class; for a
    regression its number.
  """
  decoded: dict[str, np.ndarray] = {}
  for name, target in schema.targets.items():
    values = mean_outputs(target, logits[name])
    classes = ordered_classes(target)
    if target.kind == 'binary':
      decoded[name] = _array(classes)[(values[:, 0] > 0.5).astype(int)]
      decoded[f'{name}_probability'] = values[:, 0]
    elif target.kind == 'multiclass':
      decoded[name] = _array(classes)[values.argmax(-1)]
      for i, value in enumerate(classes):
        decoded[f'{name}_probability_{value}'] = values[:, i]
    else:
      decoded[name] = values[:, 0]
  return decoded


def mean_outputs(target: Target, logits: Any) -> np.ndarray:
  """Returns `[N, K]` probabilities or numbers of `[N, K]` or `[S, N, K]`."""
  values = np.asarray(logits, np.float64)
  if target.kind == 'binary':
    values = 0.5 * (1 + np.tanh(values / 2))  # the sigmoid, without overflow
  elif target.kind == 'multiclass':
    values = np.exp(values - values.max(-1, keepdims=True))
    values /= values.sum(-1, keepdims=True)
  elif target.kind == 'regression':
    values = values * (target.std or 1) + (target.mean or 0)
  return values.mean(0) if values.ndim == 3 else values


def ordered_classes(target: Target) -> tuple[Class, ...]:
  """Returns the classes by index: of a binary target, the positive one last."""
  if target.kind != 'binary':
    return target.classes
  negative = [value for value in target.classes if value != target.positive]
  return (*negative, target.positive)  # type: ignore[arg-type]


def _array(classes: tuple[Class, ...]) -> np.ndarray:
  kinds = {type(value) for value in classes}
  return np.asarray(classes, object if str in kinds else None)


def _weights(schema: Schema, columns: Mapping[Any, Column]) -> Any:
  if not schema.weight and not schema.task_weights:
    return None
  n = checks.num_rows(columns)
  rows = (
    numeric.numbers_of(schema.weight, columns[schema.weight])
    if schema.weight
    else np.ones(n)
  ).astype(np.float32)
  if not schema.task_weights:
    return rows
  return {
    name: rows * numeric.numbers_of(column, columns[column]).astype(np.float32)
    if (column := schema.task_weights.get(name, ''))
    else rows
    for name in schema.targets
  }
