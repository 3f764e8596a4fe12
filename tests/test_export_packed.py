"""Packed models in C: logits with the bits of the NumPy reference."""

import dataclasses
import re
import shutil
import subprocess

import jax
import numpy as np
import pytest

import lplmtl
from experiments.exporting import sizes
from lplmtl import export
from lplmtl.compression import packing, quantization, reference
from lplmtl.compression.quantization import Scheme
from lplmtl.export import (
  c99,
  c_csv,
  c_packed,
  c_packed_outputs,
  meanings,
  numpy_form,
  reader,
)
from tests import contracts, test_packing
from tests.test_export_c99 import COMPILERS, TARGETS, check, check_on

pytestmark = pytest.mark.skipif(not COMPILERS, reason='needs a C compiler')


def _packed(scheme, tables=test_packing.TABLES, **fields):
  model = quantization.Quantized(test_packing._model(tables, **fields), scheme)
  features = tables.encode(test_packing.COLUMNS)
  params = contracts.random_params(model, features)
  return packing.pack(quantization.freeze(model, params), tables)


@pytest.mark.parametrize(
  'scheme, fields',
  [
    (Scheme(bits=4), {'num_layers': 2}),
    (Scheme(bits=8), {'cross': False}),
    (Scheme(bits=4, scale_bits=8, vector_bits=4), {'bottom': lplmtl.MLP(())}),
    (Scheme(bits=3), {'cross': False}),
    (Scheme(bits=2, embedding_bits=4), {}),
  ],
  ids=str,
)
def test_logits_have_the_bits_of_the_reference(scheme, fields, tmp_path):
  """Hashes of 8 and 16 bits, unseen and missing values, all formats of edges,
  numbers with and without a scaled one.
  """
  columns = test_packing._columns(100, seed=1)
  columns['city'][:3] = ['unseen', '', ' city 1']
  packed = _packed(scheme, **fields)
  task = next(name for name in reference.score(packed, columns))
  classes = ', '.join(f"'*/ class {i}'" for i in range(9))
  c_packed.write(tmp_path, packed, columns, notes={task: classes})
  header = ' '.join((tmp_path / 'model.h').read_text().split())
  assert f'/* {task!r}: {classes.replace("*/", "* /")} */ float' in header
  found = check(tmp_path, '-O2', '-ffp-contract=off', compiler=COMPILERS[-1])
  assert '100 rows, largest difference 0.0e+00' in found


def test_predictions_of_every_kind_have_the_bits_of_the_reference(tmp_path):
  """And are those of JAX to 1e-5, without a mathematical library."""
  given = (
    lplmtl.tasks.binary('yes'),
    lplmtl.tasks.multiclass('one', 3),
    lplmtl.tasks.ordinal('grade', 4),
    lplmtl.tasks.poisson('count'),
    lplmtl.tasks.regression('price'),
  )
  tables = test_packing.TABLES
  model = test_packing._model(tables, cross=False).clone(tasks=given)
  quantized = quantization.Quantized(model, Scheme(bits=8))
  columns = test_packing._columns(60, seed=2)
  features = tables.encode(columns)
  params = contracts.random_params(quantized, features)
  scales = {'price': (100.0, 20.0), 'count': (0.0, 2.5)}
  described = {
    task.name: meanings.describe(task, *scales.get(task.name, ()))
    for task in given
  }
  frozen = quantization.freeze(quantized, params)
  packed = packing.pack(frozen, tables, hash_bits=16)
  c_packed.write(tmp_path, packed, columns, meanings=described)
  assert 'largest difference 0.0e+00' in check(tmp_path, '-ffp-contract=off')
  logits = reference.score(packed, columns)
  found = c_packed.predict(packed, columns, described)
  for task in given:
    link = meanings.of(task, *scales.get(task.name, ()))
    expected = np.asarray(link(logits[task.name]))
    np.testing.assert_allclose(found[task.name], expected, 1e-5, 1e-6)


