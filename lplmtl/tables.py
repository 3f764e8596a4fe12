"""Encoder tables: raw columns to the arrays a `TabularEncoder` reads.

Fitted on training rows only, plain data, NumPy alone: what a small device needs
beside the parameters to score a raw row.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

UNSEEN = 0  # the id of every value that the training rows do not hold


class Factor(NamedTuple):
  """A column of repeated values, stored once each.

  Attributes:
    codes: `[N]` int, the position of each row's value in `values`.
    values: the different values.
  """

  codes: np.ndarray
  values: np.ndarray

  def take(self, rows: np.ndarray) -> 'Factor':
    """The column of some rows only, with the same values."""
    return Factor(self.codes[rows], self.values)


Column = Factor | Any  # else: [N] strings or numbers, or a list of them


@dataclasses.dataclass(frozen=True)
class Numeric:
  """How one numeric column is scaled and binned.

  Attributes:
    log: whether `sign(x) log(1 + |x|)` comes before the standardisation.
    mean: of the training rows, after the logarithm.
    std: likewise; 1 where the column does not vary.
    edges: inner edges of its bins, in the column's own unit; none: no bins.
  """

  log: bool
  mean: float
  std: float
  edges: tuple[float, ...] = ()

  def scale(self, values: np.ndarray) -> np.ndarray:
    """`[N] -> [N]` float64 with mean 0 and standard deviation 1."""
    return (_maybe_log(values, self.log) - self.mean) / self.std


@dataclasses.dataclass(frozen=True)
class Tables:
  """Vocabularies and scalers, in column order.

  Attributes:
    vocabularies: `{column: values}`; value i has the id i + 1, and 0 is
      reserved for values that were not seen.
    numerics: `{column: Numeric}`.
  """

  vocabularies: Mapping[str, tuple[str, ...]]
  numerics: Mapping[str, Numeric]

  @property
  def num_categories(self) -> tuple[int, ...]:
    """Vocabulary sizes of the C category columns, bins last."""
    sizes = [len(v) + 1 for v in self.vocabularies.values()]
    bins = [len(n.edges) + 1 for n in self.numerics.values() if n.edges]
    return (*sizes, *bins)

  @property
  def num_ordered(self) -> int:
    """How many of the category columns, the last ones, are bins of numbers."""
    return sum(bool(n.edges) for n in self.numerics.values())

  def encode(self, columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
    """Encodes rows.

    Args:
      columns: `{column: Factor or [N]}`, at least the fitted ones.

    Returns:
      `categories`, `[N, C]` int32, the category columns and then the bins of
      the binned numeric columns; `numeric`, `[N, M]` float32.

    Raises:
      ValueError: a column is missing, lengths differ, or a number is not
        finite.
    """
    missing = [
      name
      for name in (*self.vocabularies, *self.numerics)
      if name not in columns
    ]
    if missing:
      raise ValueError(
        f'columns {missing} are missing; found {sorted(columns)}'
      )
    ids = [
      _ids(name, columns[name], values)
      for name, values in self.vocabularies.items()
    ]
    numbers = []
    for name, numeric in self.numerics.items():
      values = numbers_of(name, columns[name])
      numbers.append(numeric.scale(values).astype(np.float32))
      if numeric.edges:
        bins = np.searchsorted(np.asarray(numeric.edges), values, side='right')
        ids.append(bins.astype(np.int32))
    lengths = {len(column) for column in (*ids, *numbers)}
    if len(lengths) != 1:
      raise ValueError(
        f'all columns need the same number of rows, found {sorted(lengths)}'
      )
    rows = lengths.pop()
    return {
      'categories': _stack(ids, rows, np.int32),
      'numeric': _stack(numbers, rows, np.float32),
    }

  def unseen(self, features: Mapping[str, np.ndarray]) -> dict[str, int]:
    """How many rows of encoded features hold a value that was never seen."""
    counts = (features['categories'] == UNSEEN).sum(axis=0)
    return {
      name: int(n)
      for name, n in zip(self.vocabularies, counts, strict=False)
      if n
    }

  def to_json(self) -> dict[str, Any]:
    """Plain data for a JSON file; `from_json` gives an equal object back."""
    return {
      'vocabularies': {k: list(v) for k, v in self.vocabularies.items()},
      'numerics': {
        k: {**dataclasses.asdict(v), 'edges': list(v.edges)}
        for k, v in self.numerics.items()
      },
    }

  @classmethod
  def from_json(cls, data: Mapping[str, Any]) -> 'Tables':
    """The inverse of `to_json`."""
    return cls(
      {k: tuple(v) for k, v in data['vocabularies'].items()},
      {
        k: Numeric(**{**v, 'edges': tuple(v['edges'])})
        for k, v in data['numerics'].items()
      },
    )


def fit(
  categories: Mapping[str, Column],
  numerics: Mapping[str, Column],
  *,
  log: Collection[str] = (),
  num_bins: int = 0,
) -> Tables:
  """Fits tables on training rows.

  Args:
    categories: `{column: Factor or [N]}`; values are compared as strings, ids
      go by sorted value.
    numerics: `{column: Factor or [N] numbers}`.
    log: the numeric columns to take the logarithm of (heavy tails).
    num_bins: at most so many bins for each numeric column (see `bin_edges`), or
      0 for none.

  Returns:
    Tables.

  Raises:
    ValueError: a number is not finite, or `num_bins` is 1 or negative.
  """
  if num_bins < 0 or num_bins == 1:
    raise ValueError(f'num_bins must be 0 or at least 2, found {num_bins}')
  vocabularies = {}
  for name, column in categories.items():
    factor = _factor(name, column)
    used = np.unique(factor.codes)
    vocabularies[name] = tuple(
      sorted(str(value) for value in factor.values[used])
    )
  scalers = {}
  for name, column in numerics.items():
    values = numbers_of(name, column)
    scaled = _maybe_log(values, name in log)
    std = float(scaled.std())
    scalers[name] = Numeric(
      log=name in log,
      mean=float(scaled.mean()),
      std=std if std > 0 else 1.0,
      edges=bin_edges(values, num_bins) if num_bins else (),
    )
  return Tables(vocabularies, scalers)


def bin_edges(values: np.ndarray, num_bins: int) -> tuple[float, ...]:
  """Inner edges of bins that hold about equally many rows.

  A value that alone fills a bin (census columns are mostly 0) gets one of its
  own and does not use up the other bins, as in LightGBM's histograms: plain
  quantiles of such a column would all be the same number.

  Args:
    values: `[N]` float.
    num_bins: at most so many bins, >= 2.

  Returns:
    Increasing edges, midway between neighbouring values; none for a constant.
  """
  distinct, counts = np.unique(values, return_counts=True)
  middles = (distinct[:-1] + distinct[1:]) / 2
  if len(distinct) <= num_bins:
    return tuple(middles.tolist())
  spikes = counts >= values.size / num_bins
  rows_left = int(counts[~spikes].sum())
  bins_left = max(num_bins - int(spikes.sum()), 1)
  edges, filled = [], 0
  for i, middle in enumerate(middles.tolist()):
    if spikes[i]:
      is_full = True
    else:
      filled += int(counts[i])
      # Before a spike a bin may end at half its size.
      share = 0.5 if spikes[i + 1] else 1.0
      is_full = filled >= share * rows_left / bins_left
      if is_full:
        rows_left, bins_left = rows_left - filled, max(bins_left - 1, 1)
    if is_full:
      edges.append(middle)
      filled = 0
  return tuple(edges[: num_bins - 1])


def numbers_of(name: str, column: Column) -> np.ndarray:
  """`[N]` float64 of a numeric column; every number must be finite."""
  if isinstance(column, Factor):
    values = np.asarray(column.values, np.float64)[column.codes]
  else:
    try:
      values = np.asarray(column, np.float64)
    except ValueError as error:
      raise ValueError(f'column {name!r} must hold numbers: {error}') from error
  if values.ndim != 1:
    raise ValueError(
      f'column {name!r} must be a list or [N] array of values, found shape '
      f'{values.shape}: a single row is a list of one'
    )
  if not np.isfinite(values).all():
    row = int(np.argmin(np.isfinite(values)))
    raise ValueError(
      f'column {name!r} must hold finite numbers; found {values[row]} in '
      f'row {row}'
    )
  return values


def _maybe_log(values: np.ndarray, log: bool) -> np.ndarray:
  return np.sign(values) * np.log1p(np.abs(values)) if log else values


def _factor(name: str, column: Column) -> Factor:
  if isinstance(column, Factor):
    return column
  texts = np.asarray(column).astype(str)
  if texts.ndim != 1:
    raise ValueError(
      f'column {name!r} must be a list or [N] array of values, found shape '
      f'{texts.shape}: a single row is a list of one'
    )
  values, codes = np.unique(texts, return_inverse=True)
  return Factor(codes, values)


def _ids(name: str, column: Column, vocabulary: tuple[str, ...]) -> np.ndarray:
  factor = _factor(name, column)
  id_of = {value: i + 1 for i, value in enumerate(vocabulary)}
  ids = [id_of.get(str(value), UNSEEN) for value in factor.values]
  return np.asarray(ids, np.int32)[factor.codes]


def _stack(columns: list[np.ndarray], rows: int, dtype: Any) -> np.ndarray:
  if not columns:
    return np.zeros((rows, 0), dtype)
  return np.stack(columns, axis=1).astype(dtype)
