"""Rows drawn from a table that is read in blocks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl import columns as raw
from lplmtl.columns import Column, Factor
from lplmtl.tabular import facts

# As many as `lplmtl.tabular` looks at to infer what a column is.
SIZE = facts.MAX_ROWS
# A target with more values than this is no class.
_MOST_CLASSES = 1000


class Sample:
  """At least SIZE rows of a table, or all; twice as many at most.

  Every row has the same chance. Beside them, the first row of each value of the
  columns that are predicted, so that no class is missing.
  """

  def __init__(self, seed: int, labels: Sequence[Any]):
    self._rng = np.random.default_rng(seed)
    self._limit = 1.0
    self._blocks: list[tuple[np.ndarray, dict[Any, Column]]] = []
    self._count = 0
    self._seen: dict[Any, set[str]] = {name: set() for name in labels}

  def add(self, columns: Mapping[Any, Column], num_rows: int) -> None:
    """Adds the rows of a block."""
    if not num_rows:
      return
    drawn = self._rng.random(num_rows)
    drawn[self._first_of_values(columns)] = 0.0  # below any limit
    self._keep(drawn, columns)
    while self._count > 2 * SIZE:
      self._limit /= 2
      blocks, self._blocks, self._count = self._blocks, [], 0
      for old, some in blocks:
        self._keep(old, some)

  def _keep(self, drawn: np.ndarray, columns: Mapping[Any, Column]) -> None:
    rows = np.flatnonzero(drawn < self._limit)
    if len(rows):
      taken = {
        name: facts.take(column, rows) for name, column in columns.items()
      }
      self._blocks.append((drawn[rows], taken))
      self._count += len(rows)

  def _first_of_values(self, columns: Mapping[Any, Column]) -> list[int]:
    found = []
    for name, seen in self._seen.items():
      if name not in columns or len(seen) > _MOST_CLASSES:
        continue
      codes, texts = raw.texts_of(name, columns[name])
      for code, text in enumerate(texts):
        if text not in seen:
          seen.add(text)
          found.append(int(np.argmax(codes == code)))
    return found

  def columns(self) -> dict[Any, Column]:
    """Returns the rows, in the order of the table."""
    names = list(self._blocks[0][1]) if self._blocks else []
    return {
      name: _joined(name, [some[name] for _, some in self._blocks])
      for name in names
    }


def _joined(name: Any, columns: Iterable[Column]) -> Column:
  """Returns one column of the rows of several."""
  columns = list(columns)
  if not any(isinstance(column, Factor) for column in columns):
    return np.concatenate(columns)
  code_of: dict[str, int] = {}
  codes = []
  for column in columns:
    own, texts = raw.texts_of(name, column)
    if not isinstance(column, Factor):
      texts = [raw.canonical(text) for text in texts]
    new = [code_of.setdefault(text, len(code_of)) for text in texts]
    codes.append(np.asarray(new, np.int64)[own])
  return Factor(np.concatenate(codes), np.array(list(code_of), object))
