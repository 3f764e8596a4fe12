"""Inputs that are a target in disguise.

NumPy only.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl import columns as raw
from lplmtl import numeric
from lplmtl.columns import Column, RowError
from lplmtl.tabular import facts
from lplmtl.tabular.schema import USED, Schema, label_columns

# With fewer rows, two columns may agree by chance; with so many evenly spaced
# ones, a column that agrees in all of them tells the target almost exactly.
_MIN_ROWS, _MAX_ROWS = 20, 10_000
# Rounding of one column to float32 leaves a correlation of 1 - 1e-14.
_CORRELATION = 1 - 1e-9


def warn(schema: Schema, columns: Mapping[Any, Column]) -> None:
  """Warns of inputs that are a target in disguise.

  Such as a copy of it, also as text; the same classes by other names; a number
  that is the target in another unit; or a column that has a value in the rows
  of one class only, like the date of a cancellation. Predictions would look
  excellent, until new rows lack the column. Long tables are compared by evenly
  spaced rows.

  Args:
    schema: with the kinds of all targets.
    columns: training rows.
  """
  used = [name for name, one in schema.inputs.items() if one.kind in USED]
  sampled = {name: _sample(columns[name]) for name in used}
  lost = facts.missing_texts(schema.missing)
  coded = {name: _codes(name, one, lost) for name, one in sampled.items()}
  for name, target in schema.targets.items():
    for column in label_columns(name, target):
      labels = _sample(columns[column])
      classes = _codes(column, labels, lost)
      for other in used:
        if target.kind in ('regression', 'count'):
          found = _are_proportional(column, labels, other, sampled[other], lost)
        else:
          found = _are_alike(*classes, *coded[other])
        if found:
          warnings.warn(
            f'column {other!r} tells {name!r} almost exactly: {found}. If it '
            'is not known when predicting, leave it out (ignore)',
            stacklevel=3,
          )


def _sample(column: Column) -> Column:
  column = raw.plain(column)
  n = len(column.codes) if isinstance(column, raw.Factor) else len(column)
  if n <= _MAX_ROWS:
    return column
  rows = np.linspace(0, n - 1, _MAX_ROWS).astype(np.int64)
  return facts.take(column, rows)


def _codes(
  name: Any, column: Column, missing: frozenset[str]
) -> tuple[np.ndarray, int]:
  """Returns `[N]` codes of values, -1 where missing, and how many there are."""
  if type(column) is np.ndarray and column.dtype.kind in 'iuf':
    return _codes_of_numbers(column, missing)
  codes, texts = raw.texts_of(name, column)
  known: dict[str, int] = {}
  new = [
    -1
    if facts.is_missing(text, missing)
    else known.setdefault(text, len(known))
    for text in map(raw.canonical, texts)
  ]
  return np.asarray(new, np.int64)[codes], len(known)


def _codes_of_numbers(
  column: np.ndarray, missing: frozenset[str]
) -> tuple[np.ndarray, int]:
  """Returns what `_codes` would, in a tenth of the time."""
  values, codes = np.unique(column, return_inverse=True)
  lost = [float(text) for text in missing if facts.is_number(text)]
  is_known = ~(np.isnan(values) | np.isin(values, lost))
  new = np.where(is_known, np.cumsum(is_known) - 1, -1)
  return new[codes], int(is_known.sum())


def _are_alike(
  classes: np.ndarray, num_classes: int, values: np.ndarray, num_values: int
) -> str:
  """Returns how the values of a column tell the classes, or ''."""
  is_known = classes >= 0
  if is_known.sum() < _MIN_ROWS:
    return ''
  has_value = values >= 0
  both = is_known & has_value
  if num_values == num_classes and both.sum() >= _MIN_ROWS:
    pairs = classes[both] * num_values + values[both]
    sizes = {len(np.unique(x)) for x in (pairs, classes[both], values[both])}
    if sizes == {num_classes}:
      return 'each of its values stands for one class'
  agreement = np.mean(classes[is_known] == has_value[is_known])
  if num_classes == 2 and agreement in (0, 1):
    return 'it has a value in the rows of one class only'
  return ''


def _are_proportional(
  name: Any,
  labels: Column,
  other_name: Any,
  other: Column,
  missing: frozenset[str],
) -> str:
  try:
    x = numeric.read(other_name, other, missing)
  except (RowError, ValueError):  # no numbers
    return ''
  y = numeric.read(name, labels, missing)
  both = np.isfinite(x) & np.isfinite(y)
  x, y = x[both], y[both]
  if len(x) < _MIN_ROWS:
    return ''
  x, y = x - x.mean(), y - y.mean()
  with np.errstate(all='ignore'):
    correlation = (x @ y) / np.sqrt((x @ x) * (y @ y))
  if abs(correlation) < _CORRELATION or np.isnan(correlation):
    return ''
  return 'the one is the other, scaled and shifted'
