"""The fast paths of encoding give what the plain ones give."""

import dataclasses
import functools

import numpy as np
import pytest

from lplmtl import _knots, _quantiles, _tables_encode, _threads, numeric, tables
from lplmtl import columns as raw


@pytest.mark.parametrize('spread', [0.1, 1, 6])
def test_positions_among_knots_are_those_of_numpy(spread):
  rng = np.random.default_rng(0)
  knots = np.unique(np.exp(spread * rng.normal(size=60)))
  x = np.concatenate(
    [
      rng.uniform(knots[0] - 1, knots[-1] + 1, 5000),
      *(np.nextafter(knots, to) for to in (-np.inf, np.inf)),
      knots,
      [-1e300, 1e300, np.inf],
    ]
  )
  found = _knots.Knots(knots)(x)
  expected = np.interp(x, knots, np.arange(len(knots)))
  np.testing.assert_array_equal(found, expected)


def test_knots_that_are_too_close_for_a_grid_are_searched():
  knots = np.array([0, 1e-12, 1, 2])
  assert _knots.Knots(knots)._slopes is None
  expected = np.interp([0.5, 1.5], knots, range(4))
  np.testing.assert_array_equal(_knots.Knots(knots)([0.5, 1.5]), expected)
  assert _knots.Knots(knots[2:])._slopes is not None


def test_the_median_of_counted_values_is_that_of_their_rows():
  rng = np.random.default_rng(0)
  for n in (1, 2, 9, 10, 101):
    values = rng.integers(0, 7, n) / 3
    distinct, counts = np.unique(values, return_counts=True)
    assert _quantiles.median(distinct, counts) == np.median(values)


def _columns(n):
  rng = np.random.default_rng(1)
  days = np.datetime64('2024-02-27') + rng.integers(0, 9, n)
  numbers = rng.normal(size=n)
  numbers[::7] = np.nan
  whole = rng.integers(-20, 20, n).astype(float)
  whole[::5] = np.nan
  return {
    'city': rng.choice(['Oslo', 'Rome', ''], n),
    'word': rng.integers(0, 50, n).astype(str),
    'share': numbers,
    'age': whole,
    'size': tables.Factor(rng.integers(0, 3, n), ['1', '2.5', '?']),
    'day': days,
    'text': tables.Factor(
      rng.integers(0, 3, n), ['2024-01-31', '2025-02-01', '']
    ),
  }


def _fit(columns, **options):
  names = ('share', 'age', 'size')
  return tables.fit(
    {name: columns[name] for name in ('city', 'word')},
    {name: columns[name] for name in names},
    log=('size',),
    dates={name: (columns[name], '') for name in ('day', 'text')},
    rules=tables.Rules(
      fill_missing=True, missing=('?',), max_vocabulary=20, num_buckets=8
    ),
    **options,
  )


def _assert_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize('interpolate', [False, True])
def test_rows_are_encoded_alike_alone_and_among_others(interpolate):
  columns = _columns(400)
  fitted = _fit(columns, num_bins=6, interpolate=interpolate)
  whole = fitted.encode(columns)
  assert whole['hashed'].shape == (400, 1, 2)
  for row in (0, 5, 7, 399):
    one = {
      name: column.take([row])
      if isinstance(column, tables.Factor)
      else column[[row]]
      for name, column in columns.items()
    }
    _assert_equal(
      fitted.encode(one), {name: x[[row]] for name, x in whole.items()}
    )


def test_blocks_and_threads_change_nothing(monkeypatch):
  columns = _columns(1000)
  fitted = _fit(columns, num_bins=5, interpolate=True)
  expected = fitted.encode(columns)
  blocks = []
  monkeypatch.setattr(_tables_encode, '_CELLS', 1000)
  monkeypatch.setattr(
    _threads,
    'each',
    lambda function, items, num_rows=0: [
      blocks.append(item) or function(item) for item in items
    ],
  )
  assert _fit(columns, num_bins=5, interpolate=True) == fitted
  _assert_equal(fitted.encode(columns), expected)
  assert sum(isinstance(block, slice) for block in blocks) > 9
  monkeypatch.undo()
  monkeypatch.setattr(_tables_encode, '_CELLS', 1000)
  monkeypatch.setattr(_threads, '_MIN_ROWS', 1)
  _assert_equal(fitted.encode(columns), expected)


def test_few_rows_start_no_thread(monkeypatch):
  monkeypatch.setattr(_threads.futures, 'ThreadPoolExecutor', None)
  assert _threads.each(str, [1, 2], 50) == ['1', '2']
  with pytest.raises(TypeError):
    _threads.each(str, [1, 2])
  days = (['2020-01-01', '2021-02-03'] * 2, '')
  tables.fit({}, {'a': [1, 2, 3, 4], 'b': np.arange(4)}, dates={'c': days})
  fitted = tables.fit({}, {'x': [1, 2, 3]})
  fitted = dataclasses.replace(
    fitted, numerics={**fitted.numerics, 'y': fitted.numerics['x']}
  )
  assert fitted.encode({'x': [1], 'y': [2]})['numeric'].shape == (1, 2)