def _student(folder):
  """Writes a network such as `compression.compress` makes, with its CSV."""
  numerics = {
    name: dataclasses.replace(scaler, log=False)  # needs math.h
    for name, scaler in test_packing.TABLES.numerics.items()
  }
  tables = dataclasses.replace(test_packing.TABLES, numerics=numerics)
  parts = {'bottom': lplmtl.MLP((8,)), 'tower': lplmtl.MLP(())}
  scheme = Scheme(bits=4, scale_bits=8, vector_bits=8)
  packed = _packed(scheme, tables, **parts)
  columns = test_packing._columns(100, seed=1)
  described = {t.name: meanings.describe(t) for t in test_packing.TASKS}
  c_packed.write(folder, packed, columns, meanings=described)
  c_csv.write(folder, packed.tables, is_packed=True)
  return packed


def _missing(*tools):
  absent = [tool for tool in tools if not shutil.which(tool)]
  return pytest.mark.skipif(bool(absent), reason=f'needs {absent}')


def _run(*command, cwd):
  found = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
  assert not found.returncode, found.stdout + found.stderr
  return found.stdout


@_missing('arm-none-eabi-gcc', 'arm-none-eabi-nm')
def test_a_microcontroller_needs_little(tmp_path):
  """Code and stack of a Cortex-M4, and no function of a library but memset.

  More code than the README names, as this network has scaled numbers, hashes
  of 16 bits and a multiclass task.
  """
  packed = _student(tmp_path)
  stack = 0
  for file, entry in ('model', 'model_predict'), ('model_csv', 'model_read'):
    found = sizes.of_source(tmp_path / f'{file}.c', entry)
    facts = found['arm-none-eabi-gcc']
    stack = max(stack, facts['stack'])
    if file == 'model':
      # gcc leaves out arrays whose bytes are all alike.
      assert facts['sections']['constants'] <= packed.num_bytes
    assert facts['sections']['code'] < {'model': 1600, 'model_csv': 370}[file]
    assert not facts['sections']['writable']
  assert stack < 400
  flags = '-std=c99', '-Os', *sizes.CORTEX
  _run('arm-none-eabi-gcc', *flags, '-c', 'model.c', cwd=tmp_path)
  undefined = _run('arm-none-eabi-nm', '-u', 'model.o', cwd=tmp_path).split()
  assert set(undefined) <= {'U', 'memset'}


@_missing('clang', 'wasm-ld', 'node')
def test_bits_in_webassembly(tmp_path):
  _student(tmp_path)
  text = (tmp_path / 'model_test.c').read_text()
  text = text.replace('#include <math.h>', '#define NAN __builtin_nanf("")')
  text = text.replace('#include <stdio.h>', '#define fabs __builtin_fabs')
  text = re.sub(r'printf\(.*?\);', ';', text, flags=re.DOTALL)
  text = text.replace('main(void)', 'test(void)')
  (tmp_path / 'model_test.c').write_text(text)
  flags = '--target=wasm32', '-nostdlib', '-O2', '-Wl,--no-entry'
  files = 'model.c', 'model_test.c', '-Wl,--export=test', '-o', 'test.wasm'
  _run('clang', *flags, *files, cwd=tmp_path)
  (tmp_path / 'run.js').write_text(
    'const program = require("fs").readFileSync("test.wasm");\n'
    'WebAssembly.instantiate(program).then(({instance}) =>\n'
    '  process.exit(instance.exports.test()));\n'
  )
  _run('node', 'run.js', cwd=tmp_path)


