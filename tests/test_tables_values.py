"""Encoder tables: missing values, dates, booleans, rare and hashed values."""

import datetime
import decimal
import fractions
import itertools
import json

import numpy as np
import pandas as pd
import pytest

from lplmtl import columns, dates, hashing, numeric, tables
from lplmtl.tables import Factor

NAN = float('nan')


def _numbers(train, rows, fill_missing=True, **options):
  rules = tables.Rules(fill_missing=fill_missing)
  fitted = tables.fit({}, {'x': train}, rules=rules, **options)
  return fitted, fitted.encode({'x': rows})['numeric']


MISSING = [
  None,
  NAN,
  np.nan,
  '',
  ' ',
  'nan',
  'NaN',
  pd.NA,
  pd.NaT,
  np.ma.masked,
]


@pytest.mark.parametrize('missing', MISSING, ids=str)
def test_a_missing_number_is_the_median_beside_a_flag(missing):
  fitted, encoded = _numbers([1.0, 2.0, missing, 6.0], [missing, 2, 6.0])
  scaler = fitted.numerics['x']
  assert (scaler.fill, scaler.flag, scaler.mean) == (2.0, True, 3.0)
  assert fitted.flags == {'x': 1}
  assert encoded[:, 1].tolist() == [1, 0, 0]
  assert encoded[0, 0] == encoded[1, 0]
  np.testing.assert_allclose(encoded[:, 0], (np.array([2, 2, 6]) - 3) / np.std([1, 2, 6]), rtol=1e-6)  # fmt: skip
  assert fitted.unseen(fitted.encode({'x': [missing]}), {'x': [missing]}) == {}


def test_a_number_that_was_never_missing_in_training_has_no_flag():
  fitted, encoded = _numbers([1.0, 2.0, 6.0], [NAN, 2.0, None])
  assert fitted.flags == {} and encoded.shape == (3, 1)
  assert (encoded == encoded[1]).all()
  rows = {'x': [NAN, 2.0, None], 'target': [1, 2, 3]}
  assert fitted.unseen(fitted.encode(rows)) == {}
  assert fitted.unseen(fitted.encode(rows), rows) == {'x': 2}


def test_without_fill_missing_a_missing_number_is_refused():
  for train, rows in (([1, None], [1]), ([1, 2], [1, None])):
    with pytest.raises(tables.RowError, match="'x' .* found nan in row 1"):
      _numbers(train, rows, fill_missing=False)


def test_a_column_without_any_number_is_its_flag():
  fitted, encoded = _numbers([None, ''], [None, 3.0], num_bins=4, log=['x'])
  assert encoded.tolist() == [[0.0, 1.0], [np.float32(np.log(4)), 0.0]]
  assert fitted.num_categories == ()


def test_bins_and_logarithms_of_missing_numbers_are_those_of_the_median():
  fitted, _ = _numbers([1, 2, None, 5, 9], [1], num_bins=4, log=['x'])
  encoded = fitted.encode({'x': [None, fitted.numerics['x'].fill]})
  assert fitted.numerics['x'].edges == (1.5, 3.5, 7.0)
  assert encoded['categories'].tolist() == [[2], [2]]  # 3.5, the median
  assert encoded['numeric'][0, 0] == encoded['numeric'][1, 0]


