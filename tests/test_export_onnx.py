"""The ONNX form: what a runtime computes is what the NumPy reader does."""

import sys

import hypothesis
import numpy as np
import pytest

import lplmtl
from lplmtl import export, tables, tasks
from lplmtl.export import (
  codes,
  nodes,
  numpy_form,
  onnx_form,
  reader,
  rows,
  tracing,
  vectors,
)
from tests import (
  contracts,
  test_export,
  test_export_codes,
  test_export_exact,
  test_tables_property,
)

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')


def _predict(program, inputs, fitted=None):
  model = onnx_form.to_model(program, fitted)
  onnx.checker.check_model(model, full_check=True)
  session = onnxruntime.InferenceSession(model.SerializeToString())
  found = session.run(list(program.outputs), inputs)
  return dict(zip(program.outputs, found, strict=True))


def _assert_same(found, expected):
  assert list(found) == list(expected)
  for name, values in expected.items():
    np.testing.assert_allclose(
      found[name], values, rtol=1e-5, atol=1e-6, err_msg=name
    )


def test_raw_rows():
  """Five tasks of every kind, crosses, bins, missing and unseen values."""
  model, fitted = test_export.MODELS['ple'], test_export.BINNED
  encoded = rows.features(fitted)
  params = contracts.random_params(model, encoded)
  program = export.trace(model, params, encoded)
  data = numpy_form.to_data(program, fitted)
  some = vectors.of_encoding(data['encoding'])
  raw = {k: test_export.NEW_ROWS[k] + list(v) for k, v in some.items()}
  found = _predict(program, onnx_form.feed(fitted, raw), fitted)
  _assert_same(found, reader.predict(data, raw))


def test_modules_of_ones_own_and_any_number_of_rows():
  """A model of arrays: attention, sums along axes, slices backwards."""
  x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
  model = lplmtl.MMoE(
    test_export.EVERY_KIND[:2], expert=test_export.Own(), num_experts=2
  )
  params = contracts.random_params(model, x)
  program = export.trace(model, params, x)
  expected = reader.run(numpy_form.to_data(program), x)
  for n in (0, 1, 5):
    found = _predict(program, {'x': x[:n]})
    _assert_same(found, {task: values[:n] for task, values in expected.items()})


def test_logits():
  x, program, _ = test_export.logits_of_arrays()
  test_export.assert_same_logits(_predict(program, {'x': x}))


def test_every_operation():
  """Also where log(1 + x) and exp(x) - 1 lose digits, overflow or end."""
  program = test_export_exact.every_operation()
  assert {node.kind for node in program.operations} == set(reader.OPS)
  numbers = np.float32([
    *(0, 0.5, 1, -1, 0.25, 1e-3, -1e-7, 1e-7, 2e-4, -0.4, 87, 88),
    *(100, -90, -170, -1e3, 1e9, -0.0, 3.5, -2.5),
  ])  # fmt: skip
  rows_ = numbers.reshape(-1, 2, 2)
  expected = reader.run(numpy_form.to_data(program), rows_)
  with np.errstate(all='ignore'):
    _assert_same(_predict(program, {'x': rows_}), expected)


def _features(fitted):
  """Returns the program that returns what it reads."""
  shapes = {name: x.shape for name, x in rows.features(fitted).items()}
  x = {
    'categories': nodes.Node('input', shapes['categories'], 'int32'),
    'numeric': nodes.Node('input', shapes['numeric'], 'float32'),
  }
  ids = x['categories']
  floats = nodes.make('astype', [ids], ids.shape, 'float32', dtype='float32')
  return tracing.Program(x, {'ids': floats, 'numbers': x['numeric']})


def _assert_encodes(fitted, raw, inputs=None):
  inputs = onnx_form.feed(fitted, raw) if inputs is None else inputs
  found = _predict(_features(fitted), inputs, fitted)
  expected = fitted.encode(raw)
  np.testing.assert_array_equal(found['ids'], expected['categories'])
  # Sums of float64 may differ in their order before they are rounded.
  np.testing.assert_allclose(found['numbers'], expected['numeric'], rtol=2e-7)


@pytest.mark.parametrize('interpolate', [False, True])
def test_numbers_of_all_sorts(interpolate):
  """Timestamps, logarithms, fills, flags, bins and places between edges."""
  rng = np.random.default_rng(0)
  numbers = {
    'time': 1.7e9 + rng.integers(0, 90, 50),
    'gain': rng.exponential(1e4, 50) * rng.integers(-1, 2, 50),
    'age': [*range(30), *[None] * 5, *[-999] * 5, *range(10)],
    'children': rng.integers(0, 3, 50),
  }
  fitted = tables.fit(
    {'age': numbers['age']}, numbers, log=['gain'], num_bins=6,
    interpolate=interpolate,
    rules=tables.Rules(fill_missing=True, missing=('-999', '?')),
  )  # fmt: skip
  encoding = rows.to_data(fitted)
  kind = 'knots' if interpolate else 'edges'
  assert len({len(column[kind]) for column in encoding['numbers']}) > 1
  raw = vectors.of_encoding(encoding, 200)
  raw['age'] = [-999, '?', -999.0, *range(-2, 35), *raw['age'][40:]]
  _assert_encodes(fitted, raw)
  assert {'age', 'age_category'} <= set(onnx_form.feed(fitted, raw))


