"""Encodes columns that have been read, some rows at a time."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl.columns import RowError

# Rows at a time: what is computed on the way stays in a processor's cache, and
# needs next to no memory beside the result.
_ROWS = 1 << 14
_EXACT = 2**52  # up to here, numbers one apart are exact in float64


class Read(NamedTuple):
  """Columns of N rows as read.

  Attributes:
    ids: per column of categories, `[N]` codes and the `[V]` ids of these.
    numbers: `{column: [N]}`, NaN where missing.
    times: `{column: [N]}`, NaT where missing.
    parts: `{'signup.days': ('signup', 'days')}`.
  """

  ids: Sequence[tuple[np.ndarray, np.ndarray]]
  numbers: Mapping[Any, np.ndarray]
  times: Mapping[Any, np.ndarray]
  parts: Mapping[Any, tuple[Any, str]]

  def take(self, rows: slice) -> 'Read':
    """Returns some rows."""
    return Read(
      [(codes[rows], ids) for codes, ids in self.ids],
      {name: values[rows] for name, values in self.numbers.items()},
      {name: values[rows] for name, values in self.times.items()},
      self.parts,
    )


def encode(tables: Any, read: Read, num_rows: int) -> dict[str, np.ndarray]:
  """Returns `categories` and `numeric`; see `Tables.encode`.

  Raises:
    RowError: see there.
  """
  flags = [one.flag for one in tables.numerics.values()]
  flags += [date.flag for date in tables.dates.values()]
  width = len(tables.numerics) + sum(flags) + len(tables.num_pieces)
  categories = np.empty((num_rows, len(tables.num_categories)), np.int32)
  numbers = np.empty((num_rows, width), np.float32)
  for start in range(0, num_rows, _ROWS):
    rows = slice(start, start + _ROWS)
    some = read.take(rows)
    try:
      for i, column in enumerate(_categories(tables, some)):
        categories[rows, i] = column
      _write(tables, some, numbers[rows])
    except RowError as error:
      row = start + error.row
      raise RowError(error.column, row, error.complaint) from None
  return {'categories': categories, 'numeric': numbers}


def _categories(tables: Any, read: Read) -> Iterator[np.ndarray]:
  for codes, ids in read.ids:
    yield ids[codes]
  for name, scaler in tables.numerics.items():
    if scaler.edges and not scaler.interpolate:
      values = scaler.fill_in(name, _numbers(tables, read, name))
      yield np.searchsorted(np.asarray(scaler.edges), values, side='right')


def _write(tables: Any, read: Read, found: np.ndarray) -> None:
  """Writes numbers, flags and positions into `[n, M]`."""
  flags = itertools.count(len(tables.numerics))
  positions = itertools.count(found.shape[1] - len(tables.num_pieces))
  for i, (name, scaler) in enumerate(tables.numerics.items()):
    values = _numbers(tables, read, name)
    if scaler.flag:
      found[:, next(flags)] = np.isnan(values)
    distinct, codes = _whole(scaler.fill_in(name, values))
    try:
      scaled = scaler.encode(name, distinct)
    except RowError:  # say in which row
      scaler.encode(name, distinct[codes])
      raise
    found[:, i] = scaled[codes]
    if scaler.interpolate:
      found[:, next(positions)] = scaler.position(scaled)[codes]
  for name, date in tables.dates.items():
    if date.flag:
      found[:, next(flags)] = np.isnat(read.times[name])


def _numbers(tables: Any, read: Read, name: Any) -> np.ndarray:
  """Returns a numeric column, or a part of a date, as float64."""
  if name not in read.parts:
    return read.numbers[name]
  source, part = read.parts[name]
  return tables.dates[source].number(read.times[source], part)


def _whole(values: np.ndarray) -> tuple[np.ndarray, Any]:
  """Returns numbers, and for each row which of them it has.

  These are whole numbers in a row, if the rows have only such: that is quicker
  than to compute the same for row after row. Others are returned as they are.
  """
  with np.errstate(invalid='ignore', over='ignore'):
    first, last = values.min(), values.max()
    if not last - first < len(values) / 4 or abs(first) > _EXACT:
      return values, slice(None)
    codes = (values - first).astype(np.int32)
  distinct = first + np.arange(int(last - first) + 1)
  if (distinct[codes] != values).any():
    return values, slice(None)
  return distinct, codes