@pytest.mark.parametrize(
  'column',
  [
    ['12', ' 3.5 ', 'n/a', '-999', 'True', '1e3'],
    [12, np.float32(3.5), None, -999.0, True, decimal.Decimal(1000)],
    [12, fractions.Fraction(7, 2), 'n/a', '-999.00', 'false' == '', b'1000'],
    np.array([12, 3.5, np.nan, -999, 1, 1000]),
    np.array(['12.0', '3.50', '', '-999', 'true', '+1000'], object),
    pd.Series([12, 3.5, None, -999, 1, 1000], dtype='Float64'),
    Factor(np.arange(6), np.array(['12', '3.5', 'nan', '-999', '1', '1000', 'x'])),
    pd.Series([12, 3.5, None, -999, 1, 1000], dtype='category'),
  ],
  ids=str,
)  # fmt: skip
def test_numbers_in_any_form(column):
  """Those texts that mean "missing" and are numbers do so in every dtype."""
  found = numeric.read('x', column, frozenset({'n/a', '-999'}))
  expected = np.array([12, 3.5, np.nan, np.nan, 1, 1000])
  if isinstance(column, list) and column[4] is False:
    expected[4] = 0
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  'values, row, found',
  [
    ([1, 'big', 2], 1, r"numbers; found 'big'"),
    ([1, 2, '1_000'], 2, r"numbers; found '1_000'"),
    (['1', 'inf'], 1, 'finite numbers; found inf'),
    (['1', '1e999'], 1, 'finite numbers; found 1e999'),
    ([1, -np.inf], 1, 'finite numbers; found -inf'),
    ([1, 10**400, 2], 1, 'finite numbers; found 1000'),
    ([2j, 1, None], 0, r"numbers; found '2j'"),
    ([None, datetime.date(2020, 1, 2)], 1, r"numbers; found '2020-01-02'"),
    (pd.Series([np.nan, np.inf]), 1, 'finite numbers; found inf'),
    (pd.Series([1, 2, 'x'], dtype='category'), 2, "numbers; found 'x'"),
    (Factor(np.array([0, 2, 1]), ['1', 'a', 'inf']), 1, 'finite .* found inf'),
  ],
  ids=str,
)  # fmt: skip
def test_what_is_no_number(values, row, found):
  for columns_ in (values, list(values)) if row == 1 else (values,):
    if isinstance(values, Factor) and columns_ is not values:
      continue
    with pytest.raises(
      tables.RowError, match=f"'x' must hold {found}"
    ) as error:
      _numbers([1.0, 2.0], columns_)
    assert (error.value.column, error.value.row) == ('x', row)


def test_a_text_in_a_factor_that_no_row_has_is_ignored():
  column = Factor(np.array([0, 0, 1]), np.array(['1', '2', 'total']))
  assert numeric.read('x', column).tolist() == [1, 1, 2]


# Categories.


def _ids(train, rows, **rules):
  return (
    tables.fit({'x': train}, {}, rules=tables.Rules(**rules))
    .encode({'x': rows})['categories'][:, 0]
    .tolist()
  )


def test_texts_that_mean_missing():
  rules = {'missing': ('?', 'unknown', '-9')}
  train = ['a', '?', None, 'b', -9]
  rows = ['?', ' unknown ', -9.0, '', pd.NA, 'b', 'c']
  fitted = tables.fit({'x': train}, {}, rules=tables.Rules(**rules))
  assert fitted.vocabularies == {'x': ('a', 'b', 'nan')}
  assert fitted.missing == ('-9', '?', 'unknown')
  assert _ids(train, rows, **rules) == [3, 3, 3, 3, 3, 2, 0]
  # Where training had none missing, it is a value like any other unseen one.
  assert _ids(['a', 'b'], ['?', None, 'a'], **rules) == [0, 0, 1]


@pytest.mark.parametrize('missing', ['?', (1,), None])
def test_missing_is_a_tuple_of_texts(missing):
  with pytest.raises(ValueError, match='missing must be a tuple of texts'):
    tables.Rules(missing=missing)


def test_large_integers_beside_missing_ones_keep_their_digits():
  column = pd.Series([2**53 + 1, None, 2**53], dtype='Int64')
  assert _ids(column, [2**53, 2**53 + 1, str(2**53 + 1), None]) == [1, 2, 2, 3]


def test_times_of_all_zones_are_utc():
  column = pd.Series(
    pd.to_datetime(['2020-01-01 00:30', None, '2020-07-01 00:00'])
  )
  berlin = column.dt.tz_localize('Europe/Berlin')
  rows = ['2019-12-31T23:30', '2019-12-31 23:30:00', '2020-06-30T22:00:00', NAN]
  assert _ids(berlin, rows) == [0, 1, 2, 3]
  assert _ids(rows[1:], list(berlin)) == [1, 3, 2]
  assert columns.canonical('2020-01-01 00:30:00+01:00') == rows[0] + ':00'
  assert columns.canonical('0001-01-01 00:00:00+01:00').endswith('+01:00')


def test_rare_values_share_an_id_with_unseen_ones():
  train = ['a'] * 3 + ['b'] * 2 + ['c', None]
  fitted = tables.fit({'x': train}, {}, rules=tables.Rules(min_count=2))
  assert fitted.vocabularies == {'x': ('a', 'b')}
  encoded = fitted.encode({'x': ['a', 'b', 'c', 'd', None]})
  assert encoded['categories'][:, 0].tolist() == [1, 2, 0, 0, 0]
  assert fitted.unseen(encoded) == {'x': 3}
  # Spellings of one value count together.
  assert _ids([1, '1.0', 2, 2.0, 3], [1, 2, 3], min_count=2) == [1, 2, 0]


