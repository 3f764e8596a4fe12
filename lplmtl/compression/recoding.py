"""Encoded rows of tables as rows of the same tables after merging."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl.compression import merging_tables
from lplmtl.tables import Tables


def recode(
  features: Mapping[str, Any], tables: Tables, merged: Tables
) -> dict[str, np.ndarray]:
  """Returns what `merged.encode` returns for the raw rows.

  Merging maps old ids to new ones, so that the raw rows are not needed.

  Args:
    features: `Tables.encode`'s.
    tables: that encoded them.
    merged: from `merging.merge` of these tables.

  Raises:
    ValueError: `merged` has columns, values or edges that `tables` has not.

  Example:
    >>> from lplmtl import tables
    >>> old = tables.fit({'city': ['Oslo', 'Rome', 'Bonn']}, {})
    >>> new = tables.Tables(old.vocabularies, {}, merged={'city': (0, 0, 1, 1)})
    >>> rows = old.encode({'city': ['Bonn', 'Oslo', 'Rome']})
    >>> recode(rows, old, new)['categories'].ravel().tolist()
    [0, 1, 1]
  """
  ids = np.asarray(features['categories'])
  maps = new_ids(tables, merged)
  columns = [table[ids[:, place]] for place, table in maps]
  numbers = np.asarray(features['numeric'])
  found = {
    'categories': np.stack(columns, axis=1).astype(np.int32)
    if columns
    else np.zeros((len(ids), 0), np.int32),
    'numeric': numbers[:, _numbers(tables, merged)],
  }
  if 'hashed' in features:
    found['hashed'] = np.asarray(features['hashed'])
  return found


def new_ids(tables: Tables, merged: Tables) -> list[tuple[int, np.ndarray]]:
  """Returns, for each category column of `merged`, where it comes from.

  Returns:
    `(place, [n] ids)`: the column of the old ids, and the new id of each.

  Raises:
    ValueError: see `recode`.
  """
  old, new = merging_tables.ids_of(tables), merging_tables.ids_of(merged)
  places = {name: place for place, name in enumerate(old)}
  found = []
  for name, ids in new.items():
    if name not in old or len(old[name]) != len(ids):
      raise _mismatch(name)
    table = np.zeros(old[name].max() + 1, np.int64)
    table[old[name]] = ids
    if (table[old[name]] != ids).any():
      raise _mismatch(name)
    found.append((places[name], table))
  bins = tables.binned
  for name, scaler in merged.binned.items():
    edges = bins[name].edges if name in bins else ()
    if not set(scaler.edges) <= set(edges):
      raise _mismatch(name)
    table = np.cumsum([0, *np.isin(edges, scaler.edges)])
    found.append((len(old) + list(bins).index(name), table))
  return found


def _numbers(tables: Tables, merged: Tables) -> list[int]:
  """Returns the columns of `numeric` that are left."""
  old = [*tables.numbers, *_flags(tables)]
  new = [*merged.numbers, *_flags(merged)]
  for name in new:
    if name not in old:
      raise _mismatch(name)
  positions = range(len(old), len(old) + len(tables.num_pieces))
  return [*(old.index(name) for name in new), *positions]


def _flags(tables: Tables) -> list[tuple[str, Any]]:
  """Returns names for the flags of missing numbers, in order.

  The parts of a date share a flag, which goes by the date's name.
  """
  named = [name for name, n in tables.numerics.items() if n.flag]
  named += [name for name, date in tables.dates.items() if date.flag]
  return [('flag', name) for name in named]


def _mismatch(name: Any) -> ValueError:
  return ValueError(
    f'column {name!r} of the merged tables has other values than that of the '
    'tables: pass the tables that were merged'
  )


def one_row(tables: Tables) -> dict[str, np.ndarray]:
  """Returns an encoded row of zeros, to trace or initialise a model with.

  Args:
    tables: those that the model is trained with.
  """
  # A date without parts may have a flag, too.
  num_numbers = len(tables.numbers) + len(_flags(tables))
  num_numbers += len(tables.num_pieces)
  found = {
    'categories': np.zeros((1, len(tables.num_categories)), np.int32),
    'numeric': np.zeros((1, num_numbers), np.float32),
  }
  if tables.num_buckets:
    found['hashed'] = np.zeros((1, len(tables.num_buckets), 2), np.int32)
  return found
