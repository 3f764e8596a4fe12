"""The parts of `lplmtl.tables.fit`."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from lplmtl import _tables_checks, numeric, vocabulary
from lplmtl import dates as times_of
from lplmtl.columns import Column
from lplmtl.dates import Date
from lplmtl.numeric import Numeric


def categories(
  columns: Mapping[str, Column],
  missing: frozenset[str],
  min_count: int,
  max_vocabulary: int | None,
  num_buckets: int,
) -> tuple[dict[Any, tuple[str, ...]], dict[Any, int]]:
  """Returns vocabularies, and the buckets of columns that exceed them."""
  vocabularies, hashed = {}, {}
  for name, column in columns.items():
    values = vocabulary.fit(name, column, missing, min_count)
    if max_vocabulary is not None and len(values) > max_vocabulary:
      hashed[_tables_checks.column_name(name)] = int(num_buckets)
    else:
      vocabularies[_tables_checks.column_name(name)] = values
  return vocabularies, hashed


def booleans(
  columns: Mapping[str, Column], missing: frozenset[str]
) -> dict[Any, tuple[str, ...]]:
  """Returns vocabularies."""
  return {
    _tables_checks.column_name(name): vocabulary.fit_boolean(
      name, column, missing
    )
    for name, column in columns.items()
  }


def numbers(
  columns: Mapping[str, Column],
  missing: frozenset[str],
  log: Collection[str],
  num_bins: int,
  fill: bool,
) -> dict[Any, Numeric]:
  """Returns scalers."""
  return {
    _tables_checks.column_name(name): numeric.fit(
      name,
      numeric.read(name, column, missing),
      log=name in log,
      num_bins=num_bins,
      fill=fill,
    )
    for name, column in columns.items()
  }


def dates(
  columns: Mapping[str, tuple[Column, str]],
  missing: frozenset[str],
  num_bins: int,
  fill: bool,
) -> tuple[dict[Any, Date], dict[str, Numeric]]:
  """Returns dates, and the scalers of their parts."""
  fitted: dict[Any, Date] = {}
  scalers: dict[str, Numeric] = {}
  for name, (column, form) in columns.items():
    times = times_of.read(name, column, form, missing)
    if not fill:
      times_of.check_present(name, times)
    date = times_of.fit(name, times, form)
    fitted[_tables_checks.column_name(name)] = date
    for part in date.parts:
      scaler = numeric.fit(
        name,
        date.number(times, part),
        log=False,
        num_bins=num_bins,
        fill=fill,
      )
      # One flag stands for all parts of a date.
      scaler = dataclasses.replace(scaler, flag=False)
      _tables_checks.join(scalers, {f'{name}.{part}': scaler})
  return fitted, scalers