BOOLEANS = [True, 'True', 'true', 'TRUE', 'yes', 'Y', 'on', 't', 1, 1.0, '1', '1.0', np.bool_(True), b'yes', ' yes ']  # fmt: skip


@pytest.mark.parametrize('true', BOOLEANS, ids=repr)
def test_booleans_have_many_forms(true):
  column = [true, False, None]
  fitted = tables.fit({}, {}, booleans={'x': column})
  assert fitted.vocabularies == {'x': ('False', 'True', 'nan')}
  rows = ['yes', 0, 'off', 1.0, 'NaN', 'perhaps', True]
  encoded = fitted.encode({'x': rows})
  assert encoded['categories'][:, 0].tolist() == [2, 1, 1, 2, 3, 0, 2]
  assert fitted.unseen(encoded) == {'x': 1}
  # A category is not a boolean.
  assert tables.fit({'x': ['true', 'yes', True]}, {}).num_categories == (4,)


def test_what_is_no_boolean():
  column = pd.Series(['yes', 'no', 'maybe', 'maybe'])
  with pytest.raises(
    tables.RowError, match="'x' must hold yes or no.* 'maybe' .* in row 2"
  ):
    tables.fit({}, {}, booleans={'x': column})


# Dates.

TIMES = ['2020-02-28T12:00:00', '2020-03-01', '2021-03-02 06:00']


def _dates(train, rows, format='', **rules):
  rules = tables.Rules(**{'fill_missing': True, **rules})
  fitted = tables.fit({}, {}, dates={'day': (train, format)}, rules=rules)
  encoded = fitted.encode({'day': rows})['numeric'].astype(float)
  scalers = fitted.numerics.values()
  stds, means = (
    [getattr(s, name) for s in scalers] for name in ('std', 'mean')
  )
  numbers = encoded[:, : len(stds)] * stds + means
  return fitted, np.round(numbers, 2), encoded[:, len(stds) :]


def test_many_values_of_another_kind_name_the_cure():
  for given, message in (
    ({'dates': {'x': (['1.2.2023'] * 3, '%d/%m/%Y')}}, 'train with their form'),
    ({'numerics': {'x': [1, 'a', 'b']}}, 'train with the column as a category'),
    ({'booleans': {'x': ['ja', 'ja', 'ja']}}, 'with the column as a category'),
  ):
    with pytest.raises(tables.RowError, match=message) as error:
      tables.fit(**{'categories': {}, 'numerics': {}, **given})
    assert '(the first of ' in error.value.complaint
    assert ') in row ' in str(error.value)


def test_dates_become_numbers():
  fitted, numbers, flags = _dates(TIMES, TIMES)
  assert list(fitted.numerics) == [f'day.{part}' for part in dates.PARTS]
  assert fitted.dates['day'] == tables.Date('', dates.PARTS, '2020-02-28')
  assert numbers.tolist() == [
    [0.5, 2020, 2, 4, 12],  # a Friday
    [2, 2020, 3, 6, 0],
    [368.25, 2021, 3, 1, 6],
  ]
  assert flags.shape == (3, 0)
  again = tables.Tables.from_json(json.loads(json.dumps(fitted.to_json())))
  assert again == fitted


def test_parts_that_do_not_vary_are_left_out():
  for train, parts in (
    (['2020-03-02', '2020-03-09'], ('days',)),
    (['2020-03-02', '2020-03-03'], ('days', 'weekday')),
    (['2020-03-02T05', '2020-03-02T06'], ('days', 'hour')),
    (['2020-03-02', '2020-03-02'], ()),
  ):
    assert _dates(train, train)[0].dates['day'].parts == parts


@pytest.mark.parametrize('missing', [*MISSING, np.datetime64('NaT', 's'), 'unknown', '1900-01-01'], ids=str)  # fmt: skip
def test_a_missing_date_is_the_median_beside_one_flag(missing):
  rules = {'missing': ('unknown', '1900-01-01')}
  fitted, numbers, flags = _dates([*TIMES, missing], [missing, *TIMES], **rules)
  assert set(fitted.flags) == set(fitted.numerics)
  assert set(fitted.flags.values()) == {5}
  assert flags[:, 0].tolist() == [1, 0, 0, 0]
  assert numbers[0].tolist() == np.median(numbers[1:], axis=0).tolist()
  # In a column of times, too.
  if not isinstance(missing, str):
    column = pd.Series([pd.NaT, *map(pd.Timestamp, TIMES)])
    masked = np.ma.masked_array(
      column.fillna(STAMPS[0]).to_numpy(), [1, 0, 0, 0]
    )
    expected = fitted.encode({'day': [missing, *TIMES]})['numeric']
    for other in (column, masked):
      np.testing.assert_array_equal(
        fitted.encode({'day': other})['numeric'], expected
      )


