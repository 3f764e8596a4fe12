"""Encoder tables: turn raw columns into the arrays a `TabularEncoder` reads.

They are fitted on training rows only, are plain data, and use NumPy only: with
the parameters, they are all that a small device needs to score a raw row.
Training and serving encode with the same tables, so that equal rows get equal
ids and numbers, whatever dtype a column happens to have.
"""

import dataclasses
import functools
import types
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from lplmtl import (
  _tables_checks,
  _tables_data,
  _tables_encode,
  _tables_fit,
  _tables_sizes,
  numeric,
  vocabulary,
)
from lplmtl import columns as raw
from lplmtl import dates as times_of
from lplmtl._quantiles import bin_edges
from lplmtl._tables_fit import Rules
from lplmtl.columns import Column, Factor, RowError
from lplmtl.dates import Date
from lplmtl.numeric import FURTHEST, Numeric, numbers_of
from lplmtl.vocabulary import UNSEEN

__all__ = (
  'FURTHEST', 'UNSEEN', 'Column', 'Date', 'Factor', 'Numeric', 'RowError',
  'Rules', 'Tables', 'bin_edges', 'fit', 'numbers_of',
)  # fmt: skip

_NONE: Mapping[Any, Any] = types.MappingProxyType({})
_RULES = Rules()


