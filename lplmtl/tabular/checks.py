"""Checks of tables and schemas, each with one clear line.

NumPy only.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl import _tables_checks
from lplmtl import columns as raw
from lplmtl.columns import Column
from lplmtl.tabular import facts, hints, kinds
from lplmtl.tabular.facts import Facts
from lplmtl.tabular.schema import (
  USED,
  Schema,
  check_is_schema,
  label_columns,
  output_columns,
)
from lplmtl.vocabulary import BOOLEANS

# A larger share of the rows is no slip, but a column of another kind.
_FEW = 0.1


def columns_of(frame: Any) -> dict[Any, Column]:
  """Returns the columns of a DataFrame or a mapping, by name.

  Raises:
    ValueError: it is neither, a name occurs twice or is neither a text nor a
      whole number, or lengths differ.
  """
  if isinstance(frame, facts.Seen):
    return frame
  if hasattr(frame, 'columns') and hasattr(frame, 'iloc'):
    names = [_tables_checks.column_name(name) for name in frame.columns]
    if len(set(names)) < len(names):
      twice = sorted({str(name) for name in names if names.count(name) > 1})
      raise ValueError(
        'the names of columns must differ, found more than one '
        f'{hints.listed(twice)}: rename them or drop the copies'
      )
  elif isinstance(frame, Mapping):
    names = [_tables_checks.column_name(name) for name in frame]
  else:
    raise ValueError(
      'a table must be a DataFrame or a dict of columns, found '
      f'{type(frame).__name__}'
    )
  columns: dict[Any, Column] = {name: frame[name] for name in names}
  lengths = {name: _length(name, column) for name, column in columns.items()}
  if len({*lengths.values()}) > 1:
    first, *others = lengths.items()
    other = next(pair for pair in others if pair[1] != first[1])
    raise ValueError(
      f'all columns must have as many rows, found {first[1]} in column '
      f'{first[0]!r} and {other[1]} in {other[0]!r}'
    )
  return columns


def num_rows(columns: Mapping[Any, Column]) -> int:
  """Returns the number of rows of the columns that `columns_of` returned."""
  return max(
    (_length(name, column) for name, column in columns.items()), default=0
  )


def check_filled(columns: Mapping[Any, Column]) -> None:
  """Raises ValueError if a table has no columns or no rows."""
  if not columns:
    raise ValueError('expected a table, found one without columns')
  if not num_rows(columns):
    raise ValueError(
      f'expected a table with rows, found none below the {len(columns)} names '
      'of columns'
    )


def check_known(
  what: str,
  names: Collection[Any],
  known: Collection[Any],
  kind: str = 'column',
) -> None:
  """Raises ValueError if one of `names` is not known."""
  for name in names:
    if name not in known:
      raise ValueError(
        f'{what}: there is no {kind} {name!r}{hints.nearest(name, known)}'
      )


def check_numbers(found: Facts, what: str = '') -> None:
  """Raises ValueError unless all values of a column are numbers."""
  if found.numbers is not None:
    return
  what = what or f'column {found.name!r}'
  if found.nature != 'text':
    raise ValueError(f'{what} must hold numbers, found {found.values.dtype}')
  bad = [not facts.is_number(text) for text in found.values]
  other = 'a category'
  if what.startswith('target'):
    other = 'binary' if len(found.values) == 2 else 'multiclass'
  cure = kinds.written_numbers(found)
  cure = f'; {cure}' if cure else _cure(found, bad, other)
  i = bad.index(True)
  raise ValueError(
    f'{what} must hold numbers, found {kinds.show(found, i)} in '
    f'{found.counts[i]} of {found.num_rows} rows{cure}'
  )


def check_booleans(found: Facts) -> None:
  """Raises ValueError unless all values of a column are true or false."""
  bad = [found.text(i) not in BOOLEANS for i in range(len(found.values))]
  if any(bad):
    i = bad.index(True)
    raise ValueError(
      f'column {found.name!r} must hold true or false, yes or no, 1 or 0, '
      f'found {kinds.show(found, i)} in {found.counts[i]} of {found.num_rows} '
      f'rows{_cure(found, bad, "a category")}'
    )


def _cure(found: Facts, bad: Sequence[bool], other: str) -> str:
  """Returns what to do about values that are not of a column's kind."""
  rows = int(found.counts[np.asarray(bad)].sum())
  if rows <= _FEW * found.num_known:
    return ': name it in missing if it stands for a missing value'
  return f', and the like in {rows} rows altogether: make it {other}'


