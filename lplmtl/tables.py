"""Encoder tables: raw columns to the arrays a `TabularEncoder` reads.

Fitted on training rows only, plain data, NumPy alone: what a small device needs
beside the parameters to score a raw row.
"""

import dataclasses
import functools
import numbers
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from lplmtl import columns as raw
from lplmtl.columns import Column, Factor, RowError, bin_edges, numbers_of

__all__ = (
  'FURTHEST', 'UNSEEN', 'Column', 'Factor', 'Numeric', 'RowError', 'Tables',
  'bin_edges', 'fit', 'numbers_of',
)  # fmt: skip

UNSEEN = 0  # the id of every value that the training rows do not hold
# The most standard deviations from the mean that a number is encoded with. The
# largest float32 is 3e38: a product of four such numbers, as stacked crosses of
# columns make, is still below it, and none of 1e10 is. Data are not out there.
FURTHEST = 1e9
# Roundings leave a constant column with a spread of up to some 1e-16 of it.
_CONSTANT = 1e-14


@dataclasses.dataclass(frozen=True)
class Numeric:
  """How one numeric column is scaled and binned.

  Attributes:
    log: whether `sign(x) log(1 + |x|)` comes before the standardisation.
    mean: of the training rows, after the logarithm.
    std: likewise; 1 where the column does not vary but by rounding.
    edges: inner edges of its bins, in the column's own unit; none: no bins.
  """

  log: bool
  mean: float
  std: float
  edges: tuple[float, ...] = ()

  def scale(self, values: np.ndarray) -> np.ndarray:
    """`[N] -> [N]` float64 with mean 0 and standard deviation 1."""
    with np.errstate(all='ignore'):  # what comes of it is for `encode` to judge
      return (_maybe_log(values, self.log) - self.mean) / self.std


@dataclasses.dataclass(frozen=True)
class Tables:
  """Vocabularies and scalers, in column order.

  Attributes:
    vocabularies: `{column: values}`, values in the form of `columns.canonical`;
      value i has the id i + 1, and 0 is reserved for values that were not seen.
    numerics: `{column: Numeric}`. Columns are named by strings or integers.
  """

  vocabularies: Mapping[Any, tuple[str, ...]]
  numerics: Mapping[Any, Numeric]

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
      ValueError: a column is missing, there is none, or lengths differ;
        RowError: a number is not finite, or further than FURTHEST from the
        mean.
    """
    raw.check_columns('columns', columns)
    missing = [
      name
      for name in (*self.vocabularies, *self.numerics)
      if name not in columns
    ]
    if missing:
      raise ValueError(f'columns {missing} are missing; found {list(columns)}')
    ids = [
      _ids(name, columns[name], lookup)
      for name, lookup in self._lookups.items()
    ]
    scaled = []
    for name, numeric in self.numerics.items():
      values = numbers_of(name, columns[name])
      scaled.append(_standardised(name, numeric, values))
      if numeric.edges:
        bins = np.searchsorted(np.asarray(numeric.edges), values, side='right')
        ids.append(bins.astype(np.int32))
    rows = raw.common_length([*ids, *scaled])
    return {
      'categories': _stack(ids, rows, np.int32),
      'numeric': _stack(scaled, rows, np.float32),
    }

  @functools.cached_property
  def _lookups(self) -> dict[Any, dict[str, int]]:
    """`{column: {text: id}}`, made once; no part of equality nor of JSON."""
    return {name: _lookup(v) for name, v in self.vocabularies.items()}

  def unseen(self, features: Mapping[str, np.ndarray]) -> dict[Any, int]:
    """How many rows of encoded features hold a value that was never seen."""
    if not isinstance(features, Mapping) or 'categories' not in features:
      raise ValueError(
        "features must be what encode returns, with 'categories'; found "
        f'{_kind(features)}'
      )
    counts = (features['categories'] == UNSEEN).sum(axis=0)
    return {
      name: int(n)
      for name, n in zip(self.vocabularies, counts, strict=False)
      if n
    }

  def to_json(self) -> dict[str, Any]:
    """Plain data for a JSON file; `from_json` gives an equal object back."""
    return {
      'vocabularies': _to_json(
        {k: list(v) for k, v in self.vocabularies.items()}
      ),
      'numerics': _to_json(
        {
          k: {**dataclasses.asdict(v), 'edges': list(v.edges)}
          for k, v in self.numerics.items()
        }
      ),
    }

  @classmethod
  def from_json(cls, data: Mapping[str, Any]) -> 'Tables':
    """The inverse of `to_json`.

    Raises:
      ValueError: something else than it returned.
    """
    try:
      return cls(
        {k: _vocabulary(v) for k, v in _pairs(data['vocabularies'])},
        {k: _numeric(**v) for k, v in _pairs(data['numerics'])},
      )
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(
        'expected what Tables.to_json returned (of a JSON text its json.loads),'
        f' found {_kind(data)}: {error}'
      ) from error


def _vocabulary(values: Any) -> tuple[str, ...]:
  if isinstance(values, str) or not all(isinstance(v, str) for v in values):
    raise ValueError(f'a vocabulary is a list of texts, found {values!r}')
  return tuple(values)


def _numeric(log: Any, mean: Any, std: Any, edges: Any) -> Numeric:
  is_finite = np.isfinite([mean, std, *edges]).all()
  if not (isinstance(log, bool) and is_finite and std > 0):
    raise ValueError(
      'a column needs log (a bool), a mean, an std > 0 and edges that are '
      f'finite, found {log!r}, {mean!r}, {std!r} and {edges!r}'
    )
  return Numeric(log, mean, std, tuple(edges))


def _kind(found: Any) -> Any:
  return list(found) if isinstance(found, Mapping) else type(found).__name__


def _to_json(columns: dict[Any, Any]) -> Any:
  """An object, or pairs where a name is a number: JSON's are all strings."""
  if all(isinstance(name, str) for name in columns):
    return columns
  return [[name, value] for name, value in columns.items()]


