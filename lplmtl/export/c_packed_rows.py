"""Code that encodes raw rows from packed sections, as `device_rows` does.

One loop over the texts of a row and one over its numbers; counts, kinds and
formats of the columns are data.
"""

import re
from collections.abc import Collection
from typing import Any

import numpy as np

from lplmtl.compression import device_tables
from lplmtl.compression.device_tables import FILLED, FLAGGED, LOG, SCALED
from lplmtl.compression.packing import Packed
from lplmtl.export import c_helpers, c_text
from lplmtl.export.reader import missing_numbers
from lplmtl.tables import Tables

TEXT, NUMBER = 'const char *', 'float '


def members(tables: Tables) -> dict[tuple[str, Any], str]:
  """Returns the members of a row, `{(type, column): identifier}`."""
  labels = {
    (TEXT, n): f'{n}_category' if n in tables.numerics else n
    for n in tables.vocabularies
  } | {(NUMBER, n): n for n in tables.numerics}
  names = c_text.identifiers(labels.values())
  return {key: names[label] for key, label in labels.items()}


def places(name: str, tables: Tables, const: str = 'const ') -> list[str]:
  """Returns the lines that take the members of a row for two arrays.

  Args:
    name: the beginning of all public names.
    tables: whose columns are the members.
    const: empty if the row is written.
  """
  found = []
  if tables.vocabularies:
    start = f'({const}void *)row' if const else '(void *)row'
    found.append(f'  const char *{const}*texts = {start};')
  if tables.numerics:
    first = members(tables)[NUMBER, next(iter(tables.numerics))]
    found += [
      f'  {const}float *numbers = ({const}void *)(({const}char *)row +',
      f'      offsetof({name}_row, {first}));',
    ]
  return found


def source(name: str, packed: Packed, tables: Tables) -> str:
  """Returns the function `encode`, which calls some of HELPERS."""
  body = '\n'.join([*_texts(packed, tables), *_numbers(packed, tables)])
  declared = {
    'i': 'i',
    'n': 'n',
    'k': 'k = 0',
    'bits': 'bits = 0',
    'bin': 'bin = 0',
    'last': 'last = -1',
  }
  used = [text for one, text in declared.items() if _is_in(one, body)]
  pointers = {
    'edge': '  const uint8_t *edge = edges;',
    'hash': '  const uint8_t *hash = hashes;',
    'fill': '  const uint8_t *fill = fills;',
    'scaler': '  const uint8_t *scaler = scalers;',
    'flag': f'  float *flag = scaled + {len(tables.numbers)};',
  }
  unused = [
    f'  (void){one};' for one in ('ids', 'scaled') if not _is_in(one, body)
  ]
  return '\n'.join(
    [
      f'static int encode(const {name}_row *row, uint16_t *ids, float *scaled)'
      ' {',
      *places(name, tables),
      *(text for one, text in pointers.items() if _is_in(one, body)),
      f'  int {", ".join(used)};',
      *unused,
      body,
      '  return 0;',
      '}',
    ]
  )


def _is_in(name: str, body: str) -> bool:
  return bool(re.search(rf'\b{name}\b', body))


def _count(packed: Packed, section: str) -> str:
  """Returns the expression of a column's count, of one byte or two."""
  if packed.sections[section].itemsize == 1:
    return f'{section}[i]'
  return f'({section}[2 * i] | {section}[2 * i + 1] << 8)'


def _texts(packed: Packed, tables: Tables) -> list[str]:
  """Returns the loop that looks up the ids of categories."""
  if not tables.vocabularies:
    return []
  count = len(tables.vocabularies)
  if 'hashes' not in packed.sections:
    return [f'  for (i = 0; i < {count}; i++) ids[i] = (uint16_t)++last;']
  shift, stored, begins, size = '24', 'hashes[k]', 'last++', []
  if 'wide' in packed.sections:
    shift = '(32 - 8 * size)'
    stored = '(hash[0] | (size == 2 ? (uint32_t)hash[1] << 8 : 0))'
    size = ['    const int size = 1 + (wide[i / 8] >> i % 8 & 1);']
  elif packed.hash_bits == 16:
    shift = '16'
    stored = '(hashes[2 * k] | (uint32_t)hashes[2 * k + 1] << 8)'
  if 'starts' in packed.sections:
    begins = 'bits = k % 8 ? bits >> 1 : starts[k / 8];\n      last += bits & 1'
  step = 'k++' + ', hash += size' * bool(size)
  return [
    '  /* Each column has ids of its own, the first for what is not known. No\n'
    '     two of them share a value of h. */',
    f'  for (i = 0; i < {count}; i++) {{',
    *size,
    f'    const uint32_t h = hash_of(texts[i], seeds[i]) >> {shift};',
    '    ids[i] = (uint16_t)++last;',
    f'    for (n = k + {_count(packed, "counts")}; k < n; {step}) {{',
    f'      {begins};',
    f'      if (h == {stored}) ids[i] = (uint16_t)last;',
    '    }',
    '  }',
  ]


