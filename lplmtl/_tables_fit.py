"""The parts of `lplmtl.tables.fit`."""

import dataclasses
import functools
import operator
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from lplmtl import _tables_checks, _threads, numeric, vocabulary
from lplmtl import columns as raw
from lplmtl import dates as times_of
from lplmtl.columns import Column, Factor
from lplmtl.dates import Date
from lplmtl.numeric import Numeric


@dataclasses.dataclass(frozen=True)
class Rules:
  """What becomes of missing values, rare categories and too many of them.

  A missing category is a value of its own in any case.

  Attributes:
    fill_missing: whether numbers and dates may be missing. They count as the
      median of the training rows; a flag tells them apart if any are missing
      there.
    missing: texts that stand for a missing value in any column, beside blank
      ones, `None`, `nan` and the like.
    min_count: the least number of rows that a category must occur in; the
      others share id 0 with those that never occur.
    max_vocabulary: the largest vocabulary; a column with more values has each
      hashed into two of `num_buckets` buckets (see `hashing.buckets`), however
      rare. None for no limit.
    num_buckets: see `max_vocabulary`; 2 or more, as one says nothing, and at
      most 2^31 - 1, the largest id.
    columns: `{column: {min_count, max_vocabulary or num_buckets: size}}`, other
      sizes for single columns of categories. With a `max_vocabulary` of 1 a
      column is hashed in any case.

  Raises:
    ValueError: a size is out of range or unknown, or `missing` is not a tuple
      of texts.

  Example:
    >>> from lplmtl import tables
    >>> rules = tables.Rules(fill_missing=True, missing=('?',))
    >>> tables.fit({}, {'age': [30, '?', 50]}, rules=rules).flags
    {'age': 1}
  """

  fill_missing: bool = False
  missing: Collection[str] = ()
  min_count: int = 1
  max_vocabulary: int | None = None
  num_buckets: int = 4096
  columns: Mapping[Any, Mapping[str, int]] = dataclasses.field(
    default_factory=dict
  )

  def __post_init__(self) -> None:
    _tables_checks.check_counts(
      self.min_count, self.max_vocabulary, self.num_buckets
    )
    _tables_checks.missing_texts(self.missing)
    _tables_checks.check_sizes(self.columns)
    for name in self.columns:
      self.of(name)

  def of(self, name: Any) -> 'Rules':
    """Returns the rules of a column."""
    changes: dict[str, Any] = {'columns': {}, **self.columns.get(name, {})}
    return dataclasses.replace(self, **changes)

  @functools.cached_property
  def texts(self) -> frozenset[str]:
    """The texts of `missing` in canonical form."""
    return _tables_checks.missing_texts(self.missing)


def categories(
  columns: Mapping[str, Column], rules: Rules
) -> tuple[dict[Any, tuple[str, ...]], dict[Any, int]]:
  """Returns vocabularies, and the buckets of columns that exceed them."""
  vocabularies, hashed = {}, {}
  check_columns(rules, columns)
  for name, column in columns.items():
    of_column = rules.of(name)
    values = vocabulary.fit(name, column, rules.texts, of_column.min_count)
    most = of_column.max_vocabulary
    if most is not None and len(values) > most:
      hashed[_tables_checks.column_name(name)] = int(of_column.num_buckets)
    else:
      vocabularies[_tables_checks.column_name(name)] = values
  return vocabularies, hashed


def check_columns(rules: Rules, columns: Collection[Any]) -> None:
  """Raises ValueError if rules are for a column that is no category."""
  for name in rules.columns:
    if name not in columns:
      raise ValueError(
        f'rules.columns must name columns of categories, of which there are '
        f'{list(columns)}; found {name!r}'
      )


def booleans(
  columns: Mapping[str, Column], rules: Rules
) -> dict[Any, tuple[str, ...]]:
  """Returns vocabularies."""
  return {
    _tables_checks.column_name(name): vocabulary.fit_boolean(
      name, column, rules.texts
    )
    for name, column in columns.items()
  }


def numbers(
  columns: Mapping[str, Column],
  rules: Rules,
  log: Collection[str],
  num_bins: int,
) -> dict[Any, Numeric]:
  """Returns scalers."""

  def fit(item: tuple[Any, Column]) -> tuple[Any, Numeric]:
    name, column = item
    values = numeric.parse(name, column, rules.texts)
    return _tables_checks.column_name(name), numeric.fit(
      name,
      values,
      log=name in log,
      num_bins=num_bins,
      fill=rules.fill_missing,
    )

  return dict(_threads.each(fit, columns.items(), _most_rows(columns.items())))


def _most_rows(columns: Iterable[tuple[Any, Column]]) -> int:
  """Returns the rows of the longest column; what is no column has none."""
  found = (x.codes if isinstance(x, Factor) else x for _, x in columns)
  return max(map(operator.length_hint, found), default=0)


def dates(
  columns: Mapping[str, tuple[Column, str]], rules: Rules, num_bins: int
) -> tuple[dict[Any, Date], dict[str, Numeric]]:
  """Returns dates, and the scalers of their parts."""

  def fit(
    item: tuple[Any, tuple[Column, str]],
  ) -> tuple[Date, dict[str, np.ndarray | Factor]]:
    name, (column, form) = item
    times = times_of.parse(name, column, form, rules.texts)
    if not rules.fill_missing:
      times_of.check_present(name, times)
    values = raw.values_of(times)
    date = times_of.fit(name, values, form)
    return date, {
      f'{name}.{part}': raw.with_values(times, numbers)
      for part, numbers in date.numbers(values).items()
    }

  def scale(item: tuple[str, np.ndarray | Factor]) -> tuple[str, Numeric]:
    name, values = item
    scaler = numeric.fit(
      name,
      values,
      log=False,
      num_bins=num_bins,
      fill=rules.fill_missing,
    )
    # One flag stands for all parts of a date.
    return name, dataclasses.replace(scaler, flag=False)

  num_rows = _most_rows((name, x) for name, (x, _) in columns.items())
  found = _threads.each(fit, columns.items(), num_rows)
  parts: dict[str, np.ndarray | Factor] = {}
  for _, some in found:
    _tables_checks.join(parts, some)
  names = map(_tables_checks.column_name, columns)
  fitted = dict(zip(names, (date for date, _ in found), strict=True))
  return fitted, dict(_threads.each(scale, parts.items(), num_rows))


def interpolated(scalers: Mapping[Any, Numeric]) -> dict[Any, Numeric]:
  """Has a number's place among the edges of its bins encoded, not the bin."""
  return {
    name: dataclasses.replace(scaler, interpolate=bool(scaler.edges))
    for name, scaler in scalers.items()
  }