def _pairs(columns: Any) -> Iterable[tuple[Any, Any]]:
  return columns.items() if isinstance(columns, Mapping) else columns


def fit(
  categories: Mapping[str, Column],
  numerics: Mapping[str, Column],
  *,
  log: Collection[str] = (),
  num_bins: int = 0,
) -> Tables:
  """Fits tables on training rows.

  Args:
    categories: `{column: Factor or [N]}`; values are compared in the form of
      `columns.canonical`, ids go by sorted value.
    numerics: `{column: Factor or [N] numbers}`.
    log: the numeric columns to take the logarithm of (heavy tails).
    num_bins: at most so many bins for each numeric column (see `bin_edges`), or
      0 for none.

  Returns:
    Tables.

  Raises:
    ValueError: there are no rows, lengths differ, a number is not finite or far
      too large, a name is no string and no integer, `log` names no numeric
      column, or `num_bins` is 1, negative or no integer.

  Example:
    >>> tables = fit({'city': ['Oslo', 'Rome', 'Oslo']}, {'age': [30, 40, 50]})
    >>> encoded = tables.encode({'city': ['Rome', 'Lima'], 'age': [40, 40]})
    >>> encoded['categories'].tolist()  # id 0: never seen in training
    [[2], [0]]
    >>> encoded['numeric'].tolist()
    [[0.0], [0.0]]
  """
  is_whole = isinstance(num_bins, numbers.Integral)
  if not is_whole or num_bins < 0 or num_bins == 1:
    raise ValueError(
      f'num_bins must be a whole number, 0 or at least 2, found {num_bins!r}'
    )
  raw.check_columns('categories', categories)
  raw.check_columns('numerics', numerics)
  raw.check_names('log', log, list(numerics))
  read: list[np.ndarray] = []
  vocabularies = {}
  for name, column in categories.items():
    codes, texts = raw.texts_of(name, column)
    raw.check_rows(name, codes)
    read.append(codes)
    used = [raw.canonical(texts[code]) for code in np.unique(codes)]
    vocabularies[raw.column_name(name)] = tuple(sorted(set(used)))
  scalers = {}
  for name, column in numerics.items():
    values = numbers_of(name, column)
    raw.check_rows(name, values)
    read.append(values)
    scaler = _scaler(name, values, name in log)
    edges = bin_edges(values, num_bins) if num_bins else ()
    scalers[raw.column_name(name)] = dataclasses.replace(scaler, edges=edges)
  raw.common_length(read)
  return Tables(vocabularies, scalers)


def _scaler(name: Any, values: np.ndarray, log: bool) -> Numeric:
  scaled = _maybe_log(values, log)
  with np.errstate(all='ignore'):
    mean, std = float(scaled.mean()), float(scaled.std())
  # Beside a number that float32 cannot hold, all others of its column are one.
  fits = np.abs(scaled).max() <= np.finfo(np.float32).max
  if not (fits and np.isfinite([mean, std]).all()):
    row = int(np.argmax(np.abs(values)))
    raise RowError(
      name, row, f'is too large to be scaled; found {values[row]:g}'
    )
  varies = std > _CONSTANT * np.abs(scaled).max()
  return Numeric(log, mean, std if varies else 1.0)


def _maybe_log(values: np.ndarray, log: bool) -> np.ndarray:
  return np.sign(values) * np.log1p(np.abs(values)) if log else values


def _standardised(
  name: Any, numeric: Numeric, values: np.ndarray
) -> np.ndarray:
  scaled = numeric.scale(values)
  good = np.abs(scaled) <= FURTHEST
  if not good.all():
    row = int(np.argmin(good))
    raise RowError(
      name,
      row,
      f'must lie within {FURTHEST:g} standard deviations of the mean; found '
      f'{values[row]:g}, {scaled[row]:.1e} away,',
    )
  return scaled.astype(np.float32)


def _lookup(vocabulary: tuple[str, ...]) -> dict[str, int]:
  """Ids by canonical text.

  And by the very text, which is another one in tables of older releases: what
  these told apart stays apart.
  """
  ids: dict[str, int] = {}
  for i, value in enumerate(vocabulary, 1):
    ids.setdefault(raw.canonical(value), i)
  ids.update((value, i) for i, value in enumerate(vocabulary, 1))
  return ids


def _ids(name: Any, column: Column, lookup: dict[str, int]) -> np.ndarray:
  codes, texts = raw.texts_of(name, column)
  ids = [
    lookup.get(text) or lookup.get(raw.canonical(text), UNSEEN)
    for text in texts
  ]
  return np.asarray(ids, np.int32)[codes]


def _stack(columns: list[np.ndarray], rows: int, dtype: Any) -> np.ndarray:
  if not columns:
    return np.zeros((rows, 0), dtype)
  return np.stack(columns, axis=1).astype(dtype)
