"""Encoder tables: ids, scaling and bins."""

import json

import numpy as np
import pandas as pd
import pytest

from lplmtl import columns, data, tables
from lplmtl.tables import Factor

COLUMNS = {
  'colour': np.array(['red', 'blue', 'red', 'green']),
  'size': np.array(['1', '10', '2', '2']),
  'pay': np.array([0.0, 100.0, 0.0, 20.0]),
  'age': np.array([20, 30, 40, 50]),
}


def _fit(num_bins=0, log=('pay',)):
  return tables.fit(
    {name: COLUMNS[name] for name in ('colour', 'size')},
    {name: COLUMNS[name] for name in ('pay', 'age')},
    log=log,
    num_bins=num_bins,
  )


def test_encode():
  fitted = _fit()
  assert fitted.num_categories == (4, 4)
  features = fitted.encode(
    {
      'colour': ['green', 'violet', 'blue'],
      'size': [10, 1, 3],
      'pay': [20, -100, 0],
      'age': [35.0, 20.0, 50.0],
    }
  )
  # Sorted values from 1; 0 for the unseen.
  assert features['categories'].tolist() == [[2, 2], [0, 1], [1, 0]]
  assert features['categories'].dtype == np.int32
  logs = np.log1p(COLUMNS['pay'])
  pay = (np.array([np.log(21), -np.log(101), 0]) - logs.mean()) / logs.std()
  age = (np.array([35, 20, 50]) - 35) / np.std(COLUMNS['age'])
  np.testing.assert_allclose(
    features['numeric'], np.stack([pay, age], axis=1), rtol=1e-6
  )
  assert features['numeric'].dtype == np.float32
  assert fitted.unseen(features) == {'colour': 1, 'size': 1}


def test_factors_encode_like_their_values():
  fitted = _fit(num_bins=3)
  plain = fitted.encode(COLUMNS)
  factors = {}
  for name, column in COLUMNS.items():
    values, codes = np.unique(column, return_inverse=True)
    factors[name] = Factor(codes, values)
  for name, array in fitted.encode(factors).items():
    np.testing.assert_array_equal(array, plain[name])
  train = {name: factors[name] for name in ('colour', 'size')}
  numbers = {name: factors[name] for name in ('pay', 'age')}
  assert tables.fit(train, numbers, log=('pay',), num_bins=3) == fitted


def test_values_that_training_rows_do_not_hold_get_no_id():
  column = Factor(np.array([0, 2, 0]), np.array(['a', 'b', 'c']))
  fitted = tables.fit({'x': column}, {})
  assert fitted.vocabularies == {'x': ('a', 'c')}
  encoded = fitted.encode({'x': ['a', 'b', 'c']})
  assert encoded['categories'][:, 0].tolist() == [1, 0, 2]
  assert encoded['numeric'].shape == (3, 0)


def test_bins():
  fitted = _fit(num_bins=4)
  assert fitted.num_categories == (4, 4, 3, 4)
  assert fitted.numerics['pay'].edges == (10.0, 60.0)
  features = fitted.encode(COLUMNS)
  assert features['categories'][:, 2].tolist() == [0, 2, 0, 1]
  assert features['categories'][:, 3].tolist() == [0, 1, 2, 3]
  # The lowest bin, with id 0, is not an unseen value.
  assert fitted.unseen(features) == {}


def test_bin_edges_give_spikes_their_own_bins():
  rng = np.random.default_rng(0)
  values = np.concatenate([np.zeros(9000), rng.exponential(size=1000)])
  edges = np.array(tables.bin_edges(values, 11))
  assert len(edges) == 10 and (np.diff(edges) > 0).all()
  counts = np.bincount(np.searchsorted(edges, values, side='right'))
  assert counts[0] == 9000
  np.testing.assert_allclose(counts[1:], 100, atol=1)
  # Plain quantiles would give only two distinct edges.
  assert len(np.unique(np.quantile(values, np.linspace(0, 1, 12)[1:-1]))) == 2
  # Without spikes all bins hold the same number of rows.
  even = rng.normal(size=10_000)
  counts = np.bincount(np.searchsorted(tables.bin_edges(even, 8), even))
  np.testing.assert_allclose(counts, 1250, atol=8)
  assert tables.bin_edges(np.ones(5), 4) == ()


