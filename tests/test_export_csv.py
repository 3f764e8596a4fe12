"""Lines of CSV as rows in C: what they hold is what NumPy predicts."""

import csv
import io
import pathlib
import re
import subprocess

import numpy as np
import pytest

import lplmtl
from lplmtl import export
from lplmtl.compression import packing, quantization
from lplmtl.export import (
  c99,
  c_csv,
  c_packed,
  numpy_form,
  reader,
  rows,
  vectors,
)
from tests import contracts, test_packing
from tests.test_export_c99 import COMPILERS, FLAGS

pytestmark = pytest.mark.skipif(not COMPILERS, reason='needs a C compiler')

_MAIN = """
#include <stdio.h>
#include "model_csv.h"
int main(void) {
  static char line[4096];
  while (fgets(line, sizeof line, stdin)) {
    model_row row;
    model_prediction found;
    int i, problem = model_read(line, &row);
    if (!problem) problem = 100 * model_predict(&row, &found);
    printf("%d", problem);
    for (i = 0; !problem && i < (int)(sizeof found / sizeof(float)); i++)
      printf(" %.9g", ((float *)&found)[i]);
    printf("\\n");
  }
  return 0;
}
"""


def _run(folder, lines, program=_MAIN):
  """Returns what is printed for each line: a problem, and predictions."""
  (folder / 'main.c').write_text(program)
  sources = [folder / file for file in ('main.c', 'model.c', 'model_csv.c')]
  command = [COMPILERS[0], *FLAGS, '-O1', *sources, '-o', folder / 'run', '-lm']
  built = subprocess.run(command, capture_output=True, text=True)
  assert not built.returncode, built.stderr
  found = subprocess.run(
    folder / 'run', input=lines.encode(), capture_output=True, check=True
  )
  return [line.split() for line in found.stdout.decode().splitlines()]


def _text(columns, names, quoting=csv.QUOTE_MINIMAL):
  """Returns lines of CSV; columns that the model does not read are odd."""
  file = io.StringIO()
  writer = csv.writer(file, quoting=quoting)
  count = len(next(iter(columns.values())))
  for i in range(count):
    values = [columns[n][i] if n in columns else 'a, "b"' for n in names]
    writer.writerow('' if v is None or v != v else v for v in values)
  return file.getvalue()


def _packed():
  tables = test_packing.TABLES
  model = quantization.Quantized(
    test_packing._model(tables, cross=False), quantization.Scheme(bits=4)
  )
  columns = test_packing._columns(50, seed=4)
  params = contracts.random_params(model, tables.encode(columns))
  packed = packing.pack(quantization.freeze(model, params), tables)
  columns['city'][:3] = ['"quoted", Oslo', '  ', 'never seen']
  columns['income'] = np.round(columns['income'], 3)
  return packed, columns


@pytest.mark.parametrize('is_in_order', [True, False])
def test_lines_of_packed_models(is_in_order, tmp_path):
  """With the bits of NumPy; quotes, commas, missing and further columns."""
  packed, columns = _packed()
  others = 'x', 'y */ \n', 'z'
  names = [others[0], *packed.tables.columns, *others[1:]]
  if not is_in_order:
    names.reverse()
  c_packed.write(tmp_path, packed, columns)
  c_csv.write(tmp_path, packed.tables, names, is_packed=True)
  header = ' '.join((tmp_path / 'model_csv.h').read_text().split())
  for i, name in enumerate(names, 1):
    shown = repr(name).replace('*/', '* /') + ' (skipped)' * (name in others)
    assert re.search(rf' {i} {re.escape(shown)}[,.]', header)
  found = _run(tmp_path, _text(columns, names))
  expected = np.concatenate([*c_packed.predict(packed, columns).values()], 1)
  np.testing.assert_array_equal(np.float32(found)[:, 1:], expected)
  assert {row[0] for row in found} == {'0'}


