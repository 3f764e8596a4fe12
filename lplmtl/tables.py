"""Encoder tables: turn raw columns into the arrays a `TabularEncoder` reads.

They are fitted on training rows only, are plain data, and use NumPy only: with
the parameters, they are all that a small device needs to score a raw row.
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

UNSEEN = 0  # the id of every value that is not in the training rows
# The largest distance from the mean, in standard deviations, of a number that
# can be encoded. Stacked feature crosses multiply up to four of them, and the
# largest float32 is 3e38: 1e9 leaves room, 1e10 does not. No real data lie that
# far out.
FURTHEST = 1e9
# A relative spread below this counts as constant: rounding leaves about 1e-16.
_CONSTANT = 1e-14


@dataclasses.dataclass(frozen=True)
class Numeric:
  """How one numeric column is scaled and binned.

  Attributes:
    log: whether `sign(x) log(1 + |x|)` is applied before standardisation.
    mean: mean over the training rows, after the logarithm.
    std: standard deviation likewise; 1 if the column varies by rounding only.
    edges: inner edges of its bins, in the column's own unit; empty for no bins.
  """

  log: bool
  mean: float
  std: float
  edges: tuple[float, ...] = ()

  def scale(self, values: np.ndarray) -> np.ndarray:
    """Returns `[N]` float64, standardised by the mean and std of training."""
    with np.errstate(all='ignore'):  # `encode` checks the result
      return (_maybe_log(values, self.log) - self.mean) / self.std


@dataclasses.dataclass(frozen=True)
class Tables:
  """Vocabularies and scalers, in column order.

  Attributes:
    vocabularies: `{column: values}`, values as `columns.canonical` returns
      them; value i has the id i + 1, and 0 is reserved for unseen values.
    numerics: `{column: Numeric}`. Names of columns are strings or integers.
  """

  vocabularies: Mapping[Any, tuple[str, ...]]
  numerics: Mapping[Any, Numeric]

  @property
  def num_categories(self) -> tuple[int, ...]:
    """Vocabulary sizes of the C category columns, with bins last."""
    sizes = [len(v) + 1 for v in self.vocabularies.values()]
    bins = [len(n.edges) + 1 for n in self.numerics.values() if n.edges]
    return (*sizes, *bins)

  @property
  def num_ordered(self) -> int:
    """The number of category columns that are bins; these are the last ones."""
    return sum(bool(n.edges) for n in self.numerics.values())

  def encode(self, columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
    """Encodes rows.

    Args:
      columns: `{column: Factor or [N]}`, with at least the fitted columns.

    Returns:
      A dict of `categories`, `[N, C]` int32, the category columns followed by
      the bins of the binned numeric columns, and `numeric`, `[N, M]` float32.

    Raises:
      ValueError: a column is missing, there is none, or lengths differ;
        RowError if a number is not finite or further than FURTHEST from the
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
    """`{column: {text: id}}`, cached; not part of equality or JSON."""
    return {name: _lookup(v) for name, v in self.vocabularies.items()}

  def unseen(self, features: Mapping[str, np.ndarray]) -> dict[Any, int]:
    """Counts unseen values in encoded features: `{column: rows}` where > 0."""
    if not isinstance(features, Mapping) or 'categories' not in features:
      raise ValueError(
        "features must be the output of encode, with 'categories'; found "
        f'{_kind(features)}'
      )
    counts = (features['categories'] == UNSEEN).sum(axis=0)
    return {
      name: int(n)
      for name, n in zip(self.vocabularies, counts, strict=False)
      if n
    }

  def to_json(self) -> dict[str, Any]:
    """Returns plain data for a JSON file; `from_json` is the inverse."""
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
    """Rebuilds the tables from the output of `to_json`.

    Raises:
      ValueError: `data` is not an output of `to_json`.
    """
    try:
      return cls(
        {k: _vocabulary(v) for k, v in _pairs(data['vocabularies'])},
        {k: _numeric(**v) for k, v in _pairs(data['numerics'])},
      )
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(
        'expected the output of Tables.to_json (for a JSON string, that of '
        f'json.loads), found {_kind(data)}: {error}'
      ) from error


def _vocabulary(values: Any) -> tuple[str, ...]:
  if isinstance(values, str) or not all(isinstance(v, str) for v in values):
    raise ValueError(
      f'a vocabulary must be a list of strings, found {values!r}'
    )
  return tuple(values)