@pytest.mark.parametrize('kind', ['decisions', 'classes', 'count'])
def test_extreme_logits(kind):
  """Predictions stay finite, and close to those of the function they are."""
  x = np.float32([[-1e30, 1e30], [-88, 3], [40, 30], [0, -0.5], [12, 14]])
  meaning = meanings.Meaning(kind)
  found = c_packed_outputs.predict({'a': x}, {'a': meaning})['a']
  exact = np.float64(x)
  if kind == 'decisions':
    expected = 1 / (1 + np.exp(np.minimum(-exact, 700)))
  elif kind == 'count':
    expected = np.exp(np.clip(exact, -700, 80))
  else:
    powers = np.exp(exact - exact.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(found, expected, 1e-5, 1e-12)


@pytest.mark.parametrize('target', TARGETS)
def test_other_processors_compute_the_same_bits(target, tmp_path):
  columns = test_packing._columns(64, seed=1)
  c_packed.write(tmp_path, _packed(Scheme(bits=4), num_layers=2), columns)
  found = check_on(target, tmp_path)
  assert '64 rows, largest difference 0.0e+00' in found


def test_merged_values_and_a_sentinel(tmp_path):
  """Ids that several values share, and bins alone: no mathematical library."""
  columns = {
    'k': list('abcdef') * 5,
    'n': [True, '.5', *range(2, 28), float('inf'), -999],
  }
  rules = lplmtl.tables.Rules(fill_missing=True, missing=('-999', 'inf'))
  fitted = lplmtl.tables.fit(
    {'k': columns['k']}, {'n': columns['n']}, num_bins=5, rules=rules
  )
  model = test_packing._model(fitted)
  features = fitted.encode(columns)
  batch = lplmtl.Batch(features, {'zebra': np.arange(30) % 2})
  model = model.clone(tasks=model.tasks[:1])
  params = contracts.random_params(model, features)
  merged = lplmtl.compression.merge(fitted, model, params, batch, num_ids=6)
  tables = merged.tables
  assert tables.merged
  scheme = Scheme(bits=4, scale_bits=8, vector_bits=8)
  quantized = quantization.Quantized(test_packing._model(tables), scheme)
  params = contracts.random_params(quantized, tables.encode(columns))
  packed = packing.pack(quantization.freeze(quantized, params), tables)
  _, source, _ = c_packed.write(tmp_path, packed, columns, name='tiny')
  assert 'largest difference 0.0e+00' in check(tmp_path)
  assert 'math.h' not in source.read_text()
  for path in tmp_path.iterdir():
    path.unlink()
  # As C of floats, which rounds the parameters once.
  features = tables.encode(columns)
  program = export.trace(quantized, params, features)
  c99.write(tmp_path, program, tables)
  check(tmp_path)
  found = reader.run(numpy_form.to_data(program), features)
  logits = lplmtl.predict(quantized, params, features)['zebra']
  np.testing.assert_allclose(found['zebra'], jax.nn.sigmoid(logits), atol=1e-5)


def test_constants_are_the_bytes_that_are_counted(tmp_path):
  packed = _packed(Scheme(bits=4))
  c_packed.write(tmp_path, packed, test_packing._columns(3))
  sizes = re.findall(
    r'^static const uint8_t (\w+)\[(\d+)\]',
    (tmp_path / 'model.c').read_text(),
    re.MULTILINE,
  )
  assert {name: int(size) for name, size in sizes} == {
    name: array.nbytes for name, array in packed.sections.items()
  }
  assert sum(int(size) for _, size in sizes) == packed.num_bytes


def test_other_models_are_refused(tmp_path):
  model = contracts.architectures()['mmoe']
  params = contracts.random_params(model, np.zeros((1, 3), np.float32))
  with pytest.raises(ValueError, match='packed with its tables'):
    c_packed.write(tmp_path, packing.pack(params), {})
  with pytest.raises(ValueError, match="such as 'a_b'; found 'a b'"):
    c_packed.write(tmp_path, packing.pack(params), {}, name='a b')
  with pytest.raises(ValueError, match=r'packing.pack returns.*found tuple'):
    c_packed.write(tmp_path, (packing.pack(params),), {})
  with pytest.raises(ValueError, match='raw rows.*found list'):
    c_packed.write(tmp_path, packing.pack(params), ['city', 'age'])
  assert not list(tmp_path.iterdir())
