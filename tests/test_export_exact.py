"""Exported C has the bits of a NumPy reference, whatever compiles it."""

import shutil
import subprocess

import jax
import numpy as np
import pytest

import lplmtl
from lplmtl import export
from lplmtl.export import (
  c99,
  c_arithmetic,
  c_files,
  exact,
  nodes,
  numpy_form,
  program,
  reader,
)
from tests import contracts
from tests.test_export import EVERY_KIND
from tests.test_export_c99 import (
  COMPILERS,
  FLAGS,
  SANITIZED,
  SANITIZERS,
  check,
)

needs_c = pytest.mark.skipif(not COMPILERS, reason='needs a C compiler')
# What C and NumPy compute by polynomials, and the exact values.
FUNCTIONS = {
  'exp': ('power_of_e', np.exp),
  'log': ('logarithm', np.log),
  'tanh': ('tangent', np.tanh),
  'expm1': ('power_less_1', np.expm1),
  'log1p': ('logarithm_of_1_more', np.log1p),
  'logistic': ('logistic', lambda x: 1 / (1 + np.exp(-x))),
}


def _numbers():
  """Of every size, and those where functions turn."""
  rng = np.random.default_rng(0)
  bits = rng.integers(0, 2**32, 40_000, np.uint32).view(np.float32)
  some = rng.normal(size=20_000) * 10 ** rng.uniform(-6, 2, 20_000)
  turns = np.float32(
    [0, 1, 0.5, 0.625, 0.7071068, 86, 89, 1e-38, 1e-45, np.inf]
  )
  near = [turns, np.nextafter(turns, np.float32(0)), turns * np.float32(1.0001)]
  found = np.concatenate([bits, some.astype(np.float32), *near])
  return np.concatenate([found, -found, np.float32([np.nan])])


@pytest.mark.parametrize('name', FUNCTIONS)
def test_functions_are_close_to_the_true_values(name):
  """Within units in the last place, or of 1e-37, where results have fewer bits."""
  x = _numbers()
  with np.errstate(all='ignore'):
    found = exact.OPS[name](x)
    expected = FUNCTIONS[name][1](np.float64(x)).astype(np.float32)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=6e-7, atol=1e-37)


@needs_c
@pytest.mark.parametrize('compiler', COMPILERS)
def test_functions_have_the_same_bits_in_c(compiler, tmp_path):
  x = _numbers()
  names = [name for name, _ in FUNCTIONS.values()]
  calls = '\n'.join(f'    put({name}(x));' for name in names)
  used = c_files.used(c_arithmetic.HELPERS, calls)
  (tmp_path / 'all.c').write_text(f"""
#include <math.h>
#include <stdint.h>
#include <stdio.h>
{c_files.NOT_FUSED}{''.join(used)}
static void put(float x) {{ fwrite(&x, sizeof x, 1, stdout); }}
int main(void) {{
  float x;
  while (fread(&x, sizeof x, 1, stdin)) {{
{calls}
  }}
  return 0;
}}
""")
  command = compiler, *FLAGS, '-O3', *SANITIZERS, 'all.c', '-o', 'all'
  subprocess.run(command, cwd=tmp_path, check=True)
  run = subprocess.run(
    [tmp_path / 'all'],
    input=x.tobytes(),
    env=SANITIZED,
    capture_output=True,
    check=True,
  )
  found = np.frombuffer(run.stdout, np.float32).reshape(-1, len(names))
  for values, (name, (_, _)) in zip(found.T, FUNCTIONS.items(), strict=True):
    with np.errstate(all='ignore'):
      expected = exact.OPS[name](x)
    np.testing.assert_array_equal(values, expected, name)  # NaN where NaN is


@pytest.mark.parametrize('size', [1, 3, 4, 11])
def test_products_and_sums_have_one_order(size):
  """That of loops over one number at a time."""
  rng = np.random.default_rng(size)
  x, y = (
    rng.normal(size=shape).astype(np.float32)
    for shape in ((5, 2, size), (5, size, 3))
  )
  expected = np.zeros((5, 2, 3), np.float32)
  for place in np.ndindex(5, 2, 3):
    p, m, n = place
    products = x[p, m] * y[p, :, n]
    end = size // 4 * 4
    for four in products[:end].reshape(-1, 4):
      expected[place] += four[0] + four[1] + four[2] + four[3]
    for one in products[end:]:
      expected[place] += one
  np.testing.assert_array_equal(exact.OPS['matmul'](x, y), expected)
  codes = rng.integers(-7, 8, (size, 3)).astype(np.int8)
  found = exact.OPS['matmul'](x, codes)
  again = exact.OPS['matmul'](x, codes.astype(np.float32))
  np.testing.assert_array_equal(found, again)
  total = np.zeros(2, np.float32)
  for i, j in np.ndindex(5, size):
    total += x[i, :, j]
  np.testing.assert_array_equal(exact.OPS['sum'](x, axis=(0, 2)), total)


