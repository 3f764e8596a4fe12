"""Exported programs: the same predictions as JAX, from NumPy alone."""

import ast
import functools
import json
import runpy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import checkpoint, compression, export, tables, tasks
from lplmtl.export import meanings, nodes, numpy_form, reader, rows, vectors
from tests import contracts
from tests.golden import write as golden

EVERY_KIND = (
  *contracts.TASKS,
  tasks.ordinal('grade', 4),
  tasks.multilabel('tags', 2),
)
ROWS = {
  'city': ['Oslo', 'Rome', None, 'Lima', 'Oslo', 'Bonn'],
  'age': [17.0, 35.0, None, 28.0, 44.0, 70.0],
  'gain': [0.0, 1.0, 5000.0, 12.0, 0.0, 99999.0],
}
# Not further out: where scores are 1e9, XLA's fused softmax makes NaN of them.
NEW_ROWS = {
  'city': ['Rome', ' Oslo ', 'unseen', '', None, 'Lima', 'Bonn', 'nan'],
  'age': [35, None, 250, -90, 17.0, 28.5, float('nan'), '44'],
  'gain': [0.5, 1e6, 0, 12, 3.0, -7, 99999, 1],
}


def _tables(**options):
  numbers = {name: ROWS[name] for name in ('age', 'gain')}
  rules = tables.Rules(fill_missing=True)
  cities = {'city': ROWS['city']}
  return tables.fit(cities, numbers, log=['gain'], rules=rules, **options)


def _encoder(fitted):
  inside = lplmtl.TabularEncoder(
    fitted.num_categories, 2, fitted.num_ordered, num_pieces=fitted.num_pieces
  )
  return lplmtl.CrossNetwork(inside, rank=2, num_layers=1)


def _expected(model, params, features):
  apply = jax.jit(lambda p, x: model.apply({'params': p}, x)[0])
  logits = apply(params, features)
  return {t.name: meanings.of(t)(logits[t.name]) for t in model.tasks}


def _assert_same(found, expected):
  assert list(found) == list(expected)
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


BINNED = _tables(num_bins=4)
MODELS = contracts.architectures(EVERY_KIND, _encoder(BINNED))
MODELS |= contracts.chains(_encoder(BINNED))


def test_raw_rows():
  """Five tasks of every kind, crosses, bins, missing and unseen values.

  `test_export_sweep.py` has all architectures.
  """
  features = BINNED.encode(NEW_ROWS)
  params = contracts.random_params(MODELS['ple'], features)
  program = export.trace(MODELS['ple'], params, rows.features(BINNED))
  found = reader.predict(numpy_form.to_data(program, BINNED), NEW_ROWS)
  _assert_same(found, _expected(MODELS['ple'], params, features))


@pytest.mark.parametrize('name', ['shared_bottom', 'ple'])
def test_models_of_arrays(name):
  """Two tasks, no encoder: the features are a matrix."""
  model = contracts.architectures(EVERY_KIND[:2])[name]
  x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
  params = contracts.random_params(model, x)
  program = export.trace(model, params, x)
  found = reader.predict(numpy_form.to_data(program), x)
  _assert_same(found, _expected(model, params, x))


def test_arrays_of_another_width_are_refused():
  x, program, _ = logits_of_arrays()
  data = numpy_form.to_data(program)
  for found in (np.zeros((4, 6)), np.zeros((9, 1)), np.zeros(3)):
    with pytest.raises(ValueError) as error:
      reader.predict(data, found)
    assert str(error.value) == f'expected [N, 3], found {found.shape}'
  empty = reader.predict(data, x[:0])
  assert {name: len(rows) for name, rows in empty.items()} == dict.fromkeys(
    program.outputs, 0
  )


def test_no_rows():
  """The arrays keep their shapes."""
  texts = {'city': ROWS['city'], 'name': list('abcdef')}
  rules = tables.Rules(max_vocabulary=4, num_buckets=8)
  fitted = tables.fit(texts, {'age': ROWS['gain'][:2] * 3}, rules=rules)
  encoding = rows.to_data(fitted)
  columns = {name: [] for name in fitted.columns}
  for name, array in reader.encode(encoding, columns).items():
    assert array.shape == (0, *rows.features(fitted)[name].shape[1:]), name


