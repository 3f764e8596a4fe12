"""Quantiles of a column: the edges of its bins, and its median.

NumPy only.
"""

import math

import numpy as np

_SHARED = 4  # rows per value from which counting the rows takes less time


def bin_edges(values: np.ndarray, num_bins: int) -> tuple[float, ...]:
  """Returns the inner edges of bins with about the same number of rows.

  A value that is frequent enough to fill a bin (census columns are mostly 0)
  gets its own, and the remaining rows share the remaining bins, as in
  LightGBM's histograms: nearly all plain quantiles of such a column would be
  the same number.

  Args:
    values: `[N]` float.
    num_bins: the maximum number of bins, >= 2.

  Returns:
    Increasing edges, midway between neighbouring values; none for a constant.
  """
  return edges(*counted(np.sort(values)), num_bins)


def counted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the distinct ones of sorted values `[N]`, and how many of each.

  As `np.unique` does, in half of the memory.
  """
  is_first = np.ones(len(values), bool)
  np.not_equal(values[1:], values[:-1], out=is_first[1:])
  first = np.flatnonzero(is_first)
  return values[first], np.diff(first, append=len(values))


def counted_once(
  codes: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns what `counted` does, without NaN and without sorting rows.

  Args:
    codes: `[N]`, the index of each row's value.
    values: `[V]` float.

  Returns:
    None unless many rows share a value.
  """
  if _SHARED * len(values) > len(codes):
    return None
  rows = np.bincount(codes, minlength=len(values))
  is_known = (rows > 0) & ~np.isnan(values)
  distinct, place = np.unique(values[is_known], return_inverse=True)
  # As float64, sums of fewer than 2^53 rows are exact.
  return distinct, np.bincount(place, rows[is_known]).astype(np.int64)


def edges(
  distinct: np.ndarray, counts: np.ndarray, num_bins: int
) -> tuple[float, ...]:
  """Returns the edges of values `[D]`, sorted, that occur `[D]` times."""
  if len(distinct) <= num_bins:
    return tuple(((distinct[:-1] + distinct[1:]) / 2).tolist())
  num_middles = len(distinct) - 1
  rows_up_to = np.cumsum(counts)
  spikes = counts >= rows_up_to[-1] / num_bins
  rows_left = int(counts[~spikes].sum())
  bins_left = max(num_bins - int(spikes.sum()), 1)
  places = np.append(np.flatnonzero(spikes), len(counts))
  found: list[float] = []
  start = rows_before = 0
  while start < num_middles and len(found) < num_bins - 1:
    share = rows_left / bins_left
    wanted = rows_before + math.ceil(share)
    end = max(int(np.searchsorted(rows_up_to, wanted)), start)
    spike = int(places[np.searchsorted(places, start)])
    # A spike ends the bin before it, which may then be only half full.
    before = spike - 1
    if start <= before < end and (
      rows_up_to[before] - rows_before >= 0.5 * share
    ):
      end = before
    end = min(end, spike)
    if end >= num_middles:
      break
    filled = int(rows_up_to[end]) - rows_before
    if not spikes[end]:
      rows_left, bins_left = rows_left - filled, max(bins_left - 1, 1)
    found.append(float((distinct[end] + distinct[end + 1]) / 2))
    start, rows_before = end + 1, rows_before + filled
  return tuple(found)


def median(distinct: np.ndarray, counts: np.ndarray) -> float:
  """Returns the median of values `[D]`, sorted, that occur `[D]` times."""
  rows_up_to = np.cumsum(counts)
  n = rows_up_to[-1]
  middle = np.searchsorted(rows_up_to, [(n - 1) // 2, n // 2], side='right')
  return float(distinct[middle].mean())
