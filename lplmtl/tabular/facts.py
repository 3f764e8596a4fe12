"""What a column holds: the facts from which its kind is inferred.

NumPy only. A fact about a long column comes from evenly spaced rows, which
makes a million rows cost what a hundred thousand do, and the answer the same
every time.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from lplmtl import columns as raw
from lplmtl.columns import Column, Factor

# Rows looked at. Of these, a value in one row of 10,000 is missed with a
# probability of exp(-10).
MAX_ROWS = 100_000
# Longer texts are neither numbers nor dates; this spares regular expressions
# a cell that holds a book.
MAX_LENGTH = 64
# Infinity is one, so that the column is refused as numbers, with its row.
_NUMBER = re.compile(
  r'[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?)', re.IGNORECASE
)
# 00501 is a zip code, 007 an agent; 0, 0.5 and 0e0 are numbers.
_CODE = re.compile(r'[+-]?0\d+')

Nature = Literal['boolean', 'number', 'time', 'other', 'text']


@dataclasses.dataclass(frozen=True)
class Facts:
  """What the rows that were looked at hold.

  Attributes:
    name: of the column.
    nature: what its dtype says; `text` also for objects.
    num_rows: how many rows were looked at.
    num_missing: how many of these have no value.
    values: `[D]` the distinct values; those of texts are canonical.
    counts: `[D]` how many rows have each of them.
    holds_texts: whether there is a text among the values as they were given.
    is_sample: whether there are rows that were not looked at.
  """

  name: Any
  nature: Nature
  num_rows: int
  num_missing: int
  values: np.ndarray
  counts: np.ndarray
  holds_texts: bool = False
  is_sample: bool = False

  @functools.cached_property
  def numbers(self) -> np.ndarray | None:
    """`[D]` float64 if every value is a number, else None."""
    if self.nature in ('number', 'boolean'):
      return self.values.astype(np.float64)
    if self.nature != 'text' or not all(map(is_number, self.values)):
      return None
    return self.values.astype(np.float64)

  @property
  def has_codes(self) -> bool:
    """Whether a number among the texts has a leading zero."""
    return self.nature == 'text' and any(
      text[:1] in '+-0' and _is_code(text) for text in self.values
    )

  @property
  def num_known(self) -> int:
    """How many rows have a value."""
    return self.num_rows - self.num_missing

  def text(self, i: int) -> str:
    """Returns value i as a canonical text."""
    value = self.values[i]
    return value if self.nature == 'text' else raw.canonical(str(value))


class Seen(dict[Any, Column]):
  """Columns with the facts that are known of them, each looked up once."""

  def __init__(self, columns: Mapping[Any, Column]):
    super().__init__(columns)
    self._facts: dict[Any, Facts] = {}

  def look(
    self, name: Any, missing: tuple[str, ...], max_rows: int | None
  ) -> Facts:
    """Returns the facts of a column; see `look`."""
    key = name, missing, max_rows
    if key not in self._facts:
      self._facts[key] = look(name, self[name], missing, max_rows)
    return self._facts[key]


def of(
  columns: Mapping[Any, Column],
  name: Any,
  missing: tuple[str, ...] = (),
  max_rows: int | None = MAX_ROWS,
) -> Facts:
  """Returns the facts of one of several columns; see `look`."""
  if isinstance(columns, Seen):
    return columns.look(name, missing, max_rows)
  return look(name, columns[name], missing, max_rows)


def is_number(text: str) -> bool:
  """Returns whether a text is a number."""
  return len(text) <= MAX_LENGTH and bool(_NUMBER.fullmatch(text))


def missing_texts(missing: tuple[str, ...]) -> frozenset[str]:
  """Returns the canonical texts of `Schema.missing`."""
  return frozenset(map(raw.canonical, missing))


def is_missing(text: str, missing: frozenset[str]) -> bool:
  """Returns whether a canonical text means "missing"."""
  return text == raw.MISSING or text in missing


def look(
  name: Any,
  column: Column,
  missing: tuple[str, ...] = (),
  max_rows: int | None = MAX_ROWS,
) -> Facts:
  """Returns the facts of a column.

  Args:
    name: its name.
    column: Factor or `[N]`.
    missing: as in `Schema`.
    max_rows: how many rows are looked at; None for all.
  """
  column = raw.plain(column)
  column, is_sample = _sample(column, max_rows)
  nature, values, counts = _distinct(name, column)
  holds_texts = nature == 'text' and _holds_texts(column)
  num_rows = int(counts.sum())
  texts = missing_texts(missing)
  if nature == 'text':
    values, counts = _known_texts(values, counts, texts)
  else:
    is_known = ~_is_null(values) & (counts > 0)
    sentinels = [float(text) for text in texts if is_number(text)]
    if nature == 'number' and sentinels:
      is_known &= ~np.isin(values, sentinels)
    values, counts = values[is_known], counts[is_known]
  num_missing = num_rows - int(counts.sum())
  return Facts(
    name,
    nature,
    num_rows,
    num_missing,
    values,
    counts,
    holds_texts,
    is_sample,
  )


def share_distinct(column: Column) -> float:
  """Returns the number of distinct texts in a column, over that of its rows.

  All rows are looked at, but texts are not made canonical.
  """
  column = raw.plain(column)
  if isinstance(column, Factor):
    used = np.bincount(column.codes) > 0
    return float(used.sum() / len(column.codes))
  return len(set(map(raw.text_of, column))) / len(column)


def take(column: Column, rows: np.ndarray) -> Column:
  """Returns some rows of a column."""
  if isinstance(column, Factor):
    return column.take(rows)
  if hasattr(column, 'iloc'):
    return column.iloc[rows]
  if hasattr(column, 'dtype'):
    return column[rows]
  return [column[row] for row in rows]


def _sample(column: Column, max_rows: int | None) -> tuple[Column, bool]:
  is_factor = isinstance(column, Factor)
  n = len(column.codes) if is_factor else len(column)
  # All rows of a factor are counted at once, unless it has too many values.
  size = len(column.values) if is_factor else n
  if max_rows is None or min(size, n) <= max_rows:
    return column, False
  rows = np.linspace(0, n - 1, max_rows).astype(np.int64)
  return take(column, rows), True


def _distinct(
  name: Any, column: Column
) -> tuple[Nature, np.ndarray, np.ndarray]:
  if isinstance(column, Factor):
    codes, values = raw.used_values(name, column)
    counts = np.bincount(codes, minlength=len(values))
  else:
    values, counts = column, None
  is_masked = np.ma.is_masked(values)
  array = np.asarray(values, None if hasattr(values, 'dtype') else object)
  raw.check_shape(name, array)
  nature = _nature(array.dtype) if not is_masked else 'text'
  if nature != 'text':
    if counts is None:
      array, counts = np.unique(array, return_counts=True)
    return nature, array, counts
  codes, texts = raw.texts_of(name, values)
  counts = np.bincount(codes, counts, len(texts)).astype(np.int64)
  return nature, _objects(texts), counts


def _nature(dtype: np.dtype) -> Nature:
  natures: dict[str, Nature] = {
    'b': 'boolean', 'i': 'number', 'u': 'number', 'f': 'number', 'M': 'time',
    'm': 'other', 'c': 'other', 'V': 'other',
  }  # fmt: skip
  return natures.get(dtype.kind, 'text')


def _holds_texts(column: Column) -> bool:
  values = column.values if isinstance(column, Factor) else column
  if getattr(getattr(values, 'dtype', None), 'kind', '') in ('S', 'U'):
    return True
  kinds = set(map(type, values))
  return any(issubclass(kind, str | bytes) for kind in kinds)


def _known_texts(
  values: np.ndarray, counts: np.ndarray, missing: frozenset[str]
) -> tuple[np.ndarray, np.ndarray]:
  known: dict[str, int] = {}
  lost = missing | {raw.MISSING}
  texts = map(raw.canonical, values)
  for text, n in zip(texts, counts.tolist(), strict=True):
    if n and text not in lost:
      known[text] = known.get(text, 0) + n
  return _objects(list(known)), np.asarray(list(known.values()), np.int64)


def _objects(texts: Any) -> np.ndarray:
  """Not `np.asarray`, which pads all texts to the length of the longest."""
  array = np.empty(len(texts), object)
  array[:] = texts
  return array


def _is_null(values: np.ndarray) -> np.ndarray:
  if values.dtype.kind in 'mM':
    return np.isnat(values)
  return np.isnan(values) if values.dtype.kind in 'fc' else values != values


def _is_code(text: str) -> bool:
  return len(text) <= MAX_LENGTH and bool(_CODE.fullmatch(text))
