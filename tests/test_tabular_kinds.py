"""What kind a column is taken for, and what is said about it."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest

from lplmtl import tabular
from lplmtl.columns import Factor
from lplmtl.tabular import facts, kinds

N = 60
RNG = np.random.default_rng(0)
DAYS = [datetime.date(2024, 1, 1) + datetime.timedelta(3 * i) for i in range(N)]
NUMBERS = RNG.normal(50, 10, N).round(2)
LABELS = RNG.permutation(N) % 2
WORDS = ['the', 'order', 'came', 'late', 'and', 'broken', 'again', 'today']
SENTENCES = [' '.join(RNG.permutation(WORDS)) for _ in range(N)]


def _kind(column, **options):
  frame = {'x': column, 'y': LABELS, 'z': NUMBERS}
  return tabular.infer(frame, 'y', tabular.Options(**options)).inputs['x']


def _every(*values):
  return [values[i % len(values)] for i in range(N)]


COLUMNS = {
  # Numbers.
  'floats': (NUMBERS, 'number'),
  'whole numbers, few of them': (_every(3, 1, 4, 1, 5), 'number'),
  'numbers in a list with None': ([None, *NUMBERS[1:].tolist()], 'number'),
  'numbers kept as texts': ([f' {x} ' for x in NUMBERS], 'number'),
  'texts with an exponent': (_every('1e3', '2.5E-2', '.5', '-4.'), 'number'),
  'decimals': ([decimal.Decimal(str(x)) for x in NUMBERS], 'number'),
  'nullable integers': (pd.Series(_every(1, None, 7), dtype='Int64'), 'number'),
  'nullable numbers': (pd.Series(NUMBERS, dtype='Float64'), 'number'),
  'masked numbers': (np.ma.masked_less(NUMBERS, 40), 'number'),
  'an infinite number': ([np.inf, *NUMBERS[1:]], 'number'),
  'years': (_every(2021, 2022, 2023), 'number'),
  # Yes or no.
  'booleans': (np.arange(N) % 3 == 0, 'boolean'),
  'booleans or None': (_every(True, None, False), 'boolean'),
  'nullable booleans': (pd.Series(_every(True, None, False), dtype='boolean'), 'boolean'),
  'yes and no': (_every('yes', 'no', 'No', ''), 'boolean'),
  'y and n': (_every('Y', 'N', None), 'boolean'),
  't and f': (_every('t', 'f'), 'boolean'),
  'true and false': (_every('true', 'FALSE'), 'boolean'),
  'zeros and ones': (_every(0, 1, 1), 'boolean'),
  'zeros and ones, some missing': (_every(0.0, np.nan, 1.0), 'boolean'),
  'zeros and ones as texts': (_every('0', '1'), 'boolean'),
  'zeros to two': (_every(0, 1, 2), 'number'),
  'yes or missing': (_every('yes', None), 'category'),
  'f and m': (_every('f', 'm'), 'category'),
  # Dates.
  'datetime64': (np.array(DAYS, 'datetime64[ns]'), 'date'),
  'datetime64 with NaT': (np.array([None, *DAYS[1:]], 'datetime64[s]'), 'date'),
  'Timestamps with a zone': (pd.Series(pd.to_datetime(DAYS)).dt.tz_localize('Europe/Oslo'), 'date'),
  'dates of Python': (DAYS, 'date'),
  'ISO dates': (list(map(str, DAYS)), 'date'),
  'ISO times': ([f'{day}T12:3{i % 10}' for i, day in enumerate(DAYS)], 'date'),
  'ISO times with a zone': ([f'{day} 12:30:00+02:00' for day in DAYS], 'date'),
  'digits alone': ([f'{day:%Y%m%d}' for day in DAYS], 'number'),
  # Categories.
  'texts': (_every('Oslo', 'Rome', 'Lima'), 'category'),
  'Categorical': (pd.Categorical(_every('Oslo', 'Rome', None)), 'category'),
  'pandas strings': (pd.Series(_every('Oslo', None), dtype='string'), 'category'),
  'Factor': (Factor(np.arange(N) % 3, np.array(['a', 'b', 'c'])), 'category'),
  'codes with leading zeros': (_every('00501', '10001', '94016'), 'category'),
  'numbers and texts': (_every('12', 'unknown', '7'), 'category'),
  'bytes': (np.array(_every(b'Oslo', b'Rome')), 'category'),
  'one number or none': (_every(1.5, np.nan), 'category'),
  # Left out.
  'sentences': (SENTENCES, 'text'),
  'a book in a cell': (['x' * 10**7, *SENTENCES[1:]], 'text'),
  'names that differ': ([f'c{i}x' for i in range(N)], 'identifier'),
  'row numbers': (np.arange(N) + 1000, 'identifier'),
  'row numbers as texts': ([str(i) for i in range(N)], 'identifier'),
  'a sample of row numbers': (np.sort(RNG.permutation(100)[:N]), 'identifier'),
  'one value': (['a'] * N, 'constant'),
  'one number': (np.ones(N), 'constant'),
  'no value': ([None] * N, 'constant'),
  'no number': (np.full(N, np.nan), 'constant'),
  'durations': (np.arange(N).astype('timedelta64[D]'), 'ignored'),
}  # fmt: skip


@pytest.mark.parametrize('name', COLUMNS)
def test_kind(name):
  column, kind = COLUMNS[name]
  found = _kind(column)
  assert found.kind == kind
  if kind not in ('category', 'number', 'date', 'boolean'):
    assert found.reason


@pytest.mark.parametrize('name', COLUMNS)
def test_a_series_is_what_its_values_are(name):
  column, kind = COLUMNS[name]
  if isinstance(column, Factor):
    column = column.values[column.codes]
  if isinstance(column, np.ma.MaskedArray):
    column = column.filled(np.nan)
  frame = pd.DataFrame({'x': column, 'y': LABELS, 'z': NUMBERS})
  assert tabular.infer(frame, ['y']).inputs['x'].kind == kind


FORMATS = {
  '%d/%m/%Y': 'day first',
  '%m/%d/%Y': 'month first',
  '%d.%m.%Y': 'dots',
  '%d-%m-%Y': 'hyphens',
  '%Y/%m/%d': 'year first',
  '%d.%m.%y': 'two digits of the year',
  '%d %b %Y': 'short month',
  '%B %d, %Y': 'long month',
  '%d/%m/%Y %H:%M': 'time',
  '%m/%d/%Y %I:%M %p': 'half days',
  '%Y%m%dT%H%M%S': 'compact time',
  '%Y-%m': 'months',
  '%d. %b %y': 'a dot and a short month',
}


@pytest.mark.parametrize('format', FORMATS)
def test_format_of_dates(format):
  texts = [
    datetime.datetime(d.year, d.month, d.day, d.day % 24, 5).strftime(format)
    for d in DAYS
  ]
  found = _kind([*texts[:-1], None])
  assert (found.kind, found.format, found.reason) == ('date', format, '')


def test_ambiguous_dates_are_read_month_first_and_it_is_said():
  texts = [f'{1 + i % 12:02}/{1 + i // 7:02}/2024' for i in range(N)]
  found = _kind(texts)
  assert found.format == '%m/%d/%Y'
  assert 'day first would fit' in found.reason
  assert _kind(texts, dates={'x': '%d/%m/%Y'}).format == '%d/%m/%Y'


def test_a_field_that_is_always_one_is_the_day():
  firsts = [f'01/{1 + i % 12:02}/{2020 + i // 12}' for i in range(N)]
  assert _kind(firsts).format == '%d/%m/%Y'
  assert 'always 1' in _kind(firsts).reason


def test_dates_that_are_digits_are_read_if_asked_for():
  digits = [int(f'{day:%Y%m%d}') for day in DAYS]
  assert _kind(digits, dates=['x']).format == '%Y%m%d'
  with pytest.raises(ValueError, match=r"'x' must hold dates.*found 'Oslo'"):
    _kind(_every('Oslo', 'Rome'), dates=['x'])


@pytest.mark.parametrize(
  'bad, remark',
  [
    (['unknown', '-'], "numbers, but for 'unknown', '-'"),
    ([f'{i},5' for i in range(N)], 'numbers written like'),
    ([f'${i},000.50' for i in range(N)], 'numbers written like'),
  ],
)
def test_remarks_on_numbers_that_are_texts(bad, remark):
  texts = [*bad, *map(str, NUMBERS)][:N]
  found = _kind(texts)
  assert found.kind == 'category'
  assert remark in found.reason


@pytest.mark.parametrize('num_rows', [6, N])
@pytest.mark.parametrize(
  'values, remark',
  [
    (('12', 'unknown', '7'), "numbers in 66% of the rows, and texts such as 'unk"),
    (tuple('1a2b3c4d5e6f'), "numbers in 50% of the rows, and texts such as 'a'"),
    (('12', 'few', 'many'), ''),
    (('12', '007', 'x'), ''),
  ],
)  # fmt: skip
def test_a_remark_on_numbers_among_texts(values, remark, num_rows):
  found = kinds.infer(facts.look('x', _every(*values)[:num_rows]))
  assert found.kind == 'category'
  assert found.reason.startswith(remark) and bool(found.reason) == bool(remark)


def test_what_the_remark_proposes_works():
  texts = ['unknown', *map(str, NUMBERS[1:])]
  assert _kind(texts, numbers=['x'], missing=('unknown',)).kind == 'number'
  assert _kind(texts, missing=('unknown',)).kind == 'number'
  with pytest.raises(
    ValueError, match=r"must hold numbers.*'unknown' in 1 of 60 rows.*missing"
  ):
    _kind(texts, numbers=['x'])
  dates = ['never', *map(str, DAYS[1:])]
  assert "dates, but for 'never'" in _kind(dates).reason
  assert _kind(dates, dates=['x'], missing=('never',)).kind == 'date'


@pytest.mark.parametrize(
  'bad, rest, is_said',
  [
    (-1, range(1950, 2020), True),
    (-999, range(70), True),
    (9999, range(70), True),
    (-1, range(70), False),  # next to the others
    (-5, range(1950, 2020), False),
    (9999, range(9_900, 9_970), False),
  ],
)
def test_a_remark_on_numbers_that_may_mean_missing(bad, rest, is_said):
  values = np.array([bad, bad, *rest][:N], float) + np.arange(N) % 2 / 8
  values[:2] = bad
  reason = f'{bad} lies far from the rest: if it means that there is no value, '
  found = _kind(values).reason
  assert found == (reason + 'name it in missing' if is_said else '')
  assert _kind(values, missing=(str(bad),)).reason == ''


def test_a_remark_on_digits_that_may_be_dates():
  digits = np.array([int(f'{day:%Y%m%d}') for day in DAYS]) % 10**8
  found = _kind(RNG.permutation(digits))
  assert found.kind == 'number' and 'name it in dates' in found.reason
  assert _kind(digits + 90).reason == ''


def test_a_column_that_is_no_boolean_is_a_category():
  with pytest.raises(ValueError, match="'ja' in 30 of 60 rows, .*a category"):
    _kind(_every('ja', 'nein'), booleans=['x'])
  one = ['maybe', *_every('yes', 'no')[1:]]
  with pytest.raises(
    ValueError, match="'maybe' in 1 of 60 rows: name it in mi"
  ):
    _kind(one, booleans=['x'])


def test_numbers_that_mean_missing():
  found = facts.look('x', np.array([1.0, -999, 3, np.nan]), ('-999', '?'))
  assert found.num_missing == 2
  assert found.values.tolist() == [1, 3]


def test_amounts_over_several_orders_of_magnitude_take_their_logarithm():
  amounts = np.round(np.exp(RNG.normal(8, 2, 400)), 2)
  frame = {
    'x': amounts,
    'age': RNG.normal(40, 10, 400),
    'y': np.arange(400) % 2,
  }
  frame['debt'] = -amounts
  inputs = tabular.infer(frame, 'y').inputs
  assert (inputs['x'].log, inputs['age'].log, inputs['debt'].log) == (
    True,
    False,
    False,
  )


@pytest.mark.parametrize(
  'name, kind',
  [('customer_id', 'identifier'), ('ID', 'identifier'), ('userId', 'identifier'), ('paid', 'number'), ('humidity', 'number'), ('x', 'number')],
)  # fmt: skip
def test_large_different_numbers_are_identifiers_if_they_are_called_so(
  name, kind
):
  frame = {name: RNG.permutation(10**6)[:N], 'y': LABELS, 'z': NUMBERS}
  assert tabular.infer(frame, 'y').inputs[name].kind == kind


def test_every_wrong_guess_can_be_mended():
  frame = {'x': np.arange(N), 'y': LABELS, 'z': NUMBERS}
  wishes = {
    'categories': 'category', 'numbers': 'number', 'ignore': 'ignored'
  }  # fmt: skip
  for option, kind in wishes.items():
    options = tabular.Options(**{option: ['x']})
    assert tabular.infer(frame, 'y', options).inputs['x'].kind == kind
  frame['x'] = _every('on', 'off', 'on', '')
  options = tabular.Options(booleans=['x'])
  assert tabular.infer(frame, 'y', options).inputs['x'].kind == 'boolean'
  frame['x'] = _every('on', 'maybe')
  with pytest.raises(
    ValueError, match="true or false.*found 'maybe' in 30 of 60 rows"
  ):
    tabular.infer(frame, 'y', options)


def test_long_columns_are_judged_by_a_sample_unless_they_would_be_left_out(
  monkeypatch,
):
  monkeypatch.setattr(facts, 'MAX_ROWS', 100)
  n = 10_000
  late = np.zeros(n)
  late[5] = 1.5  # not among the evenly spaced rows
  few = [f'c{i // 50}' for i in range(n)]  # different in the sample only
  frame = {
    'late': late,
    'few': few,
    'row': np.arange(n),
    'y': RNG.permutation(n) % 2,
  }
  look = facts.look
  monkeypatch.setattr(
    facts,
    'look',
    lambda name, column, missing=(), max_rows=100: look(
      name, column, missing, max_rows
    ),
  )
  inputs = tabular.infer(frame, 'y').inputs
  assert {k: v.kind for k, v in inputs.items()} == {
    'late': 'number',
    'few': 'category',
    'row': 'identifier',
  }


def test_arrow_columns():
  pyarrow = pytest.importorskip('pyarrow')
  for values, kind in (
    (pyarrow.array(NUMBERS), 'number'),
    (pyarrow.array(_every(1, None, 7)), 'number'),
    (pyarrow.array(_every('Oslo', 'Rome', None)), 'category'),
    (pyarrow.array(_every(True, None, False)), 'boolean'),
    (pyarrow.array([None, *DAYS[1:]]), 'date'),
    (
      pyarrow.array(_every('Oslo', 'Rome', None)).dictionary_encode(),
      'category',
    ),
  ):
    column = pd.Series(
      pd.arrays.ArrowExtensionArray(pyarrow.chunked_array([values]))
    )
    assert _kind(column).kind == kind


def test_facts_count_rows_whatever_the_column_is_kept_in():
  values = ['a', 'b', '', 'a', None]
  for column in (
    values,
    np.array(values, object),
    pd.Series(values, dtype='string'),
    pd.Categorical(values),
    Factor(np.array([1, 2, 0, 1, 0]), np.array(['', 'a', 'b'])),
  ):
    found = facts.look('x', column)
    counts = dict(zip(found.values, found.counts.tolist(), strict=True))
    assert (counts, found.num_missing, found.num_rows) == (
      {'a': 2, 'b': 1},
      2,
      5,
    )
    assert found.holds_texts


def test_skewness_counts_every_row():
  values, counts = np.unique(
    RNG.poisson(2, 500).astype(float), return_counts=True
  )
  rows = np.repeat(values, counts)
  expected = np.mean((rows - rows.mean()) ** 3) / rows.std() ** 3
  assert kinds._skewness(values, counts) == pytest.approx(expected)
