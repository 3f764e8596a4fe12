"""The StableHLO form: JAX reloads it, and predicts the same."""

import json
import runpy
import sys

import flax.linen as nn
import jax
import jax.export
import numpy as np
import pytest

import lplmtl
from lplmtl import export, tables
from lplmtl.export import numpy_form, reader, rows, stablehlo_form
from tests import contracts, test_export

pytest.importorskip('flatbuffers')


def _assert_same(found, expected):
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', test_export.MODELS)
def test_every_architecture_is_lowered_for_any_number_of_rows(name):
  model, encoded = test_export.MODELS[name], rows.features(test_export.BINNED)
  params = contracts.random_params(model, encoded)
  content = stablehlo_form.serialize(model, params, encoded, platforms=['tpu'])
  found = jax.export.deserialize(bytearray(content))
  assert found.platforms == ('tpu',)
  shapes = {task: x.shape for task, x in _outputs(found).items()}
  assert {str(shape[0]) for shape in shapes.values()} == {'N'}
  assert set(shapes) == {task.name for task in model.tasks}


def _outputs(exported):
  return jax.tree.unflatten(exported.out_tree, exported.out_avals)


@pytest.mark.parametrize('name', ['sple_concat', 'aitm'])
def test_raw_rows_by_the_files_alone(name, tmp_path):
  model, fitted = test_export.MODELS[name], test_export.BINNED
  encoded = rows.features(fitted)
  params = contracts.random_params(model, encoded)
  content = stablehlo_form.serialize(model, params, encoded)
  written = stablehlo_form.write(tmp_path, content, fitted, name='small')
  assert sorted(tmp_path.iterdir()) == sorted(written)
  script = runpy.run_path(str(tmp_path / 'reader.py'))
  encoding = json.loads((tmp_path / 'small_encoding.json').read_text())
  program = jax.export.deserialize(
    bytearray((tmp_path / 'small.stablehlo').read_bytes())
  )
  assert program.platforms == stablehlo_form.PLATFORMS
  found = program.call(script['encode'](encoding, test_export.NEW_ROWS))
  graph = export.trace(model, params, encoded)
  data = numpy_form.to_data(graph, fitted)
  _assert_same(found, reader.predict(data, test_export.NEW_ROWS))


def test_arrays_units_and_operations_that_graphs_lack():
  x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
  model = lplmtl.SharedBottom(
    test_export.EVERY_KIND[2:3], bottom=test_export.Inverting()
  )
  params = contracts.random_params(model, x)
  content = stablehlo_form.serialize(
    model, params, x, scales={'mango': (100.0, 20.0)}, platforms=['cpu']
  )
  found = jax.export.deserialize(bytearray(content)).call(x)
  logits = model.apply({'params': params}, x)[0]
  _assert_same(found, {'mango': 100 + 20 * logits['mango']})


def test_logits():
  x = np.ones((2, 3), np.float32)
  model = lplmtl.SharedBottom(test_export.EVERY_KIND[:1])
  params = contracts.random_params(model, x)
  content = stablehlo_form.serialize(
    model, params, x, logits=True, platforms=['cpu']
  )
  found = jax.export.deserialize(bytearray(content)).call(x)
  program = numpy_form.to_data(export.trace(model, params, x, logits=True))
  _assert_same(found, reader.run(program, x))


class _Counting(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x * len(range(x.shape[0]))


def test_what_jax_cannot_export_is_one_line():
  x = np.zeros((1, 3), np.float32)
  model = lplmtl.SharedBottom(test_export.EVERY_KIND[:1], bottom=_Counting())
  params = contracts.random_params(model, x)
  with pytest.raises(export.UnsupportedError, match='any number') as error:
    stablehlo_form.serialize(model, params, x)
  assert '\n' not in str(error.value)


def test_the_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'flatbuffers', None)
  with pytest.raises(ModuleNotFoundError, match=r"'lplmtl\[stablehlo\]'"):
    stablehlo_form.serialize(None, {}, {})


def test_dates_and_places_among_edges(tmp_path):
  """Dates are encoded by the script; positions have any number of rows."""
  days = ['2024-05-01', '2024-07-02', '2023-01-31', None]
  fitted = tables.fit(
    {}, {'age': [1, 2, 5, 9]}, dates={'at': (days, '')}, num_bins=3,
    interpolate=True, rules=tables.Rules(fill_missing=True),
  )  # fmt: skip
  encoder = lplmtl.TabularEncoder((), 2, num_pieces=fitted.num_pieces)
  model = lplmtl.SharedBottom(test_export.EVERY_KIND[:1], encoder)
  encoded = rows.features(fitted)
  params = contracts.random_params(model, encoded)
  content = stablehlo_form.serialize(model, params, encoded, platforms=['cpu'])
  stablehlo_form.write(tmp_path, content, fitted)
  encoding = json.loads((tmp_path / 'model_encoding.json').read_text())
  raw = {
    'age': [3, 4, 50],
    'at': ['2024-06-30T23:00-02:00', None, '2000-01-01'],
  }
  features = reader.encode(encoding, raw)
  for name, expected in fitted.encode(raw).items():
    np.testing.assert_allclose(features[name], expected, rtol=1e-6)
  found = jax.export.deserialize(bytearray(content)).call(features)
  data = numpy_form.to_data(export.trace(model, params, encoded), fitted)
  _assert_same(found, reader.predict(data, raw))
