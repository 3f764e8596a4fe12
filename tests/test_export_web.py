"""Pages that score rows: in Node and in a browser, as NumPy does."""

import base64
import csv
import dataclasses
import html
import io
import json
import re
import shutil
import subprocess

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from experiments import export as command
from experiments.exporting import notes
from lplmtl import export
from lplmtl.compression import device_rows, packing, quantization
from lplmtl.export import (
  c99,
  c_packed,
  c_program,
  exact,
  meanings,
  numpy_form,
  rows,
  vectors,
  web_fields,
  web_form,
  web_module,
)
from lplmtl.tabular import schema
from tests import contracts, test_packing
from tests.golden import write as golden
from tests.launching import launch
from tests.test_export import EVERY_KIND

MODEL = f'--model={golden.FOLDER / "format2"}'
ODD = ('</script><script>alert(1)</script>', '<!--', 'a, "b"', "it's\nØ", '\\')
# Of 14 classes, a page shows the 12 likeliest.
TASKS = (*EVERY_KIND[:1], lplmtl.tasks.multiclass('apple', 14), *EVERY_KIND[2:])
NAMES = ('a "b"</script>', 'code', 'paid', "<img src='x'>", 'size')
TABLES = lplmtl.tables.fit(
  {NAMES[0]: [*ODD, None] * 5, NAMES[1]: range(5, 35)},
  {NAMES[3]: [1, 2, 5, None, 9, 9] * 5, NAMES[4]: [0.1, 0.2, 0.7, 1e3, 4] * 6},
  num_bins=3,
  booleans={NAMES[2]: ['yes', 'no', None, 'no', 'no'] * 6},
  rules=lplmtl.tables.Rules(fill_missing=True, missing=('?',)),
)


def _needs(*tools):
  absent = [tool for tool in tools if not shutil.which(tool)]
  return pytest.mark.skipif(bool(absent), reason=f'needs {absent}')


class _Functions(nn.Module):
  """Functions that C computes by itself, or those of its library."""

  of_library: bool

  @nn.compact
  def __call__(self, x):
    size = jnp.abs(x).clip(0.1, 9)
    if self.of_library:
      every = [jnp.sin(x), jnp.cos(x), size**-1.3, jax.lax.erf(x)]
    else:
      every = [
        jnp.exp(-size), jnp.log(size), jnp.expm1(-size), jnp.log1p(size),
        jnp.tanh(x), jnp.sqrt(size), jnp.floor(size), jnp.ceil(size),
      ]  # fmt: skip
    return nn.Dense(4)(jnp.concatenate(every, axis=1))


def _renamed(by_task):
  """Returns a dict in which one task has an odd name."""
  return {ODD[0] if k == 'zebra' else k: v for k, v in by_task.items()}


def _program(of_library=False):
  encoder = lplmtl.TabularEncoder(TABLES.num_categories, 2, TABLES.num_ordered)
  model = lplmtl.SharedBottom(TASKS, encoder, bottom=_Functions(of_library))
  features = rows.features(TABLES)
  params = contracts.random_params(model, features)
  scales = {'mango': (100.0, 20.0)}
  traced = export.trace(model, params, features, scales=scales)
  return dataclasses.replace(traced, outputs=_renamed(traced.outputs))


def _outputs(tasks):
  found = {t.name: web_form.Output(meanings.describe(t).kind) for t in tasks}
  return found | {'zebra': web_form.Output('decisions', (ODD[1],))}


@pytest.fixture(scope='module')
def program():
  return _program()


@pytest.fixture(scope='module')
def page(program, tmp_path_factory):
  """A page with odd names, and tasks of every kind."""
  made = web_form.of_program(program, TABLES, _renamed(_outputs(TASKS)), NAMES)
  (path,) = web_form.write(tmp_path_factory.mktemp('page'), made)
  return path


def _data(path):
  text = re.search(r'<script id="data".*?>(.*?)</script>', path.read_text())[1]
  return json.loads(text)


_RUN = """
const vm = require('vm');
const page = require('fs').readFileSync(process.argv[2], 'utf8');
const data = JSON.parse(/<script id="data".*?>(.*?)<[/]script>/.exec(page)[1]);
vm.runInThisContext(/<script>(.*?)<[/]script>/s.exec(page)[1]);
const names = data.fields.map((field) => field.name);
loadModel(data).then((predict) => {
  const found = JSON.parse(require('fs').readFileSync(0)).map((text) => {
    try {
      const table = openTable(text, names);
      const rows = Array.from(table.records, (record) =>
        predictRecord(record, table, data, predict));
      return withPredictions(table, rows, data).join('');
    } catch (error) {
      return error.message;
    }
  });
  console.log(JSON.stringify(found));
});
"""


