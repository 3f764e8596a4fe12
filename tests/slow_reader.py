"""A slow, obvious reader of Census-Income rows, with which the fast one is compared."""

import math

from experiments.datasets.census import columns, reader


def read(content):
  """Returns rows as `{column: value}`, and a bad line's number and complaint."""
  rows = []
  lines = content.split(b'\n')
  if lines[-1] == b'':
    lines.pop()
    while lines and lines[-1] in (b'', b'\r'):  # empty lines at the end
      lines.pop()
  for number, line in enumerate(lines, 1):
    if len(line) > reader.MAX_LINE:
      return rows, number, f'expected at most {reader.MAX_LINE} bytes'
    if line.endswith(b'\r') and number <= content.count(b'\n'):
      line = line[:-1]
    if any(not 0x20 <= byte <= 0x7E for byte in line):
      return rows, number, 'expected printable ASCII'
    fields = line.decode('ascii').split(',')
    if len(fields) != 42:
      return rows, number, 'expected 42 fields'
    row = {}
    for column, field in zip(columns.COLUMNS, fields, strict=True):
      value = field.lstrip(' ')
      if column == 'instance_weight':
        continue
      if column in columns.NUMERIC:
        value = _number(value)
        if value is None:
          return rows, number, f'expected a finite number in {column}'
      allowed = columns.LABEL_VALUES.get(column)
      if allowed and value not in allowed:
        return rows, number, f'in {column}'
      row[column] = value
    rows.append(row)
  if not rows:
    return rows, 1, 'empty'
  return rows, 0, ''


def _number(text):
  digits = text[1:] if text[:1] in ('+', '-') else text
  mantissa, mark, exponent = digits.replace('E', 'e').partition('e')
  whole, _, part = mantissa.partition('.')
  if not (whole + part) or not (whole + part).isdecimal():
    return None
  if mark and not exponent.removeprefix('-').removeprefix('+').isdecimal():
    return None
  if exponent.startswith(('+-', '-+')):
    return None
  value = float(text)
  return value if math.isfinite(value) else None
