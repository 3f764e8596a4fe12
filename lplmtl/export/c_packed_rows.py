"""Code that encodes raw rows from packed sections, as `device_rows` does."""

import itertools
from typing import Any

import numpy as np

from lplmtl.compression import device_tables
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


def source(name: str, packed: Packed, tables: Tables) -> str:
  """Returns the function `encode`, which calls some of HELPERS."""
  categories, numbers = _categories(packed, tables), _numbers(packed, tables)
  body = '\n'.join([*categories, *numbers])
  locals_ = ['  uint32_t h;'] * bool(categories)
  locals_ += ['  float x;'] * bool(numbers)
  if 'numbers[' not in body:
    locals_.append('  (void)numbers;')
  return '\n'.join(
    [
      f'static int encode(const {name}_row *row, uint16_t *ids, float *numbers)'
      ' {',
      *locals_,
      body,
      '  return 0;',
      '}',
    ]
  )


def _first_ids(tables: Tables) -> list[int]:
  """Returns the row of the embeddings where each column begins."""
  return [0, *itertools.accumulate(tables.num_categories)]


def _categories(packed: Packed, tables: Tables) -> list[str]:
  """Returns the lines that look up the ids of categories."""
  sections = packed.sections
  lines, place, byte = [], 0, 0
  has_starts = 'starts' in sections
  counts = sections.get('counts', np.zeros(0, np.uint8)).tolist()
  named, firsts = members(tables), _first_ids(tables)
  for i, column in enumerate(tables.vocabularies):
    count = counts[i]
    hashes = device_tables.category(tables, column, packed.hash_bits).hashes
    bits = 8 * hashes.itemsize
    if count:
      shift = 32 - bits
      starts = f'starts, {place}' if has_starts else '0, 0'
      lines += [
        f'  h = mixed(hash_of(row->{named[TEXT, column]}), seeds[{i}]) '
        f'>> {shift};',
        f'  ids[{i}] = (uint16_t)({firsts[i]} + '
        f'look_up{bits}(h, hashes + {byte}, {count}, {starts}));',
      ]
    else:
      lines.append(f'  ids[{i}] = {firsts[i]};')
    place, byte = place + count, byte + count * bits // 8
  return lines


def _numbers(packed: Packed, tables: Tables) -> list[str]:
  """Returns the lines that bin and scale numbers."""
  sections, firsts = packed.sections, _first_ids(tables)
  named, first = members(tables), len(tables.vocabularies)
  bins, scaled, flag, fills, byte, used = 0, 0, len(tables.numbers), 0, 0, 0
  lines = []
  for i, (column, scaler) in enumerate(tables.numerics.items()):
    lines.append(f'  x = row->{named[NUMBER, column]};')
    for value in sorted(missing_numbers(tables.missing)):
      text = c_text.number(value, 'float32')
      text = text.replace('INFINITY', '1.0f / 0.0f')  # of math.h
      lines.append(f'  if (x == {text}) x = 0.0f / 0.0f;')
    if scaler.flag:
      lines.append(f'  numbers[{flag}] = x != x;')
      flag += 1
    if scaler.fill is not None:
      lines.append(f'  if (x != x) x = float32_at(fills + {4 * fills});')
      fills += 1
    # Missing and infinite numbers fail the test.
    lines.append(f'  if (!(x - x == 0)) return {first + i + 1};')
    if scaler.edges:
      shift, code = divmod(int(sections['edge_formats'][used]), 4)
      count, used = len(scaler.edges), used + 1
      kind = ('u8', 'u16', 'i16', 'f32')[code]
      scale = c_text.number(2.0**shift, 'float32')
      place = first + bins
      lines.append(
        f'  ids[{place}] = (uint16_t)({firsts[place]} + '
        f'bin_{kind}(x, edges + {byte}, {count}, {scale}));'
      )
      bins += 1
      byte += count * device_tables.EDGE_TYPES[code].itemsize
    if not scaler.only_bins:
      if scaler.log:
        lines.append('  x = x < 0 ? -log1pf(-x) : log1pf(x);')
      at = f'float32_at(scalers + {8 * scaled})'
      std = f'float32_at(scalers + {8 * scaled + 4})'
      lines.append(f'  numbers[{scaled}] = (x - {at}) / {std};')
      scaled += 1
  return lines


_LOOK_UP = """
static int look_up{bits}(uint32_t h, const uint8_t *hashes, int count,
                    const uint8_t *starts, int first) {{
  int i;
  for (i = 0; i < count; i++)
    if (h == {read}) return group(i, starts, first);
  return 0;
}}
"""
_BIN = """
/* How many edges are not above a number. */
static int bin_{kind}(float x, const uint8_t *edges, int count, float scale) {{
  int i, bin = 0;
  for (i = 0; i < count; i++) bin += x >= {read} / scale;
  return bin;
}}
"""
_U16 = '(uint32_t)(edges[2 * i] | edges[2 * i + 1] << 8)'
HELPERS = {
  'bytes_from': c_helpers.ROWS['bytes_from'],
  'canonical': c_helpers.ROWS['canonical'],
  'hash_of': """
/* FNV-1a of a category's canonical text: see lplmtl.compression.text_hashes. */
static uint32_t hash_of(const char *text) {
  uint32_t h = 0x811c9dc5u;
  int i, n;
  text = canonical(text ? text : "nan", &n);
  for (i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * 0x01000193u;
  return h;
}
""",
  'mixed': """
static uint32_t mixed(uint32_t h, uint32_t seed) {
  h = (h ^ seed * 0x9e3779b9u) * 0x85ebca6bu;
  return (h ^ h >> 15) * 0xc2b2ae35u;
}
""",
  'group': """
/* The group of the i-th hash: each of them begins one, unless bits say so. */
static int group(int i, const uint8_t *starts, int first) {
  int k, count = 0;
  if (!starts) return i + 1;
  for (k = first; k <= first + i; k++) count += starts[k / 8] >> k % 8 & 1;
  return count;
}
""",
  'float32_at': c_helpers.FLOAT32.format(
    head='float32_at(const uint8_t *data)', step=''
  ),
  'look_up8': _LOOK_UP.format(bits=8, read='hashes[i]'),
  'look_up16': _LOOK_UP.format(
    bits=16, read='(uint32_t)(hashes[2 * i] | hashes[2 * i + 1] << 8)'
  ),
  'bin_u8': _BIN.format(kind='u8', read='(float)edges[i]'),
  'bin_u16': _BIN.format(kind='u16', read=f'(float){_U16}'),
  'bin_i16': _BIN.format(
    kind='i16', read='(float)(int16_t)(edges[2 * i] | edges[2 * i + 1] << 8)'
  ),
  'bin_f32': _BIN.format(kind='f32', read='float32_at(edges + 4 * i)'),
}
