"""Encodes raw rows as a device does: from packed sections alone. NumPy only."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl import columns as raw
from lplmtl import numeric
from lplmtl.columns import Column
from lplmtl.compression import device_tables, text_hashes
from lplmtl.compression.device_tables import FILLED, FLAGGED, LOG, SCALED
from lplmtl.tables import Tables

Sections = Mapping[str, np.ndarray]


def encode(
  sections: Sections,
  tables: Tables,
  columns: Mapping[Any, Column],
  hash_bits: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Encodes rows.

  Args:
    sections: see `device_tables`.
    tables: only the names of their columns, and what texts mean that a number
      is missing, are used.
    columns: `{name: Factor or [B]}`.
    hash_bits: 8 or 16, as packed.

  Returns:
    (categories, numeric): `[B, C]` int32 and `[B, M]` float32, as
    `Tables.encode` returns them, for numbers that float32 holds exactly.

  Raises:
    ValueError: there are no rows, or a column is absent or cannot be read.
  """
  absent = [name for name in tables.columns if name not in columns]
  if absent:
    raise ValueError(
      f'expected the columns {list(tables.columns)}; {absent} are absent'
    )
  rows = raw.common_length(columns[name] for name in tables.columns)
  if not rows:
    raise ValueError('expected at least one row to score, found none')
  ids = _categories(sections, tables, columns, hash_bits)
  bins, numbers, flags = _numbers(sections, tables, columns)
  return (
    _side_by_side([*ids, *bins], rows).astype(np.int32),
    _side_by_side([*numbers, *flags], rows).astype(np.float32),
  )


def _side_by_side(columns: list[np.ndarray], rows: int) -> np.ndarray:
  return np.concatenate(
    [np.zeros((rows, 0)), *(column[:, None] for column in columns)], axis=1
  )


def _categories(
  sections: Sections,
  tables: Tables,
  columns: Mapping[Any, Column],
  hash_bits: int,
) -> list[np.ndarray]:
  names = list(tables.vocabularies)
  counts = sections.get('counts', np.zeros(0, np.uint8)).tolist()
  wide = np.full(len(names), hash_bits == 16)
  if 'wide' in sections:
    wide = np.unpackbits(sections['wide'], bitorder='little')[: len(names)] > 0
  starts = np.ones(sum(counts), np.int64)
  if 'starts' in sections:
    starts = np.unpackbits(sections['starts'], bitorder='little').astype(int)
  found, place, byte = [], 0, 0
  for i, (name, count) in enumerate(zip(names, counts, strict=True)):
    bits = 16 if wide[i] else 8
    data = sections.get('hashes', np.zeros(0, np.uint8))[byte:]
    hashes = np.frombuffer(data.tobytes(), f'<u{bits // 8}', count)
    codes, texts = raw.texts_of(name, columns[name])
    texts = [raw.canonical(text) for text in texts]
    own = text_hashes.seeded(
      text_hashes.of_texts(texts), sections['seeds'][i], bits
    )
    # The id is the number of groups that have begun up to the first match.
    groups = np.cumsum(starts[place : place + count])
    matches = own[:, None] == hashes[None]
    first = groups[matches.argmax(axis=1)] if count else 0
    found.append(np.where(matches.any(axis=1), first, 0)[codes])
    place, byte = place + count, byte + count * bits // 8
  return found


def _numbers(
  sections: Sections, tables: Tables, columns: Mapping[Any, Column]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
  """Returns the bins, the scaled numbers and the flags of missing ones."""
  names = list(tables.numerics)
  kinds = sections.get('kinds', np.zeros(len(names), np.uint8)).tolist()
  scalers = sections.get('scalers', np.zeros(0, '<f4')).reshape(-1, 2)
  fills = iter(sections.get('fills', np.zeros(0, '<f4')))
  places = itertools.count()
  bins, numbers, flags = [], [], []
  missing = frozenset(tables.missing)
  for name, kind, edges in zip(names, kinds, _edges(sections), strict=True):
    values = numeric.read(name, columns[name], missing).astype(np.float32)
    is_missing = np.isnan(values)
    if kind & FILLED:
      values = np.where(is_missing, next(fills), values)
    elif is_missing.any():
      raise raw.RowError(
        name, int(np.argmax(is_missing)), 'must hold finite numbers; found nan'
      )
    if len(edges):
      bins.append((values[:, None] >= edges[None]).sum(axis=1))
    if kind & SCALED:
      mean, std = scalers[next(places)]
      if kind & LOG:
        values = np.sign(values) * np.log1p(np.abs(values))
      numbers.append((values - mean) / std)
    if kind & FLAGGED:
      flags.append(is_missing)
  return bins, numbers, flags


def _edges(sections: Sections) -> list[np.ndarray]:
  """Returns the edges of each numeric column, float32."""
  formats = iter(sections.get('edge_formats', np.zeros(0, np.uint8)).tolist())
  found, byte = [], 0
  for count in sections.get('edge_counts', np.zeros(0, np.uint8)).tolist():
    if not count:
      found.append(np.zeros(0, np.float32))
      continue
    shift, code = divmod(next(formats), 4)
    kind = device_tables.EDGE_TYPES[code]
    data = sections['edges'][byte : byte + count * kind.itemsize]
    stored = np.frombuffer(data.tobytes(), kind)
    found.append(stored.astype(np.float32) / np.float32(2**shift))
    byte += count * kind.itemsize
  return found
