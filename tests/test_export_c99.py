"""Programs in C99: they compile without a warning, and agree with NumPy."""

import ctypes
import os
import pathlib
import re
import shutil
import subprocess

import flax.linen as nn
import numpy as np
import pytest

import lplmtl
from lplmtl import export, tables, tasks
from lplmtl.export import (
  c99,
  c_encoder,
  c_files,
  c_rows,
  c_text,
  reader,
  rows,
  vectors,
)
from tests import contracts, test_export
from tests.test_export import BINNED, EVERY_KIND, MODELS, Own

FLAGS = ('-std=c99', '-Wall', '-Wextra', '-Werror', '-pedantic')
# Undefined behaviour ends a program by an option of its process: if it were compiled
# to, by -fno-sanitize-recover, clang -O3 would take eight times as long.
SANITIZERS = ('-fsanitize=address,undefined',)
SANITIZED = {**os.environ, 'UBSAN_OPTIONS': 'halt_on_error=1'}
COMPILERS = [name for name in ('gcc', 'clang') if shutil.which(name)]
pytestmark = pytest.mark.skipif(not COMPILERS, reason='needs a C compiler')


def check(
  folder, *flags, compiler=COMPILERS[0] if COMPILERS else '', runner=()
):
  """Compiles the model in a folder and runs its self-test."""
  sources = sorted(folder.glob('*.c'))
  command = [compiler, *FLAGS, *flags, *sources, '-o', folder / 'run', '-lm']
  found = subprocess.run(command, capture_output=True, text=True)
  assert found.returncode == 0, found.stderr
  tested = subprocess.run(
    [*runner, folder / 'run'], env=SANITIZED, capture_output=True, text=True
  )
  assert tested.returncode == 0, tested.stdout + tested.stderr
  return tested.stdout


# x87's registers would round at other places; of Arm, a Cortex-A, as QEMU runs
# no program for a Cortex-M without a board.
TARGETS = {
  'x86-32': (COMPILERS[0], ('-m32', '-msse2', '-mfpmath=sse'), ()),
  'arm': (
    'arm-none-eabi-gcc',
    ('-mcpu=cortex-a9', '-O2', '--specs=rdimon.specs'),
    ('qemu-arm',),
  ),
} if COMPILERS else {}  # fmt: skip


def check_on(target, folder):
  """Runs a self-test on another processor; skips if it cannot be had."""
  compiler, flags, runner = TARGETS[target]
  if not all(map(shutil.which, (compiler, *runner))):
    pytest.skip(f'needs {compiler} {" ".join(runner)}')
  probe = folder / 'probe.c'
  probe.write_text('#include <math.h>\nint main(void) { return 0; }\n')
  built = subprocess.run(
    [compiler, *flags, probe, '-o', folder / 'run', '-lm'], capture_output=True
  )
  probe.unlink()
  if built.returncode:
    pytest.skip(f'{compiler} {flags[0]} lacks its libraries')
  return check(folder, *flags, compiler=compiler, runner=runner)


def _small(folder):
  features = rows.features(BINNED)
  params = contracts.random_params(MODELS['mmoe'], features)
  program = export.trace(MODELS['mmoe'], params, features)
  return c99.write(folder, program, BINNED)


@pytest.mark.slow  # sanitisers are slow to compile and to start
@pytest.mark.parametrize('level', ['-O0', '-O3'])
@pytest.mark.parametrize('compiler', COMPILERS)
def test_optimised_and_sanitised(compiler, level, tmp_path):
  _small(tmp_path)
  check(tmp_path, level, *SANITIZERS, compiler=compiler)


@pytest.mark.parametrize('target', TARGETS)
def test_other_processors(target, tmp_path):
  _small(tmp_path)
  assert '64 rows' in check_on(target, tmp_path)


def test_a_wrong_number_fails_the_self_test(tmp_path):
  *_, test = _small(tmp_path)
  text = test.read_text()
  start = text.index('expected[')
  place = text.index('{', start) + 1
  test.write_text(f'{text[:place]} 0.001f +{text[place:]}')
  with pytest.raises(AssertionError, match='expected at most 0: compile with'):
    check(tmp_path)


def test_logits(tmp_path):
  """Called from Python: a row and a prediction are arrays of floats."""
  x, program, _ = test_export.logits_of_arrays()
  _, source, _ = c99.write(tmp_path, program)
  library = tmp_path / 'model.so'
  flags = '-std=c99', '-O2', '-shared', '-fPIC'
  subprocess.run(
    [COMPILERS[0], *flags, source, '-o', library, '-lm'], check=True
  )
  predict = ctypes.CDLL(str(library)).model_predict
  sizes = [output.shape[1] for output in program.outputs.values()]
  found = np.zeros((len(x), sum(sizes)), np.float32)
  for row, prediction in zip(x, found, strict=True):
    predict(*(ctypes.c_void_p(y.ctypes.data) for y in (row, prediction)))
  parts = np.split(found, np.cumsum(sizes)[:-1], axis=1)
  test_export.assert_same_logits(dict(zip(program.outputs, parts, strict=True)))