@pytest.fixture(scope='module')
def encoder():
  """Tables of every kind that ONNX encodes, and what encodes there."""
  train = test_tables_property.TRAIN
  fitted = tables.fit(
    {'category': train['category']},
    {name: train[name] for name in ('number', 'money')},
    log=('money',),
    num_bins=4,
    booleans={'boolean': train['boolean']},
    rules=tables.Rules(
      fill_missing=True, missing=test_tables_property.TEXTS, min_count=2
    ),
  )
  model = onnx_form.to_model(_features(fitted), fitted)
  return fitted, onnxruntime.InferenceSession(model.SerializeToString())


@hypothesis.settings(max_examples=50, derandomize=True, deadline=None)
@hypothesis.given(test_tables_property.rows_in_forms())
def test_values_in_any_form_are_encoded_alike(encoder, drawn):
  fitted, session = encoder
  _, columns = drawn
  inputs = onnx_form.feed(fitted, test_tables_property.listed(columns))
  ids, numbers = session.run(['ids', 'numbers'], inputs)
  expected = fitted.encode(columns)
  np.testing.assert_array_equal(ids, expected['categories'])
  np.testing.assert_allclose(numbers, expected['numeric'], rtol=2e-7)


def test_texts_have_the_forms_that_columns_give_them():
  """Without `feed`: missing values, and whole numbers read as floats."""
  raw = {'city': ['Oslo', 'Rome', None, 'Oslo'], 'code': [3, 4, 0, None]}
  fitted = tables.fit(
    raw,
    {},
    booleans={'member': ['yes', 'no', 'yes', None]},
    rules=tables.Rules(missing=('unknown',)),
  )
  new = {
    'city': ['Rome', 'None', '', '<NA>', 'unknown', 'rome'],
    'code': ['3', '3.0', '0', '-3', 'nan', '4.0'],
    'member': ['true', 'no', 'YES', 'nan', '', 'maybe'],
  }
  inputs = {k: np.array(v, object)[:, None] for k, v in new.items()}
  _assert_encodes(fitted, new, inputs)


def test_rows_that_cannot_be_read_have_no_prediction():
  fitted = tables.fit({'city': ['Oslo', 'Rome']}, {'age': [1, 2], 'n': [3, 5]})
  raw = {'city': ['Oslo'] * 6, 'age': [1, None, 1e30, 'old', 2, np.inf],
         'n': [3, 3, 3, 3, -np.inf, 4]}  # fmt: skip
  inputs = onnx_form.feed(fitted, raw)
  found = _predict(_features(fitted), inputs, fitted)
  for values in found.values():
    np.testing.assert_array_equal(
      np.isnan(values).all(axis=1), [False, *[True] * 5]
    )
    assert not np.isnan(values[0]).any()


def test_a_file_with_the_names_of_columns_and_tasks(tmp_path):
  model, fitted = test_export.MODELS['shared_bottom'], test_export.BINNED
  encoded = rows.features(fitted)
  params = contracts.random_params(model, encoded)
  program = export.trace(model, params, encoded)
  (path,) = onnx_form.write(tmp_path, program, fitted, name='small')
  assert list(tmp_path.iterdir()) == [path] == [tmp_path / 'small.onnx']
  session = onnxruntime.InferenceSession(path)
  inputs = {x.name: (x.type, x.shape) for x in session.get_inputs()}
  assert inputs == {
    'city': ('tensor(string)', ['N', 1]),
    'age': ('tensor(double)', ['N', 1]),
    'gain': ('tensor(double)', ['N', 1]),
  }
  outputs = {x.name: x.shape for x in session.get_outputs()}
  assert outputs == {
    'zebra': ['N', 1], 'apple': ['N', 3], 'mango': ['N', 1],
    'grade': ['N', 4], 'tags': ['N', 2],
  }  # fmt: skip
  opsets = {one.domain: one.version for one in onnx.load(path).opset_import}
  assert opsets[''] == onnx_form.OPSET


def _uses_of_codes(graph):
  """Yields what reads codes, or the rows of a table that are codes."""
  codes = {
    one.name: list(one.dims)
    for one in graph.initializer
    if one.data_type == onnx.TensorProto.INT8
  }
  scales = {
    one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer
  }
  for node in graph.node:
    if node.op_type == 'Gather' and node.input[0] in codes:
      codes[node.output[0]] = codes[node.input[0]]
    elif set(node.input) & set(codes):
      shape = codes[node.input[0]]
      yield node.op_type, (len(shape), scales[node.input[1]].size > 1)