@pytest.mark.parametrize('seed', range(20))
def test_bin_edges_never_exceed_their_number(seed):
  rng = np.random.default_rng(seed)
  values = np.round(rng.exponential(size=500) ** 3, int(rng.integers(0, 3)))
  values[rng.random(500) < rng.random()] = rng.integers(0, 3)
  for num_bins in (2, 3, 7, 32):
    edges = tables.bin_edges(values, num_bins)
    assert 0 < len(edges) < num_bins
    assert np.all(np.diff(edges) > 0)
    counts = np.bincount(np.searchsorted(edges, values, side='right'))
    assert counts.min() > 0


def test_json_round_trip():
  fitted = _fit(num_bins=3)
  again = tables.Tables.from_json(json.loads(json.dumps(fitted.to_json())))
  assert again == fitted


def test_constant_columns():
  fitted = tables.fit({}, {'x': np.full(3, 7.0)}, num_bins=4)
  assert fitted.num_categories == ()
  np.testing.assert_array_equal(
    fitted.encode({'x': [7, 8]})['numeric'], [[0], [1]]
  )


def test_bad_columns():
  fitted = _fit()
  with pytest.raises(ValueError, match=r"\['age'\] are missing"):
    fitted.encode({k: v for k, v in COLUMNS.items() if k != 'age'})
  with pytest.raises(ValueError, match="'pay' .* found nan in row 1"):
    fitted.encode({**COLUMNS, 'pay': [0, np.nan, 1, 1]})
  with pytest.raises(ValueError, match=r'rows, found \[3, 4\]'):
    fitted.encode({**COLUMNS, 'age': [1, 2, 3]})
  with pytest.raises(ValueError, match="'colour' .* single row"):
    fitted.encode({name: column[0] for name, column in COLUMNS.items()})
  with pytest.raises(ValueError, match="'pay' must hold numbers"):
    fitted.encode({**COLUMNS, 'pay': ['big'] * 4})
  with pytest.raises(ValueError, match='num_bins .* found 1'):
    _fit(num_bins=1)


def _ids(column, rows):
  features = tables.fit({'x': column}, {}).encode({'x': rows})
  return features['categories'][:, 0].tolist()


@pytest.mark.parametrize(
  'column, rows',
  [
    (np.array([753, 754]), [753.0, '754', '753.0', ' 753 ', np.float32(754)]),
    (np.array([753.0, np.nan]), [753, None, '', pd.NA, pd.NaT, 'nan']),
    ([None, 'a'], [np.nan, 'a ', float('nan')]),
    ([True, False], ['True', np.False_, np.bool_(True)]),
    ([np.int64(1), 2.5, 'b'], [1, '2.5', np.float64(2.5), b'b']),
    (pd.Series([3, None], dtype='Int64'), [3.0, None, '3']),
    (pd.Series(['a', 'b', 'a'], dtype='category'), ['a', 'b']),
    (pd.Series(['a', None], dtype='string'), ['a', None]),
    (
      pd.Series([pd.Timestamp('2020-01-01'), pd.Timestamp('2021-03-04 05:06:07.5')]),
      [np.datetime64('2020-01-01'), '2020-01-01 00:00:00',
       pd.Timestamp('2021-03-04 05:06:07.5'), '2021-03-04T05:06:07.500000'],
    ),
    (np.array([0.0, 1.0]), [-0.0, 0, '1']),
  ],
)  # fmt: skip
def test_a_category_has_one_form_in_every_dtype(column, rows):
  """Ids do not depend on the dtype that a column happens to have."""
  assert 0 not in _ids(column, rows)
  assert 0 not in _ids(rows, column)


def test_different_categories_stay_apart():
  assert _ids(['1', '01', '1.50', 'true'], ['1', '001', '1.5', True]) == [
    2, 0, 0, 0,
  ]  # fmt: skip
  assert _ids([0.1, 1e16], [0.1, '0.1', 0.10000001, 1e16]) == [1, 1, 0, 2]


