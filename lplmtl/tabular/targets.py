"""Labels of a table to the arrays of training, and predictions back.

NumPy only, but for `make_tasks`: scoring does not need JAX.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl import columns as raw
from lplmtl import numeric, ordinal
from lplmtl.columns import Column, RowError
from lplmtl.tabular import checks, class_values, facts, hints
from lplmtl.tabular.schema import (
  Class,
  Schema,
  Target,
  label_columns,
  output_columns,
)
from lplmtl.types import Task


def make_tasks(schema: Schema) -> tuple[Task, ...]:
  """Returns one task per target, in the schema's order.

  Args:
    schema: with the classes of all targets.
  """
  # Here, as tasks hold losses, which need JAX.
  from lplmtl import tasks

  def make(name: str, target: Target) -> Task:
    if target.kind == 'binary':
      return tasks.binary(name)
    if target.kind == 'multiclass':
      return tasks.multiclass(name, len(target.classes))
    if target.kind == 'ordinal':
      return tasks.ordinal(name, len(target.classes))
    if target.kind == 'multilabel':
      return tasks.multilabel(name, len(target.columns))
    if target.kind == 'count':
      return tasks.poisson(name)
    return tasks.regression(name)

  return tuple(make(name, target) for name, target in schema.targets.items())


def encode_labels(
  schema: Schema, frame: Any, *, weighted: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Any]:
  """Returns the labels and weights of a table.

  A label is missing if it is empty, None, NaN or the like, or one of
  `schema.missing`; so is one of a class that the schema does not know, with a
  warning: nothing was learned about it. Of a multi-label target, a row has
  either all labels or none.

  Args:
    schema: with the classes, means and standard deviations of training.
    frame: with the columns of the targets and, unless `weighted` is False, of
      the weights.
    weighted: whether to read the weights.

  Returns:
    `(labels, where, weights)`: `{target: [N]}`, or `[N, K]` for a multi-label
    target, int32 indices of classes (1 is the positive class of a binary
    target) or float32 numbers, standardised for a regression and in units of
    their mean for a count, 0 where a label is missing; `{target: [N] bool}`,
    whether there is a label; the row weights, float32 `[N]`, `{target: [N]}` if
    a target has its own, or None.

  Raises:
    ValueError: a column is absent; RowError if a number is infinite or a text,
      or a weight is missing or negative.

  Example:
    >>> schema = Schema({}, {'paid': Target('binary', ('no', 'yes'), 'yes')})
    >>> labels, where, _ = encode_labels(schema, {'paid': ['yes', None, 'no']})
    >>> labels['paid'].tolist(), where['paid'].tolist()
    ([1, 0, 0], [True, False, True])
  """
  columns = checks.columns_of(frame)
  encoded, where = {}, {}
  for name, target in schema.targets.items():
    names = label_columns(name, target)
    checks.check_known(f'target {name!r}', names, columns)
    parts = [
      _encode(name, target, column, columns[column], schema.missing)
      for column in names
    ]
    values = np.stack([values for values, _ in parts], axis=1)
    encoded[name] = values if target.kind == 'multilabel' else values[:, 0]
    where[name] = np.all([is_known for _, is_known in parts], axis=0)
  weights = _weights(schema, columns) if weighted else None
  return encoded, where, weights


def check_weights(
  schema: Schema, where: Mapping[str, Any], weights: Any, part: str
) -> None:
  """Raises ValueError if the labels of a target count for nothing.

  Args:
    schema: the schema.
    where: as `encode_labels` returns it.
    weights: likewise.
    part: what the rows are for, such as `training`, for messages.
  """
  if weights is None:
    return
  for name, is_known in where.items():
    of_rows = weights[name] if isinstance(weights, Mapping) else weights
    total = of_rows[is_known].sum(dtype=np.float64)
    if is_known.any() and not 0 < total < np.finfo(np.float32).max:
      columns = [schema.weight, schema.task_weights.get(name, '')]
      raise ValueError(
        f'the weights of the {part} rows with a label of {name!r} must have '
        f'a sum above 0 that fits in float32, found {total:g} '
        f'({hints.listed([one for one in columns if one != ""])})'
      )


def decode(schema: Schema, logits: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Returns predictions in the user's own names, values and units.

  Args:
    schema: with the classes, means and standard deviations of training.
    logits: `{target: [N, K]}` float, or `[S, N, K]` for S seeds, whose
      probabilities and numbers are averaged.

  Returns:
    `{column: [N]}`, in the order of the targets, the columns that
    `schema.output_columns` names:

    - binary: `churn`, the class (positive if its probability is above 1/2), and
      `churn_probability` of the positive class;
    - multiclass: `segment`, the most probable class, and
      `segment_probability_<class>` for each class;
    - ordinal: likewise, but the class is the median, which has the smallest
      expected distance;
    - multilabel: each of its columns, as for a binary target, and then
      `<column>_probability`;
    - regression: the number in its own unit; count: the expected count.

  Example:
    >>> schema = Schema({}, {'paid': Target('binary', ('no', 'yes'), 'yes')})
    >>> decoded = decode(schema, {'paid': np.log([[3.0], [1 / 3]])})
    >>> decoded['paid_probability'] = decoded['paid_probability'].round(2)
    >>> {name: values.tolist() for name, values in decoded.items()}
    {'paid': ['yes', 'no'], 'paid_probability': [0.75, 0.25]}
  """
  decoded: dict[str, np.ndarray] = {}
  for name, target in schema.targets.items():
    values = mean_outputs(target, logits[name])
    names = output_columns(name, target)
    if target.kind in ('regression', 'count'):
      columns = [values[:, 0]]
    else:
      classes = _array(ordered_classes(target))[_choose(target, values)]
      columns = [*np.atleast_2d(classes.T), *values.T]
    decoded |= dict(zip(names, columns, strict=True))
  return decoded


