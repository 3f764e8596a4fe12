"""Merges the values of columns, one pair after the other. NumPy only."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# A ridge, relative to the trace: inverses exist, and the best common vector is
# near those that it replaces where it hardly matters.
_RIDGE = 1e-9
_UNSEEN = 0


class Prices(NamedTuple):
  """Bytes that merging in a column saves.

  Attributes:
    group: for each group less.
    value: for each value less that is to be told from unseen ones, or for each
      edge less.
    column: for the column itself, once it has one group.
  """

  group: float
  value: float
  column: float


class Step(NamedTuple):
  """One merge.

  Attributes:
    column: its place among the columns.
    pair: the first values of the two groups that become one; None if the whole
      column becomes one group, so that it can be left out.
    loss: what that costs.
    saved: bytes.
  """

  column: int
  pair: tuple[int, int] | None
  loss: float
  saved: float


class Column:
  """The groups of one column.

  Moving two groups with the matrices A and B from their vectors u and v to the
  best common one costs (Ward's method in the metric of the matrices)

      min_w  (u - w)' A (u - w) / 2 + (v - w)' B (v - w) / 2
      =  (u - v)' A (A + B)^-1 B (u - v) / 2

  and these costs add up to that of moving all values to their group's vector.

  Args of the constructor:
    vectors: `[n, D]`; without an order, value 0 is the unseen one.
    curvature: `[n, D, D]`, positive semidefinite.
    prices: see Prices.
    sizes: `[n]`, how many texts each value stands for; None if values have an
      order, like bins: then only neighbours may be merged.
  """

  def __init__(
    self,
    vectors: np.ndarray,
    curvature: np.ndarray,
    prices: Prices,
    sizes: np.ndarray | None = None,
  ):
    self.prices, self.ordered = prices, sizes is None
    self._vectors, self._curvature = vectors.copy(), curvature.copy()
    count = len(vectors)
    self._sizes = np.ones(count) if sizes is None else sizes.astype(np.float64)
    # Unseen values that training rows do not hold go wherever it saves most.
    self._is_free = not self.ordered and not curvature[_UNSEEN].any()
    self._alive = np.ones(count, bool)
    if self._is_free and count > 1:
      self._alive[_UNSEEN] = False
    self._losses = np.full((count, count), np.inf)
    for i in np.flatnonzero(self._alive).tolist():
      self._compare(i)

  @property
  def num_groups(self) -> int:
    """The number of groups that are left."""
    return int(self._alive.sum())

  def best(self, column: int, *, may_vanish: bool) -> Step | None:
    """Returns the merge of least loss per byte, if there is one."""
    steps = [self._pair(column)] if self.num_groups > 2 else []
    if may_vanish and self.num_groups:
      steps.append(self._all(column))
    return min(steps, key=order, default=None)

  def apply(self, step: Step) -> None:
    """Merges."""
    if step.pair is None:
      self._alive[:] = False
      return
    i, j = step.pair
    vectors, curvature = self._vectors, self._curvature
    vectors[i] = _common(vectors[[i, j]], curvature[[i, j]])
    curvature[i] += curvature[j]
    self._sizes[i] += self._sizes[j]
    self._alive[j] = False
    self._losses[j], self._losses[:, j] = np.inf, np.inf
    self._compare(i)

  def _pair(self, column: int) -> Step:
    alive = np.flatnonzero(self._alive)
    losses = self._losses[np.ix_(alive, alive)]
    saved = self.prices.group + self.prices.value * self._fewer(alive)
    ratios = losses / saved
    ties = np.where(ratios <= np.min(ratios), saved, -np.inf)
    i, j = np.unravel_index(np.argmax(ties), ties.shape)
    pair = int(min(alive[i], alive[j])), int(max(alive[i], alive[j]))
    return Step(column, pair, float(losses[i, j]), float(saved[i, j]))

  def _fewer(self, alive: np.ndarray) -> np.ndarray:
    """Returns `[k, k]`, the values less to tell apart if two groups merge."""
    if self.ordered:
      return np.ones((len(alive), len(alive)))
    sizes = self._sizes[alive]
    if self._is_free:
      return np.maximum(sizes[:, None] + sizes[None] - sizes.max(), 0)
    is_unseen = alive == _UNSEEN
    return np.where(
      is_unseen[:, None],
      sizes[None],
      np.where(is_unseen[None], sizes[:, None], 0),
    )

  def _all(self, column: int) -> Step:
    alive = np.flatnonzero(self._alive)
    vectors, curvature = self._vectors[alive], self._curvature[alive]
    apart = vectors - _common(vectors, curvature)
    loss = np.einsum('nd,nde,ne->', apart, curvature, apart) / 2
    sizes = self._sizes[alive]
    told = len(alive) - 1 if self.ordered else sizes.sum() - np.max(sizes)
    if not (self.ordered or self._is_free):
      told = sizes.sum() - self._sizes[_UNSEEN]
    group, value, rest = self.prices
    saved = group * len(alive) + value * told + rest
    return Step(column, None, max(float(loss), 0.0), float(saved))

  def _compare(self, i: int) -> None:
    """Sets the losses of merging group i with others."""
    others = np.flatnonzero(self._alive)
    place = int(np.searchsorted(others, i))
    if self.ordered:
      around = [place - 1, place + 1]
      others = others[[p for p in around if 0 <= p < len(others)]]
    else:
      others = np.delete(others, place)
    apart = self._vectors[others] - self._vectors[i]
    one, many = self._curvature[i], self._curvature[others]
    half = np.linalg.solve(_ridged(one + many), (many @ apart[..., None]))
    losses = np.einsum('nd,de,ne->n', apart, one, half[..., 0]) / 2
    self._losses[i, others] = self._losses[others, i] = np.maximum(losses, 0)


def order(step: Step) -> tuple[float, float]:
  """Returns a key: loss per byte first, then the bytes saved."""
  return step.loss / step.saved, -step.saved


def find(columns: Sequence[Column], *, may_empty: bool) -> list[Step]:
  """Merges as long as possible; returns the steps.

  Args:
    columns: are changed.
    may_empty: whether all columns may vanish, as the model has other inputs.
  """
  steps = []
  left = sum(column.num_groups > 0 for column in columns)

  def best(i: int) -> Step | None:
    return columns[i].best(i, may_vanish=True)

  offers = [best(i) for i in range(len(columns))]
  while offered := [step for step in offers if step is not None]:
    step = min(offered, key=order)
    if step.pair is None and left == 1 and not may_empty:
      last = columns[step.column].best(step.column, may_vanish=False)
      if last is None:
        break
      step = last
    columns[step.column].apply(step)
    left -= step.pair is None
    offers[step.column] = best(step.column)
    steps.append(step)
  return steps


def groups(sizes: Sequence[int], steps: Sequence[Step]) -> list[np.ndarray]:
  """Returns the first value of each value's group, `[n]` for each column.

  A column that has vanished is one group.
  """
  found = [np.arange(size) for size in sizes]
  for column, pair, *_ in steps:
    first = found[column]
    if pair is None:
      first[:] = 0
    else:
      first[first == pair[1]] = pair[0]
  return found


def _common(vectors: np.ndarray, curvature: np.ndarray) -> np.ndarray:
  """Returns the best common vector, `[D]`, of `[n, D]` and `[n, D, D]`.

  In directions that no row depends on, it is the mean.
  """
  middle = vectors.mean(axis=0)
  pull = np.einsum('nde,ne->d', curvature, vectors - middle)
  return middle + np.linalg.solve(_ridged(curvature.sum(axis=0)), pull)


def _ridged(matrices: np.ndarray) -> np.ndarray:
  """Returns `[..., D, D]` that can be inverted."""
  traces = np.trace(matrices, axis1=-2, axis2=-1)[..., None, None]
  size = matrices.shape[-1]
  ridge = np.maximum(_RIDGE * traces / size, np.finfo(np.float64).tiny)
  return matrices + ridge * np.eye(size)
