"""Encoder tables as the bytes that a device needs to encode a raw row.

NumPy only. A device gets the columns in the order of `Tables.columns`; where
they stand in a longer row is packed as well if `row` names the columns of one.

| section | content |
|---|---|
| `row` | 2 bits a column of the row: 1 a category, 2 a number, 3 both, 0 none |
| `counts` | hashes of each category column |
| `seeds` | of the hashes of each category column, uint8 |
| `wide` | 1 bit a category column: hashes of 16 bits where 8 do not suffice |
| `hashes` | column by column, in the order of ids, from id 1 |
| `starts` | 1 bit a hash: whether a new id begins; absent if each has its own |
| `kinds` | of each numeric column, uint8: see `KINDS` |
| `edge_counts` | edges of each numeric column |
| `edge_formats` | of each binned column, uint8: see `edges` |
| `edges` | column by column; a number's bin is how many are not above it |
| `scalers` | mean and standard deviation of each scaled number, float32 |
| `fills` | what a missing number counts as, float32, where one may be missing |

Values in the group of unseen ones, id 0, need no hash. Sections without
content are left out, and counts are uint16 if one is above 255.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl import columns as raw
from lplmtl.compression import text_hashes
from lplmtl.tables import Tables

Sections = dict[str, np.ndarray]
# Bits of `kinds`: the scaled number is an input of its own; it is a
# logarithm; missing numbers are filled in; a flag tells which were missing.
SCALED, LOG, FILLED, FLAGGED = KINDS = (1, 2, 4, 8)
# The codes of `edge_formats` are `type + 4 * shift`: the edge is the stored
# number over 2^shift.
EDGE_TYPES: tuple[np.dtype[Any], ...] = tuple(
  map(np.dtype, ('u1', '<u2', '<i2', '<f4'))
)
_SHIFTS = range(8)


# What each section is counted as.
PARTS = {
  'hashes': 'hashes',
  'starts': 'ids',
  'edges': 'edges',
  'scalers': 'numbers',
  'fills': 'numbers',
} | dict.fromkeys(
  ('row', 'counts', 'seeds', 'wide', 'kinds', 'edge_counts', 'edge_formats'),
  'descriptors',
)


class Category(NamedTuple):
  """What a category column compares a text with.

  Attributes:
    hashes: of 8 or 16 bits, in the order of ids.
    ids: of each hash, from 1.
    seed: of the hashes.
  """

  hashes: np.ndarray
  ids: np.ndarray
  seed: int


def checked(tables: Any) -> Tables:
  """Returns tables; raises ValueError for those that a device cannot use."""
  if not isinstance(tables, Tables):
    raise ValueError(
      'tables must be what lplmtl.tables.fit returns, found '
      f'{type(tables).__name__}'
    )
  interpolated = [n for n, s in tables.numerics.items() if s.interpolate]
  others = {
    'dates': tables.dates,
    'booleans': tables.booleans,
    'columns without a vocabulary': tables.hashed,
    'interpolated numbers': interpolated,
  }
  found = [
    f'{what} ({[*names]!s:.200})' for what, names in others.items() if names
  ]
  if found:
    raise ValueError(
      'only categories and numbers with bins can be packed; found '
      f'{" and ".join(found)}: encode them as one of these'
    )
  return tables


def pack(
  tables: Tables, hash_bits: int, row: Sequence[Any] | None = None
) -> Sections:
  """Returns the sections of tables.

  Args:
    tables: without dates, booleans, hashed columns and interpolated numbers.
    hash_bits: 8 or 16; with 8, columns in which no seed tells all values apart
      have 16.
    row: the names of all columns of a raw row in order; None if the device gets
      those of the tables only.

  Raises:
    ValueError: the tables cannot be packed, or `row` lacks their columns.
  """
  checked(tables)
  if hash_bits not in (8, 16) or isinstance(hash_bits, bool):
    raise ValueError(f'hash_bits must be 8 or 16, found {hash_bits!r}')
  found = _categories(tables, hash_bits) | _numbers(tables)
  if row is not None:
    found['row'] = _row(tables, row)
  return {name: array for name, array in found.items() if array.size}


def _row(tables: Tables, row: Sequence[Any]) -> np.ndarray:
  for kind in (tables.vocabularies, tables.numerics):
    if [name for name in row if name in kind] != list(kind):
      raise ValueError(
        'row must name every column of the tables, categories and numbers each '
        f'in their order, {list(kind)}; found {list(row)}'
      )
  kinds = [
    (name in tables.vocabularies) + 2 * (name in tables.numerics)
    for name in row
  ]
  bits = np.array(kinds, np.uint8)[:, None] >> np.arange(2) & 1
  return np.packbits(bits.astype(bool).ravel(), bitorder='little')


def _categories(tables: Tables, hash_bits: int) -> Sections:
  packed = [category(tables, name, hash_bits) for name in tables.vocabularies]
  wide = [one.hashes.itemsize == 2 for one in packed]
  ids = [one.ids for one in packed]
  starts = [np.diff(one, prepend=0) > 0 for one in ids]
  is_merged = not all(one.all() for one in starts)
  some_wide = hash_bits == 8 and any(wide)
  return {
    'counts': _counts([len(one) for one in ids]),
    'seeds': np.array([one.seed for one in packed], np.uint8),
    'wide': np.packbits(wide, bitorder='little') if some_wide else _empty(),
    'hashes': _join([one.hashes for one in packed]),
    'starts': np.packbits(np.concatenate(starts), bitorder='little')
    if is_merged
    else _empty(),
  }


def category(tables: Tables, name: Any, hash_bits: int) -> Category:
  """Returns the hashes of one column.

  Raises:
    ValueError: not even 16 bits tell its values apart.
  """
  vocabulary = tables.vocabularies[name]
  ids = np.arange(len(vocabulary) + 1)
  if name in tables.merged:
    ids = np.asarray(tables.merged[name])
  known = dict(
    zip(map(raw.canonical, vocabulary), ids[1:].tolist(), strict=True)
  )
  known |= dict.fromkeys(tables.missing, known.get(raw.MISSING, 0))
  hashes = text_hashes.of_texts(list(known))
  group = np.array(list(known.values()), np.int64)
  for bits in range(hash_bits, 17, 8):
    seed = text_hashes.find_seed(hashes, group, bits)
    if seed is not None:
      seeded = text_hashes.seeded(hashes, seed, bits)
      # Values of one id may share a hash, which is then stored once.
      pairs = sorted(set(zip(group.tolist(), seeded.tolist(), strict=True)))
      pairs = [pair for pair in pairs if pair[0]]
      found = np.array(pairs, np.int64).reshape(-1, 2)
      return Category(found[:, 1].astype(seeded.dtype), found[:, 0], seed)
  raise ValueError(
    f'hashes of 16 bits do not tell the {len(known)} values of column {name!r} '
    'apart: merge values, or leave rare ones out (Rules.min_count)'
  )


def _numbers(tables: Tables) -> Sections:
  scalers = list(tables.numerics.values())
  kinds = [kind_of(scaler) for scaler in scalers]
  edges = [stored_edges(np.asarray(s.edges)) for s in scalers if s.edges]
  scaled = [(s.mean, s.std) for s in scalers if not s.only_bins]
  fills = [s.fill for s in scalers if s.fill is not None]
  return {
    'kinds': np.array(kinds if any(kinds) else [], np.uint8),
    'edge_counts': _counts([len(s.edges) for s in scalers]),
    'edge_formats': np.array([code for code, _ in edges], np.uint8),
    'edges': _join([stored for _, stored in edges]),
    'scalers': np.array(scaled, '<f4').ravel(),
    'fills': np.array(fills, '<f4'),
  }


def kind_of(scaler: Any) -> int:
  """Returns the sum of KINDS of a numeric column."""
  return (
    SCALED * (not scaler.only_bins)
    + LOG * (scaler.log and not scaler.only_bins)
    + FILLED * (scaler.fill is not None)
    + FLAGGED * scaler.flag
  )


def stored_edges(edges: np.ndarray) -> tuple[int, np.ndarray]:
  """Returns a format and the edges in it: the smallest that is exact.

  Edges lie midway between whole numbers more often than not, so that twice an
  edge is a small integer. As float32, an edge is rounded up, which leaves the
  bin of every float32 number as it is.
  """
  for code, kind in enumerate(EDGE_TYPES[:-1]):
    limits = np.iinfo(kind)
    for shift in _SHIFTS:
      stored = edges * 2.0**shift
      if (stored == np.round(stored)).all() and (
        limits.min <= stored[0] and stored[-1] <= limits.max
      ):
        return code + 4 * shift, stored.astype(kind)
  short = edges.astype(np.float32)
  up = np.nextafter(short, np.float32(np.inf))
  stored = np.where(short < edges, up, short).astype('<f4')
  return len(EDGE_TYPES) - 1, stored


def _counts(counts: list[int]) -> np.ndarray:
  return np.array(counts, 'u1' if max(counts, default=0) < 256 else '<u2')


def _join(arrays: Sequence[np.ndarray]) -> np.ndarray:
  """Returns the bytes of arrays of any dtype, one after the other."""
  parts = [np.frombuffer(array.tobytes(), np.uint8) for array in arrays]
  return np.concatenate([_empty(), *parts])


def _empty() -> np.ndarray:
  return np.zeros(0, np.uint8)