def _numbers(packed: Packed, tables: Tables) -> list[str]:
  """Returns the loop that bins and scales numbers."""
  scalers = list(tables.numerics.values())
  if not scalers:
    return []
  kinds = [device_tables.kind_of(scaler) for scaler in scalers]
  lines = [
    f'  for (i = 0; i < {len(scalers)}; i++) {{',
    '    float x = numbers[i];',
  ]
  for value in sorted(missing_numbers(tables.missing)):
    text = c_text.number(value, 'float32')
    text = text.replace('INFINITY', '1.0f / 0.0f')  # of math.h
    lines.append(f'    if (x == {text}) x = 0.0f / 0.0f;')
  lines += _if(kinds, FLAGGED, ['*flag++ = (float)(x != x);'])
  lines += _if(
    kinds, FILLED, ['if (x != x) x = float32_at(fill);', 'fill += 4;']
  )
  lines += [
    '    /* Missing and infinite numbers fail the test. */',
    f'    if (!(x - x == 0)) return {len(tables.vocabularies) + 1} + i;',
    *_bins(packed, tables),
  ]
  lines += _if(kinds, LOG, ['x = x < 0 ? -log1pf(-x) : log1pf(x);'])
  lines += _if(
    kinds,
    SCALED,
    [
      '*scaled++ = (x - float32_at(scaler)) / float32_at(scaler + 4);',
      'scaler += 8;',
    ],
  )
  return [*lines, '  }']


def _if(kinds: Collection[int], bit: int, lines: list[str]) -> list[str]:
  """Returns lines for the columns of a kind; none if there is none."""
  if not any(kind & bit for kind in kinds):
    return []
  if all(kind & bit for kind in kinds):
    return [f'    {line}' for line in lines]
  return [
    f'    if (kinds[i] & {bit}) {{',
    *(f'      {line}' for line in lines),
    '    }',
  ]


def _bins(packed: Packed, tables: Tables) -> list[str]:
  """Returns the lines that count the edges which are not above a number."""
  if 'edges' not in packed.sections:
    return []
  are_all = all(scaler.edges for scaler in tables.numerics.values())
  place = 'i' if are_all else 'bin'
  first = len(tables.vocabularies)
  bin_ = f'ids[{first} + {place}]' if first else f'ids[{place}]'
  lines = [
    f'const int kind = edge_formats[{place}] & 3, size = 1 << (kind + 1) / 2;',
    f'const float larger = x * (float)(1 << edge_formats[{place}] / 4);',
    f'{bin_} = (uint16_t)++last;',
    'for (; n > 0; n--, last++, edge += size)',
    f'  if (larger >= edge_at(edge, kind)) {bin_}++;',
  ]
  count = f'    n = {_count(packed, "edge_counts")};'
  if are_all:
    return [count, *(f'    {line}' for line in lines)]
  lines.append('bin++;')
  return [count, '    if (n) {', *(f'      {line}' for line in lines), '    }']


def helpers(packed: Packed) -> dict[str, str]:
  """Returns the functions that `encode` may call; later ones call earlier ones.

  Args:
    packed: whose formats of edges are read.
  """
  formats = packed.sections.get('edge_formats', np.zeros(0, np.uint8))
  codes = sorted({one % 4 for one in formats.tolist()})
  lines = [f'  if (kind == {code}) return {_EDGES[code]};' for code in codes]
  if lines:
    lines[-1] = f'  return {_EDGES[codes[-1]]};'
  if len(codes) == 1:
    lines.insert(0, '  (void)kind;')
  body = '\n'.join(lines)
  edge_at = f"""
/* An edge in one of the formats of lplmtl.compression.device_tables. */
static float edge_at(const uint8_t *edge, int kind) {{
{body}
}}
"""
  return _HELPERS | {'edge_at': edge_at}


_EDGES = (
  '(float)edge[0]',
  '(float)(edge[0] | edge[1] << 8)',
  '(float)(int16_t)(edge[0] | edge[1] << 8)',
  'float32_at(edge)',
)
_HELPERS = {
  'hash_of': """
#ifdef __GNUC__ /* gcc -Os inlines what is called once, here in vain */
__attribute__((noinline))
#endif
/* The hash of a category's canonical text: see
   lplmtl.compression.text_hashes. */
static uint32_t hash_of(const char *text, uint32_t seed) {
  const uint32_t none = 0x2f8f13bau; /* of nan */
  /* Of the texts that mean the same: <NA>, NaN, NaT and None. */
  static const uint32_t others[4] = {0xa4dc86bcu, 0x721b0bfau, 0x581ae30cu,
                                     0x304ff7fbu};
  const char *start = text, *end = 0;
  uint32_t h = 0x811c9dc5u;
  int i;
  /* Without blanks around it, */
  for (; text && *text; text++)
    if (*text > 32 || (*text < 28 && (*text < 9 || *text > 13))) {
      if (!end) start = text;
      end = text + 1;
    }
  if (end) {
    /* and without the .0 of a whole number. */
    const char *first = start + (*start == '-'), *point = first;
    while (*point >= '0' && *point <= '9') point++;
    if (point != first && (*first != '0' || point == first + 1) &&
        point + 2 == end && point[0] == '.' && point[1] == '0') {
      end = point;
      if (*first == '0') start = first;
    }
    for (; start < end; start++) h = (h ^ (unsigned char)*start) * 0x01000193u;
  } else {
    h = none;
  }
  for (i = 0; i < 4; i++)
    if (h == others[i]) h = none;
  h = (h ^ seed * 0x9e3779b9u) * 0x85ebca6bu;
  return (h ^ h >> 15) * 0xc2b2ae35u;
}
""",
  'float32_at': c_helpers.FLOAT32.format(
    head='float32_at(const uint8_t *data)', step=''
  ),
}