def test_a_date_that_was_never_missing_in_training():
  fitted, numbers, flags = _dates(TIMES, [None, pd.NaT])
  assert (numbers == np.median(_dates(TIMES, TIMES)[1], axis=0)).all()
  assert flags.shape == (2, 0)
  rows = {'day': [None, *TIMES]}
  assert fitted.unseen(fitted.encode(rows), rows) == {'day': 1}
  for train, other in ((TIMES, [None]), ([*TIMES, None], TIMES)):
    with pytest.raises(tables.RowError, match="'day' must hold dates"):
      _dates(train, other, fill_missing=False)


def test_a_column_without_any_date_is_its_flag():
  fitted, numbers, flags = _dates([None, ''], ['2020-01-01', None])
  assert fitted.dates['day'].parts == () and numbers.shape == (2, 0)
  assert flags.tolist() == [[0], [1]]


STAMPS = pd.Series(pd.to_datetime(TIMES, format='ISO8601'))


@pytest.mark.parametrize(
  'column',
  [
    STAMPS,
    STAMPS.astype('datetime64[s]'),
    STAMPS.dt.tz_localize('UTC'),
    STAMPS.dt.tz_localize('UTC').dt.tz_convert('Asia/Tokyo'),
    list(STAMPS),
    list(STAMPS.dt.tz_localize('UTC').dt.tz_convert('Asia/Tokyo')),
    [stamp.to_pydatetime() for stamp in STAMPS],
    np.ma.masked_array(STAMPS.to_numpy(), [False] * 3),
    STAMPS.astype('category'),
    STAMPS.to_numpy(),
    [np.datetime64(t) for t in STAMPS],
    Factor(np.array([1, 0, 2]), STAMPS.to_numpy()[[1, 0, 2]]),
    ['2020-02-28 12:00', datetime.date(2020, 3, 1), '2021-03-02T07:00+01:00'],
    ['20200228T120000', b'2020-03-01', '2021-03-02T06:00Z'],
    pd.Series(TIMES, dtype='string'),
  ],
  ids=str,
)  # fmt: skip
def test_dates_in_any_form(column):
  expected = np.array(TIMES, 'datetime64[us]')
  np.testing.assert_array_equal(dates.read('x', column, ''), expected)
  if not any(
    isinstance(v, str | bytes) for v in np.asarray(column, object).ravel()
  ):
    # A time is a time, however texts are written.
    times = dates.read('x', column, '%d.%m.%Y')
    np.testing.assert_array_equal(times, expected)


ISO_FIELDS = [
  [0, 1, 1900, 2000, 2023, 9999],
  [0, 1, 2, 12, 13],
  [0, 1, 28, 29, 30, 31, 32],
  [0, 23, 24],
  [0, 59, 60],
  [5, 60],
]
ISO_FORMS = [
  '{:04}-{:02}-{:02}',
  '{:04}-{:02}-{:02} {:02}:{:02}',
  '{:04}-{:02}-{:02}T{:02}:{:02}:{:02}',
  '{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.125',
  '{:04}-{:02}-{:02} {:02}:{:02}:{:02}.000125',
  '{:04}-{:02}-{:02}x{:02}:{:02}',
]


def _python_time(text):
  try:
    return np.datetime64(datetime.datetime.fromisoformat(text), 'us')
  except ValueError:
    return np.datetime64('NaT', 'us')


@pytest.mark.parametrize('as_bytes', [False, True])
@pytest.mark.parametrize('form', ISO_FORMS)
def test_iso_times_are_those_of_python(form, as_bytes):
  fields = itertools.product(*ISO_FIELDS[: form.count('{')])
  texts = [form.format(*one) for one in fields]
  texts += ['2020-01-3\u0663', '2020-0l-31', '2020/01/31', '2020-01-31T05']
  column = np.array([text.encode() for text in texts]) if as_bytes else texts
  known = [_python_time(text) for text in texts]
  bad = frozenset(
    columns.canonical(t) for t, k in zip(texts, known, strict=True) if k != k
  )
  np.testing.assert_array_equal(dates.read('x', column, '', bad), known)
  if bad:
    with pytest.raises(tables.RowError, match='must hold dates like'):
      dates.read('x', column, '', bad - {min(bad)})


