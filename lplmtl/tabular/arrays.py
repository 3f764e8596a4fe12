"""scikit-learn's X and y to named columns, and predictions back to arrays."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl.tabular import checks, inference
from lplmtl.tabular.schema import Schema, label_columns


class Labels(NamedTuple):
  """What `y` looked like, so that predictions can look like it.

  Attributes:
    names: its columns, in order.
    is_flat: whether it is `[N]`, not `[N, T]`.
  """

  names: tuple[Any, ...]
  is_flat: bool

  def restore(
    self, predictions: Mapping[str, Any], schema: Schema
  ) -> np.ndarray:
    """Returns predictions by name as an array like `y`."""
    predicted = {}
    for name, target in schema.targets.items():
      for column in label_columns(name, target):
        # Several columns keep their names; a single one has the target's.
        found = column if target.kind == 'multilabel' else name
        predicted[column] = _tight(np.asarray(predictions[found]))
    columns = [predicted[name] for name in self.names]
    if self.is_flat:
      return columns[0]
    are_texts = {x.dtype.kind == 'U' for x in columns}
    if len(are_texts) > 1:  # numbers beside texts stay numbers
      columns = [x.astype(object) for x in columns]
    return np.stack(columns, axis=1)


def as_columns(X: Any) -> Any:
  """Returns a DataFrame or dict as it is, and names the columns of an array.

  Raises:
    ValueError: X is an array of another shape than `[N, D]`.
  """
  if hasattr(X, 'iloc') or isinstance(X, Mapping):
    return X
  array = np.asarray(X)
  if array.ndim != 2:
    raise ValueError(
      'X must be a DataFrame, a dict from names to columns, or an array [N, '
      f'D]; found {type(X).__name__} of shape {array.shape}'
    )
  return {f'x{i}': column for i, column in enumerate(array.T)}


def label_names(targets: Any, y: Any) -> list[Any]:
  """Returns the columns that targets are read from, as `infer` takes them.

  Args:
    targets: one name, names, or `{name: kind}`; None for those of `y`.
    y: the labels, if these are not in the table.

  Raises:
    ValueError: there is neither.
  """
  if targets is None:
    if y is None:
      raise ValueError(
        "targets must name the columns to predict, such as ['churn']; found "
        'None'
      )
    return list(getattr(y, 'columns', [getattr(y, 'name', None) or 'y']))
  if isinstance(targets, str | int):
    return [targets]
  if not isinstance(targets, Mapping):
    return list(targets)
  asked = inference.targets_of(targets)
  return [c for name, one in asked.items() for c in label_columns(name, one)]


def join(X: Any, y: Any, names: Sequence[Any]) -> tuple[Any, Labels | None]:
  """Adds the columns of `y` to those of `X`, in place of any of these names.

  Rows are matched by position, as everywhere in scikit-learn.

  Args:
    X: see `as_columns`.
    y: None, `[N]`, `[N, T]`, or named columns.
    names: the columns that the targets are read from, T of them.

  Returns:
    (columns, labels): labels is None without `y`.
  """
  frame = as_columns(X)
  if y is None:
    return frame, None
  is_named = hasattr(y, 'iloc') and hasattr(y, 'columns')
  if is_named or isinstance(y, Mapping):
    found, is_flat = checks.columns_of(y), False
    checks.check_known('targets', names, found)
  else:
    array = y if hasattr(y, 'dtype') else np.asarray(y)
    is_flat = array.ndim == 1
    parts = [array] if is_flat else list(np.asarray(array).T)
    if len(parts) != len(names):
      raise ValueError(
        f'y must have a column for each of the targets {list(names)}, found '
        f'{len(parts)}'
      )
    found = dict(zip(names, parts, strict=True))
  columns = {**checks.columns_of(frame), **{n: found[n] for n in names}}
  return columns, Labels(tuple(names), is_flat)


def join_pair(validation: Any, names: Sequence[Any]) -> Any:
  """Returns the columns of validation rows `(X, y)`; see `join`.

  Raises:
    ValueError: they are not a pair.
  """
  if not isinstance(validation, tuple | list) or len(validation) != 2:
    raise ValueError(
      'after fit(X, y), validation must be a pair (X, y), found '
      f'{type(validation).__name__}'
    )
  X, y = validation
  return join(X, y, names)[0]


def _tight(values: np.ndarray) -> np.ndarray:
  """Returns classes that are kept as objects in the dtype of their own."""
  return np.asarray(values.tolist()) if values.dtype == object else values
