"""Rows get the same ids and numbers however they arrive (property test)."""

import dataclasses
import datetime
import decimal
import json

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from lplmtl import dates, tables
from lplmtl.export import reader
from lplmtl.export import rows as exported
from lplmtl.tables import Factor

MISSING = (None, float('nan'), '', ' ', 'nan', 'NaN', 'None', '<NA>', pd.NA, pd.NaT, '?', ' ? ', np.ma.masked, np.float32('nan'))  # fmt: skip
TEXTS = ('?', '-999')  # what the tables of the test take for missing, too


def _forms_of_number(number):
  """Returns all that is `number`, a multiple of 1/8."""
  forms = [number, str(number), f' {number}', np.float32(number), decimal.Decimal(number), np.float64(number)]  # fmt: skip
  if number == int(number):
    whole = int(number)
    forms += [whole, str(whole), np.int64(whole), np.int8(whole), f'{whole}.0']
  if number in (0, 1):
    forms += [bool(number), np.bool_(number), str(bool(number))]
  return forms


def _forms_of_category(value):
  """Returns all that is one category: a text, or a whole number."""
  if isinstance(value, str):
    return [value, f' {value} ', value.encode(), np.str_(value)]
  return [value, float(value), str(value), f'{value}.0', np.int32(value), np.float32(value), f' {value}\n']  # fmt: skip


def _forms_of_boolean(value):
  words = ('yes', 'TRUE', 'on', 'y') if value else ('no', 'False', 'off', 'N')
  number = int(value)
  return [value, str(value), np.bool_(value), number, float(number), str(number), f'{number}.0', *words]  # fmt: skip


def _forms_of_date(time):
  stamp = pd.Timestamp(time)
  forms = [time, time.isoformat(), str(time), stamp, np.datetime64(time), f'{time.isoformat()}Z', stamp.tz_localize('UTC'), stamp.tz_localize('UTC').tz_convert('Asia/Tokyo'), f'{time.isoformat()}+00:00', stamp.strftime('%Y%m%dT%H%M%S')]  # fmt: skip
  if time.time() == datetime.time():
    forms += [time.date(), str(time.date()), int(stamp.strftime('%Y%m%d')), f'{stamp.strftime("%Y%m%d")}.0']  # fmt: skip
  return forms


NUMBERS = [0.0, 1.0, 3.0, -12.0, 0.125, 100.5]
CATEGORIES = ['red', 'blue', 'Zürich', 753, -2, 'new', 10**6]
TIMES = [datetime.datetime(2020, 1, 31), datetime.datetime(2020, 2, 29, 23, 5), datetime.datetime(1969, 12, 31, 1), datetime.datetime(2100, 6, 1)]  # fmt: skip
COLUMNS = {
  'category': (CATEGORIES, _forms_of_category),
  'hashed': (CATEGORIES, _forms_of_category),
  'number': (NUMBERS, _forms_of_number),
  'money': (NUMBERS, _forms_of_number),
  'boolean': ([True, False], _forms_of_boolean),
  'date': (TIMES, _forms_of_date),
}
TRAIN = {  # 16 rows
  'category': ['rare', *['red', 'blue', 753, -2, None] * 3],
  'hashed': [*CATEGORIES, None] * 2,
  'number': [*NUMBERS * 2, *NUMBERS[:3], None],
  'money': [*NUMBERS * 2, *NUMBERS[:4]],
  'boolean': [None, True, False, *[True] * 13],
  'date': [*TIMES * 3, *TIMES[:3], None],
}


@pytest.fixture(scope='module')
def fitted():
  return tables.fit(
    {name: TRAIN[name] for name in ('category', 'hashed')},
    {name: TRAIN[name] for name in ('number', 'money')},
    log=('money',), num_bins=4, booleans={'boolean': TRAIN['boolean']},
    dates={'date': (TRAIN['date'], '')}, rules=tables.Rules(
      fill_missing=True, missing=TEXTS, min_count=2, max_vocabulary=5,
      num_buckets=16,
    ),
  )  # fmt: skip


def test_the_tables_have_everything(fitted):
  assert len(fitted.vocabularies['category']) == 5  # 'rare' has no id
  assert list(fitted.hashed) == ['hashed']
  assert set(fitted.flags) == {'number', *(f'date.{p}' for p in dates.PARTS)}


def _containers(values, forms):
  """Returns the columns that a list of forms may arrive in."""
  objects = np.empty(len(forms), object)
  objects[:] = forms
  backwards = np.arange(len(forms))[::-1]
  columns = [forms, objects, pd.Series(objects, dtype=object), Factor(backwards, objects[::-1])]  # fmt: skip
  if not any(value is np.ma.masked for value in forms):
    columns.append(pd.Series(forms))  # pandas chooses a dtype
  return columns


@st.composite
def rows_in_forms(draw):
  """Draws `(plain columns, the same in other forms)`."""
  n = draw(st.integers(1, 4))
  plain, other = {}, {}
  for name, (known, forms_of) in COLUMNS.items():
    values = draw(
      st.lists(st.sampled_from([*known, None]), min_size=n, max_size=n)
    )
    forms = [
      draw(st.sampled_from(MISSING if value is None else forms_of(value)))
      for value in values
    ]
    plain[name] = values
    other[name] = draw(st.sampled_from(_containers(values, forms)))
  extra = {'target': ['x'] * n, 0: [None] * n}
  order = draw(st.permutations(list(other | extra)))
  return plain, {name: (other | extra)[name] for name in order}


def _assert_equal(features, expected):
  assert features.keys() == expected.keys()
  for name, array in expected.items():
    assert features[name].dtype == array.dtype
    np.testing.assert_array_equal(features[name], array)


@hypothesis.settings(max_examples=150, derandomize=True, deadline=None)
@hypothesis.given(rows_in_forms())
def test_equal_rows_are_encoded_equally(fitted, rows):
  """To the bit: integers, floats, booleans and their texts; all forms of
  missing values; further columns, in any order; together or one by one.
  """
  plain, other = rows
  expected = fitted.encode(plain)
  _assert_equal(fitted.encode(other), expected)
  for i in range(len(expected['numeric'])):
    row = {name: _row(column, i) for name, column in other.items()}
    _assert_equal(
      fitted.encode(row), {k: v[i : i + 1] for k, v in expected.items()}
    )


@hypothesis.settings(max_examples=50, derandomize=True, deadline=None)
@hypothesis.given(rows_in_forms())
def test_an_exported_model_encodes_alike(fitted, rows):
  """All but dates, which cannot be exported: NumPy alone, from plain data."""
  parts = [name for name in fitted.numerics if name.startswith('date.')]
  numerics = {k: n for k, n in fitted.numerics.items() if k not in parts}
  fitted = dataclasses.replace(fitted, numerics=numerics, dates={})
  data = json.loads(json.dumps(exported.to_data(fitted)))
  _, other = rows
  _assert_equal(reader.encode(data, listed(other)), fitted.encode(other))


def listed(columns):
  """Returns columns without the type that the reader does not know."""
  return {
    name: [column.values[i] for i in column.codes]
    if isinstance(column, Factor)
    else column
    for name, column in columns.items()
  }


def _row(column, i):
  if isinstance(column, Factor):
    return column.take(np.array([i]))
  return (
    column.iloc[i : i + 1] if hasattr(column, 'iloc') else column[i : i + 1]
  )
