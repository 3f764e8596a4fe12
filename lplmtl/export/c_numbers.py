"""The C99 code that scales and bins the numbers of a raw row.

One loop over the columns; what differs between them is data.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl.export import c_text, c_vocabulary
from lplmtl.export.c_rows import Field
from lplmtl.export.reader import missing_numbers

_TWICE = 2  # edges lie midway between numbers, which often are whole ones
# What a column has, as bits.
_FLAG, _FILL, _LOG, _SCALED, _KNOTS, _EDGES, _STEPS = 1, 2, 4, 8, 16, 32, 64
_PARTS = ('knots', 'edges', 'steps')  # arrays of which a column has a part


def source(
  encoding: Mapping[str, Any],
  members: Sequence[tuple[int, Field]],
  prefix: str,
  is_small: bool,
) -> tuple[str, list[str]]:
  """Returns the constants of all numbers, and the lines that encode them.

  Args:
    encoding: from `rows.to_data`.
    members: the members of the numbers, or their dates, and their places in
      the row, from 1. Without dates, they are neighbours.
    prefix: of public names.
    is_small: whether bytes count more than time.
  """
  columns = encoding['numbers']
  if not columns:
    return '', []
  steps = [in_steps(c['edges']) if is_small else b'' for c in columns]
  kinds = [_kind(*pair) for pair in zip(columns, steps, strict=True)]
  edges = [
    () if some else column['edges']
    for column, some in zip(columns, steps, strict=True)
  ]
  arrays: dict[str, tuple[str, Sequence[Sequence[float]]]] = {
    'kinds': ('uint8_t', [kinds]),
    'fills': ('double', [[c['fill'] or 0.0] for c in columns]),
    'means': ('double', [[c['mean']] for c in columns]),
    'stds': ('double', [[c['std']] for c in columns]),
    'knots': ('double', [c['knots'] for c in columns]),
    'edges': (edge_type(encoding), edges),
    'steps': ('uint8_t', steps),
  }
  problem, field = members[0]
  place = f'{problem} + i'
  start = [
    '  const double *numbers = (const void *)((const char *)row +',
    f'      offsetof({prefix}_row, {field.member}));',
  ]
  if encoding['dates']:  # whose code makes the array
    start, place = [], 'problems[i]'
    arrays['problems'] = 'uint16_t', [[number for number, _ in members]]
  lines = [
    *_places(encoding, kinds),
    f'  for (i = 0; i < {len(kinds)}; i++) {{',
    '    double x = numbers[i];',
    *(f'    {line}' for line in _number(encoding, kinds, place)),
    '  }',
  ]
  found = ''.join(
    _array(name, *arrays[name])
    for name in arrays
    if re.search(rf'\b{name}\b', '\n'.join(lines))
  )
  return found, [*start, *lines]


def _array(name: str, kind: str, parts: Sequence[Sequence[float]]) -> str:
  """Returns the parts, one after the other, and where they begin."""
  dtype = {'float': 'float32', 'double': 'float64'}.get(kind, 'uint8')
  items = itertools.chain.from_iterable(parts)
  found = c_text.array(kind, name, (c_text.number(x, dtype) for x in items))
  if name in _PARTS:
    starts = [0, *itertools.accumulate(map(len, parts))]
    size = c_text.unsigned(starts[-1])
    found += c_text.array(size, f'{name}_at', map(str, starts))
  return found


def _kind(column: Mapping[str, Any], steps: bytes) -> int:
  """Returns what a column has, as bits."""
  has = {
    _FLAG: column['flag'],
    _FILL: column['fill'] is not None,
    _LOG: column['log'],
    _SCALED: column['is_scaled'],
    _KNOTS: column['knots'],
    _EDGES: column['edges'] and not steps,
    _STEPS: steps,
  }
  return sum(bit for bit, one in has.items() if one)


def in_steps(edges: Sequence[float]) -> bytes:
  """Returns the count and the differences of edges, in halves of one.

  Returns:
    Nothing if they are no such numbers, are many, or none.
  """
  scaled = np.asarray(edges) * _TWICE
  is_whole = (scaled == np.rint(scaled)) & (np.abs(scaled) < 2**31)
  if not is_whole.all() or not 0 < len(scaled) <= c_vocabulary.MOST:
    return b''
  differences = np.diff(scaled.astype(np.int64), prepend=0).tolist()
  return bytes([len(scaled)]) + c_vocabulary.steps(differences)


def _places(encoding: Mapping[str, Any], kinds: Sequence[int]) -> list[str]:
  """Returns the lines that say where each kind of result goes."""
  found, start = [], 0
  flags = sum(date['flag'] for date in encoding['dates'])
  for name, bit in (('number', _SCALED), ('flag', _FLAG), ('knot', _KNOTS)):
    count = sum(kind & bit > 0 for kind in kinds)
    if count:
      found.append(f'  float *{name} = numeric + {start};')
    start += count + flags * (name == 'flag')
  if any(kind & (_EDGES | _STEPS) for kind in kinds):
    found.append(
      f'  int32_t *bin = categories + {len(encoding["categories"])};'
    )
  return found


def _number(
  encoding: Mapping[str, Any], kinds: Sequence[int], place: str
) -> list[str]:
  """Returns the lines that encode a number."""
  furthest = c_text.number(encoding['furthest'], 'float64')
  lines = []
  if not encoding['dates']:  # whose parts may be such numbers
    lines += lost_numbers('x', encoding['missing'])
  lines += _if(kinds, _FLAG, ['*flag++ = x != x;'])
  lines += _if(kinds, _FILL, ['if (x != x) x = fills[i];'])
  # Missing and infinite numbers fail both tests.
  if not all(kind & _SCALED for kind in kinds):
    lines.append(f'if (!(x - x == 0)) return {place};')
  if any(kind & _SCALED for kind in kinds):
    log = _if(kinds, _LOG, ['scaled = x < 0 ? -log1p(-x) : log1p(x);'])
    lines += [
      'double scaled = x;',
      *log,
      'scaled = (scaled - means[i]) / stds[i];',
      *_if(
        kinds,
        _SCALED,
        [
          f'if (!(fabs(scaled) <= {furthest})) return {place};',
          '*number++ = (float)scaled;',
        ],
      ),
    ]
  part = '{0} + {0}_at[i], {0}_at[i + 1] - {0}_at[i]'
  knot = f'*knot++ = (float)place_among(scaled, {part.format("knots")});'
  edge = f'*bin++ = count_below(x, {part.format("edges")});'
  step = f'*bin++ = count_steps({_TWICE} * x, steps + steps_at[i]);'
  for bit, line in ((_KNOTS, knot), (_EDGES, edge), (_STEPS, step)):
    lines += _if(kinds, bit, [line])
  return lines


def lost_numbers(x: str, missing: Sequence[str]) -> list[str]:
  """Returns the lines by which numbers that stand for a missing one are NAN.

  Args:
    x: the expression of the number.
    missing: texts that stand for a missing value.
  """
  return [
    f'if ({x} == {c_text.number(value, "float64")}) {x} = NAN;'
    for value in sorted(missing_numbers(missing))
  ]


def _if(kinds: Sequence[int], bit: int, lines: list[str]) -> list[str]:
  """Returns lines for the columns of a kind; none if there is none."""
  if all(kind & bit for kind in kinds):
    return lines
  if not any(kind & bit for kind in kinds):
    return []
  if len(lines) == 1:
    return [f'if (kinds[i] & {bit}) {lines[0]}']
  return [f'if (kinds[i] & {bit}) {{', *(f'  {x}' for x in lines), '}']


def edge_type(encoding: Mapping[str, Any]) -> str:
  """Returns the type of all edges: half the bytes if that changes none."""
  columns = encoding['numbers']
  edges = np.concatenate([[0.0], *(c['edges'] for c in columns)])
  with np.errstate(over='ignore'):
    is_exact = (edges == edges.astype(np.float32)).all()
  # A helper counts edges and knots.
  is_alone = not any(c['knots'] for c in columns)
  return 'float' if is_exact and is_alone else 'double'