def _run(path, *texts):
  """Returns what Node makes of tables: tables with predictions, or errors."""
  script = path.with_name('run.js')
  script.write_text(_RUN)
  found = subprocess.run(
    ['node', script, path],
    input=json.dumps(texts).encode(),
    capture_output=True,
  )
  assert found.returncode == 0, found.stderr.decode()
  return json.loads(found.stdout)


def _table(columns, names, **options):
  file = io.StringIO()
  writer = csv.writer(file, **options)
  writer.writerow(names)
  for row in zip(*[columns[name] for name in names], strict=True):
    writer.writerow('' if v is None or v != v else v for v in row)
  return file.getvalue()


def _read(text):
  return list(csv.DictReader(io.StringIO(text, newline='')))


def _values(found, data):
  names = [name for one in data['outputs'] for name in one['columns']]
  return np.array([[row[name] for name in names] for row in found], np.float32)


def _columns(count):
  """Returns raw rows that a reader of CSV gets right to the last bit."""
  columns = vectors.of_encoding(rows.to_data(TABLES), count)
  for name in NAMES[3:]:
    columns[name] = [x and float(f'{x:.15g}') for x in columns[name]]
  return columns


def _expected(program, columns):
  found = exact.predict(numpy_form.to_data(program, TABLES), columns)
  return np.concatenate([*found.values()], axis=1)


@_needs('clang', 'wasm-ld', 'node')
def test_predictions_have_the_bits_of_numpy(program, page):
  """For missing, unseen and extreme values, in tables of three delimiters, with
  a further column, which has the name of a prediction.
  """
  data = _data(page)
  columns = _columns(200)
  expected = _expected(program, columns)
  names = [*reversed(NAMES), 'mango']
  columns['mango'] = [f'row\n"{i}"' for i in range(200)]
  texts = [
    _table(columns, names, delimiter=delimiter, **options)
    for delimiter, options in [
      (',', {'quoting': csv.QUOTE_ALL}),
      ('\t', {'lineterminator': '\n'}),
      (';', {}),
    ]
  ]
  for text in _run(page, '\ufeff' + texts[0], *texts[1:]):
    found = _read(text)
    assert [row['mango'] for row in found] == columns['mango']
    for row in found:
      row['mango'] = row.pop('mango_predicted')
    np.testing.assert_array_equal(_values(found, data), expected)


@_needs('clang', 'wasm-ld', 'node')
def test_functions_of_the_library(tmp_path):
  program = _program(of_library=True)
  made = web_form.of_program(program, TABLES, _renamed(_outputs(TASKS)))
  (path,) = web_form.write(tmp_path, made)
  columns = _columns(40)
  (found,) = _run(path, _table(columns, NAMES))
  expected = _expected(program, columns)
  found = _values(_read(found), _data(path))
  np.testing.assert_allclose(found, expected, 1e-5, 1e-5)


@_needs('clang', 'wasm-ld', 'node')
def test_rows_that_cannot_be_read(page):
  columns = {name: [''] * 6 for name in NAMES}
  columns[NAMES[3]] = ['1', 'x', '1e99', ' 4 ', '?', '"']
  columns[NAMES[0]][3] = 'x' * 70_000
  text = _table(columns, NAMES)
  problems = [row['problem'] for row in _read(_run(page, text + '1,2\n')[0])]
  assert problems == [
    '', f'{NAMES[3]}: "x" is no number', f'{NAMES[3]}: "1e99" cannot be used',
    f'{NAMES[0]}: is too long', '', f'{NAMES[3]}: "\\"" is no number',
    'has 2 values, not 5',
  ]  # fmt: skip
  head = text.splitlines()[0]
  assert _run(page, '', 'x,y\n1,2', f'code,{head}\n', f'{head},paid') == [
    'The table is empty.',
    'The first line must name the columns of the model; it lacks '
    + ', '.join(json.dumps(name) for name in NAMES) + '.',
    'The first line has "code" more than once.',
    'The first line has "paid" more than once.',
  ]  # fmt: skip


@_needs('clang', 'wasm-ld', 'node')
def test_a_packed_model_has_the_bits_of_numpy(tmp_path):
  """And an unseen text that has the hash of no known one."""
  numerics = {
    name: dataclasses.replace(scaler, log=False)  # needs Math
    for name, scaler in test_packing.TABLES.numerics.items()
  }
  tables = dataclasses.replace(test_packing.TABLES, numerics=numerics)
  columns = test_packing._columns(80, seed=3)
  columns['income'] = np.round(columns['income'], 3)
  described = {t.name: meanings.describe(t) for t in test_packing.TASKS}
  model = quantization.Quantized(
    test_packing._model(tables, cross=False), quantization.Scheme(bits=4)
  )
  params = contracts.random_params(model, tables.encode(columns))
  packed = packing.pack(quantization.freeze(model, params), tables, hash_bits=8)
  outputs = _outputs(test_packing.TASKS)
  made = web_form.of_packed(packed, columns, outputs, described)
  (path,) = web_form.write(tmp_path, made)
  data = _data(path)
  for field in data['fields']:
    if field['kind'] == 'category':
      columns[field['name']] = [field['other'], *columns[field['name']][1:]]
  ids, _ = device_rows.encode(packed.sections, tables, columns, 8)
  assert (ids[0, : len(tables.vocabularies)] == 0).all()
  found = _read(_run(path, _table(columns, tables.columns))[0])
  expected = c_packed.predict(packed, columns, described)
  expected = np.concatenate([*expected.values()], axis=1)
  np.testing.assert_array_equal(_values(found, data), expected)
  assert made.num_module_bytes == len(base64.b64decode(data['module']))


