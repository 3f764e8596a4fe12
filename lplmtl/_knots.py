"""Piecewise linear interpolation between fixed knots, for many numbers.

NumPy only.
"""

import numpy as np

_MAX_CELLS = 1 << 15  # more would not stay in a processor's cache


class Knots:
  """Returns where numbers lie among knots; called with `[N]`, it returns `[N]`.

  That is 2.5 for a number midway between knots 2 and 3, and the first or last
  knot for one outside: `np.interp(x, knots, np.arange(len(knots)))`. NumPy
  searches the knots of each number; here, a grid of cells with at most one knot
  each tells them. That halves the time to encode a long table. Where knots are
  too close for such a grid, NumPy is called.
  """

  def __init__(self, knots: np.ndarray):
    self._knots = knots
    self._slopes = None
    gaps = np.diff(knots)
    with np.errstate(all='ignore'):
      num_cells = 2 * (knots[-1] - knots[0]) / gaps.min()
      if not num_cells < _MAX_CELLS:
        return
      self._per_unit = num_cells / (knots[-1] - knots[0])
    # The cell of a knot is never below that of a lower number, and vice versa,
    # because rounding keeps order.
    cells = self._cells(knots)
    counts = np.bincount(cells)
    if (counts > 1).any():
      return
    self._slopes = np.append(1 / gaps, 0.0)  # 0 for the last knot itself
    self._before = np.cumsum(counts) - counts - 1  # the last knot below a cell
    self._knot_in = np.full(len(counts), np.inf)
    self._knot_in[cells] = knots

  def __call__(self, x: np.ndarray) -> np.ndarray:
    """Returns positions as float64."""
    if self._slopes is None:
      return np.interp(x, self._knots, np.arange(len(self._knots)))
    x = np.clip(x, self._knots[0], self._knots[-1])
    cells = self._cells(x)
    last = self._before[cells] + (x >= self._knot_in[cells])
    return self._slopes[last] * (x - self._knots[last]) + last

  def _cells(self, x: np.ndarray) -> np.ndarray:
    return ((x - self._knots[0]) * self._per_unit).astype(np.int32)
