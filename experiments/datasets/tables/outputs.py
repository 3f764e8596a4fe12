"""What a run on a table prints and writes for people: schema, predictions."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich import table as rich_table
from rich.text import Text

from experiments.datasets.tables import dialect, mistakes, reader
from experiments.launcher import display, quality, run_folder
from experiments.launcher.options import Config
from lplmtl import columns as raw
from lplmtl import tabular
from lplmtl.columns import Column, Factor
from lplmtl.tabular import schema as schemas

_SHOWN = 24  # characters of an example
ROW = 'row'  # the column of row numbers, where no column names the rows


def describe(
  schema: tabular.Schema, columns: Mapping[Any, Column], file: str = '',
  drawn_from: int = 0,
) -> list[rich_table.Table]:  # fmt: skip
  """Returns tables of what each column is, and of the classes.

  Args:
    schema: of the table.
    columns: its training rows.
    file: that of --schema, or ''.
    drawn_from: how many training rows there are, if `columns` holds rows drawn
      from them; 0 if it holds all.
  """
  what = 'the training rows'
  if drawn_from:
    what = f'{reader.num_rows(columns):,} of {drawn_from:,} training rows'
  rows = [
    (
      str(row['column']),
      str(row['kind']),
      f'{row["missing"]:.1%}' if row['missing'] else '',
      _distinct(row, bool(drawn_from)),
      _short(str(row['example'])),
      mistakes.in_flags(str(row['note']), file),
    )
    for row in tabular.describe(schema, columns)
  ]
  balance = tabular.class_balance(schema, columns)
  classified = list(dict.fromkeys(row['target'] for row in balance))
  left_out = set(classified[quality.MOST_TASKS :])
  classes = [
    (
      str(row['target']),
      _class(schema, row),
      f'{row["rows"]:,}',
      f'{row["share"]:.1%}',
    )
    for row in balance
    if row['target'] not in left_out
  ]
  has_positive = any(
    target.positive is not None for target in schema.targets.values()
  )
  shown = [
    display.TextTable(
      f'Columns, as {what} show them',
      ('column', 'kind', 'missing', 'distinct', 'example', 'note'),
      rows,
      left=('column', 'kind', 'example', 'note'),
    )
  ]
  if classes:
    shown.append(
      display.TextTable(
        f'Classes in {what}'
        + ('; a probability is that of (positive)' if has_positive else ''),
        ('target', 'class', 'rows', 'share'),
        classes,
        left=('target', 'class'),
      )
    )
  tables = [table.to_rich() for table in shown]
  if left_out:
    more = f'{len(left_out)} more target{"s" * (len(left_out) > 1)}'
    tables[-1].caption = Text(
      f'the classes of {more} are in {run_folder.SCHEMA}'
    )
  return tables


def _distinct(row: Mapping[str, Any], is_drawn: bool) -> str:
  """Returns how many values there are, or at least are, in all rows."""
  return f'{">= " if is_drawn or row["sampled"] else ""}{row["distinct"]:,}'


def _class(schema: tabular.Schema, row: Mapping[str, Any]) -> str:
  """Returns a class, marked if it is the one whose probability is predicted."""
  is_positive = row['class'] == schema.targets[row['target']].positive
  return f'{row["class"]}{" (positive)" if is_positive else ""}'


def _short(text: str) -> str:
  line = ' '.join(text.split())
  return line if len(line) <= _SHOWN else f'{line[: _SHOWN - 3]}...'


def beside_truth(predictor: tabular.Predictor, part: Any, index: str) -> bytes:
  """Returns the text of a CSV file: each row's truth beside its prediction.

  Args:
    predictor: the model.
    part: a `splits.Part`, the rows.
    index: the column that names a row; '' for its number.
  """
  predicted = predictor.predict(part.columns)
  shown: dict[str, Any] = row_names(part.columns, part.rows, index)
  for name, target in predictor.schema.targets.items():
    for column in schemas.label_columns(name, target):
      truth = f'{column}{run_folder.TRUTH}'
      shown[truth] = texts(part.columns[column])
    for column in schemas.output_columns(name, target):
      shown[column] = predicted[column]
  return b''.join(csv_of([shown]))


def row_names(
  columns: Mapping[Any, Column], rows: np.ndarray, index: str
) -> dict[str, Any]:
  """Returns the column that names rows, or their numbers, counted from 0."""
  return {index: texts(columns[index])} if index else {ROW: rows}


def texts(column: Column) -> list[str]:
  """Returns a column's values as the file has them; missing ones are empty."""
  if isinstance(column, Factor):
    values = [raw.text_of(value) for value in column.values]
    return [values[code] for code in column.codes.tolist()]
  return [
    '' if np.isnan(x) else raw.canonical(repr(x)) for x in column.tolist()
  ]


class Written(NamedTuple):
  """How a CSV file of predictions is written; see `written`."""

  separator: str = ','
  point: str = '.'


_PLAIN = Written()


def written(config: Config) -> Written:
  """Returns what --separator and --decimal say: they hold for both files.

  With a decimal comma alone, semicolons separate.
  """
  point = config.decimal or '.'
  separator = dialect.separator_of(config)
  return Written(separator or (';' if point == ',' else ','), point)


def csv_of(
  blocks: Iterable[Mapping[str, Any]], style: Written = _PLAIN
) -> Iterator[bytes]:
  """Returns the text of a CSV file, with a header, block by block."""
  for i, columns in enumerate(blocks):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=style.separator, lineterminator='\n')
    if not i:
      writer.writerow(columns)
    cells = [_cells(column, style.point) for column in columns.values()]
    writer.writerows(zip(*cells, strict=True))
    yield out.getvalue().encode()


def _cells(column: Any, point: str) -> Sequence[Any]:
  """Returns texts of a column; nine digits tell all float32 numbers apart."""
  if getattr(column, 'dtype', np.dtype(object)).kind == 'f':
    texts = ['' if np.isnan(x) else f'{x:.9g}' for x in column.tolist()]
    return [text.replace('.', point) for text in texts]
  return column.tolist() if hasattr(column, 'tolist') else column