def test_files_that_are_no_models(tmp_path):
  path = tmp_path / 'model.npz'
  np.savez(path, a=np.zeros(2))
  whole = path.read_bytes()
  array = tmp_path / 'array.npy'
  np.save(array, np.zeros(2))
  for content in (b'', b'text', whole, whole[:60], array.read_bytes()):
    path.write_bytes(content)
    with pytest.raises(ValueError, match='expected a model that lplmtl.export'):
      reader.load(path)
  with pytest.raises(FileNotFoundError):
    reader.load(tmp_path / 'none.npz')


@functools.cache
def logits_of_arrays():
  """Returns rows, the program from them to logits, and the logits of JAX."""
  model = contracts.architectures(EVERY_KIND[:3])['sple_concat']
  x = np.random.default_rng(0).normal(size=(99, 3)).astype(np.float32)
  params = contracts.random_params(model, x)
  apply = jax.jit(lambda p, x: model.apply({'params': p}, x)[0])
  return x, export.trace(model, params, x, logits=True), apply(params, x)


def assert_same_logits(found):
  """To 1e-6 of their norm: that of a logit near 0, float32 cannot hold."""
  _, _, expected = logits_of_arrays()
  assert list(found) == [task.name for task in EVERY_KIND[:3]]
  for name, values in found.items():
    by_jax = np.asarray(expected[name], np.float64)
    assert np.linalg.norm(values - by_jax) < 1e-6 * np.linalg.norm(by_jax)


def test_logits():
  x, program, _ = logits_of_arrays()
  assert_same_logits(reader.run(numpy_form.to_data(program), x))


def test_scales_are_not_for_logits():
  model = contracts.architectures()['shared_bottom']
  x = np.zeros((1, 3), np.float32)
  params = contracts.random_params(model, x)
  with pytest.raises(ValueError, match='not for logits'):
    export.trace(model, params, x, scales={'mango': (1.0, 2.0)}, logits=True)


def test_zeros_and_dropout_are_not_stored():
  """The columns by which gates are padded take no memory, nor does dropout."""
  model = contracts.architectures()['cgc']
  model = model.clone(expert=lplmtl.MLP((6,), dropout_rate=0.5))
  x = np.zeros((1, 30), np.float32)
  params = contracts.random_params(model, x)
  program = export.trace(model, params, x)
  weights = [c.data for c in program.constants if c.data.ndim > 1]
  floats = [w for w in weights if w.dtype == np.float32 and w.any()]
  stored = sum(w.size for w in floats)
  assert stored <= sum(leaf.size for leaf in jax.tree.leaves(params))
  assert all(w.any(axis=0).all() for w in floats if len(w) == 30)


def test_bins_are_one_table():
  """The steps of ordered bins are added to their embeddings beforehand."""
  model = lplmtl.SharedBottom(EVERY_KIND[:1], _encoder(BINNED).encoder)
  encoded = rows.features(BINNED)
  params = contracts.random_params(model, encoded)
  program = export.trace(model, params, encoded)
  (table,) = (x.operands[0] for x in program.operations if x.kind == 'gather')
  _, folded = compression.merging.fold_steps(model, params)
  np.testing.assert_allclose(table.data, folded['encoder']['embedding'], 1e-6)


def test_interpolated_and_hashed_columns():
  fitted = tables.fit(
    {'city': ROWS['city'], 'name': list('abcdef')},
    {'age': ROWS['gain']},
    num_bins=4,
    interpolate=True,
    rules=tables.Rules(max_vocabulary=4, num_buckets=8),
  )
  assert fitted.hashed and fitted.num_pieces
  encoder = lplmtl.TabularEncoder(
    fitted.num_categories, 2, num_buckets=fitted.num_buckets,
    num_pieces=fitted.num_pieces,
  )  # fmt: skip
  model = lplmtl.SharedBottom(EVERY_KIND[:1], encoder)
  raw = {'city': NEW_ROWS['city'], 'name': list('abcdexyz'), 'age': range(8)}
  features = fitted.encode({k: list(v) for k, v in raw.items()})
  params = contracts.random_params(model, features)
  program = export.trace(model, params, features)
  found = reader.predict(numpy_form.to_data(program, fitted), raw)
  _assert_same(found, _expected(model, params, features))


