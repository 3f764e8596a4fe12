"""Encodes columns that have been read.

What rows share is encoded once and then looked up; the rest is encoded some
rows at a time.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl import _threads
from lplmtl import columns as raw
from lplmtl.columns import Factor, RowError
from lplmtl.numeric import Numeric

# Numbers written at a time, 2 MB: they stay in a processor's cache, and need
# next to no memory beside the result.
_CELLS = 1 << 19
_SHARED = 4  # rows per value from which values are encoded once each
_EXACT = 2**52  # up to here, numbers one apart are exact in float64
_BLOCK = 1 << 16  # rows looked at at a time, next to no memory as well
_MANY = 256  # rows from which looking for shared numbers takes less time
_TRIED = 100  # rows that tell most columns of fractions
_DTYPES = {'categories': np.int32, 'numeric': np.float32}

Place = tuple[str, int]  # such as ('numeric', 3), a column of that array
Parsed = np.ndarray | Factor


class Read(NamedTuple):
  """Columns of N rows as read.

  Attributes:
    ids: per column of categories, its ids, a Factor of int32.
    numbers: `{column: [N] or Factor}`, NaN where missing.
    times: `{column: [N] or Factor}`, NaT where missing.
  """

  ids: Sequence[Factor]
  numbers: Mapping[Any, Parsed]
  times: Mapping[Any, Parsed]


class _Piece(NamedTuple):
  """Some columns of the result.

  Attributes:
    places: where they go.
    columns: returns them for given rows, `[n]` each.
  """

  places: Sequence[Place]
  columns: Callable[[slice], Sequence[np.ndarray]]


def encode(tables: Any, read: Read, num_rows: int) -> dict[str, np.ndarray]:
  """Returns `categories` and `numeric`; see `Tables.encode`.

  Raises:
    RowError: see there.
  """
  pieces = _pieces(tables, read, num_rows)
  keys = [key for piece in pieces for key, _ in piece.places]
  found = {
    key: np.empty((num_rows, keys.count(key)), dtype)
    for key, dtype in _DTYPES.items()
  }
  step = max(_CELLS // max(len(keys), 1), 1)
  blocks = [slice(i, i + step) for i in range(0, num_rows, step)]
  _threads.each(functools.partial(_write, pieces, found), blocks)
  return found


def _write(
  pieces: Sequence[_Piece], found: Mapping[str, np.ndarray], rows: slice
) -> None:
  """Writes some rows into `[N, C]` and `[N, M]`."""
  # Row by row, columns would be far apart: that takes twice as long.
  blocks = {
    key: np.empty(out[rows].T.shape, out.dtype) for key, out in found.items()
  }
  for piece in pieces:
    try:
      columns = piece.columns(rows)
    except RowError as error:
      row = rows.start + error.row
      raise RowError(error.column, row, error.complaint) from None
    for (key, i), column in zip(piece.places, columns, strict=True):
      blocks[key][i] = column
  for key, out in found.items():
    out[rows] = blocks[key].T


def _pieces(tables: Any, read: Read, num_rows: int) -> list[_Piece]:
  to, flags = places(tables)

  def number(name: Any, column: Parsed) -> _Piece:
    return _piece(name, tables.numerics[name], column, to[name])

  def numbers(item: tuple[Any, Parsed]) -> list[_Piece]:
    return [number(*item)]

  def parts(item: tuple[Any, Parsed]) -> list[_Piece]:
    name, times = item
    values = raw.values_of(times)
    pieces = [
      number(f'{name}.{part}', raw.with_values(times, values))
      for part, values in tables.dates[name].each(values)
    ]
    if name in flags:
      is_missing = raw.with_values(times, np.isnat(values))
      pieces.append(_Piece([flags[name]], _look_up([is_missing])))
    return pieces

  pieces = [
    _Piece([('categories', i)], _look_up([column]))
    for i, column in enumerate(read.ids)
  ]
  # Dates first, as they take longest.
  jobs = [functools.partial(parts, item) for item in read.times.items()]
  jobs += [functools.partial(numbers, item) for item in read.numbers.items()]
  found = _threads.each(lambda job: job(), jobs, num_rows)
  return pieces + [piece for some in found for piece in some]


def places(tables: Any) -> tuple[dict[Any, list[Place]], dict[Any, Place]]:
  """Returns where the numbers go, and where the flags of dates go.

  Parts of dates are among the numbers, `{'signup.days': [...]}`.
  """
  scalers = tables.numerics
  num_flags = sum(scaler.flag for scaler in scalers.values())
  num_flags += sum(date.flag for date in tables.dates.values())
  numbers = itertools.count()
  flags = itertools.count(len(tables.numbers))
  positions = itertools.count(len(tables.numbers) + num_flags)
  bins = itertools.count(len(tables.vocabularies))
  found: dict[Any, list[Place]] = {}
  for name, scaler in scalers.items():
    found[name] = []
    if not scaler.only_bins:
      found[name].append(('numeric', next(numbers)))
    if scaler.flag:
      found[name].append(('numeric', next(flags)))
    if scaler.interpolate:
      found[name].append(('numeric', next(positions)))
    elif scaler.edges:
      found[name].append(('categories', next(bins)))
  return found, {
    name: ('numeric', next(flags))
    for name, date in tables.dates.items()
    if date.flag
  }


def _piece(
  name: Any, scaler: Numeric, column: Parsed, places: Sequence[Place]
) -> _Piece:
  if not places:
    return _Piece([], lambda rows: [])
  values = raw.values_of(column)
  if isinstance(column, np.ndarray) or _SHARED * len(values) > len(
    column.codes
  ):
    column = whole(raw.spread(column))
  if isinstance(column, np.ndarray):
    values = column
    return _Piece(places, lambda rows: _encode(name, scaler, values[rows]))
  try:
    found = _encode(name, scaler, column.values)
  except RowError:  # say in which row
    _encode(name, scaler, raw.spread(column))
    raise
  shared = [
    Factor(column.codes, values.astype(_DTYPES[key]))
    for (key, _), values in zip(places, found, strict=True)
  ]
  return _Piece(places, _look_up(shared))


def _look_up(
  columns: Sequence[Parsed],
) -> Callable[[slice], Sequence[np.ndarray]]:
  """Returns what returns given rows of columns with the same codes."""
  if isinstance(columns[0], Factor):
    codes = columns[0].codes
    tables = [raw.values_of(column) for column in columns]

    def find(rows: slice) -> Sequence[np.ndarray]:
      places = codes[rows]
      return [table[places] for table in tables]

    return find
  return lambda rows: [column[rows] for column in columns]


def _encode(name: Any, scaler: Numeric, values: np.ndarray) -> list[np.ndarray]:
  """Returns what numbers become, in the order of `places`."""
  filled = scaler.fill_in(name, values)
  found = [] if scaler.only_bins else [scaler.encode(name, filled)]
  if scaler.flag:
    found.append(np.isnan(values))
  if scaler.interpolate:
    found.append(scaler.position(found[0]))
  elif scaler.edges:
    edges = np.asarray(scaler.edges)
    found.append(np.searchsorted(edges, filled, side='right'))
  return found


def whole(values: np.ndarray) -> Parsed:
  """Returns whole numbers as a Factor, if many rows share them, or `values`.

  Args:
    values: `[N]` float64, NaN where missing.
  """
  with np.errstate(invalid='ignore', over='ignore'):
    is_missing = np.isnan(values)
    if len(values) < _MANY or is_missing.all():
      return values
    if (values[:_TRIED] % 1 > 0).any():
      return values
    first, last = np.nanmin(values), np.nanmax(values)
    if not last - first < len(values) or abs(first) > _EXACT:
      return values
  size = int(last - first) + 1
  codes = np.empty(len(values), np.min_scalar_type(size))
  for start in range(0, len(values), _BLOCK):
    rows = slice(start, start + _BLOCK)
    codes[rows] = np.where(is_missing[rows], size, values[rows] - first)
    found = np.where(is_missing[rows], np.nan, first + codes[rows])
    # Bit by bit: a negative zero is not zero.
    if (found.view(np.int64) != values[rows].view(np.int64)).any():
      return values
  is_used = np.zeros(size + 1, bool)
  is_used[codes] = True
  num_used = int(is_used.sum())
  if _SHARED * num_used > len(values):
    return values
  place = (np.cumsum(is_used) - 1).astype(np.min_scalar_type(num_used))
  distinct = first + np.flatnonzero(is_used).astype(np.float64)
  if is_missing.any():
    distinct[-1] = np.nan
  return Factor(place[codes], distinct)
