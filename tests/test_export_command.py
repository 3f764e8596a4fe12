"""experiments.export: from a saved model to its forms, every mistake a line."""

import dataclasses
import json
import re
import shutil
import sys

import numpy as np
import pytest

import lplmtl
from experiments import export
from experiments.exporting import notes, packable
from lplmtl import checkpoint, compression
from lplmtl.compression import packing, quantization
from lplmtl.export import reader
from lplmtl.tabular import schema
from tests import contracts
from tests.golden import write as golden
from tests.launching import launch

MODEL = f'--model={golden.FOLDER / "format2"}'


def test_all_forms_and_a_report(tmp_path, capsys):
  target = tmp_path / 'new' / 'dist'
  has_clang = bool(shutil.which('clang') and shutil.which('wasm-ld'))
  formats = {'c99', 'numpy', *['web'] * has_clang}
  flags = '--seed_index=1', f'--to={target}', f'--format={",".join(formats)}'
  assert launch(export.main, MODEL, *flags) == 0
  written = {path.name: path.stat().st_size for path in target.iterdir()}
  report = json.loads((target / 'report.json').read_text())
  assert written.keys() - report['bytes'].keys() == {'report.json'}
  assert all(written[name] == n for name, n in report['bytes'].items())
  assert report['forms'].keys() == formats
  for form in report['forms'].values():
    assert form['largest_difference_to_jax'] < 1e-5
  for facts in report['compiled'].values():
    # Compilers compute with some constants instead of storing them.
    parts = facts['sections']
    assert parts['constants'] > report['forms']['c99']['constants'] / 2
    assert not parts['writable']
    assert facts.get('stack', 64) >= 64  # gcc tells
  printed = capsys.readouterr().out
  assert report['seed'] == {'index': 1, 'of': 2}
  assert 'Seed 1 of 2, counted from 0 (--seed_index)' in printed
  if has_clang:
    size = report['forms']['web']['webassembly']
    assert 10_000 < size < written['index.html']
    assert f'{size:,} bytes  of WebAssembly in {target}/index' in printed
  assert 'Largest difference to JAX over 1,000 rows' in printed
  assert f'{report["multiply_adds"]:,} multiply-adds a row' in printed
  has_compiler = shutil.which('cc') is not None
  assert bool(report['seconds_per_row']) == has_compiler
  assert ('microseconds a row' in printed) == has_compiler
  found = reader.predict(reader.load(target / 'model.npz'), golden.ROWS)
  assert found['rating'].shape == (3, 3)


def test_numbers_are_in_the_unit_of_the_table(tmp_path):
  """A model of a table has the scale of its targets in its schema."""
  model, params, fitted = checkpoint.load(golden.FOLDER / 'format2', seed=0)
  spent = schema.Target('regression', mean=100.0, std=20.0)
  extra = {'schema': schema.Schema({}, {'spent': spent}).to_json()}
  checkpoint.save(tmp_path / 'model', model, params, fitted, extra=extra)
  arguments = f'--model={tmp_path}', f'--to={tmp_path}', '--format=numpy'
  assert launch(export.main, *arguments) == 0
  found = reader.predict(reader.load(tmp_path / 'model.npz'), golden.ROWS)
  logits = json.loads((golden.FOLDER / 'format2.json').read_text())['spent'][0]
  np.testing.assert_allclose(found['spent'], 100 + 20 * np.array(logits), 1e-5)
  assert not (tmp_path / 'model.c').exists()


def test_rows_of_the_user_are_compared(tmp_path, capsys):
  """Texts, numbers, missing and unseen values, in a file; other columns too."""
  rows = ['age,colour,id,gain', '30,blue,7,1e2', '16,,8,0', ' 80.5,violet,9,-3']
  table = tmp_path / 'rows.csv'
  table.write_text('\n'.join(rows))
  flags = MODEL, f'--to={tmp_path}', '--format=numpy', f'--test_data={table}'
  assert launch(export.main, *flags) == 0
  report = json.loads((tmp_path / 'report.json').read_text())['test_data']
  assert report['rows'] == 3
  assert report['largest_difference_to_jax']['numpy'] < 1e-5
  said = f'JAX over the 3 rows of {table}: NumPy'
  assert said in ' '.join(capsys.readouterr().out.split())
  for content, error in (
    ('age,colour\n1,red', r"columns \['gain'\] are missing"),
    ('age,colour,gain\nold,red,3', "column 'age'.*'old'"),
    ('age,colour,gain\n', 'expected rows below the header'),
  ):
    table.write_text(content)
    assert launch(export.main, *flags) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(error, line), line
  assert launch(export.main, *flags[:3], '--test_data=/nowhere.csv') == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert '--test_data=/nowhere.csv' in line