def test_tables_of_older_releases_encode_as_they_did():
  """Their vocabularies hold texts in other forms, which keep separate ids."""
  old = tables.Tables.from_json(
    {
      'vocabularies': {
        'x': ['1', '1.0', '2.0', 'None', 'nan', 'U S ', '2020-01-01T00:00:00']
      },
      'numerics': {},
    }
  )
  rows = ['1', '1.0', '2.0', 'None', 'nan', 'U S ', '2020-01-01T00:00:00']
  assert old.encode({'x': rows})['categories'][:, 0].tolist() == [*range(1, 8)]
  # Other forms of these values are now recognised too.
  rows = [1, 2, 'U S', '', np.datetime64('2020-01-01')]
  ids = old.encode({'x': pd.Series(rows, dtype=object)})['categories'][:, 0]
  assert ids.tolist() == [1, 3, 6, 5, 7]


def test_names_that_are_numbers_survive_json():
  frame = pd.DataFrame({0: ['a', 'b'], 1: [1.0, 2.0], '1': [3.0, 5.0]})
  fitted = tables.fit({np.int64(0): frame[0]}, {1: frame[1], '1': frame['1']})
  again = tables.Tables.from_json(json.loads(json.dumps(fitted.to_json())))
  assert again == fitted and list(again.numerics) == [1, '1']
  for name, array in again.encode(frame).items():
    np.testing.assert_array_equal(array, fitted.encode(frame)[name])
  with pytest.raises(
    ValueError, match=r'columns \[1\] are missing; found \[0,'
  ):
    again.encode(frame[[0, '1']])
  with pytest.raises(ValueError, match='found 0.5'):
    tables.fit({0.5: ['a']}, {})


def test_one_row_does_not_pay_for_the_vocabulary(monkeypatch):
  """A million values are read once, not for every row that is scored."""
  fitted = tables.fit({'x': [f'user {i}' for i in range(100)]}, {})
  calls = []
  canonical = columns.canonical
  monkeypatch.setattr(
    columns, 'canonical', lambda text: calls.append(text) or canonical(text)
  )
  expected = 1 + fitted.vocabularies['x'].index('user 7')
  assert fitted.encode({'x': ['user 7']})['categories'].item() == expected
  assert len(calls) == 100
  fitted.encode({'x': ['user 7', ' user 8']})
  assert calls[100:] == [' user 8']
  # A row taken from a large column reads its own value only.
  calls.clear()
  large = Factor(np.arange(100), np.array([f'other {i}' for i in range(100)]))
  fitted.encode({'x': large.take(np.array([5]))})
  assert calls == ['other 5']
  assert fitted == tables.Tables.from_json(fitted.to_json())


@pytest.mark.parametrize('number', [1e40, 1e300, -1e40, 3e10])
def test_a_number_that_float32_cannot_multiply_is_refused(number):
  """It is finite, but its products are not: a metric would become NaN."""
  fitted = tables.fit({}, {'pay': [0.0, 1.0, 2.0]}, num_bins=2)
  with pytest.raises(
    tables.RowError, match=r"'pay' must lie within 1e\+09 .* in row 2"
  ) as error:
    fitted.encode({'pay': [0.0, 1.0, number]})
  assert (error.value.column, error.value.row) == ('pay', 2)
  large = fitted.encode({'pay': [8e8, -8e8]})['numeric']
  assert np.isfinite(large**4).all()


def test_tables_cannot_be_fitted_on_such_rows():
  for categories, numerics in (({'x': []}, {}), ({}, {'x': []})):
    with pytest.raises(ValueError, match="'x' .* row"):
      tables.fit(categories, numerics)
  with pytest.raises(tables.RowError, match="'x' .* too large .* in row 1"):
    tables.fit({}, {'x': [0.0, 1e300]})