_WRAPPER = """<iframe src="index.html" width="400" height="900"></iframe>
<pre id="said"></pre>
<script>
const frame = document.querySelector('iframe');
const wait = async (is) => {
  while (!is()) await new Promise((resolve) => setTimeout(resolve, 20));
};
const texts = (selector) => Array.from(
  frame.contentDocument.querySelectorAll(selector), (one) => one.textContent);
async function use() {
  const page = frame.contentDocument;
  const at = (id) => page.getElementById(id);
  const said = {};
  await wait(() => texts('.share').length);
  const enter = (control, value) => {
    control.value = value;
    control.dispatchEvent(new Event('input', {bubbles: true}));
  };
  const look = () => [...texts('.share'), ...texts('.number')];
  said.title = page.title;
  said.tasks = texts('h3');
  said.names = texts('.field > label, legend');
  said.options = texts('#field-0 option');
  said.unnamed = texts('input, select, textarea, button').length -
    Array.from(page.querySelectorAll('input, select, textarea, button'))
      .filter((one) => one.labels?.length || one.textContent).length;
  said.start = look();
  enter(at('field-0'), at('field-0').options[1].value);
  page.querySelector('#field-2-yes').click();
  enter(at('field-1'), 'new');
  enter(at('field-3'), '4.5');
  said.entered = look();
  said.notes = texts('#field-1-hint');
  enter(at('field-3'), '1e99');
  said.errors = texts('.error').filter(Boolean);
  said.isInvalid = at('field-3').getAttribute('aria-invalid');
  page.querySelector('[type=reset]').click();
  await wait(() => !texts('#field-3-error')[0]);
  said.again = look();
  const link = page.querySelector('#download a');
  at('pasted').value = TABLE;
  at('predict').click();
  await wait(() => link.href);
  said.progress = texts('#progress');
  said.rows = texts('#preview tr').length;
  said.cells = texts('#preview td.found').length;
  const before = link.href;
  said.pasted = await (await fetch(before)).text();
  const dropped = new DataTransfer();
  dropped.items.add(new File([TABLE], 'rows.csv'));
  frame.contentWindow.dispatchEvent(
    new DragEvent('drop', {dataTransfer: dropped, cancelable: true}));
  await wait(() => link.href !== before);
  said.dropped = await (await fetch(link.href)).text();
  said.images = page.images.length;
  said.scripts = page.scripts.length;
  said.width = page.documentElement.scrollWidth <= 400;
  said.fetched = await frame.contentWindow.fetch('data:,x')
    .then(() => true, () => false);
  return said;
}
onload = () => use().catch((error) => ({error: String(error)}))
  .then((said) => {
    document.getElementById('said').textContent = JSON.stringify(said);
  });
</script>
"""


def _shown(found):
  """Returns what a page shows of the predictions of one row."""
  shares = []
  for task, (values, *_) in found.items():
    if task != 'mango':
      some = sorted(values)[:1:-1] if len(values) > 12 else values
      shares += [f'{100 * float(x):.1f}%' for x in some]
  return [*shares, f'{found["mango"].item():.5g}']