def mean_outputs(target: Target, logits: Any) -> np.ndarray:
  """Returns what the outputs of a model mean, before any choice of a class.

  Args:
    target: the target.
    logits: `[N, K]` or `[S, N, K]` float; of the latter, the mean over S is
      taken of what is returned for each seed.

  Returns:
    `[N, K]` float64: the probability of the positive class (binary, K = 1), of
    each class (multiclass, ordinal) or of each label (multilabel), a number in
    its own unit, or the expected count.
  """
  values = np.asarray(logits, np.float64)
  if target.kind in ('binary', 'multilabel'):
    values = 0.5 * (1 + np.tanh(values / 2))  # the sigmoid, without overflow
  elif target.kind == 'multiclass':
    values = np.exp(values - values.max(-1, keepdims=True))
    values = values / values.sum(-1, keepdims=True)
  elif target.kind == 'ordinal':
    values = ordinal.probabilities(values)
  elif target.kind == 'count':
    rates = np.exp(np.minimum(values, numeric.MAX_LOG_RATE))
    values = rates * scale(target)[1]
  else:
    values = values * scale(target)[1] + scale(target)[0]
  if values.ndim < 3:
    return values
  # Seed by seed: `values.mean(0)` adds those of a single row in another order.
  return sum(values[1:], values[0]) / len(values)


def ordered_classes(target: Target) -> tuple[Class, ...]:
  """Returns the classes by index: of a binary target, the positive one last."""
  if not target.classes:
    raise ValueError(
      f'a {target.kind} target needs the classes of the training rows: call '
      'labels.complete(schema, training_rows) first'
    )
  if target.kind != 'binary':
    return target.classes
  return tuple(sorted(target.classes, key=lambda c: c == target.positive))


def _encode(
  name: str,
  target: Target,
  column_name: Any,
  column: Column,
  missing: tuple[str, ...],
) -> tuple[np.ndarray, np.ndarray]:
  """Returns `[N]` labels, and whether each is known."""
  lost = facts.missing_texts(missing)
  if target.kind in ('regression', 'count'):
    numbers = numeric.read(column_name, column, lost)
    is_known = ~np.isnan(numbers)
    if target.kind == 'count' and (numbers < 0).any():
      row = int(np.argmax(numbers < 0))
      raise RowError(
        column_name, row, f'must hold counts, 0 or more; found {numbers[row]:g}'
      )
    mean, std = scale(target)
    scaled = np.where(is_known, (numbers - mean) / std, 0.0)
    return scaled.astype(np.float32), is_known
  codes, texts = raw.texts_of(column_name, column)
  texts = [raw.canonical(text) for text in texts]
  classes = list(ordered_classes(target))
  known = class_values.lookup(classes)
  found = [
    None if facts.is_missing(text, lost) else known.get(text) for text in texts
  ]
  _warn_of_unknown(name, texts, codes, {*known, *lost, raw.MISSING})
  index = [0 if value is None else classes.index(value) for value in found]
  is_known = np.array([value is not None for value in found], bool)
  return np.asarray(index, np.int32)[codes], is_known[codes]


def _warn_of_unknown(
  name: str, texts: list[str], codes: np.ndarray, known: set[str]
) -> None:
  unknown = [i for i, text in enumerate(texts) if text not in known]
  rows = int(np.isin(codes, unknown).sum())
  if rows:
    warnings.warn(
      f'target {name!r}: {rows} row{"s" * (rows > 1)} with a class that is in '
      f'no training row, such as {hints.quoted(texts[unknown[0]])}, '
      f'count{"s" * (rows == 1)} as without a label',
      stacklevel=4,
    )


def _choose(target: Target, values: np.ndarray) -> np.ndarray:
  """Returns the indices of the classes to predict, `[N]` or `[N, K]`."""
  if target.kind == 'binary':
    return (values[:, 0] > 0.5).astype(np.int64)
  if target.kind == 'multilabel':
    return (values > 0.5).astype(np.int64)
  if target.kind == 'ordinal':
    return ordinal.median(values)
  return values.argmax(axis=-1)


def scale(target: Target) -> tuple[float, float]:
  """Returns what is subtracted from a number, and what it is divided by."""
  mean, std = target.mean, target.std
  if target.kind == 'count':
    # In units of their mean, counts start near a rate of 1: rare events and
    # large counts are learned as fast as other targets.
    mean, std = (None if mean is None else 0.0), mean
  if mean is None or std is None:
    raise ValueError(
      f'a {target.kind} target needs the scale of the training rows: call '
      'labels.complete(schema, training_rows) first'
    )
  return mean, std


def _array(classes: tuple[Class, ...]) -> np.ndarray:
  """Returns classes as an array of their own dtype, texts as objects."""
  kind = object if any(isinstance(c, str) for c in classes) else None
  return np.asarray(classes, kind)


def _weights(schema: Schema, columns: Mapping[Any, Column]) -> Any:
  if schema.weight == '' and not schema.task_weights:
    return None
  rows = _read_weights(schema.weight, columns)
  if not schema.task_weights:
    return rows
  return {
    name: rows * _read_weights(schema.task_weights.get(name, ''), columns)
    for name in schema.targets
  }


def _read_weights(name: Any, columns: Mapping[Any, Column]) -> np.ndarray:
  if name == '':
    return np.ones(checks.num_rows(columns), np.float32)
  checks.check_known('weight', (name,), columns)
  weights = numeric.numbers_of(name, columns[name])
  if len(weights) and weights.min() < 0:
    row = int(np.argmax(weights < 0))
    raise RowError(
      name, row, f'holds weights, which must be >= 0; found {weights[row]:g}'
    )
  return weights.astype(np.float32)