def _operations(x):
  """Returns a node of each kind; x is `[1, 2, 2]`."""
  shape, half = x.shape, nodes.constant(np.float32(0.5))
  positive = nodes.elementwise('absolute', [x], shape, 'float32')
  is_small = nodes.elementwise('less', [positive, half], shape, 'bool')
  ids = nodes.make('astype', [is_small], shape, 'int32', dtype='int32')
  unary = 'negative sign floor ceil exp expm1 tanh sin cos erf logistic'
  found = {k: nodes.make(k, [x], shape, 'float32') for k in unary.split()}
  found |= {
    k: nodes.make(k, [positive], shape, 'float32')
    for k in ('absolute', 'sqrt', 'log', 'log1p')
  }
  binary = 'add subtract multiply divide maximum minimum'
  for kind in binary.split():
    found[kind] = nodes.elementwise(kind, [half, x], shape, 'float32')
  found['power'] = nodes.elementwise(
    'power', [positive, half], shape, 'float32'
  )
  found |= {
    k: nodes.elementwise(k, [x, half], shape, 'bool')
    for k in ('less', 'less_equal', 'equal', 'not_equal')
  }
  found |= {
    k: nodes.make(k, [is_small, found['equal']], shape, 'bool')
    for k in ('logical_and', 'logical_or')
  }
  found['logical_not'] = nodes.make('logical_not', [is_small], shape, 'bool')
  found['isfinite'] = nodes.make('isfinite', [found['exp']], shape, 'bool')
  found['where'] = nodes.elementwise(
    'where', [is_small, x, half], shape, 'float32'
  )
  found |= {k: nodes.reduce(k, x, [1]) for k in ('sum', 'prod', 'max', 'min')}
  for kind in ('cumsum', 'sort'):
    found[kind] = nodes.make(kind, [x], shape, 'float32', axis=-1)
  table = nodes.constant(np.arange(6, dtype=np.float32).reshape(2, 3))
  found['gather'] = nodes.gather(table, ids)
  found['matmul'] = nodes.matmul(x, x)
  found['transpose'] = nodes.transpose(x, (0, 2, 1))
  found['slice'] = nodes.cut(x, 2, 1, -1, -1)
  ones = nodes.constant(np.ones(shape, np.float32))
  found['concatenate'] = nodes.concatenate([ones, x], 2)
  found['broadcast'] = nodes.broadcast(
    nodes.reduce('max', x, [0, 1, 2]), (1, 2)
  )
  found['constant'] = nodes.constant(np.float32([[1, 2]]))
  whole = nodes.make('astype', [positive], shape, 'int32', dtype='int32')
  three = nodes.constant(np.int32(3))
  found |= {
    k: nodes.elementwise(k, [whole, three], shape, 'int32')
    for k in ('quotient', 'remainder')
  }
  return found


def every_operation():
  """Returns a program with all of them, an output each, for rows `[2, 2]`."""
  x = nodes.Node('input', (1, 2, 2), 'float32')
  outputs = {}
  for kind, node in _operations(x).items():
    if node.dtype != 'float32':
      node = nodes.make(
        'astype', [node], node.shape, 'float32', dtype='float32'
      )
    outputs[kind] = nodes.reshape(node, (1, int(np.prod(node.shape))))
  return program.Program({'': x}, outputs)


@needs_c
@pytest.mark.parametrize('is_from_library', [False, True])
def test_every_operation_in_c(is_from_library, tmp_path):
  every = every_operation()
  outputs = {
    kind: node
    for kind, node in every.outputs.items()
    if (kind in exact.FROM_LIBRARY) == is_from_library
  }
  one = program.Program(every.inputs, outputs)
  assert exact.is_exact(one) != is_from_library
  numbers = np.float32([
    *(0.5, 1, -1, 0.25, 1e-3, -1e-7, 1e-7, 2e-4, -0.4, 3.5, -2.5, 70, -80),
    *(20, 8, -9),
  ])  # fmt: skip
  c99.write(tmp_path, one, columns=numbers.reshape(-1, 2, 2))
  found = check(tmp_path, '-O2', compiler=COMPILERS[-1])
  assert is_from_library or 'difference 0.0e+00' in found


def _traced(activation):
  bottom = lplmtl.MLP((4,), activation=activation)
  model = lplmtl.SharedBottom(EVERY_KIND[:2], bottom=bottom)
  x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
  return export.trace(model, contracts.random_params(model, x), x), x


@needs_c
@pytest.mark.skipif(not shutil.which('nm'), reason='needs nm')
def test_no_function_of_a_library_is_called(tmp_path):
  """But memset and memcpy, which compilers call by themselves."""
  found, _ = _traced(jax.nn.mish)
  kinds = {node.kind for node in found.operations}
  assert {'tanh', 'log1p', 'exp'} <= kinds
  c99.write(tmp_path, found)
  assert 'largest difference 0.0e+00' in check(tmp_path, '-O2')
  command = COMPILERS[0], '-std=c99', '-O2', '-c', 'model.c', '-o', 'model.o'
  subprocess.run(command, cwd=tmp_path, check=True)
  listed = subprocess.run(
    ['nm', '-u', 'model.o'], cwd=tmp_path, capture_output=True, text=True
  )
  assert set(listed.stdout.split()) <= {'U', 'memset', 'memcpy'}


@needs_c
def test_functions_of_a_library_are_named(tmp_path):
  """And the self-test accepts what their last digits change."""
  found, x = _traced(lambda x: jax.nn.gelu(x, approximate=False))
  header, source, test = c99.write(tmp_path, found)
  text = ' '.join(header.read_text().split())
  assert 'in the last digits by erf of the C library. */' in text
  assert '#include <math.h>' in source.read_text()
  assert 'largest <= 1e-5' in test.read_text()
  data = numpy_form.to_data(found)
  expected = reader.run(data, x)
  for name, values in exact.predict(data, x).items():
    np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)
