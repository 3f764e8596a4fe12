"""Tables of small programs in C: few bytes, and no id or bin is another one."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import lplmtl
from lplmtl import export, tables
from lplmtl.compression.quantization import Quantized, Scheme
from lplmtl.export import (
  c99,
  c_constants,
  c_encoder,
  c_files,
  c_numbers,
  c_rows,
  c_text,
  c_vocabulary,
  nodes,
  program,
  reader,
  rows,
)
from tests import contracts
from tests.test_export import EVERY_KIND
from tests.test_export_c99 import COMPILERS, SANITIZERS, check

needs_c = pytest.mark.skipif(not COMPILERS, reason='needs a C compiler')


def _unpacked(lists, start):
  """The texts of a list and their ids, read as the C code reads them."""
  content, at = lists.content, start + 1
  found, text = [], b''
  for place in range(1, content[start] + 1):
    shared, size = content[at] >> 4, content[at] & 15
    at += 1
    if size == 15:
      while content[at] == 255:
        size, at = size + 255, at + 1
      size, at = size + content[at], at + 1
    text = text[:shared] + _spelled(lists, content[at : at + size])
    at += size
    end = at + lists.id_bytes
    i = int.from_bytes(content[at:end], 'little') if lists.id_bytes else place
    found.append((text, i))
    at = end
  return found


def _spelled(lists, symbols):
  found = b''
  for symbol in symbols:
    if symbol < lists.first:
      found += bytes([symbol])
    else:
      found += _spelled(lists, lists.pairs[symbol - lists.first])
  return found


_texts = st.lists(
  st.text('abé\U0001f600', max_size=40).map(lambda text: text.encode()),
  min_size=1, max_size=9, unique=True,
).map(sorted)  # fmt: skip


@hypothesis.given(
  st.lists(_texts, min_size=1, max_size=5), st.sampled_from([0, 1, 400])
)
@hypothesis.example([[b'ab' * 400, b'ab' * 401, b'b' * 16]], 0)
def test_lists_hold_the_texts_and_their_ids(columns, first):
  """Whether ids count from 1, are others, or need two bytes."""
  entries = [
    [(text, i + first + 1) for i, text in enumerate(column)]
    for column in columns
  ]
  lists = c_vocabulary.pack(entries)
  found = [_unpacked(lists, start) for start in lists.starts]
  assert found == entries
  assert lists.id_bytes == {0: 0, 1: 1, 400: 2}[first]


def test_repeated_words_and_equal_columns_take_few_bytes():
  column = [(b'Not in universe %d' % i, i) for i in range(1, 10)]
  lists = c_vocabulary.pack([column, column])
  assert lists.starts == (0, 0)
  assert len(lists.content) + 2 * len(lists.pairs) < 60


_EDGE = st.integers(-(2**31) + 1, 2**31 - 1).map(lambda whole: whole / 2)


@hypothesis.given(st.lists(_EDGE, min_size=1, max_size=20, unique=True))
def test_edges_between_whole_numbers_become_steps(edges):
  packed = c_numbers.in_steps(sorted(edges))
  assert packed[0] == len(edges)
  value, found, at = 0, [], 1
  for _ in edges:
    left, shift = 0, 0
    while True:
      left |= (packed[at] & 127) << shift
      shift, at = shift + 7, at + 1
      if packed[at - 1] < 128:
        break
    value += -(left >> 1) - 1 if left & 1 else left >> 1
    found.append(((value + 2**31) % 2**32 - 2**31) / 2)
  assert found == sorted(edges) and at == len(packed)


@pytest.mark.parametrize(
  'edges', [(0.25,), (2.0**31,), tuple(map(float, range(256))), ()]
)
def test_other_edges_stay_floats(edges):
  assert c_numbers.in_steps(edges) == b''


def _columns(rng):
  """Raw values of training: few and many of them, texts and numbers."""
  letters = ['a', 'b', 'é', '\U0001f600', ' ', '?', '\\', '7']
  words = [''.join(rng.choice(letters, rng.integers(1, 7))) for _ in range(40)]
  texts = {
    f't{i}': [' '.join(rng.choice(words, rng.integers(1, 9))) for _ in range(n)]
    for i, n in enumerate([1, 7, 120, 255, 300])
  }
  texts['long'] = ['ab' * 200 + end for end in ('', 'a', 'b')]
  # With next to no pairs, so that their sizes need one, two or three bytes.
  texts['random'] = [
    ''.join(map(chr, rng.integers(48, 123, n)))
    for n in (14, 15, 16, 269, 270, 271, 525, 700)
  ]
  numbers = {
    f'n{i}': rng.integers(-size, size, n).tolist()
    for i, (size, n) in enumerate([(3, 9), (200, 100), (10**8, 250), (9, 400)])
  }
  numbers['n1'][0] = None
  return texts | numbers


@needs_c
@pytest.mark.parametrize('flags', [('-O2',), ('-O1', *SANITIZERS)])
def test_ids_and_bins_are_those_of_training(flags, tmp_path):
  """Of known values, parts of them, and others; on and beside edges."""
  rng = np.random.default_rng(len(flags))
  columns = _columns(rng)
  size = max(map(len, columns.values()))
  columns = {
    name: [values[i % len(values)] for i in range(size)]
    for name, values in columns.items()
  }
  halves = rng.integers(-(10**6), 10**6, size) / 2
  numerics = {
    'half': halves, 'wide': halves * 2.0**11, 'fraction': halves / 3,
    'few': np.arange(size) % 4,
  }  # fmt: skip
  fitted = tables.fit(
    columns, numerics, num_bins=40, log=['wide'],
    booleans={'flag': ['yes', 'no', '?'] * (size // 3) + ['no'] * (size % 3)},
    rules=tables.Rules(missing=('?', '-7'), fill_missing=True),
  )  # fmt: skip
  encoding = rows.to_data(fitted)
  raw = _raw(encoding, rng)
  expected = reader.encode(encoding, raw)
  code = c_encoder.encoder(encoding, 'model', is_small=True)
  used = ['lists', 'members', 'steps', 'edges', 'known_4']
  assert all(f' {name}[' in code.constants for name in used)
  fields = c_rows.fields(encoding)
  n = len(expected['numeric'])
  literals = [
    f'{{{", ".join(f.literal(raw[f.column][i]) for f in fields)}}}'
    for i in range(n)
  ]
  num_ids, num_floats = (x.shape[1] for x in expected.values())
  source = f"""
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#define MISSING (-2147483647 - 1)
typedef struct {{ {''.join(f.declaration for f in fields)} }} model_row;
{''.join(c_files.used(code.helpers, code.function))}{code.constants}
{code.function}
{c_text.array('model_row', 'rows', literals)}
{c_text.numbers('ids', expected['categories'])}
{c_text.numbers('floats', expected['numeric'])}
int main(void) {{
  int i, j, wrong = 0;
  for (i = 0; i < {n}; i++) {{
    int32_t found[{num_ids}];
    float numeric[{num_floats}];
    wrong += encode(&rows[i], found, numeric) != 0;
    for (j = 0; j < {num_ids}; j++) wrong += found[j] != ids[{num_ids} * i + j];
    for (j = 0; j < {num_floats}; j++)
      wrong += !(fabsf(numeric[j] - floats[{num_floats} * i + j]) <= 1e-5f);
  }}
  return wrong > 0;
}}
"""
  (tmp_path / 'encode.c').write_text(source)
  check(tmp_path, *flags)


def _raw(encoding, rng, n=600):
  """Rows of known values, what is like them, and what is not."""
  found = {}
  kinds = {field.column: field.kind for field in c_rows.fields(encoding)}
  for category in encoding['categories']:
    known = list(category['ids'])
    near = [text[:-1] for text in known] + [text + 'a' for text in known]
    if kinds[category['name']] == 'integer':
      whole = [int(text) for text in known if c_rows.WHOLE.fullmatch(text)]
      known = [*map(str, whole), None]
      near = [str(value + 1) for value in whole] + ['999999999']
    some = [*known, *known, *near, '0', '-1', None]
    found[category['name']] = [some[i] for i in rng.integers(0, len(some), n)]
  for column in encoding['numbers']:
    edges = np.asarray(column['edges'])
    beside = np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)
    far = column['mean'] + column['std'] * np.array([-8e8, 8e8])
    far = far if not column['log'] else [-1e300, 1e300, 2.0**30, -(2.0**30)]
    some = np.concatenate([edges, *beside, far, [0.0, -0.0, np.nan]])
    found[column['name']] = rng.choice(some, n).tolist()
  return found


@needs_c
def test_scales_biases_and_places_of_scales_take_few_bytes(tmp_path):
  """Float16 what is so anyway, and runs for the scale that a row has."""
  names = ('a', 'b', 'c')
  fitted = tables.fit(dict.fromkeys(names, range(90)), {})
  encoder = lplmtl.TabularEncoder(fitted.num_categories, 2)
  bottom = lplmtl.MLP((40,))
  model = Quantized(
    lplmtl.SharedBottom(EVERY_KIND[:2], encoder, bottom=bottom),
    Scheme(bits=8, vector_bits=16),
  )
  features = rows.features(fitted)
  params = contracts.random_params(model, features)
  found = export.trace(model, params, features)
  assert len(c_constants.float16s(found)) > 2
  (ends,) = c_constants.runs(found).values()
  assert ends[-1] == sum(fitted.num_categories)
  _, source, _ = c99.write(tmp_path, found, fitted)
  text = source.read_text()
  assert 'of_float16(constant_' in text and '_ends, ' in text
  check(tmp_path)


@pytest.mark.parametrize(
  ('value', 'kind', 'is_fitting'),
  [
    (0.5, 'multiply', True),
    (0.0, 'multiply', True),
    (2.0**-14, 'multiply', True),
    (2.0**-15, 'multiply', False),  # not normal
    (0.1, 'multiply', False),
    (np.inf, 'multiply', False),
    (0.5, 'matmul', False),  # read as float32
  ],
)
def test_which_numbers_are_float16(value, kind, is_fitting):
  x = nodes.Node('input', (64, 64), 'float32')
  y = nodes.constant(np.full((64, 64), np.float32([1, value] * 32)))
  product = nodes.make(kind, [x, y], x.shape, 'float32')
  found = c_constants.float16s(program.Program({'': x}, {'': product}))
  assert (id(y) in found) == is_fitting


def test_neighbouring_cuts_are_joined():
  x = nodes.Node('input', (1, 6), 'float32')
  cuts = [nodes.cut(x, 1, i, i + 2) for i in (0, 2, 4)]
  assert nodes.concatenate(cuts, 1) is x
  joined = nodes.concatenate([cuts[1], cuts[2], cuts[0]], 1)
  assert [y.shape for y in joined.operands] == [(1, 4), (1, 2)]