def test_columns_of_arrow():
  pytest.importorskip('pyarrow')
  wanted = tables.fit(
    {'city': ['a', None, 'b'], 'code': [1, 2, 2]},
    {'n': [1.5, None, 2], 'm': [1, None, 3]},
    booleans={'flag': [True, None, False]},
    dates={'day': (['2020-01-02T05:00', None, '2020-02-01'], ''),
           'date': (['2020-01-02', None, '2020-02-01'], '')},
    rules=tables.Rules(fill_missing=True),
  )  # fmt: skip
  times = pd.Series(
    pd.to_datetime(['2020-01-02 05:00', None, '2020-02-01 00:00'])
  )
  zone = times.dt.tz_localize('UTC').dt.tz_convert('Asia/Tokyo')
  for text, time, when in (
    ('string[pyarrow]', 'timestamp[ns][pyarrow]', times),
    ('large_string[pyarrow]', 'timestamp[us, tz=Asia/Tokyo][pyarrow]', zone),
  ):  # fmt: skip
    frame = pd.DataFrame(
      {
        'city': pd.Series(['a', None, 'b'], dtype=text),
        'code': pd.Series([1, 2, 2], dtype='int8[pyarrow]'),
        'n': pd.Series([1.5, None, 2], dtype='float[pyarrow]'),
        'm': pd.Series([1, None, 3], dtype='int64[pyarrow]'),
        'flag': pd.Series([True, None, False], dtype='bool[pyarrow]'),
        'day': when.astype(time),
        'date': times.astype('timestamp[ns][pyarrow]').astype(
          'date32[pyarrow]'
        ),
      }
    )
    fitted = tables.fit(
      frame[['city', 'code']], frame[['n', 'm']], booleans=frame[['flag']],
      dates={name: (frame[name], '') for name in ('day', 'date')},
      rules=tables.Rules(fill_missing=True),
    )  # fmt: skip
    assert fitted == wanted


def test_dates_in_a_format():
  texts = ['28.02.2020', ' 1.3.2020 ', '', None, datetime.date(2021, 3, 2)]
  found = dates.read('x', texts, '%d.%m.%Y')
  assert [str(t)[:10] for t in found] == [
    '2020-02-28', '2020-03-01', 'NaT', 'NaT', '2021-03-02',
  ]  # fmt: skip
  # As whole numbers, and as the floats that missing values make of them.
  for column in ([20200301, None], [20200301.0, NAN], ['20200301', '']):
    for format in ('%Y%m%d', ''):
      found = dates.read('x', column, format)
      assert str(found[0])[:10] == '2020-03-01' and np.isnat(found[1])
  found = dates.read('x', ['2020-03-01 00:00:00'], '%Y-%m-%d %H:%M:%S')
  assert found[0] == np.datetime64('2020-03-01')


@pytest.mark.parametrize(
  'column, format, complaint',
  [
    (['2020-01-01', '1.3.2020'], '', r"like 2026-01-31 \(ISO 8601\); found '1.3.2020' in row 1"),
    (['1.3.2020', '2020-01-01'], '%d.%m.%Y', "in the format %d.%m.%Y; found '2020-01-01' in row 1"),
    ([1, 2.5], '', "found '1' .the first of 2 such values. in row 0"),
    (['1.3.2020', '31.2.2020'], '%d.%m.%Y', "found '31.2.2020' in row 1"),
    (Factor(np.array([0, 2]), ['2020-01-01', 'unused', 'x' * 99]), '', "found 'x.* in row 1"),
  ],
)  # fmt: skip
def test_what_is_no_date(column, format, complaint):
  with pytest.raises(
    tables.RowError, match=f"'day' must hold dates .*{complaint}"
  ):
    _dates(column, column, format)


def test_derived_columns_clash_with_no_other():
  with pytest.raises(ValueError, match="two .* called 'day.days'"):
    tables.fit({}, {'day.days': [1, 2]}, dates={'day': (TIMES[:2], '')})
  with pytest.raises(ValueError, match="two .* called 'x'"):
    tables.fit({'x': ['a']}, {}, booleans={'x': [1]})


