"""The C99 code that reads the dates of a raw row.

Of formats, it reads what `lplmtl.tabular` finds by itself; of ISO 8601, what
most programs write.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl.export import c_numbers, c_text
from lplmtl.export.c_rows import Field
from lplmtl.export.reader import date_of

_DIRECTIVE = re.compile('%(.?)')
_KNOWN = 'YymdHIMSfpbB%'
# In the order in which the helper `find_parts` has them.
_PARTS = ('days', 'year', 'month', 'weekday', 'hour')


def check(dates: Sequence[Mapping[str, Any]]) -> None:
  """Raises ValueError if C cannot read the dates of a column.

  Args:
    dates: of `rows.to_data`.
  """
  for date in dates:
    if not set(_DIRECTIVE.findall(date['format'])) <= set(_KNOWN):
      known = ', '.join(f'%{letter}' for letter in _KNOWN)
      raise ValueError(
        f'C reads dates in ISO 8601 or a format of {known}; column '
        f'{date["name"]!r} has {date["format"]!r}: use the NumPy form, or '
        'train with dates in ISO 8601'
      )


def source(
  encoding: Mapping[str, Any],
  members: Mapping[tuple[Any, str], tuple[int, Field]],
) -> list[str]:
  """Returns the lines that put numbers and parts of dates into `numbers`.

  Args:
    encoding: from `rows.to_data`.
    members: `{(column, kind): (its place in the row, from 1, and the member)}`.
  """
  columns, dates = encoding['numbers'], encoding['dates']
  lines = [f'  double numbers[{len(columns)}];'] if columns else []
  lines += ['  double parts[5];'] if any('part' in c for c in columns) else []
  lines += ['  int64_t time;', '  int lost;']
  for i, column in enumerate(columns):
    if 'part' not in column:
      _, field = members[column['name'], 'number']
      lines.append(f'  numbers[{i}] = row->{field.member};')
      lost = c_numbers.lost_numbers(f'numbers[{i}]', encoding['missing'])
      lines += [f'  {line}' for line in lost]
  flag = sum(c['is_scaled'] + c['flag'] for c in columns)
  for date in dates:
    place, field = members[date['name'], 'date']
    lines += _read(date, place, field.member, encoding['missing'])
    lines += _parts(date, columns)
    if date['flag']:
      lines.append(f'  numeric[{flag}] = (float)lost;')
      flag += 1
  return lines


def _read(
  date: Mapping[str, Any], place: int, member: str, missing: Sequence[str]
) -> list[str]:
  """Returns the lines that read a date."""
  form = c_text.string(date['format'])
  call = f'read_date(row->{member}, {form}, &time)'
  if not date['format']:
    call = f'read_iso_date(row->{member}, &time)'
  lines = [f'  lost = {call};']
  for text in missing:
    time = date_of(text, date['format'])
    if time is not None:
      micros = np.datetime64(time, 'us').astype(np.int64)
      lines.append(f'  if (time == INT64_C({micros}) && !lost) lost = 1;')
  is_bad = 'lost' if date['is_required'] else 'lost < 0'
  return [*lines, f'  if ({is_bad}) return {place};']


def _parts(
  date: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Returns the lines that find the parts of a date."""
  mine = [
    f'  numbers[{i}] = parts[{_PARTS.index(column["part"])}];'
    for i, column in enumerate(columns)
    if column.get('date') == date['name']
  ]
  origin = np.datetime64(date['origin'], 'us').astype(np.int64)
  call = f'  find_parts(time, INT64_C({origin}), lost, parts);'
  return [call, *mine] if mine else []