@pytest.mark.skipif(not shutil.which('g++'), reason='needs a C++ compiler')
def test_the_header_serves_cpp(tmp_path):
  _small(tmp_path)
  (tmp_path / 'use.cc').write_text('#include "model.h"\nmodel_row row;\n')
  command = ['g++', '-std=c++11', *FLAGS[1:], '-fsyntax-only', 'use.cc']
  subprocess.run(command, cwd=tmp_path, check=True)


def test_nothing_but_math_is_needed(tmp_path):
  _, source, _ = _small(tmp_path)
  included = [
    line for line in source.read_text().splitlines() if '#include' in line
  ]
  assert included == [
    '#include "model.h"', '#include <math.h>', '#include <stddef.h>'
  ]  # fmt: skip
  assert 'alloc' not in source.read_text()


def test_every_kind_of_column(tmp_path):
  """Whole numbers, texts with odd characters, Booleans, hashes, places among
  edges, merged values, texts that stand for missing ones.
  """
  fitted = tables.fit(
    {'code': [3, -12, 753, None, 3], 'a "b"?': ['Ø', '??/', '\\', '01', 'Ø'],
     'name': list('abcde'), 'int': ['3.0', 'x', '-2', 'y', 'y']},
    {'age': [1, 2, 5, None, 9], '2nd age': [0.1, 0.2, 0.7, 1e9, 4]},
    num_bins=3, booleans={'paid': ['yes', 'no', None, 'no', 'no']},
    rules=tables.Rules(
      fill_missing=True, missing=('?', '-999', '.5', 'inf'),
      max_vocabulary=4, num_buckets=5,
    ), interpolate=True,
  )  # fmt: skip
  encoder = lplmtl.TabularEncoder(
    fitted.num_categories, 2, num_buckets=fitted.num_buckets,
    num_pieces=fitted.num_pieces,
  )  # fmt: skip
  model = lplmtl.SharedBottom(EVERY_KIND[:2], encoder)
  features = rows.features(fitted)
  params = contracts.random_params(model, features)
  program = export.trace(model, params, features)
  data = rows.to_data(fitted)
  columns = vectors.of_encoding(data, 200)
  columns['age'][:6] = [-999, '-999.0', True, 0.5, float('inf'), ' ? ']
  for name in ('paid', 'int', 'name'):
    columns[name][:4] = ['?', ' TRUE', '3.0 ', '-0.0']
  c99.write(tmp_path, program, fitted, columns=columns)
  assert '200 rows' in check(tmp_path)
  kinds = {field.member: field.kind for field in c_rows.fields(data)}
  assert kinds['code'] == 'integer' and kinds['int_'] == 'text'
  assert kinds['x2nd_age'] == 'number'


class _Sum(nn.Module):
  names: tuple

  @nn.compact
  def __call__(self, x):
    ids = nn.Embed(4, 3)(x[self.names[0]][:, 0])
    return nn.Dense(3)(x[self.names[1]]) + ids


def test_inputs_with_names_of_the_code_itself(tmp_path):
  """Of ids and of floats, called as a function and as a loop variable."""
  x = {
    'product': np.zeros((1, 2), np.int32),
    'i': np.zeros((1, 3), np.float32),
    'found': np.zeros((1, 0), np.float32),
  }
  model = lplmtl.SharedBottom(EVERY_KIND[:1], bottom=_Sum(('product', 'i')))
  params = contracts.random_params(model, x)
  c99.write(tmp_path, export.trace(model, params, x))
  check(tmp_path)


def test_columns_with_names_of_macros(tmp_path):
  names = 'NAN', 'MISSING', 'INFINITY', 'unix'
  fitted = tables.fit({name: ['1', 'x'] for name in names}, {'NULL': [1, 2]})
  encoder = lplmtl.TabularEncoder(fitted.num_categories, 2)
  model = lplmtl.SharedBottom(EVERY_KIND[:1], encoder)
  features = rows.features(fitted)
  params = contracts.random_params(model, features)
  c99.write(tmp_path, export.trace(model, params, features), fitted)
  check(tmp_path)


def test_no_numbers_and_weights_of_one(tmp_path):
  """Categories alone, and layers with one input and one output."""
  fitted = tables.fit({'city': ['Oslo', 'Rome', 'Lima']}, {})
  model = lplmtl.SharedBottom(
    EVERY_KIND[:2],
    lplmtl.TabularEncoder(fitted.num_categories, 1),
    bottom=lplmtl.MLP((1, 1)),
  )
  features = rows.features(fitted)
  params = contracts.random_params(model, features)
  c99.write(tmp_path, export.trace(model, params, features), fitted)
  check(tmp_path)