# Hashing.


def test_hashes_are_the_same_for_good():
  """Models are saved with them: these figures never change."""
  texts = ['Oslo', 'Rome', '', 'Zürich', 'nan', 'x' * 256, '1', '\U0001f600']
  assert hashing.buckets(texts, 4096).tolist() == [
    [3781, 4061], [3233, 3326], [3936, 2342], [2081, 1488], [3358, 1802],
    [1789, 2274], [733, 982], [153, 902],
  ]  # fmt: skip


def _hash_by_the_book(text):
  """The C code of the docstring, with Python's integers."""
  h, mask = 0xCBF29CE484222325, 2**64 - 1
  for byte in text.encode()[:256]:
    h = ((h ^ byte) * 0x100000001B3) & mask
  h = ((h ^ h >> 33) * 0xFF51AFD7ED558CCD) & mask
  h = ((h ^ h >> 33) * 0xC4CEB9FE1A85EC53) & mask
  h ^= h >> 33
  return [h >> 32, h & 0xFFFFFFFF]


def test_hashes_against_the_definition():
  rng = np.random.default_rng(0)
  texts = [
    ''.join(map(chr, rng.integers(1, 0x3000, int(rng.integers(0, 300)))))
    for _ in range(40)
  ]
  for size in (1, 7, 4096, 2**31 - 1):
    expected = [[h % size for h in _hash_by_the_book(t)] for t in texts]
    assert hashing.buckets(texts, size).tolist() == expected
  together = hashing.buckets(texts, 99)
  alone = [hashing.buckets([text], 99)[0] for text in texts]
  np.testing.assert_array_equal(together, alone)


def test_the_two_hashes_are_independent():
  """Values that share one bucket share the other by chance only."""
  found = hashing.buckets([f'user {i}' for i in range(40_000)], 512)
  for side in (0, 1):  # 78 a bucket, standard deviation 8.8
    counts = np.bincount(found[:, side], minlength=512)
    assert counts.min() > 40 and counts.max() < 120
  pairs = np.unique(found, axis=0)
  # Of 512^2 pairs, 40,000 draws hit 37,100 different ones.
  expected = 512**2 * (1 - np.exp(-40_000 / 512**2))
  assert abs(len(pairs) - expected) < 300


def test_long_texts_are_read_up_to_a_bound():
  long = 'x' * 10_000_000
  short = hashing.buckets(['x' * hashing.NUM_BYTES], 4096)
  np.testing.assert_array_equal(hashing.buckets([long, 'x'], 4096)[:1], short)
  # 85 characters of three bytes, and one byte of the next.
  np.testing.assert_array_equal(
    hashing.buckets(['€' * 86], 99), hashing.buckets(['€' * 85 + '\u2000'], 99)
  )
  assert hashing.buckets(['\ud800'], 99).shape == (1, 2)  # not UTF-8


def test_large_vocabularies_are_hashed():
  train = {
    'user': [f'u{i}' for i in range(20)] + [None],
    'x': list('ab') * 10 + ['a'],
  }
  fitted = tables.fit(
    train, {}, rules=tables.Rules(max_vocabulary=5, num_buckets=64)
  )
  assert (fitted.num_categories, fitted.num_buckets) == ((3,), (64,))
  assert fitted.hashed == {'user': 64}
  again = tables.Tables.from_json(json.loads(json.dumps(fitted.to_json())))
  assert again == fitted
  rows = {'user': ['u3', 'new', '', ' u3 ', 'NaN'], 'x': list('abcab')}
  encoded = fitted.encode(rows)
  assert encoded['hashed'].shape == (5, 1, 2)
  assert encoded['hashed'].dtype == np.int32
  np.testing.assert_array_equal(
    encoded['hashed'][:, 0],
    hashing.buckets(['u3', 'new', 'nan', 'u3', 'nan'], 64),
  )
  assert fitted.unseen(encoded) == {'x': 1}
  # At the bound, and where rare values leave few enough, there is no hashing.
  assert (
    tables.fit(train, {}, rules=tables.Rules(max_vocabulary=21)).hashed == {}
  )
  few = tables.fit(
    {'user': [*train['user'], 'u1']},
    {},
    rules=tables.Rules(max_vocabulary=5, min_count=2),
  )
  assert few.vocabularies == {'user': ('u1',)}


# The rest of the tables.


