"""Which rows are for training, validation and test."""

import numpy as np
import pandas as pd
import pytest

from lplmtl import tabular
from lplmtl.columns import Factor
from lplmtl.tabular import Schema, inference

N = 200
RNG = np.random.default_rng(0)
ROW = np.arange(N)


def _split(frame, *, seed=0, test=True, share=0.1, **roles):
  rows = tabular.split(
    frame, Schema({}, {}, **roles), seed, test=test, share=share
  )
  every = np.concatenate(list(rows.values()))
  column = next(iter(frame.values()))
  assert sorted(every) == list(range(len(getattr(column, 'codes', column))))
  assert all((np.diff(part) > 0).all() for part in rows.values())
  return rows


def test_at_random_and_by_seed():
  rows = _split({'x': ROW})
  assert [len(part) for part in rows.values()] == [160, 20, 20]
  again, other = _split({'x': ROW}), _split({'x': ROW}, seed=1)
  assert all(np.array_equal(rows[part], again[part]) for part in rows)
  assert not np.array_equal(rows['train'], other['train'])


def test_without_test_rows():
  rows = _split({'x': ROW}, test=False, share=0.25)
  assert [len(part) for part in rows.values()] == [150, 50, 0]


def test_a_column_that_gives_the_parts():
  names = [
    'train',
    'Training',
    'valid',
    ' VAL ',
    'dev',
    'test',
    'holdout',
    'learn',
  ]
  rows = _split({'part': np.resize(names, N)}, split='part')
  expected = [
    'train',
    'train',
    'validation',
    'validation',
    'validation',
    'test',
    'test',
    'train',
  ]
  for part, found in rows.items():
    assert set(np.take(np.resize(expected, N), found)) == {part}


def test_a_column_without_validation_rows_leaves_them_to_chance():
  part = np.where(ROW < 150, 'train', 'test')
  rows = _split({'part': part}, split='part', test=False, share=0.2)
  assert len(rows['validation']) == 30
  assert rows['test'].tolist() == list(range(150, N))
  times = _split({'part': part, 't': -ROW}, split='part', time='t')
  assert times['validation'].tolist() == list(range(15))


@pytest.mark.parametrize(
  'times',
  [
    ROW,
    ROW.astype('datetime64[D]'),
    [f'{day:%d.%m.%Y}' for day in ROW.astype('datetime64[D]').tolist()],
    pd.Series(pd.to_datetime(ROW, unit='D')).dt.tz_localize('UTC'),
    ROW.astype('datetime64[D]').astype(str).tolist(),
  ],
)
def test_by_time_the_last_rows_are_for_test(times):
  order = RNG.permutation(N)
  times = (
    times.iloc[order] if hasattr(times, 'iloc') else np.asarray(times)[order]
  )
  rows = _split({'t': times}, time='t')
  assert sorted(order[rows['test']]) == list(range(180, 200))
  assert sorted(order[rows['validation']]) == list(range(160, 180))


def test_rows_of_the_same_time_stay_together():
  years = np.repeat([2019, 2020, 2021, 2022, 2023], 40)
  rows = _split({'t': years}, time='t')
  assert set(years[rows['test']]) == {2023}
  assert set(years[rows['validation']]) == {2022}
  assert len(rows['train']) == 120


def test_rows_without_a_time_are_the_earliest():
  times = np.where(ROW % 4 == 0, np.nan, ROW)
  rows = _split({'t': times}, time='t')
  assert set(ROW[ROW % 4 == 0]) <= set(rows['train'])


def test_too_few_times():
  with pytest.raises(
    ValueError, match="time column 't' has 2 different times, too few for"
  ):
    _split({'t': np.repeat([1, 2], 100)}, time='t')


def test_times_are_read_in_the_format_given():
  days = [f'{1 + i % 28:02d}|{1 + i // 28:02d}|24' for i in range(56)]
  options = inference.Options(time='day', dates={'day': '%d|%m|%y'})
  rows = tabular.split({'day': days}, inference.before_split(options))
  assert rows['validation'].tolist() == list(range(51, 56))


@pytest.mark.parametrize('seed', range(3))
def test_groups_are_never_torn_apart(seed):
  groups = RNG.integers(0, 40, N)
  rows = _split({'g': groups}, group='g', seed=seed)
  parts = [set(groups[part]) for part in rows.values()]
  assert sum(map(len, parts)) == len(set(groups))
  assert all(20 <= len(rows[part]) < 40 for part in ('validation', 'test'))


def test_groups_are_the_same_however_they_are_kept():
  groups = np.where(ROW % 5 == 0, None, (ROW // 7).astype(object))
  rows = _split({'g': groups}, group='g')
  texts = ['' if one is None else f'{one}.0' for one in groups]
  codes, values = pd.factorize(np.array(texts, object))
  for column in (texts, Factor(codes, values)):
    same = _split({'g': column}, group='g')
    assert all(np.array_equal(rows[part], same[part]) for part in rows)
  # Missing groups are not one large group.
  lost = np.flatnonzero(groups == None)  # noqa: E711
  assert 0 < np.isin(lost, rows['train']).sum() < len(lost)


def test_a_split_column_may_not_tear_groups():
  frame = {'part': np.where(ROW < 100, 'train', 'val'), 'g': ROW % 150}
  with pytest.raises(
    ValueError,
    match="tears a group of 'g' apart: row 0 is for train, and row 150",
  ):
    _split(frame, split='part', group='g')
  frame['g'] = ROW // 10
  assert len(_split(frame, split='part', group='g')['train']) == 100


@pytest.mark.parametrize(
  'frame, roles, message',
  [
    ({'x': range(10)}, {}, '10 rows are too few .* at least 20 are needed'),
    ({'x': ROW}, {'time': 'when'}, "time: there is no column 'when'"),
    ({'x': ROW}, {'time': 'x', 'group': 'x'}, "either by time or by group, found both: 'x' and 'x'"),
    ({'x': ['train', 'tset'] * 100}, {'split': 'x'}, "must say train, validation or test, to split the rows by it; found 'tset' in row 1"),
    ({'x': ['train', None] * 100}, {'split': 'x'}, "found 'None' in row 1"),
    ({'x': ['test', 'val'] * 100}, {'split': 'x'}, "split column 'x' has no train rows"),
    ({'x': [1] * 200}, {'group': 'x'}, "'x' has 1 groups, too few"),
    ({'x': ['Oslo', 'Rome'] * 100}, {'time': 'x'}, "'x' must hold dates"),
  ],
)  # fmt: skip
def test_what_cannot_be_split(frame, roles, message):
  with pytest.raises(ValueError, match=message):
    _split(frame, **roles)


@pytest.mark.parametrize('share', [0, 0.5, -1])
def test_share_is_a_share(share):
  with pytest.raises(
    ValueError, match=f'share must be above 0 and below 1/2.*{share}'
  ):
    _split({'x': ROW}, share=share)