def test_arrays_and_modules_of_ones_own(tmp_path):
  x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
  model = lplmtl.MMoE(EVERY_KIND[:2], expert=Own(), num_experts=2)
  params = contracts.random_params(model, x)
  c99.write(tmp_path, export.trace(model, params, x), name='own')
  assert 'float x[3];' in (tmp_path / 'own.h').read_text()
  check(tmp_path)


def test_the_example_of_the_readme(tmp_path):
  text = (pathlib.Path(c99.__file__).parent / 'README.md').read_text()
  code, _ = re.findall(r'```c\n(.*?)```', text, re.DOTALL)
  include, body = code.split('\n\n', 1)
  fitted = tables.fit({'city': ['Oslo', 'Rome']}, {'age': [30, 40]})
  encoder = lplmtl.TabularEncoder(fitted.num_categories, 2)
  model = lplmtl.SharedBottom((tasks.binary('buys'),), encoder)
  features = rows.features(fitted)
  params = contracts.random_params(model, features)
  c99.write(tmp_path, export.trace(model, params, features), fitted)
  used = 'return problem || !(found.buys[0] > 0 && found.buys[0] < 1);'
  main = f'{include}\nint main(void) {{\n{body}\n{used}\n}}\n'
  (tmp_path / 'model_test.c').write_text(main)
  check(tmp_path)


def test_rows_that_cannot_be_read_are_refused(tmp_path):
  """The number of the member is returned; nothing else happens."""
  fitted = tables.fit({'city': ['Oslo', 'x']}, {'age': [1, 2], 'n': [3, 4]})
  encoder = lplmtl.TabularEncoder(fitted.num_categories, 2)
  model = lplmtl.SharedBottom(EVERY_KIND[:1], encoder)
  features = rows.features(fitted)
  program = export.trace(
    model, contracts.random_params(model, features), features
  )
  c99.write(tmp_path, program, fitted)
  (tmp_path / 'model_test.c').write_text("""
#include <math.h>
#include "model.h"
int main(void) {
  const model_row bad[3] = {
      {"Oslo", NAN, 3}, {"Oslo", 1, INFINITY}, {0, 1, 1e30}};
  model_prediction found;
  return model_predict(&bad[0], &found) != 2 ||
         model_predict(&bad[1], &found) != 3 ||
         model_predict(&bad[2], &found) != 3;
}
""")
  check(tmp_path)


def test_a_name_must_be_an_identifier(tmp_path):
  with pytest.raises(ValueError, match="such as 'my_model'; found 'my model'"):
    c99.write(tmp_path, None, name='my model')
  assert not list(tmp_path.iterdir())
  names = c_text.identifiers(['a b', 'a_b', 'int', '', 'Ö'])
  assert len(set(names.values())) == 5


def test_texts_and_ids_of_any_size(tmp_path):
  """Many values, whose ids have more than 16 bits, and texts of any script."""
  texts = ['ab', 'a', 'é', 'z', '\ue000', '\U0001f600', 'aé', 'Z']
  fitted = tables.fit({'code': range(70_000)}, {})
  encoding = rows.to_data(fitted)
  ids = {text: i + 66_000 for i, text in enumerate(texts)}
  encoding['columns'].append('text')
  encoding['categories'].append({'name': 'text', 'ids': ids, 'unseen': 0})
  columns = {'code': [0, 9, 10, 69_999, 70_000], 'text': [*texts[2:6], 'zz']}
  expected = reader.encode(encoding, columns)['categories']
  assert expected[:4].max() > 2**16
  code = c_encoder.encoder(encoding, 'model')
  used = c_files.used(code.helpers, code.function)
  row = ''.join(f'{f.declaration} ' for f in c_rows.fields(encoding))
  literals = [
    f'{{{code}, {c_text.string(text)}}}'
    for code, text in zip(*columns.values(), strict=True)
  ]
  source = f"""
#include <stdint.h>
typedef struct {{ {row}}} model_row;
{''.join(used)}{code.constants}
{code.function}
{c_text.array('model_row', 'rows', literals)}
{c_text.numbers('expected', expected)}
int main(void) {{
  int wrong = 0;
  for (int i = 0; i < 5; i++) {{
    int32_t found[2];
    wrong += encode(&rows[i], found, 0);
    wrong += found[0] != expected[2 * i] || found[1] != expected[2 * i + 1];
  }}
  return wrong;
}}
"""
  (tmp_path / 'ids.c').write_text(source)
  check(tmp_path)
