"""Packed arrays: unpacked bit for bit, raw rows scored from them, mistakes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import tables as encoding
from lplmtl.compression import (
  bits,
  device_rows,
  device_tables,
  packing,
  quantization,
  reference,
  text_hashes,
)
from lplmtl.compression.quantization import Quantized, Scheme
from tests import contracts

TASKS = lplmtl.tasks.binary('zebra'), lplmtl.tasks.multiclass('apple', 3)
CITIES = [f'city {i}' for i in range(60)]  # 8 bits do not tell these apart


def _columns(rows=300, seed=0):
  rng = np.random.default_rng(seed)
  income = np.where(rng.random(rows) < 0.2, np.nan, rng.normal(0, 2, rows))
  return {
    'city': rng.choice(CITIES, rows),
    'age': rng.integers(17, 90, rows),
    'colour': rng.choice(['red', ' blue ', 'green', '', '7.0'], rows),
    'gains': np.float64(rng.choice([0, 99_999, 3_103, 250], rows)),
    'income': np.float64(np.float32(income)),
    'flat': np.ones(rows),
  }


def _tables(columns):
  return encoding.fit(
    {name: columns[name] for name in ('city', 'colour')},
    {name: columns[name] for name in ('age', 'gains', 'income', 'flat')},
    log=['gains'],
    num_bins=8,
    rules=encoding.Rules(fill_missing=True),
  )


COLUMNS = _columns()
TABLES = _tables(COLUMNS)


def _model(tables=TABLES, num_layers=1, cross=True, **fields):
  encoder = lplmtl.TabularEncoder(tables.num_categories, embed_dim=2)
  if cross:
    encoder = lplmtl.CrossNetwork(encoder, rank=3, num_layers=num_layers)
  parts = {'bottom': lplmtl.MLP((6,)), 'tower': lplmtl.MLP((4,))}
  return lplmtl.SharedBottom(TASKS, encoder, **{**parts, **fields})


def _frozen(model, scheme, tables=TABLES, columns=COLUMNS):
  params = contracts.random_params(model, tables.encode(columns))
  return quantization.freeze(Quantized(model, scheme), params)


@pytest.mark.parametrize('size', [2, 3, 4, 8])
@pytest.mark.parametrize('count', [0, 1, 5, 41])
def test_codes_are_packed_densely(size, count):
  rng = np.random.default_rng(count)
  most = {2: 1, 3: 3, 4: 7, 8: 127}[size]
  codes = rng.integers(-most, most + 1, count).astype(np.int8)
  data = bits.pack(codes, size)
  assert data.dtype == np.uint8
  each = {2: 1 / 5, 3: 3 / 8, 4: 1 / 2, 8: 1}[size]
  assert len(data) == np.ceil(count * each)
  assert len(data) == bits.num_bytes(count, size)
  found = bits.unpack(data, size, count)
  assert found.dtype == np.int8
  np.testing.assert_array_equal(found, codes)
  for k in range(count):  # as the docstring says, for a port
    if size == 4:
      assert (int(data[k // 2]) >> 4 * (k % 2) & 15) - 7 == codes[k]
    if size == 2:
      assert int(data[k // 5]) // 3 ** (k % 5) % 3 - 1 == codes[k]


def test_scales_of_8_bits_are_halves_of_float16():
  scales = np.float32([2**-14, 1, 1.125, 61_440])
  data = bits.pack_scales(scales, 8)
  assert data.tolist() == [8, 120, 121, 247]
  np.testing.assert_array_equal(bits.unpack_scales(data, 8), scales)


SCHEMES = (
  Scheme(bits=4, scale_bits=8, vector_bits=8),
  Scheme(bits=2, embedding_bits=3, scale_bits=16, vector_bits=16, least=1),
  Scheme(bits=8, embedding_bits=4, scale_bits=32, keep=('head',)),
)


@pytest.mark.parametrize('scheme', SCHEMES, ids=lambda s: f'{s.bits}bits')
def test_unpacks_bit_for_bit(scheme):
  encoder = lplmtl.TabularEncoder(contracts.NUM_CATEGORIES, 2, num_ordered=1)
  model = contracts.architectures(encoder=encoder)['sple_concat']
  params = contracts.random_params(model, contracts.features())
  frozen = quantization.freeze(Quantized(model, scheme), params)
  packed = packing.pack(frozen)
  found = packing.unpack(packed)
  contracts.assert_trees_equal(
    quantization.thaw(found), quantization.thaw(frozen)
  )
  assert packed.num_bytes == sum(x.nbytes for x in packed.sections.values())
  for array in packed.sections.values():
    assert array.dtype.newbyteorder('<') == array.dtype


def test_floats_keep_their_size():
  params = {'a': {'kernel': np.ones((3, 2), np.float32)}}
  assert packing.pack(params).num_bytes == 24
  half = quantization.as_float16(params)
  assert packing.pack(half).num_bytes == 12
  assert packing.unpack(packing.pack(half))['a']['kernel'].dtype == np.float16


@pytest.mark.parametrize('hash_bits', [8, 16])
def test_rows_are_encoded_like_the_tables(hash_bits):
  sections = device_tables.pack(TABLES, hash_bits)
  for columns in (COLUMNS, _columns(50, seed=1)):
    ids, numbers = device_rows.encode(sections, TABLES, columns, hash_bits)
    expected = TABLES.encode(columns)
    np.testing.assert_array_equal(ids, expected['categories'])
    np.testing.assert_allclose(
      numbers, expected['numeric'], atol=1e-5, rtol=1e-5
    )


def test_layout_is_as_small_as_described():
  sections = device_tables.pack(TABLES, 8)
  # 60 cities need hashes of 16 bits, 5 colours of 8; each has its own id.
  assert sections['hashes'].nbytes == 2 * 60 + 5 and 'starts' not in sections
  assert np.unpackbits(sections['wide'], bitorder='little')[:2].tolist() == [
    1,
    0,
  ]
  edges = [len(scaler.edges) for scaler in TABLES.numerics.values()]
  assert sections['edge_counts'].tolist() == edges and edges[-1] == 0
  # Twice the edge of an age fits a byte; gains' 51,551 takes 4, as incomes do.
  assert sections['edges'].nbytes == edges[0] + 4 * edges[1] + 4 * edges[2]
  assert sections['scalers'].nbytes == 4 * 2 * 4  # mean and std of 4 numbers
  assert sections['fills'].nbytes == 4 * 4


MERGED = dataclasses.replace(
  TABLES,
  merged={
    'city': (0, *(i % 4 for i in range(60))),
    'colour': (0, 1, 0, 2, 1, 0),
  },
  numerics={
    name: dataclasses.replace(scaler, only_bins=name != 'income', fill=fill)
    for (name, scaler), fill in zip(
      TABLES.numerics.items(), (None, None, 0.5, None), strict=True
    )
  },
)


@pytest.mark.parametrize('hash_bits', [8, 16])
def test_values_that_share_an_id(hash_bits):
  """Those of unseen values need no hash; the others 1 bit more."""
  sections = device_tables.pack(MERGED, hash_bits)
  assert sections['counts'].tolist() == [45, 3]
  # No seed tells the 60 cities of 4 groups apart in 8 bits.
  assert sections['hashes'].nbytes == 2 * 45 + 3 * hash_bits // 8
  assert sections['starts'].nbytes == 6
  starts = np.unpackbits(sections['starts'], bitorder='little')[:48]
  assert np.flatnonzero(starts).tolist() == [0, 15, 30, 45, 47]
  assert sections['scalers'].nbytes == 8 and sections['fills'].nbytes == 4
  ids, numbers = device_rows.encode(sections, MERGED, COLUMNS, hash_bits)
  expected = MERGED.encode(COLUMNS)
  assert ids.shape[1] == 2 + 3 and numbers.shape[1] == 1 + 1
  np.testing.assert_array_equal(ids, expected['categories'])
  np.testing.assert_allclose(numbers, expected['numeric'], atol=1e-5)


def test_values_of_one_id_may_share_a_hash():
  texts = tuple(f'value {i}' for i in range(40))
  merged = {'x': (0, *(1,) * 40)}
  tables = encoding.Tables({'x': texts}, {}, merged=merged)
  packed = device_tables.category(tables, 'x', 8)
  assert packed.seed == 0 and packed.ids.tolist() == [1] * len(packed.hashes)
  every = text_hashes.seeded(text_hashes.of_texts(texts), 0, 8)
  assert packed.hashes.tolist() == sorted(set(every.tolist()))
  assert len(packed.hashes) < 40


def test_row_says_where_columns_stand():
  row = ['id', 'city', 'age', 'colour', 'gains', 'x', 'income', 'flat', 'y']
  packed = device_tables.pack(TABLES, 8, row)['row']
  assert len(packed) == 3  # 9 columns of 2 bits
  kinds = [0, 1, 2, 1, 2, 0, 2, 2, 0]
  found = [packed[i // 4] >> 2 * (i % 4) & 3 for i in range(len(row))]
  assert found == kinds
  with pytest.raises(ValueError, match='row must name every column'):
    device_tables.pack(TABLES, 8, row[2:])


@pytest.mark.parametrize(
  'edges, size',
  [
    ((0.5, 1.25, 63.5), 1),
    ((0.5, 64.25, 16_000), 2),
    ((0.5, 32_767.5), 2),
    ((-0.5, 1.25, 100), 2),
    ((-0.5, 1.25, 0.1 + 1.2, 2**20 + 0.5, 1e9), 4),
  ],
)
def test_edges_are_exact_or_rounded_up(edges, size):
  """Every float32 number stays in its bin, next to an edge as well."""
  tables = encoding.Tables({}, {'x': encoding.Numeric(False, 0.0, 1e3, edges)})
  near = np.float32(edges)
  values = np.concatenate(
    [near, np.nextafter(near, np.float32(2e9)), np.nextafter(near, -near)]
  )
  columns = {'x': np.float64(values)}
  sections = device_tables.pack(tables, 8)
  assert sections['edges'].nbytes == size * len(edges)
  ids, _ = device_rows.encode(sections, tables, columns, 8)
  expected = tables.encode(columns)['categories']
  np.testing.assert_array_equal(ids, expected)


def test_seeds_tell_values_apart():
  for count in (5, 20, 35):
    texts = [f'value {i}' for i in range(count)]
    hashes, ids = text_hashes.of_texts(texts), np.arange(count)
    seed = text_hashes.find_seed(hashes, ids, 8)
    assert len(set(text_hashes.seeded(hashes, seed, 8).tolist())) == count
  hashes = text_hashes.of_texts(CITIES * 5)
  assert text_hashes.find_seed(hashes, np.arange(300), 8) is None
  assert text_hashes.find_seed(hashes, np.zeros(300, int), 8) == 0


def test_hashes_as_in_c():
  for text, seed, size in (('Oslo', 0, 8), ('Zürich', 77, 16), ('', 255, 8)):
    h = 0x811C9DC5
    for byte in text.encode():
      h = (h ^ byte) * 0x01000193 % 2**32
    h = (h ^ seed * 0x9E3779B9 % 2**32) * 0x85EBCA6B % 2**32
    h = (h ^ h >> 15) * 0xC2B2AE35 % 2**32
    found = text_hashes.seeded(text_hashes.of_texts([text]), seed, size)
    assert found.tolist() == [h >> 32 - size]


def test_false_matches_are_as_frequent_as_stated():
  packed = packing.pack(_frozen(_model(), Scheme()), TABLES)
  stated = packing.false_matches(packed)
  assert stated == {'city': 60 / 65_536, 'colour': 5 / 256}
  unseen = {k: np.repeat(v[:1], 4_000) for k, v in COLUMNS.items()}
  unseen['colour'] = np.array([f'never seen {i}' for i in range(4_000)])
  ids, _ = device_rows.encode(packed.sections, TABLES, unseen, 8)
  # Within five standard deviations of a binomial count.
  share, deviation = 5 / 256, np.sqrt(5 / 256 * (1 - 5 / 256) / 4_000)
  assert abs((ids[:, 1] > 0).mean() - share) < 5 * deviation


@pytest.mark.parametrize(
  'scheme, layers, tables',
  [
    (SCHEMES[0], 1, TABLES),
    (SCHEMES[1], 0, TABLES),
    (SCHEMES[2], 2, TABLES),
    (SCHEMES[0], 1, MERGED),
  ],
)
def test_reference_scores_raw_rows(scheme, layers, tables):
  model = _model(tables, num_layers=layers, cross=bool(layers))
  frozen = _frozen(model, scheme, tables)
  found = reference.score(packing.pack(frozen, tables), COLUMNS)
  features = jax.tree.map(jnp.asarray, tables.encode(COLUMNS))
  expected = lplmtl.predict(model, quantization.thaw(frozen), features)
  assert set(found) == {'zebra', 'apple'}
  contracts.assert_trees_close(found, expected)


def test_reference_without_layers_or_numbers():
  columns = {'colour': COLUMNS['colour']}
  tables = encoding.fit(columns, {})
  none = lplmtl.MLP(())
  model = _model(tables, bottom=none, tower=none)
  frozen = _frozen(model, Scheme(), tables, columns)
  found = reference.score(packing.pack(frozen, tables), columns)
  features = jax.tree.map(jnp.asarray, tables.encode(columns))
  expected = lplmtl.predict(model, quantization.thaw(frozen), features)
  contracts.assert_trees_close(found, expected)


def test_wrong_parameters_and_tables():
  model = _model()
  frozen = _frozen(model, Scheme())
  other = _tables(_columns(20, seed=3))
  with pytest.raises(ValueError, match='embedding must have .* rows, one for'):
    packing.pack(frozen, other)
  with pytest.raises(ValueError, match='hash_bits must be 8 or 16, found 12'):
    packing.pack(frozen, TABLES, hash_bits=12)
  with pytest.raises(ValueError, match='tables must be what .* found dict'):
    packing.pack(frozen, {})
  with pytest.raises(ValueError, match='expected parameters to pack, found no'):
    packing.pack({})
  with pytest.raises(ValueError, match='row .* needs tables'):
    packing.pack(frozen, row=['age'])
  with pytest.raises(ValueError, match='a must be float32, .* found int32'):
    packing.pack({'a': np.ones(3, np.int32)})
  dated = dataclasses.replace(TABLES, hashed={'name': 64})
  with pytest.raises(ValueError, match=r"without a vocabulary \(\['name'\]\)"):
    packing.pack(frozen, dated)


def test_wrong_rows_and_models():
  packed = packing.pack(_frozen(_model(), Scheme()), TABLES)
  with pytest.raises(ValueError, match='at least one row to score, found none'):
    reference.score(packed, {k: v[:0] for k, v in COLUMNS.items()})
  with pytest.raises(ValueError, match=r"\['age'\] are absent"):
    reference.score(packed, {k: v for k, v in COLUMNS.items() if k != 'age'})
  with pytest.raises(ValueError, match='packed with its tables, found none'):
    reference.score(packing.pack(packing.unpack(packed)), COLUMNS)
  assert packing.false_matches(packing.pack(packing.unpack(packed))) == {}
  numerics = {
    name: dataclasses.replace(scaler, only_bins=name == 'age')
    for name, scaler in TABLES.numerics.items()
  }
  fewer = dataclasses.replace(TABLES, numerics=numerics)
  with pytest.raises(ValueError, match=r'a layer reads (\d+) numbers, found'):
    reference.score(packing.pack(packing.unpack(packed), fewer), COLUMNS)
  mmoe = lplmtl.MMoE(TASKS, _model().encoder, expert=contracts.SMALL)
  packed = packing.pack(_frozen(mmoe, Scheme()), TABLES)
  with pytest.raises(ValueError, match="reference scores SharedBottom .*'gate"):
    reference.score(packed, COLUMNS)
  gains = np.array(['x'] * 300)
  with pytest.raises(ValueError, match="column 'gains' must hold numbers"):
    reference.score(
      packing.pack(_frozen(_model(), Scheme()), TABLES),
      {**COLUMNS, 'gains': gains},
    )
