"""Categories: which texts of a column get an id, and which id a text has.

NumPy only.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl import _tables_checks, hashing
from lplmtl import columns as raw
from lplmtl.columns import Column, RowError

# The id of every value that is not in the training rows, or too rare there.
UNSEEN = 0
TRUE = ('true', 't', 'yes', 'y', 'on', '1')
FALSE = ('false', 'f', 'no', 'n', 'off', '0')
# `{canonical text: value}`, with `true`, `True` and `TRUE`.
BOOLEANS = {
  spelling: value
  for words, value in ((FALSE, 'False'), (TRUE, 'True'))
  for word in words
  for spelling in (word, word.capitalize(), word.upper())
}


def fit(
  name: Any, column: Column, missing: frozenset[str], min_count: int = 1
) -> tuple[str, ...]:
  """Returns the canonical values of a column of categories, sorted.

  Args:
    name: of the column, for messages.
    column: Factor or `[N]`, training rows.
    missing: canonical texts that stand for a missing value.
    min_count: the least number of rows that a value is worth an id.

  Raises:
    ValueError: the column is not `[N]`, or has no rows.
  """
  return frequent(count(name, column, missing), min_count)


def count(name: Any, column: Column, missing: frozenset[str]) -> dict[str, int]:
  """Returns in how many rows each canonical value of a column is.

  Arguments and errors are those of `fit`.
  """
  counts: dict[str, int] = {}
  for _, text, rows in _used(name, column, missing):
    counts[text] = counts.get(text, 0) + rows
  return counts


def frequent(counts: Mapping[str, int], min_count: int) -> tuple[str, ...]:
  """Returns the values that are in at least `min_count` rows, sorted."""
  return tuple(sorted(text for text, n in counts.items() if n >= min_count))


def fit_boolean(
  name: Any, column: Column, missing: frozenset[str]
) -> tuple[str, ...]:
  """Returns those of `False`, `True` and `columns.MISSING` that a column holds.

  Raises:
    ValueError: as for `fit`; RowError if a value is not one of BOOLEANS.
  """
  values = set()
  for code, text, _ in _used(name, column, missing):
    if text != raw.MISSING and text not in BOOLEANS:
      rows = raw.texts_of(name, column)[0] == code
      others = raw.first_of(rows)
      raise RowError(
        name,
        int(np.argmax(rows)),
        f'must hold yes or no, in some form; found {text!r:.60}{others}',
        'train with the column as a category' if others else '',
      )
    values.add(BOOLEANS.get(text, raw.MISSING))
  return tuple(sorted(values))


def _used(
  name: Any, column: Column, missing: frozenset[str]
) -> list[tuple[int, str, int]]:
  """Returns the `(code, canonical text, rows)` of each value that a row has."""
  codes, texts = raw.texts_of(name, column)
  _tables_checks.check_rows(name, codes)
  counts = np.bincount(codes, minlength=len(texts))
  return [
    (code, _known(texts[code], missing), int(counts[code]))
    for code in np.flatnonzero(counts).tolist()
  ]


def _known(text: str, missing: frozenset[str]) -> str:
  text = raw.canonical(text)
  return raw.MISSING if text in missing else text


def lookup(
  vocabulary: tuple[str, ...], missing: tuple[str, ...], is_boolean: bool
) -> dict[str, int]:
  """Maps both canonical and stored texts to ids.

  The two differ in tables of older releases: values that these distinguished
  keep separate ids.
  """
  ids: dict[str, int] = {}
  for i, value in enumerate(vocabulary, 1):
    ids.setdefault(raw.canonical(value), i)
  ids.update((value, i) for i, value in enumerate(vocabulary, 1))
  if is_boolean:
    ids |= {text: ids.get(value, UNSEEN) for text, value in BOOLEANS.items()}
  return ids | dict.fromkeys(missing, ids.get(raw.MISSING, UNSEEN))


def ids(
  name: Any, column: Column, known: dict[str, int]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns `[N]` codes and the int32 id of each code.

  Args:
    name: of the column, for messages.
    column: Factor or `[N]`.
    known: the table that `lookup` returned.
  """
  codes, texts = raw.texts_of(name, column)
  found = [
    known.get(text) or known.get(raw.canonical(text), UNSEEN) for text in texts
  ]
  return codes, np.asarray(found, np.int32)


def buckets(
  name: Any, column: Column, num_buckets: int, missing: frozenset[str]
) -> np.ndarray:
  """Returns `[N, 2]` int32 buckets of a column without a vocabulary."""
  codes, texts = raw.texts_of(name, column)
  canonical = [_known(text, missing) for text in texts]
  return hashing.buckets(canonical, num_buckets)[codes]