def test_weights_of_few_bits_are_dequantised(monkeypatch):
  """QDQ: DequantizeLinear takes their codes, and the scale of each column.

  Matrices have three axes, which onnxruntime leaves as they are.
  """
  monkeypatch.setattr(codes, 'FEW', 1)
  model, params, encoded = test_export_codes.plain(bits=8)
  program = export.trace(model, params, encoded)
  written = onnx_form.to_model(program, test_export.BINNED)
  large = [x for x in written.graph.initializer if np.prod(x.dims) >= 64]
  assert {x.data_type for x in large} == {onnx.TensorProto.INT8}
  uses = set(_uses_of_codes(written.graph))
  assert {kind for kind, *_ in uses} == {'DequantizeLinear'}
  # Matrices; transposed and stacked ones, whose scales are apart; a table.
  assert {of for _, of in uses} == {(3, True), (3, False), (2, False)}
  raw = test_export.NEW_ROWS
  data = numpy_form.to_data(program, test_export.BINNED)
  inputs = onnx_form.feed(test_export.BINNED, raw)
  found = _predict(program, inputs, test_export.BINNED)
  _assert_same(found, reader.predict(data, raw))


@pytest.mark.parametrize(
  'columns, rules, task, message',
  [
    (['city'], tables.Rules(max_vocabulary=1, num_buckets=4), 'buy', 'hash'),
    (['city'], tables.Rules(), 'city', "one name, found .'city'.: rename"),
    (['3', 3], tables.Rules(), 'buy', "different names as text, found .'3', '"),
  ],
)
def test_what_cannot_be_expressed_is_one_line(columns, rules, task, message):
  raw = {name: ['Oslo', 'Rome'] for name in columns}
  fitted = tables.fit(raw, {}, rules=rules)
  encoder = lplmtl.TabularEncoder(
    fitted.num_categories, 2, num_buckets=fitted.num_buckets
  )
  model = lplmtl.SharedBottom((tasks.binary(task),), encoder)
  encoded = rows.features(fitted)
  params = contracts.random_params(model, encoded)
  program = export.trace(model, params, encoded)
  with pytest.raises(ValueError, match=message) as error:
    onnx_form.to_model(program, fitted)
  assert '\n' not in str(error.value)


def test_the_extra_is_named(monkeypatch):
  x = nodes.Node('input', (1, 1), 'float32')
  monkeypatch.setitem(sys.modules, 'onnx', None)
  with pytest.raises(ModuleNotFoundError, match=r"'lplmtl\[onnx\]'"):
    onnx_form.to_model(tracing.Program({'': x}, {'y': x}))


@pytest.mark.parametrize('fill', [True, False])
def test_dates_as_seconds(fill):
  """Of several formats, with bins, flags, and those that stand for missing."""
  rng = np.random.default_rng(0)
  at = np.datetime64('1899-02-01', 's') + rng.integers(0, 7 * 10**9, 60)
  at[:2] = np.datetime64('2000-02-29T23:59:59'), np.datetime64('1970-01-01')
  day = [f'{time:%d.%m.%Y}' for time in at[::-1].tolist()]
  fitted = tables.fit(
    {'at': ['a', 'b', 'c'] * 20}, {'size': [1, 2, 3] * 20},
    num_bins=3, dates={
      'at': ([*at.astype(str)[:-1], None if fill else at[0]], ''),
      'day': (day, '%d.%m.%Y'), 'same': ([None if fill else day[0]] * 60,
      '%d.%m.%Y'),
    }, rules=tables.Rules(fill_missing=fill, missing=('01.02.1899', '-1')),
  )  # fmt: skip
  raw = vectors.of_encoding(rows.to_data(fitted), 200)
  some = ['0001-01-01', '9999-12-31 23:59:59.5', '1969-12-31T23:59:59.999']
  raw['at'][:3] = some
  if fill:
    raw['day'][:2] = ['01.02.1899', None]
  inputs = onnx_form.feed(fitted, raw)
  assert {'at_date', 'at', 'size', 'day', 'same'} == set(inputs)
  _assert_encodes(fitted, raw, inputs)


def test_dates_out_of_range_are_not_readable():
  """Before the year 1, infinite, or missing where training had none."""
  fitted = tables.fit({}, {}, dates={'at': (['2024-05-01', '2023-04-02'], '')})
  seconds = [[0.0], [-62135596801.0], [np.inf], [np.nan], [253402300800.0]]
  found = _predict(_features(fitted), {'at': np.array(seconds)}, fitted)
  assert np.isnan(found['numbers']).all(axis=1).tolist() == [False] + 4 * [True]
