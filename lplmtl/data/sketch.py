"""Quantiles of a column that is seen piece by piece.

NumPy only.
"""

import numpy as np

# Values that a summary keeps, at most twice as many.
SIZE = 2**14


class Sketch:
  """The distinct values of a column, or so many of them, with their counts.

  Exact while a column has at most 2 * SIZE distinct values. After that, each of
  the `ceil(log2(pieces))` times that a row's summary is merged with another,
  its rank may move by 1 / SIZE of the rows: by at most .06 % of 20 million rows
  in pieces of 65,536. A value that more than 1 / SIZE of the rows have stays.

  Summaries are merged like the digits of a binary counter (Munro & Paterson
  1980), so that a row is merged with few others, few times.
  """

  def __init__(self, size: int = SIZE):
    self._size = size
    self._levels: list[tuple[np.ndarray, np.ndarray] | None] = []

  def add(self, distinct: np.ndarray, counts: np.ndarray) -> None:
    """Adds values `[D]`, sorted, that occur `[D]` times."""
    new = self._shrunk(distinct, counts)
    for level, old in enumerate(self._levels):
      if old is None:
        self._levels[level] = new
        return
      self._levels[level] = None
      new = self._shrunk(*_merged(old, new))
    self._levels.append(new)

  def summary(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns values `[D]`, sorted, and how many rows each stands for."""
    found = np.empty(0), np.empty(0, np.int64)
    for summary in self._levels:
      if summary is not None:
        found = _merged(found, summary)
    return found

  def _shrunk(
    self, distinct: np.ndarray, counts: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Keeps one value of each 1 / SIZE of the rows, the most frequent there."""
    if len(distinct) <= 2 * self._size:
      return distinct, counts
    middle = np.cumsum(counts) - counts // 2
    part = middle * self._size // counts.sum()
    first = np.flatnonzero(np.diff(part, prepend=-1))
    order = np.lexsort((-counts, part))
    return distinct[order[first]], np.add.reduceat(counts, first)


def _merged(
  one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
  values = np.concatenate([one[0], other[0]])
  order = np.argsort(values, kind='stable')
  values = values[order]
  counts = np.concatenate([one[1], other[1]])[order]
  first = np.flatnonzero(np.diff(values, prepend=np.nan) != 0)
  if not len(first):
    return values, counts
  return values[first], np.add.reduceat(counts, first)