def _numeric(log: Any, mean: Any, std: Any, edges: Any) -> Numeric:
  is_finite = np.isfinite([mean, std, *edges]).all()
  if not (isinstance(log, bool) and is_finite and std > 0):
    raise ValueError(
      'a numeric column needs log (a bool) and finite mean, std > 0 and edges, '
      f'found {log!r}, {mean!r}, {std!r} and {edges!r}'
    )
  return Numeric(log, mean, std, tuple(edges))


def _kind(value: Any) -> Any:
  return list(value) if isinstance(value, Mapping) else type(value).__name__


def _to_json(columns: dict[Any, Any]) -> Any:
  """Returns a dict, or pairs if a name is an integer: JSON keys are strings."""
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
    categories: `{column: Factor or [N]}`; values are compared as
      `columns.canonical` returns them, and ids follow their sorted order.
    numerics: `{column: Factor or [N] numbers}`.
    log: the numeric columns to take the logarithm of, for heavy tails.
    num_bins: the maximum number of bins for each numeric column (see
      `bin_edges`), or 0 for no bins.

  Returns:
    Tables.

  Raises:
    ValueError: there are no rows, lengths differ, a number is not finite or too
      large to scale, a name is neither a string nor an integer, `log` names a
      column that is not numeric, or `num_bins` is 1, negative or not an
      integer.

  Example:
    >>> tables = fit({'city': ['Oslo', 'Rome', 'Oslo']}, {'age': [30, 40, 50]})
    >>> encoded = tables.encode({'city': ['Rome', 'Lima'], 'age': [40, 40]})
    >>> encoded['categories'].tolist()  # id 0: never seen in training
    [[2], [0]]
    >>> encoded['numeric'].tolist()
    [[0.0], [0.0]]
  """
  is_integer = isinstance(num_bins, numbers.Integral)
  if not is_integer or num_bins < 0 or num_bins == 1:
    raise ValueError(
      f'num_bins must be 0 or a whole number of at least 2, found {num_bins!r}'
    )
  raw.check_columns('categories', categories)
  raw.check_columns('numerics', numerics)
  raw.check_names('log', log, list(numerics))
  arrays: list[np.ndarray] = []
  vocabularies = {}
  for name, column in categories.items():
    codes, texts = raw.texts_of(name, column)
    raw.check_rows(name, codes)
    arrays.append(codes)
    used = [raw.canonical(texts[code]) for code in np.unique(codes)]
    vocabularies[raw.column_name(name)] = tuple(sorted(set(used)))
  scalers = {}
  for name, column in numerics.items():
    values = numbers_of(name, column)
    raw.check_rows(name, values)
    arrays.append(values)
    scaler = _scaler(name, values, name in log)
    edges = bin_edges(values, num_bins) if num_bins else ()
    scalers[raw.column_name(name)] = dataclasses.replace(scaler, edges=edges)
  raw.common_length(arrays)
  return Tables(vocabularies, scalers)


def _scaler(name: Any, values: np.ndarray, log: bool) -> Numeric:
  scaled = _maybe_log(values, log)
  with np.errstate(all='ignore'):
    mean, std = float(scaled.mean()), float(scaled.std())
  # A number beyond float32 would leave the others of its column
  # indistinguishable after scaling.
  fits = np.abs(scaled).max() <= np.finfo(np.float32).max
  if not (fits and np.isfinite([mean, std]).all()):
    row = int(np.argmax(np.abs(values)))
    raise RowError(
      name, row, f'holds a number too large to scale; found {values[row]:g}'
    )
  varies = std > _CONSTANT * np.abs(scaled).max()
  return Numeric(log, mean, std if varies else 1.0)


def _maybe_log(values: np.ndarray, log: bool) -> np.ndarray:
  return np.sign(values) * np.log1p(np.abs(values)) if log else values


def _standardised(
  name: Any, numeric: Numeric, values: np.ndarray
) -> np.ndarray:
  scaled = numeric.scale(values)
  is_near = np.abs(scaled) <= FURTHEST
  if not is_near.all():
    row = int(np.argmin(is_near))
    raise RowError(
      name,
      row,
      f'must lie within {FURTHEST:g} standard deviations of the mean; found '
      f'{values[row]:g}, {scaled[row]:.1e} away,',
    )
  return scaled.astype(np.float32)


def _lookup(vocabulary: tuple[str, ...]) -> dict[str, int]:
  """Maps both canonical and stored texts to ids.

  The two differ in tables of older releases: values that these distinguished
  keep separate ids.
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
