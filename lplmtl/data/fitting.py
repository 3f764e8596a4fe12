"""Encoder tables fitted on rows that are seen once, piece by piece."""

from collections.abc import Collection, Mapping
from typing import Any

from lplmtl import _tables_checks, _tables_fit, numeric, vocabulary
from lplmtl import columns as raw
from lplmtl import dates as times_of
from lplmtl.columns import Column, RowError
from lplmtl.data import fitted_columns
from lplmtl.tables import Rules, Tables


class TableFitter:
  """Fits tables as `tables.fit` does, on a table larger than memory.

  In one pass: counts of categories are exact, means and standard deviations are
  those of all rows except for rounding. Edges of bins and the medians that
  stand for missing numbers are exact for columns of up to 32,768 distinct
  values; in others, the rank of each is off by at most .06 % of 20 million rows
  in pieces of 65,536 (see `data.sketch`).

  Memory: a text for each distinct category, and 4 MB for each column of numbers
  with many values.

  Attributes:
    num_rows: the rows so far.

  Example:
    >>> fitter = TableFitter(['city'], ['age'])
    >>> for rows in ({'city': ['Oslo'], 'age': [30]},
    ...              {'city': ['Rome'], 'age': [50]}):
    ...   fitter.add(rows)
    >>> tables = fitter.finish()
    >>> tables.vocabularies['city'], tables.numerics['age'].mean
    (('Oslo', 'Rome'), 40.0)
  """

  def __init__(
    self,
    categories: Collection[str] = (),
    numerics: Collection[str] = (),
    *,
    log: Collection[str] = (),
    num_bins: int = 0,
    interpolate: bool = False,
    booleans: Collection[str] = (),
    dates: Mapping[str, str] | None = None,
    rules: Rules | None = None,
  ):
    """Says what the columns are.

    Args:
      categories: names of columns, as are `numerics` and `booleans`.
      numerics: see `tables.fit`, as for all that follow.
      log: the numeric columns to take the logarithm of.
      num_bins: the maximum number of bins, 0 for none.
      interpolate: encodes a number's place among the edges.
      booleans: columns of yes and no.
      dates: `{column: format}`.
      rules: what becomes of missing, rare and too many values.

    Raises:
      ValueError: names clash, `log` names another column, or `num_bins` is out
        of range.
    """
    _tables_checks.check_bins(num_bins)
    _tables_checks.check_names('log', log, list(numerics))
    self._rules = rules = rules or Rules()
    _tables_fit.check_columns(rules, list(categories))
    self._num_bins, self._interpolate = num_bins, interpolate
    self.num_rows = 0
    fill, dates = rules.fill_missing, dates or {}
    self._categories = {
      name: fitted_columns.Categories(name, rules.of(name))
      for name in categories
    }
    self._booleans: dict[Any, set[str]] = {name: set() for name in booleans}
    self._numbers = {
      name: fitted_columns.Numbers(name, name in log, fill) for name in numerics
    }
    self._dates = {
      name: fitted_columns.Dates(name, form, fill)
      for name, form in dates.items()
    }
    self._forms = dict(dates)
    names = [*categories, *numerics, *booleans, *dates]
    if len(set(names)) < len(names):
      raise ValueError(f'columns must be named once each, found {names}')
    self._names = names

  def add(self, columns: Mapping[str, Column]) -> None:
    """Adds the rows of a piece.

    Args:
      columns: `{column: Factor or [N]}`, with at least those that are fitted.

    Raises:
      ValueError: a column is absent, or lengths differ; RowError, as for
        `tables.fit`, with rows counted from the first piece on.
    """
    _tables_checks.check_present(self._names, columns)
    n = raw.common_length(columns[name] for name in self._names)
    if not n:
      return
    try:
      self._add(columns)
    except RowError as error:
      row = self.num_rows + error.row
      raise RowError(error.column, row, error.complaint, error.cure) from None
    self.num_rows += n

  def _add(self, columns: Mapping[str, Column]) -> None:
    texts = self._rules.texts
    for name, category in self._categories.items():
      category.add(columns[name])
    for name, values in self._booleans.items():
      values |= {*vocabulary.fit_boolean(name, columns[name], texts)}
    for name, numbers in self._numbers.items():
      numbers.add(numeric.read(name, columns[name], texts))
    for name, date in self._dates.items():
      date.add(times_of.read(name, columns[name], self._forms[name], texts))

  def finish(self) -> Tables:
    """Returns the tables.

    Raises:
      ValueError: there are no rows, or names clash with those of parts of
        dates.
    """
    if not self.num_rows:
      raise ValueError('tables must be fitted on at least one row, found none')
    column_name = _tables_checks.column_name
    found = {
      column_name(name): category.finish()
      for name, category in self._categories.items()
    }
    vocabularies = {k: v for k, v in found.items() if v is not None}
    hashed = {
      column_name(name): int(self._rules.of(name).num_buckets)
      for name in self._categories
      if found[column_name(name)] is None
    }
    _tables_checks.join(
      vocabularies,
      {column_name(k): tuple(sorted(v)) for k, v in self._booleans.items()},
    )
    scalers = {
      column_name(name): numbers.finish(self._num_bins)
      for name, numbers in self._numbers.items()
    }
    dates = {}
    for name, date in self._dates.items():
      dates[column_name(name)], parts = date.finish(self._num_bins)
      _tables_checks.join(scalers, parts)
    if self._interpolate:
      scalers = _tables_fit.interpolated(scalers)
    booleans = tuple(column_name(name) for name in self._booleans)
    missing = tuple(sorted(self._rules.texts))
    return Tables(vocabularies, scalers, booleans, dates, hashed, missing)
