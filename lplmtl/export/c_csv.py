"""A reader of CSV lines in C99, for rows of `c99` and of `c_packed`.

In files of its own: a device that gets its rows from sensors does without.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from lplmtl.export import (
  c_csv_helpers,
  c_files,
  c_packed_rows,
  c_rows,
  c_text,
  rows,
)
from lplmtl.export.c_rows import Field
from lplmtl.storage import files
from lplmtl.tables import Tables


def write(
  folder: pathlib.Path,
  tables: Tables,
  line: Sequence[Any] | None = None,
  *,
  name: str = 'model',
  is_packed: bool = False,
) -> list[pathlib.Path]:
  """Writes `name_csv.h` and `name_csv.c`, with the function `name_read`.

  Args:
    folder: that of `name.h`.
    tables: those that the model was trained with.
    line: the names of all columns of a line, in order; None for those of the
      tables.
    name: of the files, and the beginning of all public names.
    is_packed: whether `name.h` is that of `c_packed`.

  Returns:
    The files.

  Raises:
    ValueError: `line` lacks a column, or has one twice; or the tables cannot be
      exported.
    OSError: a file cannot be written.
  """
  c_files.check_name(name)
  names = list(tables.columns if line is None else line)
  wrong = [column for column in tables.columns if names.count(column) != 1]
  if wrong:
    raise ValueError(
      'line must name each column that the model reads once; of the columns '
      f'{names}, {wrong} are absent or repeated'
    )
  make = _packed if is_packed else _c99
  body = make(name, tables, names)
  helpers = c_csv_helpers.of(name, tables.missing, is_packed)
  used = ''.join(c_files.used(helpers, body))
  includes = [
    f'#include <{file}>\n'
    for file, word in (('math.h', 'NAN'), ('stddef.h', 'offsetof'))
    if word in used + body
  ]
  sources = {
    f'{name}_csv.h': _HEADER.format(
      name=name,
      upper=name.upper(),
      count=len(names),
      columns=_columns(tables, names),
    ),
    f'{name}_csv.c': (
      f'#include "{name}_csv.h"\n\n{"".join(includes)}{used}{body}'
    ),
  }
  for file, text in sources.items():
    files.write(folder / file, text.encode())
  return [folder / file for file in sources]


_HEADER = """#ifndef {upper}_CSV_H
#define {upper}_CSV_H

#include "{name}.h"

#ifdef __cplusplus
extern "C" {{
#endif

/* Reads a row from a line of {count} columns, which it cuts into texts: they
   must live as long as the row. Returns 0; or n if the n-th column, counted
   from 1, holds no number where one is expected, is missing, or is one too
   many. */
int {name}_read(char *line, {name}_row *row);

{columns}

#ifdef __cplusplus
}}
#endif

#endif
"""


def _columns(tables: Tables, names: Sequence[Any]) -> str:
  """Returns a comment with the columns of a line, by number."""
  skipped = set(names) - set(tables.columns)
  listed = [
    f'{i} {name!r}{" (skipped)" if name in skipped else ""}'
    for i, name in enumerate(names, 1)
  ]
  return c_files.comment(f'The columns of a line: {", ".join(listed)}.')


def _packed(name: str, tables: Tables, names: Sequence[Any]) -> str:
  """Returns `name_read`, with two bits for a column if all are in order."""
  for known in (tables.vocabularies, tables.numerics):
    if [column for column in names if column in known] != list(known):
      members = c_packed_rows.members(tables)
      fields = [
        Field(
          column, member, 'text' if kind == c_packed_rows.TEXT else 'number'
        )
        for (kind, column), member in members.items()
      ]
      return _read(name, len(names), _cases(fields, names))
  kinds = [
    (column in tables.vocabularies) + 2 * (column in tables.numerics)
    for column in names
  ]
  stored = [
    sum(kind << 2 * j for j, kind in enumerate(kinds[i : i + 4]))
    for i in range(0, len(kinds), 4)
  ]
  lines = ['kind = i % 4 ? kind >> 2 : kinds[i / 4];']
  if tables.vocabularies:
    lines.append('if (kind & 1) *texts++ = field;')
  if tables.numerics:
    lines.append('if (kind & 2 && read_number(field, numbers++)) return i + 1;')
  places = [*c_packed_rows.places(name, tables, const=''), '  int kind = 0;']
  return (
    '\n/* Two bits a column: 1 for a text, 2 for a number. */\n'
    + c_text.array('uint8_t', 'kinds', map(str, stored))
    + _read(name, len(names), lines, places)
  )


def _c99(name: str, tables: Tables, names: Sequence[Any]) -> str:
  fields = c_rows.fields(rows.to_data(tables))
  return _read(name, len(names), _cases(fields, names))


def _cases(fields: Sequence[Field], names: Sequence[Any]) -> list[str]:
  """Returns a `switch` of the columns that are members of a row."""
  lines = ['switch (i) {']
  for place, column in enumerate(names):
    mine = [field for field in fields if field.column == column]
    if mine:
      filled = [_FILL[field.kind].format(field.member) for field in mine]
      lines += [f'  case {place}:', *(f'    {one}' for one in filled)]
      lines.append('    break;')
  return [*lines, '}']


_FILL = {
  'text': 'row->{0} = field;',
  'date': 'row->{0} = field;',
  'integer': 'row->{0} = integer_of(field);',
  'number': 'if (read_number(field, &row->{0})) return i + 1;',
}


def _read(
  name: str, count: int, lines: Sequence[str], places: Sequence[str] = ()
) -> str:
  return '\n'.join(
    [
      '',
      f'int {name}_read(char *line, {name}_row *row) {{',
      *places,
      '  int i;',
      f'  for (i = 0; i < {count}; i++) {{',
      '    char *field;',
      '    if (!line) return i + 1;',
      '    line = cut(line, &field);',
      *(f'    {line}' for line in lines),
      '  }',
      f'  return line ? {count + 1} : 0;',
      '}',
      '',
    ]
  )
