"""Weights of few bits: programs store their codes, and predict the same."""

import jax
import numpy as np
import pytest

import lplmtl
from lplmtl import export
from lplmtl.compression import quantization
from lplmtl.compression.quantization import Quantized, Scheme
from lplmtl.export import (
  c99,
  c_constants,
  codes,
  meanings,
  nodes,
  numpy_form,
  program,
  reader,
  rows,
)
from tests import contracts
from tests.test_export import BINNED, EVERY_KIND, MODELS, NEW_ROWS
from tests.test_export_c99 import (
  COMPILERS,
  SANITIZERS,
  TARGETS,
  check,
  check_on,
)

needs_c = pytest.mark.skipif(not COMPILERS, reason='needs a C compiler')


def _traced(model, scheme, features):
  """Returns the program with codes, and the one with floats."""
  quantized = Quantized(model, scheme)
  params = contracts.random_params(quantized, features)
  frozen = quantization.freeze(quantized, params)
  floats = export.trace(model, quantization.thaw(frozen), features)
  return export.with_codes(floats, frozen), floats


def _assert_same(found, expected):
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


def _weights(found, kind):
  """The constants by which rows are multiplied, or that they look up."""
  place = {'matmul': 1, 'gather': 0}[kind]
  operands = [x.operands[place] for x in found.operations if x.kind == kind]
  return [x for x in operands if x.data is not None]


def plain(bits):
  """A model with folded steps: its table has codes alone."""
  model, encoded = MODELS['mmoe'], rows.features(BINNED)
  params = contracts.random_params(model, encoded)
  model, params = lplmtl.compression.merging.fold_steps(model, params)
  quantized = Quantized(model, Scheme(bits=bits))
  return quantized, params, encoded


@pytest.mark.parametrize('bits', [8, 4])
def test_a_quantised_model_is_traced_to_its_codes(bits, tmp_path):
  """As JAX predicts, and read back from a file."""
  model, params, encoded = plain(bits)
  found = export.trace(model, params, encoded)
  frozen = quantization.freeze(model, params)
  kernel = frozen['encoder']['down_0']['kernel'].codes
  path, _ = numpy_form.write(tmp_path, found, BINNED)
  read = reader.load(path)
  whole = [x for x in read['constants'] if x.dtype == np.int8]
  assert sum(x.size for x in whole) > 200
  most = max(np.abs(x).max() for x in whole)
  assert most == 2 ** (bits - 1) - 1 == np.abs(kernel).max()
  features = BINNED.encode(NEW_ROWS)
  apply = jax.jit(lambda p, x: model.apply({'params': p}, x)[0])
  logits = apply(params, features)
  expected = {
    task.name: meanings.of(task)(logits[task.name]) for task in model.tasks
  }
  _assert_same(reader.predict(read, NEW_ROWS), expected)


@needs_c
@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('bits', [8, 4])
def test_codes_on_other_processors(bits, target, tmp_path, monkeypatch):
  monkeypatch.setattr(codes, 'FEW', 1)
  found = export.trace(*plain(bits))
  source = c99.write(tmp_path, found, BINNED)[1].read_text()
  kind = {8: 'int8_t', 4: 'uint8_t'}[bits]
  assert source.count(f'static const {kind} constant_') > 5
  assert '64 rows' in check_on(target, tmp_path)


@needs_c
@pytest.mark.slow  # sanitisers are slow to compile and to start
@pytest.mark.parametrize('level, bits', [('-O0', 4), ('-O3', 8)])
@pytest.mark.parametrize('compiler', COMPILERS)
def test_sanitised(bits, compiler, level, tmp_path, monkeypatch):
  monkeypatch.setattr(codes, 'FEW', 1)
  c99.write(tmp_path, export.trace(*plain(bits)), BINNED)
  check(tmp_path, level, *SANITIZERS, compiler=compiler)


def test_columns_that_stay_floats_do_not_spoil_others():
  """Kernels of gates and experts are one matrix, of which gates are kept."""
  x = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
  model = lplmtl.MMoE(EVERY_KIND[:2], expert=lplmtl.MLP((8,)), num_experts=2)
  scheme = Scheme(bits=8, keep=('gate_zebra',))
  found, floats = _traced(model, scheme, x)
  shapes = {(w.dtype, *w.shape) for w in _weights(found, 'matmul')}
  assert {('int8', 9, 16), ('float32', 9, 2)} <= shapes
  _assert_same(
    reader.run(numpy_form.to_data(found), x),
    reader.run(numpy_form.to_data(floats), x),
  )


def test_one_row_of_weights_has_codes_or_none():
  """Zeros have any scale; numbers between codes and too large ones none."""
  scales = np.float32([0.5, 0.25])
  vectors = np.float32([[0, 0], [63.5, -1], [0.25, 31.75], [0.3, 1], [64, 0.5]])
  found, scale = codes.split(vectors, scales)
  np.testing.assert_array_equal(scale, [0.5, 0.5, 0.25, 0, 0])
  fits = scale > 0
  again = found.astype(np.float32) * scale[:, None]
  np.testing.assert_array_equal(again[fits], vectors[fits])


def test_two_codes_share_a_byte():
  """Those of two rows, of which the last may be missing."""
  some = np.array([[[-7, 7], [1, 0], [2, -3]]], np.int8)
  stored = c_constants.stored(
    nodes.Node('constant', (1, 3, 2), 'int8', data=some)
  )
  assert stored.shape == (1, 2, 2) and stored.dtype == np.uint8
  low, high = stored & 15, stored >> 4
  np.testing.assert_array_equal(low.astype(int) - 7, some[:, ::2])
  np.testing.assert_array_equal(high[:, :1].astype(int) - 7, some[:, 1::2])


@pytest.mark.parametrize(
  'numbers, kind',
  [([-128, 5], 'int8'), ([0, 255], 'uint8'), ([-1, 255], 'int16'),
   ([0, 40_000], 'int32')],
)  # fmt: skip
def test_whole_numbers_are_stored_in_few_bytes(numbers, kind):
  stored = c_constants.stored(nodes.constant(np.int32(numbers)))
  assert stored.dtype == kind
  np.testing.assert_array_equal(stored, numbers)


def test_nothing_quantised_is_left_alone():
  x = nodes.Node('input', (1, 1), 'float32')
  plain = program.Program({'': x}, {'y': x})
  assert export.with_codes(plain, None) is plain