def test_the_header_names_classes_and_units():
  kinds = {
    'churn': schema.Target('binary', ('no', 'yes'), 'no'),
    'plan': schema.Target('multiclass', (3, 7, 9)),
    'mood': schema.Target('ordinal', ('low', 'mid', 'high')),
    'tags': schema.Target('multilabel', columns=('new', 'old')),
    'spent': schema.Target('regression', mean=100.0, std=20.0),
    'visits': schema.Target('count', mean=2.5),
  }
  asked = schema.Schema({}, kinds)
  found = notes.of(asked)
  assert found['churn'] == "the probability of 'no'"
  assert found['plan'] == 'the probabilities of 3, 7, 9'
  assert found['mood'] == "the probabilities of 'low', 'mid', 'high'"
  assert found['tags'] == "the probabilities of 'new', 'old'"
  assert not notes.of(None)


def test_a_model_is_rounded_after_training(tmp_path, capsys):
  """One flag from float weights to codes, in fewer bytes."""
  counts = []
  for flags in ((), ('--bits=8',)):
    arguments = MODEL, f'--to={tmp_path}', '--format=numpy', *flags
    assert launch(export.main, *arguments) == 0
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['forms']['numpy']['largest_difference_to_jax'] < 1e-5
    counts.append(report['forms']['numpy']['constants'])
  assert counts[1] < counts[0] and report['rounded_to_bits'] == 8
  assert '8 bits  a weight, rounded after' in capsys.readouterr().out
  stored = reader.load(tmp_path / 'model.npz')['constants']
  assert any(x.dtype == np.int8 for x in stored)


def test_a_rounded_model_is_not_rounded_again(tmp_path, capsys):
  model, params, tables = checkpoint.load(golden.FOLDER / 'format2', seed=0)
  quantized = compression.Quantized(model, compression.Scheme(bits=8))
  checkpoint.save(tmp_path / 'model', quantized, params, tables)
  arguments = f'--model={tmp_path}', f'--to={tmp_path / "dist"}', '--bits=4'
  assert launch(export.main, *arguments) == 1
  error = capsys.readouterr().err
  assert '--bits=4: the model was trained with few bits already' in error
  assert len(error.splitlines()) == 1 and not (tmp_path / 'dist').exists()


def test_onnx_and_stablehlo(tmp_path, capsys):
  pytest.importorskip('onnx')
  pytest.importorskip('onnxruntime')
  pytest.importorskip('flatbuffers')
  arguments = MODEL, f'--to={tmp_path}', '--format=onnx,stablehlo'
  assert launch(export.main, *arguments) == 0
  report = json.loads((tmp_path / 'report.json').read_text())
  assert report['forms']['onnx']['largest_difference_to_jax'] < 1e-5
  assert report['forms']['stablehlo']['largest_difference_to_jax'] < 1e-5
  assert set(report['bytes']) == {
    'model.onnx', 'model.stablehlo', 'model_encoding.json', 'reader.py',
  }  # fmt: skip
  printed = capsys.readouterr().out
  assert 'ONNX' in printed and 'StableHLO' in printed


def test_onnx_without_a_runtime_is_not_compared(tmp_path, capsys, monkeypatch):
  pytest.importorskip('onnx')
  monkeypatch.setitem(sys.modules, 'onnxruntime', None)
  assert launch(export.main, MODEL, f'--to={tmp_path}', '--format=onnx') == 0
  (form,) = json.loads((tmp_path / 'report.json').read_text())['forms'].values()
  assert form['largest_difference_to_jax'] is None
  assert 'ONNX was not compared' in capsys.readouterr().out


@pytest.mark.parametrize(
  'name, package', [('onnx', 'onnx'), ('stablehlo', 'flatbuffers')]
)
def test_a_missing_extra_is_one_line(
  name, package, tmp_path, capsys, monkeypatch
):
  monkeypatch.setitem(sys.modules, package, None)
  target = tmp_path / 'dist'
  arguments = MODEL, f'--to={target}', f'--format=numpy,{name}'
  assert launch(export.main, *arguments) == 1
  error = capsys.readouterr().err
  assert f"pip install 'lplmtl[{name}]'" in error
  assert len(error.splitlines()) == 1 and not target.exists()


