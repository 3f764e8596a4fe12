"""Checks of the arguments of `lplmtl.tables`."""

import numbers
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from lplmtl import columns as raw
from lplmtl import hashing


def check_columns(name: str, columns: Any) -> None:
  """Raises ValueError unless `columns` is a dict or a data frame."""
  if not hasattr(columns, 'items'):
    raise ValueError(
      f'{name} must be a dict from names to columns, found '
      f'{type(columns).__name__}'
    )


def check_present(names: Collection[Any], columns: Any) -> None:
  """Raises ValueError unless `columns` holds all those named."""
  check_columns('columns', columns)
  absent = [name for name in names if name not in columns]
  if absent:
    raise ValueError(f'columns {absent} are missing; found {list(columns)}')


def check_names(name: str, names: Any, known: list[Any]) -> None:
  """Raises ValueError unless `names` is a collection of known names."""
  # A string is a collection, too: of characters.
  is_tuple = isinstance(names, Collection) and not isinstance(names, str)
  if not is_tuple or any(one not in known for one in names):
    raise ValueError(
      f'{name} must be a tuple of names of numeric columns, from {known}; '
      f'found {names!r}'
    )


def check_rows(name: Any, rows: np.ndarray) -> None:
  """Raises ValueError if a column has no rows."""
  if not len(rows):
    raise ValueError(
      f'column {name!r} must have at least one training row, found none'
    )


def column_name(name: Any) -> str | int:
  """Returns the name as a str or an int, which survive JSON.

  Raises:
    ValueError: it is neither.
  """
  if isinstance(name, str):
    return str(name)
  if isinstance(name, numbers.Integral) and not isinstance(name, bool):
    return int(name)
  raise ValueError(
    f'names of columns must be strings or integers, found {name!r}'
  )


def check_bins(num_bins: Any) -> None:
  """Raises ValueError unless it is a number of bins, or 0."""
  is_integer = isinstance(num_bins, numbers.Integral)
  if not is_integer or num_bins < 0 or num_bins == 1:
    raise ValueError(
      f'num_bins must be 0 or a whole number of at least 2, found {num_bins!r}'
    )


# The sizes of vocabularies and of hashed columns, and the least of each: one
# bucket for all values would make a column say nothing.
SIZES = {'min_count': 1, 'max_vocabulary': 1, 'num_buckets': 2}


def check_counts(min_count: Any, max_vocabulary: Any, num_buckets: Any) -> None:
  """Raises ValueError for a size of vocabularies that is out of range."""
  sizes = (
    min_count,
    SIZES['max_vocabulary'] if max_vocabulary is None else max_vocabulary,
    num_buckets,
  )
  for (name, least), size in zip(SIZES.items(), sizes, strict=True):
    is_integer = isinstance(size, numbers.Integral)
    if not is_integer or isinstance(size, bool) or size < least:
      raise ValueError(
        f'{name} must be a whole number of at least {least}, found {size!r}'
      )
  check_buckets(num_buckets)


def check_buckets(num_buckets: int) -> None:
  """Raises ValueError for more buckets than have a number."""
  if num_buckets > hashing.MOST_BUCKETS:
    raise ValueError(
      f'num_buckets must be at most {hashing.MOST_BUCKETS:,}, as buckets are '
      f'numbered in int32; found {num_buckets:,}'
    )


def check_sizes(columns: Any) -> None:
  """Raises ValueError unless sizes of single columns have known names."""
  if not isinstance(columns, Mapping) or not all(
    isinstance(sizes, Mapping) and set(sizes) <= set(SIZES)
    for sizes in columns.values()
  ):
    raise ValueError(
      'columns must be a dict of dicts of the sizes '
      f'{", ".join(SIZES)}, such as {{"user": {{"num_buckets": 65536}}}}; '
      f'found {columns!r:.80}'
    )


def missing_texts(missing: Any) -> frozenset[str]:
  """Returns texts that stand for missing values in canonical form.

  Raises:
    ValueError: they are not a tuple of texts.
  """
  is_tuple = isinstance(missing, Collection) and not isinstance(missing, str)
  if not is_tuple or not all(isinstance(text, str) for text in missing):
    raise ValueError(
      "missing must be a tuple of texts, such as ('?', 'unknown'); found "
      f'{missing!r}'
    )
  return frozenset(map(raw.canonical, missing)) - {raw.MISSING}


def check_merged(
  name: Any, ids: tuple[Any, ...], values: Collection[str] | None
) -> None:
  """Checks the new ids of a column of categories.

  Args:
    name: of the column, for messages.
    ids: see `Tables.merged`.
    values: its vocabulary, None if it has none.

  Raises:
    ValueError: they do not fit the vocabulary, or are not 0 to n - 1.
  """
  what = f'column {name!r} of merged'
  if values is None:
    raise ValueError(f'{what} must have a vocabulary')
  if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
    raise ValueError(f'{what} must hold whole numbers, found {ids!r:.60}')
  if len(ids) != len(values) + 1:
    raise ValueError(
      f'{what} must hold an id for unseen values and for each of its '
      f'{len(values)} values, found {len(ids)} ids'
    )
  if ids[0] != 0 or set(ids) != set(range(max(ids) + 1)):
    raise ValueError(
      f'{what} must begin with 0 and hold every number up to its largest, '
      f'found {ids!r:.60}'
    )


def join(known: dict[Any, Any], new: Mapping[Any, Any]) -> None:
  """Adds columns under new names.

  Raises:
    ValueError: a name is taken.
  """
  for name in new:
    if name in known:
      raise ValueError(
        f'two columns would be called {name!r}: rename one (a part of a date '
        'is called <column>.<part>, such as signup.year)'
      )
  known.update(new)