@_needs('clang', 'wasm-ld', 'chromium')
def test_in_a_browser(program, page):
  """From a file: names are shown as they are, predictions follow what is
  entered, tables are pasted or dropped, and nothing can be fetched.
  """
  columns = {name: ['', '3'] for name in NAMES} | {NAMES[2]: ['no', '']}
  wrapper = page.with_name('wrapper.html')
  table = json.dumps(_table(columns, NAMES)).replace('<', '\\u003c')
  wrapper.write_text(_WRAPPER.replace('TABLE', table))
  flags = (
    '--headless', '--no-sandbox', '--disable-gpu',
    '--allow-file-access-from-files', '--virtual-time-budget=20000',
    f'--user-data-dir={page.parent}', '--dump-dom',
  )  # fmt: skip
  shown = subprocess.run(
    ['chromium', *flags, wrapper.as_uri()], capture_output=True, timeout=120
  )
  text = re.search(r'said">(.*?)</pre>', shown.stdout.decode(), re.DOTALL)[1]
  said = json.loads(html.unescape(text))
  data = numpy_form.to_data(program, TABLES)
  stored = _data(page)

  def expected(*texts):
    row = {n: [t] for n, t in zip(NAMES, texts, strict=True)}
    return _shown(exact.predict(data, row))

  start = [field['start'] for field in stored['fields']]
  assert said['title'] == f'Predict {ODD[0]}, apple, mango and 2 more'
  assert said['tasks'][0] == ODD[0]
  assert said['names'] == list(NAMES)
  assert said['options'][1:-1] == sorted(ODD)
  assert said['start'] == said['again'] == expected(*start)
  given = sorted(ODD)[0], 'new', 'yes', '4.5', start[4]
  assert said['entered'] == expected(*given) != said['start']
  assert said['notes'] == ['not seen in training']
  assert said['errors'] == ['"1e99" cannot be used']
  assert said['isInvalid'] == 'true'
  assert said['progress'] == ['2 rows.'] and said['rows'] == 3
  found = _values(_read(said['pasted']), stored)
  np.testing.assert_array_equal(found, _expected(program, columns))
  assert said['dropped'] == said['pasted'] and said['cells'] == found.size
  assert (said['images'], said['scripts'], said['unnamed']) == (0, 3, 0)
  assert said['width'] and said['fetched'] is False


def test_a_missing_compiler_is_one_line(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  target = tmp_path / 'dist'
  flags = MODEL, f'--to={target}', '--format=numpy,web'
  assert launch(command.main, *flags) == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert 'found no clang and no wasm-ld' in line
  assert 'apt install clang lld' in line
  assert not target.exists()


def test_wrong_outputs_and_names(program):
  for outputs, names, message in (
    ({}, (), r'those of the tasks \[.*found \[\]'),
    ({'apple': ('a', 'b')}, (), 'apple.* has 14 outputs.*found .*b'),
    ({}, NAMES[1:], 'names must be the columns'),
  ):
    given = _renamed(_outputs(TASKS)) if names or outputs else {}
    given |= {k: web_form.Output('classes', x) for k, x in outputs.items()}
    with pytest.raises(ValueError, match=message):
      web_form.of_program(program, TABLES, given, names)


@_needs('clang', 'wasm-ld')
def test_what_cannot_be_compiled_is_one_line(tmp_path):
  (tmp_path / 'model.c').write_text('int model_predict(void) { wrong; }')
  (tmp_path / 'model_csv.c').write_text('')
  with pytest.raises(web_module.CompilerError) as error:
    web_module.compiled(tmp_path)
  assert "undeclared identifier 'wrong'" in str(error.value)
  assert '\n' not in str(error.value)


def test_every_function_of_math_is_there():
  called = re.findall(r'\w+\(', ' '.join(c_program._EXPRESSIONS.values()))
  used = {call for call in called if c99._MATH.fullmatch(call)}
  declared = set(re.findall(r'\w+', web_module._MATH))
  assert used and {call[:-1] for call in used} <= declared


def test_fields_of_numbers():
  """Hints and values to start with, in the unit of the column."""
  fitted = lplmtl.tables.fit(
    {},
    {'year': [1994, 1995] * 50, 'gain': [0] * 90 + [500, 9000] * 5},
    log=['gain'],
  )
  year, gain = web_fields.of(fitted, fitted.columns, {})
  assert year == {
    'name': 'year', 'kind': 'number', 'required': True, 'start': '1994.5',
    'from': '1993.5', 'to': '1995.5',
  }  # fmt: skip
  assert float(gain['start']) == pytest.approx(
    np.expm1(fitted.numerics['gain'].mean), rel=0.01
  )


def test_names_of_a_schema():
  """In the order of the user's table, with the columns of predictions."""
  kinds = {
    'churn': schema.Target('binary', ('no', 'yes'), 'no'),
    'mood': schema.Target('ordinal', ('low', 'mid', 'high')),
    'tags': schema.Target('multilabel', columns=('new', 'old')),
    'spent': schema.Target('regression', mean=1.0, std=2.0, unit='EUR'),
  }
  inputs = {name: schema.Input('number') for name in ('size', 'x', 'code')}
  asked = schema.Schema(inputs, kinds)
  described = {name: meanings.Meaning('decisions') for name in [*kinds, 'own']}
  found = notes.outputs(asked, described)
  assert found['churn'][1:] == (('no',), ('churn_probability',), '')
  assert found['mood'].columns[2] == 'mood_probability_high'
  assert found['tags'].columns == ('new_probability', 'old_probability')
  assert found['spent'][1:] == ((), ('spent',), 'EUR')
  assert found['own'] == web_form.Output('decisions')
  order = notes.order(asked, TABLES)
  assert order == [
    'size',
    'code',
    *(n for n in TABLES.columns if n not in inputs),
  ]