@pytest.mark.parametrize('value', [0.1, 1 / 3, 1e6 + 0.1, 1e-20, 0.0])
@pytest.mark.parametrize('log', [False, True])
def test_a_constant_whose_mean_rounds_is_constant(value, log):
  fitted = tables.fit({}, {'x': np.full(10, value)}, log=['x'] if log else [])
  assert fitted.numerics['x'].std == 1.0
  numeric = fitted.encode({'x': [value, value + 1]})['numeric'][:, 0]
  assert abs(numeric[0]) < 1e-9 and 1e-9 < numeric[1] <= 1


@pytest.mark.parametrize('unit', ['ns', 's', 'D'])
@pytest.mark.parametrize('kind', ['datetime64', 'timedelta64'])
def test_times_are_not_numbers(kind, unit):
  """As numbers they depend on the unit, and NaT would be one."""
  column = np.array([0, 366, 731], f'{kind}[{unit}]')
  for times in (column, list(column), Factor(np.arange(3), column)):
    with pytest.raises(ValueError, match="'x' .* times"):
      tables.fit({}, {'x': times})


def test_codes_must_point_at_a_value():
  """Pandas codes missing values as -1, which in NumPy is the last value."""
  column = pd.Series(['a', None], dtype='category').cat
  factor = Factor(column.codes.to_numpy(), column.categories.to_numpy())
  for use in (
    lambda c: tables.fit({'x': c}, {}),
    lambda c: tables.fit({}, {'x': Factor(c.codes, np.ones(1))}),
  ):
    with pytest.raises(ValueError, match='from 0 to 0, found -1 to 0'):
      use(factor)


MASKED = np.ma.masked_array([1, 2, 3], [False, True, False])


def test_masked_values_are_missing():
  """A masked value is neither a category nor a number."""
  days = np.array(['2020-01-01', '2021-01-01'], 'datetime64[ns]')
  assert _ids(MASKED, [1, 2, 3, None, '']) == [1, 0, 2, 3, 3]
  assert _ids([1, None, 3], MASKED) == [1, 3, 2]
  assert _ids(np.ma.masked_array(days, [0, 1]), ['2020-01-01', pd.NaT]) == [
    1,
    2,
  ]
  assert _ids(['a', np.ma.masked], [None]) == [2]
  assert _ids(np.ma.masked_array([1, 2]), [2]) == [2]
  with pytest.raises(tables.RowError, match="'x' .* found nan in row 1"):
    tables.fit({}, {'x': MASKED})
  with pytest.raises(ValueError, match='masked'):
    tables.fit({'x': Factor(MASKED, np.array(list('abcd')))}, {})


def test_a_float_is_a_category_like_its_integer():
  """From 1e16 on Python writes floats with an exponent."""
  assert _ids([1e16, 1.5e300, -2e17], [10**16, int(1.5e300), -2 * 10**17]) == [
    2, 3, 1,
  ]  # fmt: skip
  assert _ids(np.array([10**17]), ['1e+17', 1e17, '1e17', '1.0e+17']) == [
    1, 1, 0, 0,
  ]  # fmt: skip
  for number in (
    1e6,
    1234567.5,
    16777216,
    1e-4,
    6e4,
    0.1,
  ):  # by NumPy's release
    assert _ids([number], np.array([number], np.float32)) == [1]
  old = tables.Tables({'x': ('1e+16', '9' * 400, '1e+999')}, {})
  rows = [10**16, '1e+16', '1e+999']
  assert old.encode({'x': rows})['categories'][:, 0].tolist() == [1, 1, 3]


@pytest.mark.parametrize(
  'change, complaint',
  [
    ({'log': 'pay'}, r"log .*\['pay', 'age'\]; found 'pay'"),
    ({'log': ('pay', 'typo')}, r"log .* found \('pay', 'ty"),
    ({'log': True}, 'log .* found True'),
    ({'num_bins': '4'}, "num_bins .* found '4'"),
    ({'num_bins': 2.5}, 'num_bins .* found 2.5'),
    ({'categories': [['a']]}, 'categories must .* found list'),
    ({'numerics': [[1.0]]}, 'numerics must .* found list'),
    ({'categories': {'x': ['a'] * 3}}, r'rows, found \[3, 4\]'),
    ({'categories': {}, 'numerics': {}, 'log': ()}, 'at least one column'),
    (
      {'categories': {'x': Factor(np.zeros(4), ['a'])}},
      "'x': .* float64",
    ),
    (
      {'categories': {'x': Factor(list('ab'), [0, 1])}},
      "'x': .* <U1",
    ),
  ],
)
def test_invalid_arguments_of_fit(change, complaint):
  numerics = {name: COLUMNS[name] for name in ('pay', 'age')}
  with pytest.raises(ValueError, match=complaint):
    tables.fit(**{'categories': {}, 'numerics': numerics, **change})