def test_a_packed_model(tmp_path, capsys):
  """A small network of 4 bits, as `compression.compress` saves it."""
  tables = golden.encoder_tables()
  encoder = lplmtl.TabularEncoder(tables.num_categories, embed_dim=2)
  model = lplmtl.SharedBottom(golden.golden_model().tasks[:2], encoder)
  quantized = compression.Quantized(model, compression.Scheme(bits=4))
  params = contracts.random_params(quantized, tables.encode(golden.ROWS))
  checkpoint.save(tmp_path / 'model', quantized, params, tables)
  frozen = quantization.freeze(quantized, params)
  table = tmp_path / 'rows.csv'
  table.write_text('age;colour;gain\n30;blue;1,5\n16;red;0,5\n40;;2,0\n')
  for hash_bits in (16, 8):
    arguments = f'--model={tmp_path}', f'--to={tmp_path}', '--format=packed'
    flag = f'--hash_bits={hash_bits}'
    assert launch(export.main, *arguments, flag, f'--test_data={table}') == 0
    source = (tmp_path / 'model.c').read_text()
    assert 'largest <= 0' in (tmp_path / 'model_test.c').read_text()
    report = json.loads((tmp_path / 'report.json').read_text())
    packed = packing.pack(frozen, tables, hash_bits=hash_bits)
    assert report['forms']['packed']['constants'] == packed.num_bytes
    arrays = re.findall(r'const uint8_t (\w+)\[\d+\] = {([^}]*)}', source)
    assert {name for name, _ in arrays} >= {'weights4', 'hashes', 'embeddings4'}
    for name, listed in arrays:
      stored = bytes(map(int, listed.replace(',', ' ').split()))
      assert stored == packed.sections[name].tobytes()
  assert list(report['forms']) == ['packed']
  assert report['test_data']['rows_far_from_jax'] == {'packed': 0}
  far = report['forms']['packed']['rows_far_from_jax']
  printed = capsys.readouterr().out
  counts = f'{far} of the 1,000 rows, and 0 of the 3 of {table}'
  assert f'Packed, {counts}, differ by more than 0.0001' in printed
  assert f'model_csv.c cannot read lines of {table} (semicolon-s' in printed
  assert 'Seed' not in printed


def test_what_cannot_be_packed_has_a_flag():
  tables = lplmtl.tables.fit(
    {}, {'age': [1.0, 2.0, 3.0, 4.0]}, num_bins=2, interpolate=True
  )
  tables = dataclasses.replace(tables, booleans=('abo',))
  with pytest.raises(ValueError) as error:
    packable.pack(None, {}, tables, 8)
  message = str(error.value)
  assert "booleans (['abo']) and interpolated numbers (['age'])" in message
  assert message.endswith('Train with --nointerpolate and --categories=abo')


@pytest.mark.parametrize(
  'arguments, message',
  [
    ([], '--model must name a run or a model'),
    ([MODEL, '--format=c99,java'], '--format must name some of c99, numpy, o'),
    ([MODEL, '--format=c99,packed'], 'name one of them'),
    ([MODEL, '--seed_index=2'], '--seed_index=2: the model in'),
    ([MODEL, '--name=my model'], "such as 'my_model'; found 'my model'"),
    ([MODEL, '--name=../x', '--format=numpy'], '--name: the name of the files'),
    ([MODEL, '--format=numpy,packed'], 'trained with few bits'),
    ([MODEL, '--format=packed'], 'make a small one with python -m experiments'),
    ([MODEL, f'--to={golden.FOLDER / "format2"}'], 'is a saved model, which'),
    (
      [MODEL, f'--to={golden.FOLDER / "format2" / "x"}'],
      'is a saved model, wh',
    ),
    (['--model=/nowhere'], 'found none at /nowhere'),
    ([f'--model={__file__}'], 'is a file: name the folder of a run'),
    ([MODEL, '--to=/dev/null/x'], 'cannot write --to=/dev/null/x'),
    ([MODEL, f'--to={__file__}'], 'is a file: name a folder'),
  ],
)
def test_a_mistake_is_one_line(
  arguments, message, tmp_path, capsys, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert launch(export.main, *arguments) == 1
  error = capsys.readouterr().err
  assert message in error and len(error.splitlines()) == 1
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'has_tables, extra, message',
  [
    (False, {}, 'saved without tables'),
    (True, {'schema': {'targets': {}}}, "the schema lacks 'inputs'"),
  ],
)
def test_models_that_say_too_little_are_refused(
  has_tables, extra, message, tmp_path, capsys
):
  model, params, tables = checkpoint.load(golden.FOLDER / 'format2', seed=0)
  tables = tables if has_tables else None
  checkpoint.save(tmp_path / 'model', model, params, tables, extra=extra)
  assert launch(export.main, f'--model={tmp_path}') == 1
  error = capsys.readouterr().err
  assert message in error and len(error.splitlines()) == 1
