"""Raw rows as a struct, and the C99 code that encodes one."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl.export import c_helpers, c_text
from lplmtl.export.nodes import Node
from lplmtl.export.reader import canonical, missing_numbers, number_of

MISSING = -(2**31)  # a missing whole number
_WHOLE = re.compile(r'0|-?[1-9]\d{0,8}')


class Field(NamedTuple):
  """A member of the struct.

  Attributes:
    column: name of the raw column.
    member: its identifier.
    kind: `text`, `integer` (categories that are all whole numbers) or `number`.
    missing: texts that stand for a missing value.
  """

  column: Any
  member: str
  kind: str
  missing: tuple[str, ...] = ()

  @property
  def declaration(self) -> str:
    """Declares the member."""
    types = {'text': 'const char *', 'integer': 'int32_t ', 'number': 'double '}
    return f'{types[self.kind]}{self.member};'

  @property
  def note(self) -> str:
    """What the member is."""
    return repr(self.column)

  def literal(self, value: Any) -> str:
    """Returns a raw value as an initialiser."""
    if self.kind == 'text':
      return '0' if value is None else c_text.string(str(value))
    if self.kind == 'number':
      return c_text.number(number_of(value, self.missing), 'float64')
    text = canonical(str(value))
    is_missing = text == 'nan' or text in self.missing
    if not is_missing and not _WHOLE.fullmatch(text):
      raise ValueError(
        f'column {self.column!r} holds whole numbers on a device, of at most '
        f'nine digits; found {text!r}'
      )
    return 'MISSING' if is_missing else text


class Array(NamedTuple):
  """A member of the struct of a model without tables: an input.

  Attributes:
    column: name of the input; empty if it is the only one.
    member: its identifier.
    shape: for one row, without an axis of rows.
    dtype: as in `c_text.TYPES`.
  """

  column: str
  member: str
  shape: tuple[int, ...]
  dtype: str

  @property
  def declaration(self) -> str:
    """Declares the member."""
    size = max(math.prod(self.shape), 1)  # C has no empty arrays
    return f'{c_text.TYPES[self.dtype]} {self.member}[{size}];'

  @property
  def note(self) -> str:
    """What the member is."""
    return f'{list(self.shape)}'

  def literal(self, value: Any) -> str:
    """Returns the array of a row as an initialiser."""
    numbers = (c_text.number(x, self.dtype) for x in np.ravel(value))
    return f'{{{", ".join(numbers) or "0"}}}'


def arrays(inputs: Mapping[str, Node]) -> list[Array]:
  """Returns the members of a row of arrays.

  Args:
    inputs: of a program.
  """
  members = c_text.identifiers(name or 'x' for name in inputs)
  return [
    Array(name, members[name or 'x'], x.shape[1:], x.dtype)
    for name, x in inputs.items()
  ]


def fields(encoding: Mapping[str, Any]) -> list[Field]:
  """Returns the members of a row, categories first.

  Args:
    encoding: from `rows.to_data`.
  """
  missing = tuple(encoding['missing'])
  kinds = {c['name']: _kind(c, missing) for c in encoding['categories']}
  kinds |= {c['name']: 'text' for c in encoding['hashed']}
  numbers = {c['name'] for c in encoding['numbers']}
  # A column may be both.
  labels = [
    (name, f'{name}_category' if name in numbers else name) for name in kinds
  ]
  members = c_text.identifiers(
    [*(label for _, label in labels), *(c['name'] for c in encoding['numbers'])]
  )
  found = [
    Field(name, members[label], kinds[name], missing) for name, label in labels
  ]
  return found + [
    Field(c['name'], members[c['name']], 'number', missing)
    for c in encoding['numbers']
  ]


def _kind(category: Mapping[str, Any], missing: tuple[str, ...]) -> str:
  texts = [t for t in category['ids'] if t != 'nan' and t not in missing]
  is_whole = texts and all(_WHOLE.fullmatch(text) for text in texts)
  return 'integer' if is_whole else 'text'


def encoder(encoding: Mapping[str, Any], prefix: str) -> tuple[str, str]:
  """Returns the constants, and the function `encode`.

  Args:
    encoding: from `rows.to_data`.
    prefix: of public names.
  """
  constants, body = [], []
  every = fields(encoding)
  members = {
    (f.column, f.kind == 'number'): (i, f) for i, f in enumerate(every)
  }
  for place, category in enumerate(encoding['categories']):
    _, field = members[category['name'], False]
    some, line = _category(category, field, place, _id_type(encoding))
    constants.append(some)
    body.append(line)
  for place, column in enumerate(encoding['hashed']):
    _, field = members[column['name'], False]
    size = column['size']
    body.append(
      f'  buckets(row->{field.member}, {size}, hashed + {2 * place});'
    )
  places = _places(encoding)
  for i, column in enumerate(encoding['numbers']):
    number, field = members[column['name'], True]
    some, lines = _number(column, field, number + 1, places[i], encoding)
    constants.append(some)
    body += lines
  arguments = ['int32_t *categories', 'float *numeric']
  if encoding['hashed']:
    arguments.append('int32_t *hashed')
  unused = [
    f'  (void){name};'
    for name in ('row', 'categories', 'numeric')
    if not any(name in line for line in body)
  ]
  locals_ = [
    f'  double {name};'
    for name in ('x', 'scaled')
    if any(re.search(rf'\b{name} = ', line) for line in body)
  ]
  head = (
    f'static int encode(const {prefix}_row *row, {", ".join(arguments)}) {{'
  )
  lines = [head, *locals_, *unused, *body, '  return 0;', '}']
  source = '\n'.join(lines) + '\n'
  return '\n'.join(filter(None, constants)), source


def _places(encoding: Mapping[str, Any]) -> list[dict[str, int]]:
  """Returns where each number goes, in the order of `rows.to_data`."""
  numbers = encoding['numbers']
  counts = {
    'scaled': 0,
    'flag': sum(c['is_scaled'] for c in numbers),
    'knots': sum(c['is_scaled'] + c['flag'] for c in numbers),
    'edges': len(encoding['categories']),
  }
  found = []
  for column in numbers:
    has = {**column, 'scaled': column['is_scaled']}
    found.append({name: counts[name] for name in counts if has[name]})
    for name in found[-1]:
      counts[name] += 1
  return found


def _id_type(encoding: Mapping[str, Any]) -> str:
  """Returns the type of all ids."""
  ids = [max(c['ids'].values(), default=0) for c in encoding['categories']]
  return 'uint16_t' if max(ids, default=0) < 2**16 else 'int32_t'


def _category(
  category: Mapping[str, Any], field: Field, place: int, id_type: str
) -> tuple[str, str]:
  pairs = [(t, i) for t, i in category['ids'].items() if '\0' not in t]
  unseen = category['unseen']
  if field.kind == 'integer':
    missing = [(MISSING, i) for text, i in pairs if text == 'nan']
    whole = missing + sorted(
      (int(text), i) for text, i in pairs if _WHOLE.fullmatch(text)
    )
    keys = [_literal(value) for value, _ in whole]
    kind, ids = 'int32_t', [i for _, i in whole]
  else:
    pairs.sort()  # in the order of their bytes, too: UTF-8 keeps it
    keys = [c_text.string(text) for text, _ in pairs]
    kind, ids = 'char *const', [i for _, i in pairs]
  if not keys:
    return '', f'  categories[{place}] = {unseen};'
  names = f'known_{place}', f'ids_{place}'
  source = c_text.array(kind, names[0], keys)
  is_counted = ids == list(range(1, len(ids) + 1))
  if not is_counted:
    source += c_text.array(id_type, names[1], map(str, ids))
  table = names[1] if not is_counted else '0'
  look_up = f'id_of_{field.kind}(row->{field.member}, {names[0]}, {table}'
  return source, (f'  categories[{place}] = {look_up}, {len(keys)}, {unseen});')


def _literal(value: int) -> str:
  return 'MISSING' if value == MISSING else str(value)


def _number(
  column: Mapping[str, Any],
  field: Field,
  problem: int,
  places: Mapping[str, int],
  encoding: Mapping[str, Any],
) -> tuple[str, list[str]]:
  """Returns the constants of a number, and the lines that encode it."""
  constants, lines = '', [f'  x = row->{field.member};']
  for value in sorted(missing_numbers(encoding['missing'])):
    lines.append(f'  if (x == {c_text.number(value, "float64")}) x = NAN;')
  if 'flag' in places:
    lines.append(f'  numeric[{places["flag"]}] = x != x;')
  if column['fill'] is not None:
    fill = c_text.number(column['fill'], 'float64')
    lines.append(f'  if (x != x) x = {fill};')
  scaled = '(x < 0 ? -log1p(-x) : log1p(x))' if column['log'] else 'x'
  mean, std = (c_text.number(column[n], 'float64') for n in ('mean', 'std'))
  # Missing and infinite numbers fail both tests.
  if 'scaled' in places:
    furthest = c_text.number(encoding['furthest'], 'float64')
    lines += [
      f'  scaled = ({scaled} - {mean}) / {std};',
      f'  if (!(fabs(scaled) <= {furthest})) return {problem};',
      f'  numeric[{places["scaled"]}] = (float)scaled;',
    ]
  else:
    lines.append(f'  if (!(x - x == 0)) return {problem};')
  if 'knots' in places:
    name, count = f'knots_{problem}', len(column['knots'])
    constants += _numbers('double', name, column['knots'])
    place = f'place_among(scaled, {name}, {count})'
    lines.append(f'  numeric[{places["knots"]}] = (float){place};')
  if 'edges' in places:
    name, count = f'edges_{problem}', len(column['edges'])
    constants += _numbers(_edge_type(encoding), name, column['edges'])
    above = f'count_below(x, {name}, {count})'
    lines.append(f'  categories[{places["edges"]}] = {above};')
  return constants, lines


def _edge_type(encoding: Mapping[str, Any]) -> str:
  """Returns the type of all edges: half the bytes if that changes none."""
  columns = encoding['numbers']
  edges = np.concatenate([[0.0], *(c['edges'] for c in columns)])
  with np.errstate(over='ignore'):
    is_exact = (edges == edges.astype(np.float32)).all()
  # A helper counts edges and knots.
  is_alone = not any(c['knots'] for c in columns)
  return 'float' if is_exact and is_alone else 'double'


def _numbers(kind: str, name: str, values: Sequence[float]) -> str:
  dtype = 'float32' if kind == 'float' else 'float64'
  items = [c_text.number(value, dtype) for value in np.asarray(values)]
  return c_text.array(kind, name, items)


def helpers(encoding: Mapping[str, Any]) -> dict[str, str]:
  """Returns the helpers, some of which depend on the encoding."""
  lines = [
    f'  if (bytes_from(text, n, {c_text.string(text)}) == 0) '
    'text = "nan", n = 3;'
    for text in sorted(encoding['missing'])
  ]
  kinds = {'ID_TYPE': _id_type(encoding), 'EDGE_TYPE': _edge_type(encoding)}
  found = {
    name: re.sub('|'.join(kinds), lambda match: kinds[match[0]], text)
    for name, text in c_helpers.ROWS.items()
  }
  found['buckets'] = found['buckets'].replace(
    '  IS_MISSING\n', ''.join(f'{line}\n' for line in lines)
  )
  return found
