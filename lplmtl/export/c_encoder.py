"""The C99 code that encodes a raw row."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lplmtl.export import (
  c_date_helpers,
  c_dates,
  c_helpers,
  c_numbers,
  c_rows,
  c_text,
  c_vocabulary,
)
from lplmtl.export.c_rows import MISSING, WHOLE, Field
from lplmtl.export.reader import canonical


class Code(NamedTuple):
  """C source text.

  Attributes:
    constants: that the function reads.
    function: `encode`.
    helpers: functions that it may call, `{name: text}`; later ones call
      earlier ones.
  """

  constants: str
  function: str
  helpers: dict[str, str]


class _Column(NamedTuple):
  """A column of categories.

  Attributes:
    place: among the categories.
    field: the member of the row.
    entries: `(text or whole number, id)`.
    unseen: the id of all others.
  """

  place: int
  field: Field
  entries: Sequence[tuple[bytes | int, int]]
  unseen: int

  @property
  def is_counted(self) -> bool:
    """Whether ids are 1, 2, ... in order."""
    ids = [i for _, i in self.entries]
    return ids == list(range(1, len(ids) + 1))


def encoder(
  encoding: Mapping[str, Any], prefix: str, *, is_small: bool = False
) -> Code:
  """Returns the function `encode`, and what it needs.

  Args:
    encoding: from `rows.to_data`.
    prefix: of public names.
    is_small: whether bytes count more than time.
  """
  c_dates.check(encoding['dates'])
  kinds = {'text': 'category', 'integer': 'category'}
  members = {
    (f.column, kinds.get(f.kind, f.kind)): (i, f)
    for i, f in enumerate(c_rows.fields(encoding), 1)
  }
  columns = list(_columns(encoding, members))
  in_lists = [one for one in columns if is_small and _fits(one)]
  lists = c_vocabulary.pack([one.entries for one in in_lists])
  constants: list[str] = []
  body: list[str] = []
  if in_lists:
    some, body = _looked_up(in_lists, lists, prefix)
    constants.append(some)
  for one in columns:
    if one not in in_lists:
      some, line = _searched(one, _id_type(encoding))
      constants.append(some)
      body.append(line)
  for place, column in enumerate(encoding['hashed']):
    _, field = members[column['name'], 'category']
    size = column['size']
    body.append(
      f'  buckets(row->{field.member}, {size}, hashed + {2 * place});'
    )
  if encoding['dates']:
    body += c_dates.source(encoding, members)
  numbers = [
    members[c['date'], 'date'] if 'part' in c else members[c['name'], 'number']
    for c in encoding['numbers']
  ]
  some, lines = c_numbers.source(encoding, numbers, prefix, is_small)
  constants.append(some)
  body += lines
  return Code(
    '\n'.join(filter(None, constants)),
    _function(encoding, prefix, body),
    helpers(encoding)
    | c_vocabulary.helpers(lists)
    | c_date_helpers.of(encoding['missing']),
  )


def _columns(
  encoding: Mapping[str, Any], members: Mapping[Any, tuple[int, Field]]
) -> Iterator[_Column]:
  for place, category in enumerate(encoding['categories']):
    _, field = members[category['name'], 'category']
    pairs = [(t, i) for t, i in category['ids'].items() if '\0' not in t]
    entries: list[tuple[bytes | int, int]] = []
    if field.kind == 'integer':
      entries += [(MISSING, i) for text, i in pairs if text == 'nan']
      whole = [(int(text), i) for text, i in pairs if WHOLE.fullmatch(text)]
      entries += sorted(whole)
    else:
      entries += sorted(
        (text.encode('utf-8', 'surrogatepass'), i) for text, i in pairs
      )
    yield _Column(place, field, entries, category['unseen'])


def _fits(column: _Column) -> bool:
  """Returns whether a list has few entries, all of them canonical."""
  return 0 < len(column.entries) <= c_vocabulary.MOST and all(
    i < 2**16 and (isinstance(known, int) or _is_canonical(known))
    for known, i in column.entries
  )


def _is_canonical(known: bytes) -> bool:
  text = known.decode('utf-8', 'surrogatepass')
  return canonical(text) == text  # others are in tables of older releases


def _looked_up(
  columns: Sequence[_Column], lists: c_vocabulary.Lists, prefix: str
) -> tuple[str, list[str]]:
  """Returns the constants and the loop that find ids in lists."""
  kinds = [one.field.kind for one in columns]
  is_mixed = len(set(kinds)) > 1
  offsets = []
  for one in columns:
    offset = f'offsetof({prefix}_row, {one.field.member})'
    if is_mixed:
      offset = f'2 * {offset} + {int(one.field.kind == "integer")}'
    offsets.append(offset)
  last = columns[-1].place
  most = 2 * 8 * (last + 1)  # no member takes more than 8 bytes
  places = [one.place for one in columns]
  unseen = [one.unseen for one in columns]
  tables: dict[str, tuple[str, Sequence[Any]]] = {
    'lists': ('uint8_t', lists.content),
    'members': (c_text.unsigned(most), offsets),
    'starts': (c_text.unsigned(max(lists.starts)), lists.starts),
  }
  place, other = 'i', str(unseen[0])
  if places != list(range(len(columns))):
    place = 'places[i]'
    tables['places'] = c_text.unsigned(last), places
  if len(set(unseen)) > 1:
    other = 'unseen[i]'
    tables['unseen'] = c_text.unsigned(max(unseen)), unseen
  offset = 'members[i] / 2' if is_mixed else 'members[i]'
  calls = {
    kind: f'id_among_{kind}s(*(const {c_type}*)member, lists + starts[i], '
    f'{other})'
    for kind, c_type in (('integer', 'int32_t '), ('text', 'char *const '))
  }
  call = calls[kinds[0]]
  if is_mixed:
    call = (
      f'members[i] % 2\n      ? {calls["integer"]}\n      : {calls["text"]}'
    )
  constants = ''.join(
    c_text.array(kind, name, map(str, items))
    for name, (kind, items) in tables.items()
  )
  return constants, [
    f'  for (i = 0; i < {len(columns)}; i++) {{',
    f'    const void *member = (const char *)row + {offset};',
    f'    categories[{place}] = {call};',
    '  }',
  ]


def _searched(column: _Column, id_type: str) -> tuple[str, str]:
  """Returns the constants and the line that find an id by halving."""
  place, field, entries, unseen = column
  if not entries:
    return '', f'  categories[{place}] = {unseen};'
  names = f'known_{place}', f'ids_{place}'
  kind = 'int32_t' if field.kind == 'integer' else 'char *const'
  keys = [_literal(known) for known, _ in entries]
  source = c_text.array(kind, names[0], keys)
  table = '0'
  if not column.is_counted:
    source += c_text.array(id_type, names[1], [str(i) for _, i in entries])
    table = names[1]
  look_up = f'id_of_{field.kind}(row->{field.member}, {names[0]}, {table}'
  return source, f'  categories[{place}] = {look_up}, {len(keys)}, {unseen});'


def _literal(known: bytes | int) -> str:
  if isinstance(known, bytes):
    return c_text.string(known.decode('utf-8', 'surrogatepass'))
  return 'MISSING' if known == MISSING else str(known)


def _id_type(encoding: Mapping[str, Any]) -> str:
  """Returns the type of all ids."""
  ids = [max(c['ids'].values(), default=0) for c in encoding['categories']]
  return 'uint16_t' if max(ids, default=0) < 2**16 else 'int32_t'


def _function(
  encoding: Mapping[str, Any], prefix: str, body: Sequence[str]
) -> str:
  arguments = ['int32_t *categories', 'float *numeric']
  if encoding['hashed']:
    arguments.append('int32_t *hashed')
  unused = [
    f'  (void){name};'
    for name in ('row', 'categories', 'numeric')
    if not any(name in line for line in body)
  ]
  index = ['  int i;'] if any('(i = 0;' in line for line in body) else []
  head = (
    f'static int encode(const {prefix}_row *row, {", ".join(arguments)}) {{'
  )
  return '\n'.join([head, *index, *unused, *body, '  return 0;', '}\n'])


def helpers(encoding: Mapping[str, Any]) -> dict[str, str]:
  """Returns the helpers, some of which depend on the encoding."""
  lines = [
    f'  if (bytes_from(text, n, {c_text.string(text)}) == 0) '
    'text = "nan", n = 3;\n'
    for text in sorted(encoding['missing'])
  ]
  kinds = {
    'ID_TYPE': _id_type(encoding),
    'EDGE_TYPE': c_numbers.edge_type(encoding),
  }
  found = {
    name: re.sub('|'.join(kinds), lambda match: kinds[match[0]], text)
    for name, text in c_helpers.ROWS.items()
  }
  found['buckets'] = found['buckets'].replace('  IS_MISSING\n', ''.join(lines))
  return found
