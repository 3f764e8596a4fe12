"""Training, validation and test rows: given, in time, by group or at random.

NumPy only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl import columns as raw
from lplmtl import dates, numeric
from lplmtl.columns import Column, RowError
from lplmtl.tabular import checks, facts, hints, kinds
from lplmtl.tabular.schema import Schema

PARTS = ('train', 'validation', 'test')
SHARE = 0.1  # of the rows, for each of validation and test
# A tenth of fewer rows is one row, which has no AUC.
MIN_ROWS = 20
# What a column may call a part, in any case.
_SPELLINGS = {
  'train': 'train', 'training': 'train', 'learn': 'train',
  'validation': 'validation', 'valid': 'validation', 'val': 'validation',
  'dev': 'validation', 'development': 'validation',
  'test': 'test', 'testing': 'test', 'holdout': 'test',
}  # fmt: skip


def split(
  frame: Any,
  schema: Schema,
  seed: int = 0,
  *,
  test: bool = False,
  share: float = SHARE,
) -> dict[str, np.ndarray]:
  """Splits rows into training, validation and test rows.

  By the first of these that the schema names:

  - `split`: the column says `train`, `validation` or `test` (or `val`, `dev`
    and the like). Without validation rows, a share of the training rows is
    taken: whole groups if there is a `group`, the last rows in time if there is
    a `time`.
  - `time`: the last rows are test rows, those before them validation rows. Rows
    of the same time stay together, in the later part, so that this may be
    larger than its share. Rows without a time count as the earliest.
  - `group`: at random, but all rows of a group are in one part. Rows without a
    group are groups of their own.
  - otherwise at random.

  Args:
    frame: N rows.
    schema: of which `split`, `time`, `group` and `missing` are used.
    seed: for random splits.
    test: whether to set test rows aside. The rows that a `split` column calls
      test are always set aside.
    share: of the rows, for each of validation and test.

  Returns:
    `{'train', 'validation', 'test'}`, each with increasing `[n]` row numbers;
    `test` is empty if there is none.

  Raises:
    ValueError: there are too few rows or groups, a text names no part, or the
      schema has both a time and a group.

  Example:
    >>> frame = {'year': [2023] * 18 + [2024, 2025]}
    >>> rows = split(frame, Schema({}, {}, time='year'), test=True, share=0.05)
    >>> rows['validation'].tolist(), rows['test'].tolist()
    ([18], [19])
  """
  if not 0 < share < 0.5:
    raise ValueError(
      f'share must be above 0 and below 1/2, of all rows; found {share!r}'
    )
  if schema.time != '' and schema.group != '':
    raise ValueError(
      'a split is either by time or by group, found both: '
      f'{schema.time!r} and {schema.group!r}'
    )
  columns = checks.columns_of(frame)
  for role in ('split', 'time', 'group'):
    if getattr(schema, role) != '':
      checks.check_known(role, (getattr(schema, role),), columns)
  n = checks.num_rows(columns)
  if schema.split != '':
    part = _given(schema, columns, seed, share)
  else:
    sizes = (share, share) if test else (share, 0.0)
    part = _drawn(schema, columns, np.arange(n), seed, sizes)
  return {name: np.flatnonzero(part == i) for i, name in enumerate(PARTS)}


def _given(
  schema: Schema, columns: Mapping[Any, Column], seed: int, share: float
) -> np.ndarray:
  """Returns `[N]`, the part that a column gives each row."""
  name = schema.split
  codes, texts = raw.texts_of(name, columns[name])
  parts = []
  for i, text in enumerate(texts):
    part = _SPELLINGS.get(text.strip().lower())
    if part is None and (codes == i).any():
      row = int(np.argmax(codes == i))
      raise RowError(
        name,
        row,
        'must say train, validation or test, to split the rows by it; found '
        f'{hints.quoted(text.removesuffix(".0"))}',
      )
    parts.append(PARTS.index(part or 'train'))
  part_of = np.asarray(parts, np.int64)[codes]
  for i in (0, 1) if (part_of == 1).any() else (0,):
    if not (part_of == i).any():
      raise ValueError(f'split column {name!r} has no {PARTS[i]} rows')
  if not (part_of == 1).any():
    rows = np.flatnonzero(part_of == 0)
    part_of[rows] = _drawn(schema, columns, rows, seed, (share, 0.0))
  if schema.group != '':
    _check_whole(schema, columns, part_of)
  return part_of


def _drawn(
  schema: Schema,
  columns: Mapping[Any, Column],
  rows: np.ndarray,
  seed: int,
  shares: tuple[float, float],
) -> np.ndarray:
  """Returns the part of each of `rows`; shares of validation and test."""
  if len(rows) < MIN_ROWS:
    raise ValueError(
      f'{len(rows)} row{"s are" if len(rows) != 1 else " is"} too few to train '
      'on some and validate on others: '
      f'at least {MIN_ROWS} are needed'
    )
  if schema.time != '':
    times = _times(schema, columns)[rows]
    return _by_time(times, shares, schema.time)
  if schema.group != '':
    groups = _groups(schema, columns)[rows]
    return _by_group(groups, seed, shares, schema.group)
  return _by_group(np.arange(len(rows)), seed, shares, '')


def _by_group(
  groups: np.ndarray, seed: int, shares: Sequence[float], name: str
) -> np.ndarray:
  """Returns parts of whole groups, drawn until a part is large enough."""
  if name:
    _, codes = np.unique(groups, return_inverse=True)
  else:
    codes = groups  # each row is its own
  sizes = np.bincount(codes) if name else np.broadcast_to(1, len(codes))
  order = np.random.default_rng(seed).permutation(len(sizes))
  part_of = np.zeros(len(sizes), np.int8)
  first = 0
  for part in (2, 1):
    if not shares[part - 1]:
      continue
    # Rounded down, as a tenth of Census-Income is; 0.29 * 100 is 29.
    rows = max(int(shares[part - 1] * len(groups) + 1e-9), 1)
    count = rows
    if name:
      total = np.cumsum(sizes[order[first:]])
      count = int(np.searchsorted(total, rows)) + 1
    last = first + count
    part_of[order[first:last]] = part
    first = last
  if first >= len(sizes):
    raise ValueError(
      f'group column {name!r} has {len(sizes)} groups, too few to keep each '
      'whole and have one for training'
    )
  return part_of[codes] if name else part_of


def _by_time(
  times: np.ndarray, shares: Sequence[float], name: str
) -> np.ndarray:
  """Returns parts in order of time, the last of them for test."""
  part_of = np.zeros(len(times), np.int64)
  for part in (2, 1):
    left = np.sort(times[part_of == 0])
    if shares[part - 1] and len(left):
      wanted = max(int(shares[part - 1] * len(times) + 1e-9), 1)
      size = min(wanted, len(left))
      part_of[(part_of == 0) & (times >= left[-size])] = part
  if not all((part_of == part).any() for part in (0, 1)):
    raise ValueError(
      f'time column {name!r} has {len(np.unique(times))} different times, too '
      'few for training and validation rows of their own'
    )
  return part_of


def _times(schema: Schema, columns: Mapping[Any, Column]) -> np.ndarray:
  """Returns `[N]` float64 that increase with time, -inf where it is missing."""
  name = schema.time
  column = columns[name]
  found = facts.look(name, column, schema.missing)
  lost = facts.missing_texts(schema.missing)
  if found.numbers is not None:
    times = numeric.read(name, column, lost)
  else:
    known = schema.inputs.get(name)
    given = known.format if known and known.kind == 'date' else None
    form = kinds.date(found, given).format
    read = dates.read(name, column, form, lost)
    times = np.where(np.isnat(read), np.nan, read.astype(np.int64))
  return np.where(np.isnan(times), -np.inf, times)


def _groups(schema: Schema, columns: Mapping[Any, Column]) -> np.ndarray:
  """Returns `[N]` int, the first row of each row's group.

  Rows without a group are on their own.
  """
  codes, texts = raw.texts_of(schema.group, columns[schema.group])
  lost = facts.missing_texts(schema.missing)
  texts = [raw.canonical(text) for text in texts]
  number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
  groups = np.asarray([number[text] for text in texts], np.int64)[codes]
  is_lost = np.array([facts.is_missing(text, lost) for text in texts])[codes]
  groups = np.where(is_lost, len(number) + np.arange(len(codes)), groups)
  # Called by their first rows, groups are the same in any kind of column.
  _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
  return first[inverse]


def _check_whole(
  schema: Schema, columns: Mapping[Any, Column], part_of: np.ndarray
) -> None:
  first = _groups(schema, columns)
  torn = np.flatnonzero(part_of != part_of[first])
  if len(torn):
    row = int(torn[0])
    other = int(first[row])
    raise ValueError(
      f'split column {schema.split!r} tears a group of {schema.group!r} apart: '
      f'row {other} is for {PARTS[part_of[other]]}, and row {row} of the same '
      f'group for {PARTS[part_of[row]]} (rows counted from 0)'
    )