def check_schema(schema: Schema, columns: Mapping[Any, Column]) -> None:
  """Checks that a schema, perhaps edited, fits the training rows.

  Raises:
    ValueError: a column is absent, a target or a weight is an input, a class
      occurs twice, or nothing is left to learn from.
  """
  check_is_schema(schema)
  check_filled(columns)
  check_columns(schema, columns)
  if not schema.targets:
    raise ValueError('expected at least one target, found none')
  for name, target in schema.targets.items():
    names = label_columns(name, target)
    check_known(f'target {name!r}', names, columns)
    if len(names) > 1 and target.kind != 'multilabel':
      raise ValueError(
        f'{target.kind} target {name!r} has one column, found {list(names)}'
      )
    texts = [raw.canonical(str(value)) for value in target.classes]
    if len({*texts}) < len(texts):
      raise ValueError(
        f'the classes of target {name!r} must differ, found '
        f'{list(target.classes)}'
      )
  for role in ('weight', 'split', 'time', 'group'):
    column = getattr(schema, role)
    if column != '':
      check_known(role, (column,), columns)
  check_known('task_weights', schema.task_weights.values(), columns)
  check_known('task_weights', schema.task_weights, schema.targets, 'target')
  if not schema.inputs:
    raise ValueError(
      'the inputs of the schema are empty: list the columns to predict from, '
      '{"name": {"kind": ...}, ...}'
    )
  check_inputs(schema)


def check_inputs(schema: Schema) -> None:
  """Raises ValueError if there is no input, or a target is one."""
  used = [name for name, one in schema.inputs.items() if one.kind in USED]
  for name, target in schema.targets.items():
    for column in label_columns(name, target):
      if column in used:
        raise ValueError(
          f'column {column!r} is target {name!r} and cannot be an input as '
          'well: remove it from the inputs'
        )
  if not used:
    raise ValueError(
      'no column is left to predict from; left out are '
      f'{hints.listed(list(schema.inputs)) or "none"}'
    )


def check_columns(schema: Schema, columns: Mapping[Any, Column]) -> None:
  """Raises ValueError if a table lacks a column that the schema reads."""
  absent = [
    name
    for name, one in schema.inputs.items()
    if one.kind in USED and name not in columns
  ]
  if absent:
    others = [name for name in columns if name not in schema.inputs]
    # Of a table of thousands of columns, the first few tell.
    found = (hints.nearest(name, others) for name in absent[:12])
    near = next((f'{one} Else' for one in found if 'did you' in one), ':')
    them = 'them' if len(absent) > 1 else 'it'
    raise ValueError(
      f'the table lacks the column{"s" * (len(absent) > 1)} '
      f'{hints.listed(absent)}{near} add {them}, or train without {them} '
      f'(ignore); found {hints.listed(list(columns)) or "no column"}'
    )


def check_outputs(schema: Schema) -> None:
  """Raises ValueError if two predictions would have the same name."""
  owners: dict[str, str] = {}
  for name, target in schema.targets.items():
    for column in output_columns(name, target):
      if column in owners:
        raise ValueError(
          f'the predictions of {owners[column]!r} and {name!r} would both have '
          f'a column {column!r}: give one of the targets another name, as in '
          f"{{'other': Target('{target.kind}', columns=('{name}',))}}"
        )
      owners[column] = name


def _length(name: Any, column: Column) -> int:
  values = column.codes if isinstance(column, raw.Factor) else column
  is_list = hasattr(values, '__len__') and hasattr(values, '__getitem__')
  if isinstance(values, str | bytes | Mapping) or not is_list:
    raise ValueError(
      f'column {name!r} must be a list or an array, found '
      f'{type(values).__name__}; for a single row, write a list of one value'
    )
  return len(values)