def test_raw_values_mean_what_they_meant_in_training():
  """Texts of every form, and numbers that stand for missing ones."""
  texts = ['3', '3.0', '-0.0', ' 3 ', '3e0', '1e-05', '1e+300', '03', '', 'NaN',
           '2020-01-01', '2020-01-01 00:00:00', '2020-01-01T02:00:00+02:00',
           '2020-01-01T10:00:00.500', '2020-01-01 10:00:00.5', 'None', '?',
           '٣', 'x', 'X', '1_0']  # fmt: skip
  numbers = [-999, '-999.0', 0.5, '.50', float('inf'), True, 'False', '1e3', 7,
             None, '?', 'nan', 2, 3, 4, 5, 6, 8, 9, 10, 11]  # fmt: skip
  rules = tables.Rules(fill_missing=True, missing=('?', '-999', '.5', 'inf'))
  fitted = tables.fit({'text': texts}, {'age': numbers}, rules=rules)
  raw = {'text': [*texts, 'new'], 'age': [*numbers, 'inf']}
  found = reader.encode(rows.to_data(fitted), raw)
  for name, expected in fitted.encode(raw).items():
    np.testing.assert_array_equal(found[name], expected, name)


@pytest.mark.slow
def test_a_written_model_needs_its_reader_only(tmp_path):
  """The golden model: LayerNorm, gelu, mish, gate bodies, several seeds."""
  folder = golden.FOLDER / 'format2'
  model, params, fitted = checkpoint.load(folder, seed=1)
  program = export.trace(model, params, rows.features(fitted))
  written = numpy_form.write(tmp_path, program, fitted)
  assert sorted(tmp_path.iterdir()) == sorted(written)
  script = runpy.run_path(str(tmp_path / 'reader.py'))
  found = script['predict'](script['load'](written[0]), golden.ROWS)
  logits = json.loads(folder.with_suffix('.json').read_text())
  expected = {
    task.name: meanings.of(task)(jnp.asarray(logits[task.name][1]))
    for task in model.tasks
  }
  _assert_same(found, expected)
  imported = {
    alias.name
    for node in ast.walk(ast.parse((tmp_path / 'reader.py').read_text()))
    if isinstance(node, ast.Import)
    for alias in node.names
  }
  assert imported == {'datetime', 'json', 'math', 're', 'numpy'}


class Own(nn.Module):
  """Attention, a slice, a sum along an axis: operations that are known."""

  @nn.compact
  def __call__(self, x):
    heads = nn.Dense(6)(x).reshape(-1, 3, 2)
    mixed = nn.softmax(heads @ heads.swapaxes(1, 2) / 2**0.5) @ heads
    steps = jnp.cumsum(mixed, axis=1)[:, ::-1]
    ends = jnp.pad(steps[:, 1:, 0], ((0, 0), (1, 0)), constant_values=2.0)
    picked = x[:, np.array([2, 0])] * jax.lax.rsqrt(1 + x[:, :1] ** 2)
    sizes = jnp.where(ends > 0, ends, -ends).clip(0.1, 3) ** -2
    return jnp.concatenate([nn.gelu(sizes), picked, steps.max(axis=2)], axis=1)


