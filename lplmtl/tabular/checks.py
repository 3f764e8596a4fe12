"""Checks of tables and schemas, each with one clear line."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from lplmtl import columns as raw
from lplmtl.columns import Column


def columns_of(frame: Any) -> dict[Any, Column]:
  """Returns the columns of a DataFrame or a mapping, by name.

  Raises:
    ValueError: it is neither, a name occurs twice, or lengths differ.
  """
  if hasattr(frame, 'columns') and hasattr(frame, 'iloc'):
    names = list(frame.columns)
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
      raise ValueError(
        f'column names must differ, found {twice} more than once: rename or '
        'drop the copies'
      )
    return {name: frame[name] for name in names}
  if not isinstance(frame, Mapping):
    raise ValueError(
      'a table must be a DataFrame or a dict from names to columns, found '
      f'{type(frame).__name__}'
    )
  return dict(frame)


def num_rows(columns: Mapping[Any, Column]) -> int:
  """Returns the number of rows that all columns have.

  Raises:
    ValueError: there is no column, or their lengths differ.
  """
  return raw.common_length(
    column.codes if isinstance(column, raw.Factor) else column
    for column in columns.values()
  )


def nearest(name: Any, names: Collection[Any]) -> str:
  """Returns a hint such as "; did you mean 'churn'?", or ''."""
  texts = [str(one) for one in names]
  near = difflib.get_close_matches(str(name), texts, n=3)
  return f'; did you mean {" or ".join(map(repr, near))}?' if near else ''


def check_known(what: str, names: Collection[Any], known: Any) -> None:
  """Raises ValueError if one of `names` is not the name of a column."""
  for name in names:
    if name not in known:
      raise ValueError(
        f'{what} names {name!r}, which is not a column'
        f'{nearest(name, known) or f": the columns are {list(known)}"}'
      )