def test_the_error_is_that_of_the_first_item():
  def fail(item):
    if item > 2:
      raise ValueError(item)
    return -item

  assert _threads.each(fail, [2, 1, 0]) == [-2, -1, 0]
  with pytest.raises(ValueError, match='^5$'):
    _threads.each(fail, [1, 5, 3, 4])


@pytest.mark.parametrize('step', [1, 0.5])  # looked up, and one by one
def test_the_row_of_an_error_is_that_in_the_columns(step, monkeypatch):
  monkeypatch.setattr(_tables_encode, '_CELLS', 100)
  fitted = tables.fit({}, {'x': np.arange(4) / 3})
  values = step * (np.arange(500) % 9)
  values[[310, 320]] = 1e12 + step
  with pytest.raises(tables.RowError) as caught:
    fitted.encode({'x': values})
  assert (caught.value.column, caught.value.row) == ('x', 310)


def test_whole_numbers_are_shared_only_where_rows_repeat_them():
  whole = np.repeat(np.arange(-3.0, 17), 15)
  whole[[2, 40]] = np.nan
  found = _tables_encode.whole(whole)
  assert isinstance(found, tables.Factor)
  assert found.codes.dtype == np.uint8
  np.testing.assert_array_equal(found.values[found.codes], whole)
  late = np.append(np.zeros(300), 0.5)
  negative = np.append(np.zeros(300), -0.0)
  large = np.append(np.zeros(300), [np.inf, 2.0**60])
  missing = np.full(300, np.nan)
  few = np.zeros(9)
  few_of_a_kind = (np.arange(300.0), few, np.zeros(0))
  for others in (*few_of_a_kind, late, negative, large, missing):
    assert _tables_encode.whole(others) is others


def test_numbers_of_a_factor_are_read_once_each():
  column = tables.Factor(np.array([2, 0, 2, 0]), ['1', 'no number', '?'])
  found = numeric.parse('x', column, frozenset({'?'}))
  assert len(found.values) == 2
  np.testing.assert_array_equal(
    found.values[found.codes], [np.nan, 1, np.nan, 1]
  )


@pytest.mark.parametrize('missing', [False, True])
@pytest.mark.parametrize('step', [1, 100, 2.0**30])
def test_whole_numbers_that_repeat_become_few_bytes(step, missing):
  rng = np.random.default_rng(0)
  values = step * rng.integers(-9, 9, 5000).astype(float)
  if missing:
    values[rng.random(5000) < 0.3] = np.nan
  found = _tables_encode.whole(values)
  if step > 5000:  # too far apart to be looked up
    assert found is values
    return
  np.testing.assert_array_equal(raw.spread(found), values)
  np.testing.assert_array_equal(found.values, np.unique(values))
  assert found.codes.dtype == np.uint8


def test_jobs_done_ahead_keep_their_order(monkeypatch):
  taken = []

  def job(i):
    if i == 5:
      raise ValueError(i)
    return -i

  def jobs(n):
    for i in range(n):
      taken.append(i)
      yield functools.partial(job, i)
    raise ValueError('jobs')

  monkeypatch.setattr(_threads.os, 'cpu_count', lambda: 2)
  found = _threads.ahead(jobs(9))
  assert next(found) == 0
  assert taken == [0, 1, 2]  # one is due, and two are done meanwhile
  assert [next(found) for _ in range(4)] == [-1, -2, -3, -4]
  with pytest.raises(ValueError, match='^5$'):
    next(found)
  found = _threads.ahead(jobs(2))
  assert [next(found), next(found)] == [0, -1]  # the error is not due yet
  with pytest.raises(ValueError, match='jobs'):
    next(found)


def test_shared_numbers_are_counted_as_sorted_rows_are():
  rng = np.random.default_rng(0)
  values = np.array([3.5, np.nan, -1, 7, 3.5, 1e9, -2])  # the last is unused
  column = raw.Factor(rng.integers(0, 6, 100).astype(np.uint8), values)
  rows = np.sort(raw.spread(column))
  found = _quantiles.counted_once(*column)
  expected = _quantiles.counted(rows[~np.isnan(rows)])
  for ours, theirs in zip(found, expected, strict=True):
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == theirs.dtype
  options = {'log': False, 'num_bins': 3, 'fill': True}
  fitted = numeric.fit('a', column, **options)
  assert fitted == numeric.fit('a', raw.spread(column), **options)
  assert _quantiles.counted_once(np.arange(6), values) is None