@dataclasses.dataclass(frozen=True)
class Tables(_tables_sizes.Sizes):
  """Vocabularies and scalers, in column order.

  Names of columns are strings or integers. All fields but the first two are
  empty unless `fit` was asked for what they describe.

  Attributes:
    vocabularies: `{column: values}`, values as `columns.canonical` returns
      them; value i has the id i + 1, and 0 is reserved for unseen values.
    numerics: `{column: Numeric}`, and `{'signup.days': Numeric}` for each part
      of a date.
    booleans: those columns of `vocabularies` whose values are true or false, in
      any spelling of `vocabulary.BOOLEANS`.
    dates: `{column: Date}`.
    hashed: `{column: number of buckets}`, columns that have no vocabulary.
    missing: texts that stand for a missing value, in canonical form, beside
      those that always do.
    merged: `{column: new ids}`, columns some of whose values share an id: the
      id of value i is `ids[i + 1]` in place of i + 1. Unseen values keep the id
      0, `ids[0]`, which others may share; all ids from 0 to the largest are in
      use.
  """

  vocabularies: Mapping[Any, tuple[str, ...]]
  numerics: Mapping[Any, Numeric]
  booleans: tuple[Any, ...] = ()
  dates: Mapping[Any, Date] = dataclasses.field(default_factory=dict)
  hashed: Mapping[Any, int] = dataclasses.field(default_factory=dict)
  missing: tuple[str, ...] = ()
  merged: Mapping[Any, tuple[int, ...]] = dataclasses.field(
    default_factory=dict
  )

  def encode(self, columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
    """Encodes rows.

    Args:
      columns: `{column: Factor or [N]}`, with at least the fitted columns.

    Returns:
      A dict of `categories`, `[N, C]` int32, the category columns followed by
      the bins of the binned numeric columns, and `numeric`, `[N, M]` float32,
      the columns of `numbers` followed by the 0/1 flags of missing ones and the
      positions of `num_pieces`. If there are hashed columns, also `hashed`,
      `[N, H, 2]` int32, two buckets each.

    Raises:
      ValueError: a column is absent, there is none, or lengths differ;
        RowError if a number is infinite, is missing where `fit` had no
        `fill_missing`, or is further than FURTHEST from the mean, or if a text
        is not a number or date.
    """
    _tables_checks.check_present(self.columns, columns)
    times = {name: self._times(name, columns[name]) for name in self.dates}
    ids = [self._ids(name, columns[name]) for name in self.vocabularies]
    numbers = {
      name: numeric.parse(name, columns[name], self._missing)
      for name in self.numerics
      if name not in self._parts
    }
    hashed = [
      vocabulary.buckets(name, columns[name], size, self._missing)
      for name, size in self.hashed.items()
    ]
    n = raw.common_length(columns[name] for name in self.columns)
    read = _tables_encode.Read(ids, numbers, times)
    features = _tables_encode.encode(self, read, n)
    return features | ({'hashed': np.stack(hashed, axis=1)} if hashed else {})

  def _ids(self, name: Any, column: Column) -> Factor:
    """Returns the ids of a column, int32."""
    codes, ids = vocabulary.ids(name, column, self._lookups[name])
    if name in self.merged:
      ids = np.asarray(self.merged[name], np.int32)[ids]
    return Factor(codes, ids)

  def _times(self, name: Any, column: Column) -> np.ndarray | Factor:
    """Returns a column of dates as datetime64; see `dates.parse`."""
    times = times_of.parse(name, column, self.dates[name].format, self._missing)
    parts = [self.numerics[f'{name}.{p}'] for p in self.dates[name].parts]
    if any(part.fill is None for part in parts):
      times_of.check_present(name, times)
    return times

  @functools.cached_property
  def _missing(self) -> frozenset[str]:
    return frozenset(self.missing)

  @functools.cached_property
  def _lookups(self) -> dict[Any, dict[str, int]]:
    """`{column: {text: id}}`, cached; not part of equality or JSON."""
    return {
      name: vocabulary.lookup(v, self.missing, name in self.booleans)
      for name, v in self.vocabularies.items()
    }

  def unseen(
    self,
    features: Mapping[str, np.ndarray],
    columns: Mapping[str, Column] = _NONE,
  ) -> dict[Any, int]:
    """Counts values that are new to the model: `{column: rows}` where > 0.

    These are categories without an id and, in the raw `columns` that `features`
    were encoded from, missing numbers and dates where training had none.
    Columns that are not in `columns` are left out, also categories if unseen
    values share their id with others; hashed ones always are.
    """
    if not isinstance(features, Mapping) or 'categories' not in features:
      raise ValueError(
        "features must be the output of encode, with 'categories'; found "
        f'{_tables_data.kind(features)}'
      )
    unseen = (features['categories'] == UNSEEN).sum(axis=0)
    counts = dict(zip(self.vocabularies, unseen, strict=False))
    for name, new in self.merged.items():
      if new.count(UNSEEN) > 1:
        del counts[name]
        if name in columns:
          codes, ids = vocabulary.ids(name, columns[name], self._lookups[name])
          counts[name] = (ids[codes] == UNSEEN).sum()
    for name, scaler in self.numerics.items():
      if name in columns and name not in self._parts and not scaler.flag:
        values = numeric.read(name, columns[name], self._missing)
        counts[name] = counts.get(name, 0) + np.isnan(values).sum()
    for name, date in self.dates.items():
      if name in columns and not date.flag:
        times = raw.spread(self._times(name, columns[name]))
        counts[name] = np.isnat(times).sum()
    return {name: int(n) for name, n in counts.items() if n}

  def to_json(self) -> dict[str, Any]:
    """Returns plain data for a JSON file; `from_json` is the inverse."""
    return _tables_data.to_json(self)

  @classmethod
  def from_json(cls, data: Mapping[str, Any]) -> 'Tables':
    """Rebuilds the tables from the output of `to_json`.

    Raises:
      ValueError: `data` is not an output of `to_json`.
    """
    try:
      return cls(**_tables_data.fields(data))
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(
        'expected the output of Tables.to_json (for a JSON string, that of '
        f'json.loads), found {_tables_data.kind(data)}: {error}'
      ) from error


def fit(
  categories: Mapping[str, Column],
  numerics: Mapping[str, Column],
  *,
  log: Collection[str] = (),
  num_bins: int = 0,
  interpolate: bool = False,
  booleans: Mapping[str, Column] = _NONE,
  dates: Mapping[str, tuple[Column, str]] = _NONE,
  rules: Rules = _RULES,
) -> Tables:
  """Fits tables on training rows.

  Args:
    categories: `{column: Factor or [N]}`; values are compared as
      `columns.canonical` returns them, and ids follow their sorted order.
    numerics: `{column: Factor or [N] numbers}`; texts that are numbers will do.
    log: the numeric columns to take the logarithm of, for heavy tails.
    num_bins: the maximum number of bins for each numeric column (see
      `bin_edges`), or 0 for no bins.
    interpolate: encodes a number's place among the edges of its bins, which
      `layers.piecewise` reads, in place of the bin.
    booleans: `{column: Factor or [N]}`; `True`, `yes`, `1` and the like are one
      value (see `vocabulary.BOOLEANS`). They become categories.
    dates: `{column: (Factor or [N], format)}`, the format as for
      `datetime.strptime`, empty for ISO 8601. They become numeric columns (see
      `dates.Date`), in UTC.
    rules: what becomes of missing, rare and too many values.

  Raises:
    ValueError: there are no rows, lengths differ, names clash or are neither
      strings nor integers, `log` names a column that is not numeric, or
      `num_bins` is out of range; RowError if a number is infinite, too large to
      scale or (without `fill_missing`) missing, or if a text is no number, date
      or boolean.

  Example:
    >>> tables = fit({'city': ['Oslo', 'Rome', 'Oslo']}, {'age': [30, 40, 50]})
    >>> encoded = tables.encode({'city': ['Rome', 'Lima'], 'age': [40, 40]})
    >>> encoded['categories'].tolist()  # id 0: never seen in training
    [[2], [0]]
  """
  _tables_checks.check_bins(num_bins)
  plain = {'categories': categories, 'numerics': numerics, 'booleans': booleans}
  for argument, columns in {**plain, 'dates': dates}.items():
    _tables_checks.check_columns(argument, columns)
  _tables_checks.check_names('log', log, list(numerics))
  vocabularies, hashed = _tables_fit.categories(categories, rules)
  _tables_checks.join(vocabularies, _tables_fit.booleans(booleans, rules))
  scalers = _tables_fit.numbers(numerics, rules, log, num_bins)
  fitted, parts = _tables_fit.dates(dates, rules, num_bins)
  _tables_checks.join(scalers, parts)
  if interpolate:
    scalers = _tables_fit.interpolated(scalers)
  # A DataFrame has `items`, but its `values` are something else.
  given = [column for one in plain.values() for _, column in one.items()]
  raw.common_length([*given, *(column for _, (column, _) in dates.items())])
  names = tuple(_tables_checks.column_name(name) for name in booleans)
  missing = tuple(sorted(rules.texts))
  return Tables(vocabularies, scalers, names, fitted, hashed, missing)