def test_new_fields_are_left_out_of_the_data_when_empty():
  """Tables without them are the same data as in all earlier releases."""
  fitted = tables.fit({'x': ['a', 'b']}, {'n': [1.0, 2.0]}, num_bins=2)
  assert fitted.to_json() == {
    'vocabularies': {'x': ['a', 'b']},
    'numerics': {'n': {'log': False, 'mean': 1.5, 'std': 0.5, 'edges': [1.5]}},
  }


@pytest.mark.parametrize(
  'change, complaint',
  [
    ({'missing': 'x'}, "missing must be a list of strings, found 'x'"),
    ({'booleans': ['y']}, "'y' must be one of the vocabularies"),
    ({'dates': {'d': {'format': '', 'parts': ['age'], 'origin': '2020-01-01'}}}, 'age'),
    ({'dates': {'d': {'format': '', 'parts': [], 'origin': 'then'}}}, 'then'),
    ({'dates': {'d': {'format': '', 'parts': ['days'], 'origin': '2020-01-01'}}}, "'d.days' must be one of the numerics"),
    ({'hashed': {'h': 0}}, 'buckets must be from 1 to .*, found 0'),
    ({'numerics': {'n': {'log': False, 'mean': 0, 'std': 1, 'edges': [], 'flag': True}}}, 'fill'),
    ({'numerics': {'n': {'log': False, 'mean': 0, 'std': 1, 'edges': [], 'fill': NAN}}}, 'fill'),
  ],
)  # fmt: skip
def test_data_that_to_json_did_not_return(change, complaint):
  data = {'vocabularies': {'x': ['a']}, 'numerics': {}}
  with pytest.raises(ValueError, match=f'Tables.to_json .*{complaint}'):
    tables.Tables.from_json({**data, **change})


@pytest.mark.parametrize('name', ['min_count', 'max_vocabulary', 'num_buckets'])
@pytest.mark.parametrize('size', [0, 2.5, True, '3'])
def test_sizes_are_whole_numbers(name, size):
  with pytest.raises(ValueError, match=f'{name} must be .* found {size!r}'):
    tables.Rules(**{name: size})


def test_names_that_are_numbers():
  frame = pd.DataFrame({0: TIMES, 1: [True, False, None], 2: ['a', 'b', 'c']})
  fitted = tables.fit(
    {2: frame[2]}, {}, booleans={1: frame[1]}, dates={np.int64(0): (frame[0], '')},
    rules=tables.Rules(max_vocabulary=2),
  )  # fmt: skip
  assert fitted.booleans == (1,) and fitted.hashed == {2: 4096}
  again = tables.Tables.from_json(json.loads(json.dumps(fitted.to_json())))
  assert again == fitted
  for name, array in again.encode(frame).items():
    np.testing.assert_array_equal(array, fitted.encode(frame)[name])


@pytest.mark.parametrize('log', [False, True])
def test_long_tables_are_encoded_as_their_rows(log):
  # Blocks of rows, whole numbers looked up, and all of it equal to the bit.
  rng = np.random.default_rng(0)
  n = 40_000
  whole, real = rng.integers(-50, 900, n).astype(float), rng.normal(size=n)
  days = np.datetime64('2019-12-01') + rng.integers(0, 900, n)
  columns = {
    'city': rng.integers(0, 9, n).astype(str),
    'whole': np.where(rng.random(n) < 0.1, np.nan, whole), 'real': real,
    'day': np.where(rng.random(n) < 0.1, '', days.astype(str)),
  }  # fmt: skip
  fitted = tables.fit(
    {'city': columns['city']},
    {'whole': columns['whole'], 'real': real.copy()},
    log=('whole',) if log else (),
    num_bins=16,
    interpolate=not log,
    dates={'day': (columns['day'], '')},
    rules=tables.Rules(fill_missing=True),
  )
  encoded = fitted.encode(columns)
  for start in (0, 16_380, 39_990):
    few = {name: column[start : start + 10] for name, column in columns.items()}
    for name, array in fitted.encode(few).items():
      np.testing.assert_array_equal(encoded[name][start : start + 10], array)
  for start, numbers in ((30_001, 1e15), (16_384, 1e12 + whole % 3)):
    columns['real'][start:] = np.broadcast_to(numbers, n)[start:]
    columns['real'][:start] = 0
    with pytest.raises(tables.RowError, match=f"'real' .* in row {start} "):
      fitted.encode(columns)