def test_invalid_arguments_of_encode_and_unseen():
  with pytest.raises(ValueError, match='columns must .* found list'):
    _fit().encode([['red', '1', 0.0, 20]])
  with pytest.raises(ValueError, match='at least one column'):
    tables.Tables({}, {}).encode({})
  for features, named in (({}, r'\[\]'), ([1], 'list'), ({'x': 1}, r"\['x'\]")):
    with pytest.raises(ValueError, match=rf'output of encode.* {named}'):
      _fit().unseen(features)


@pytest.mark.parametrize(
  'data, complaint',
  [
    (None, 'found NoneType'),
    ({}, r"found \[\]: 'vocabularies'"),
    ('{"vocabularies": {}}', 'json.loads.* found str'),
    ({'vocabularies': {'a': 'xyz'}, 'numerics': {}}, "list of strings.* 'xyz'"),
    ({'vocabularies': {'a': [1]}, 'numerics': {}}, r'list of strings.* \[1\]'),
    ({'vocabularies': 3, 'numerics': {}}, 'found .*vocabularies'),
    ({'vocabularies': {}, 'numerics': {'x': {}}}, 'found .*numerics.*missing'),
    ({'vocabularies': {}, 'numerics': {'x': 3}}, 'found .*numerics'),
    (
      {
        'vocabularies': {},
        'numerics': {'x': {'log': False, 'mean': 0, 'std': 0, 'edges': []}},
      },
      'std > 0 .* found False, 0, 0',
    ),
  ],
)
def test_data_that_to_json_did_not_return(data, complaint):
  with pytest.raises(ValueError, match=f'Tables.to_json .*{complaint}'):
    tables.Tables.from_json(data)


def test_a_column_may_have_sizes_of_its_own():
  """The same ones, whether rows come at once or in pieces."""
  columns = {
    'user': [f'u{i}' for i in range(9)],
    'city': ['a', 'a', 'b', 'b', 'b', 'c', 'd', 'e', 'f'],
    'shop': [*'xyzxyzxyz'],
  }
  rules = tables.Rules(
    max_vocabulary=20,
    num_buckets=5,
    columns={
      'user': {'max_vocabulary': 1, 'num_buckets': 64},
      'city': {'min_count': 2},
    },
  )
  fitted = tables.fit(columns, {}, rules=rules)
  assert fitted.hashed == {'user': 64}
  assert fitted.vocabularies == {'city': ('a', 'b'), 'shop': ('x', 'y', 'z')}
  assert 'u3' not in json.dumps(fitted.to_json())  # no text of a hashed column
  fitter = data.TableFitter(columns, rules=rules)
  fitter.add(columns)
  assert fitter.finish() == fitted


@pytest.mark.parametrize(
  'columns, complaint',
  [
    ({'user': {'buckets': 3}}, "dict of dicts .*; found {'user': {'buckets'"),
    ({'user': {'num_buckets': 1}}, 'num_buckets must be .* least 2, found 1'),
    (
      {'user': {'num_buckets': 2**33}},
      'at most 2,147,483,647, .* 8,589,934,59',
    ),
    ({'user': {'min_count': 0}}, 'min_count must be .* least 1, found 0'),
    ({'age': {'min_count': 2}}, r"there are \['user'\]; found 'age'"),
  ],
)
def test_sizes_of_a_column_are_checked(columns, complaint):
  with pytest.raises(ValueError, match=complaint):
    rules = tables.Rules(columns=columns)
    tables.fit({'user': ['a']}, {'age': [1]}, rules=rules)