class Inverting(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x + jnp.linalg.inv(jnp.eye(3) + x[:1])[:1]


def test_modules_of_ones_own():
  x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
  model = lplmtl.MMoE(EVERY_KIND[:2], expert=Own(), num_experts=2)
  params = contracts.random_params(model, x)
  found = reader.run(numpy_form.to_data(export.trace(model, params, x)), x)
  _assert_same(found, _expected(model, params, x))


def test_an_unknown_operation_is_named():
  model = lplmtl.SharedBottom(EVERY_KIND[:1], bottom=Inverting())
  x = np.zeros((1, 3), np.float32)
  params = contracts.random_params(model, x)
  with pytest.raises(export.UnsupportedError) as error:
    export.trace(model, params, x)
  assert "primitive 'lu'" in str(error.value)
  assert 'bottom' in str(error.value)
  assert '\n' not in str(error.value)


def test_what_depends_on_parameters_only_is_computed_once():
  """Even by operations that programs do not have, such as rounding."""
  model = lplmtl.SharedBottom(EVERY_KIND[:1], bottom=lplmtl.MLP((4,)))
  rounded = compression.Quantized(model, compression.Scheme(bits=4))
  x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
  params = contracts.random_params(model, x)
  program = export.trace(rounded, params, x)
  kinds = [node.kind for node in program.operations]
  assert kinds.count('matmul') == 3 and not {'round', 'divide'} & set(kinds)
  found = reader.run(numpy_form.to_data(program), x)
  _assert_same(found, _expected(rounded, params, x))


def test_columns_of_few_ids_have_their_own_scale():
  """Beyond them is nothing, not the last row of the embeddings."""
  encoder = lplmtl.TabularEncoder((2, 5), embed_dim=2)
  model = lplmtl.SharedBottom(EVERY_KIND[:1], encoder, lplmtl.MLP((4,)))
  rounded = compression.Quantized(model, compression.Scheme(bits=4))
  features = {
    'categories': np.array([[0, 1], [1, 4]], np.int32),
    'numeric': np.zeros((2, 0), np.float32),
  }
  params = contracts.random_params(rounded, features)
  embedding = params['encoder']['embedding']
  params['encoder']['embedding'] = embedding.at[-1].multiply(20)
  program = export.trace(rounded, params, features)
  found = reader.run(numpy_form.to_data(program), features)
  _assert_same(found, _expected(rounded, params, features))


def test_numbers_have_their_own_unit():
  todo = tasks.regression('price'), tasks.poisson('visits')
  model = lplmtl.SharedBottom(todo, bottom=lplmtl.MLP((2,)))
  x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
  params = contracts.random_params(model, x)
  scales = {'price': (100.0, 20.0), 'visits': (0.0, 3.0)}
  program = export.trace(model, params, x, scales=scales)
  found = reader.run(numpy_form.to_data(program), x)
  plain = _expected(model, params, x)
  np.testing.assert_allclose(found['price'], 100 + 20 * plain['price'], 1e-5)
  np.testing.assert_allclose(found['visits'], 3 * plain['visits'], 1e-5)


def test_tables_of_another_model_are_refused():
  model = lplmtl.SharedBottom(EVERY_KIND[:1], _encoder(BINNED))
  encoded = rows.features(BINNED)
  params = contracts.random_params(model, encoded)
  program = export.trace(model, params, encoded)
  with pytest.raises(ValueError, match='pass the tables'):
    numpy_form.to_data(program, _tables())


@pytest.mark.parametrize(
  'column, values, message',
  [
    ('age', [None], "'age': found a missing number"),
    ('age', ['old'], "found 'old'"),
    ('age', [float('inf')], 'finite'),
    ('age', [1e30], 'too large'),
    ('city', ['Oslo'] * 2, 'as many rows'),
  ],
)
def test_rows_that_cannot_be_read(column, values, message):
  fitted = tables.fit({'city': ['Oslo', 'Rome']}, {'age': [1, 2]})
  raw = {'city': ['Oslo'], 'age': [1.0], column: values}
  with pytest.raises(ValueError, match=message):
    reader.encode(rows.to_data(fitted), raw)


def test_missing_columns_are_named():
  encoding = rows.to_data(_tables())
  structured = np.zeros(2, [('city', 'U4')])
  for raw in ({'city': ['Oslo', 'Rome']}, structured):
    with pytest.raises(ValueError, match=r"columns \['age', 'gain'\] are miss"):
      reader.encode(encoding, raw)


def test_rows_to_test_with_take_every_turn():
  """On both sides of all edges, missing, unseen, and far away."""
  encoding = rows.to_data(_tables(num_bins=4))
  columns = vectors.of_encoding(encoding, 100)
  assert {'Oslo', ' Oslo ', 'never seen', None} <= set(columns['city'])
  age = next(c for c in encoding['numbers'] if c['name'] == 'age')
  assert None in columns['age'] and set(age['edges']) & set(columns['age'])
  numbers = np.array([x for x in columns['age'] if x is not None])
  assert np.abs((numbers - age['mean']) / age['std']).max() >= 20
  assert len(np.unique(np.digitize(numbers, age['edges']))) == 4


def test_views_are_found():
  """Cuts of joined values go back to the parts."""
  x, y = (nodes.Node('input', (1, 3), 'float32') for _ in range(2))
  joined = nodes.concatenate([x, y], 1)
  assert nodes.cut(joined, 1, 3, 6) is y
  across = nodes.cut(nodes.cut(joined, 1, 1, 6), 1, 1, 4)
  assert [part.shape for part in across.operands] == [(1, 1), (1, 2)]
  assert nodes.transpose(x, (1, 0)).kind == 'reshape'