def test_lines_of_floats(tmp_path):
  """Whole numbers as categories, exponents, and texts that mean missing."""
  names = ['code', 'size', 'more', 'city']
  fitted = lplmtl.tables.fit(
    {'city': ['Oslo', 'Rome', '?'], 'code': [3, 753, None]},
    {'size': [1.0, 2.5, None]},
    rules=lplmtl.tables.Rules(fill_missing=True, missing=('?',)),
  )
  encoder = lplmtl.TabularEncoder(fitted.num_categories, 2)
  model = lplmtl.SharedBottom((lplmtl.tasks.binary('a'),), encoder)
  features = rows.features(fitted)
  params = contracts.random_params(model, features)
  program = export.trace(model, params, features)
  c99.write(tmp_path, program, fitted)
  c_csv.write(tmp_path, fitted, names)
  columns = vectors.of_encoding(rows.to_data(fitted), 40)
  columns['size'][:5] = ['?', ' nan ', '1.5e-1', '-2E3', '+.25']
  columns['code'][:4] = ['3.0', 'x', '?', '03']
  found = _run(tmp_path, _text(columns, names, csv.QUOTE_ALL))
  data = numpy_form.to_data(program, fitted)
  expected = reader.predict(data, columns)['a']
  np.testing.assert_allclose(np.float64(found)[:, 1:], expected, 1e-6)


def test_the_program_of_the_readme(tmp_path):
  text = (pathlib.Path(c_csv.__file__).parent / 'README.md').read_text()
  *_, program = re.findall(r'```c\n(.*?)```', text, re.DOTALL)
  columns = {'city': ['Oslo', 'Rome'], 'age': [30, 40]}
  fitted = lplmtl.tables.fit({'city': columns['city']}, {'age': columns['age']})
  encoder = lplmtl.TabularEncoder(fitted.num_categories, 2)
  model = lplmtl.SharedBottom((lplmtl.tasks.binary('buys'),), encoder)
  params = contracts.random_params(model, rows.features(fitted))
  traced = export.trace(model, params, rows.features(fitted))
  c99.write(tmp_path, traced, fitted)
  c_csv.write(tmp_path, fitted)
  found = _run(
    tmp_path, f'city,age\n{_text(columns, fitted.columns)}x\n', program
  )
  data = numpy_form.to_data(traced, fitted)
  expected = reader.predict(data, columns)['buys']
  np.testing.assert_allclose(np.float64(found[:2]), expected, 1e-5)
  assert ' '.join(found[2]) == 'cannot read column 2, member 0'


def test_lines_that_are_no_rows(tmp_path):
  """The column at fault is returned, counted from 1."""
  packed, columns = _packed()
  c_packed.write(tmp_path, packed, columns)
  c_csv.write(tmp_path, packed.tables, is_packed=True)
  city, colour, age, gains, income, flat = 'Oslo', 'red', '40', '250', '0.5', 1
  assert list(packed.tables.columns) == [
    'city', 'colour', 'age', 'gains', 'income', 'flat',
  ]  # fmt: skip
  lines = [
    f'{city},{colour},{age},{gains},{income},{flat}',
    f'{city},{colour},{age},{gains},{income}',
    f'{city},{colour},{age},{gains},{income},{flat},',
    f'{city},{colour},4o,{gains},{income},{flat}',
    f'{city},{colour},{age},1.2.3,{income},{flat}',
    '',
  ]
  found = _run(tmp_path, '\r\n'.join(lines) + '\n')
  assert [row[0] for row in found] == ['0', '6', '7', '3', '4', '2']


def test_wrong_names(tmp_path):
  with pytest.raises(ValueError, match=r"\['age'\] are absent or repeated"):
    c_csv.write(
      tmp_path,
      test_packing.TABLES,
      ['city', 'colour', 'gains', 'income', 'flat'],
    )
  with pytest.raises(ValueError, match="such as 'my_model'"):
    c_csv.write(tmp_path, test_packing.TABLES, name='my model')
  assert not list(tmp_path.iterdir())
