"""Values that share an id, and numbers of which only the bin is encoded."""

import dataclasses
import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from lplmtl import tables
from lplmtl.tabular import importance

RNG = np.random.default_rng(0)
COLUMNS = {
  'city': ['Oslo', 'Rome', 'Lima', 'Bern'] * 5,
  'vip': ['yes', 'no', None, 'yes'] * 5,
  'age': RNG.integers(18, 30, 20).astype(float),
  'pay': [None, *RNG.normal(size=19)],
  'day': ['2020-01-31', '2020-02-29', None, '2021-03-01'] * 5,
}
FITTED = tables.fit(
  {'city': COLUMNS['city']},
  {'age': COLUMNS['age'], 'pay': COLUMNS['pay']},
  num_bins=6,
  booleans={'vip': COLUMNS['vip']},
  dates={'day': (COLUMNS['day'], '')},
  rules=tables.Rules(fill_missing=True),
)
ROWS = {
  **{name: [*column, column[0]] for name, column in COLUMNS.items()},
  'city': [*COLUMNS['city'], 'Nice'],
}


def _binned(fitted):
  return [name for name, n in fitted.numerics.items() if n.edges]


@st.composite
def _merged(draw):
  """Returns tables with merged values, and the bins of old bins by column."""
  merged = {}
  for name, values in FITTED.vocabularies.items():
    groups = draw(st.lists(st.integers(0, 3), min_size=1 + len(values), max_size=1 + len(values)))  # fmt: skip
    known = {groups[0]: 0}
    ids = tuple(known.setdefault(group, len(known)) for group in groups)
    if draw(st.booleans()):
      merged[name] = ids
  numerics, bins = {}, {}
  for name, scaler in FITTED.numerics.items():
    kept = [draw(st.booleans()) for _ in scaler.edges]
    edges = tuple(e for e, keep in zip(scaler.edges, kept, strict=True) if keep)
    only_bins = draw(st.booleans())
    numerics[name] = dataclasses.replace(scaler, edges=edges, only_bins=only_bins)  # fmt: skip
    bins[name] = np.cumsum([0, *kept])
  return dataclasses.replace(FITTED, merged=merged, numerics=numerics), bins


@hypothesis.settings(max_examples=100, derandomize=True, deadline=None)
@hypothesis.given(_merged())
def test_values_get_the_id_of_their_group(made):
  merged, bins = made
  merged = tables.Tables.from_json(json.loads(json.dumps(merged.to_json())))
  assert merged == made[0]
  before, after = FITTED.encode(ROWS), merged.encode(ROWS)
  ids = dict(zip([*FITTED.vocabularies, *_binned(FITTED)], before['categories'].T, strict=True))  # fmt: skip
  expected = [
    np.asarray(merged.merged.get(name, range(9)))[ids[name]]
    for name in merged.vocabularies
  ] + [bins[name][ids[name]] for name in _binned(merged)]
  np.testing.assert_array_equal(after['categories'].T, expected)
  assert after['categories'].dtype == np.int32
  sizes = merged.num_categories
  assert len(sizes) == len(expected)
  assert merged.num_ordered == len(_binned(merged))
  for name, size in zip(merged.vocabularies, sizes, strict=False):
    of_all = merged.merged.get(name, range(len(merged.vocabularies[name]) + 1))
    assert size == len(set(of_all))
  places = [*range(len(FITTED.numerics)), *sorted({*FITTED.flags.values()})]
  kept = [
    i
    for i, name in enumerate(FITTED.numerics)
    if not merged.numerics[name].only_bins
  ] + places[len(FITTED.numerics) :]
  np.testing.assert_array_equal(after['numeric'], before['numeric'][:, kept])
  assert merged.flags == {
    name: kept.index(place) for name, place in FITTED.flags.items()
  }
  assert merged.unseen(after, ROWS) == {'city': 1}


def test_unseen_values_that_share_an_id_are_counted_from_the_rows():
  rows = {**ROWS, 'city': ['Nice'] * 21}
  alone = dataclasses.replace(FITTED, merged={'city': (0, 1, 1, 2, 2)})
  assert alone.unseen(alone.encode(rows)) == {'city': 21}
  shared = dataclasses.replace(FITTED, merged={'city': (0, 1, 0, 0, 0)})
  assert shared.unseen(shared.encode(ROWS)) == {}
  assert shared.unseen(shared.encode(ROWS), ROWS) == {'city': 1}
  assert shared.unseen(shared.encode(rows), rows) == {'city': 21}


def test_texts_are_trimmed_as_in_fitting():
  merged = dataclasses.replace(FITTED, merged={'city': (0, 1, 1, 0, 2)})
  rows = {**COLUMNS, 'city': [f' {city}  ' for city in COLUMNS['city']]}
  np.testing.assert_array_equal(
    merged.encode(rows)['categories'], merged.encode(COLUMNS)['categories']
  )


def test_values_that_only_an_older_release_told_apart_keep_their_groups():
  # Stored as they were in the file: the canonical form of both is 'a'.
  old = tables.Tables({'x': ('a', 'a ')}, {}, merged={'x': (0, 1, 0)})
  assert old.encode({'x': ['a', 'a ']})['categories'].tolist() == [[1], [0]]


def test_outliers_fall_into_the_last_bin():
  fitted = tables.fit({}, {'x': [1, 2, 3, 4]}, num_bins=4)
  with pytest.raises(tables.RowError, match='within 1e\\+09'):
    fitted.encode({'x': [1e30]})
  scaler = dataclasses.replace(fitted.numerics['x'], only_bins=True)
  binned = dataclasses.replace(fitted, numerics={'x': scaler})
  features = binned.encode({'x': [-1e30, 1e30]})
  assert features['categories'].tolist() == [[0], [3]]
  assert features['numeric'].shape == (2, 0)


def test_importance_finds_the_columns_of_the_arrays():
  numerics = {
    name: dataclasses.replace(scaler, only_bins=name == 'age')
    for name, scaler in FITTED.numerics.items()
  }
  parts = dict(importance._columns(dataclasses.replace(FITTED, numerics=numerics)))  # fmt: skip
  before = dict(importance._columns(FITTED))
  assert parts['age'] == {'numeric': [], 'categories': before['age']['categories']}  # fmt: skip
  for name in ('pay', 'day'):
    moved = [place - 1 for place in before[name]['numeric']]
    assert parts[name] == {**before[name], 'numeric': moved}


def test_importance_finds_the_flag_of_a_date_that_never_varies():
  fitted = tables.fit(
    {},
    {'x': [1, 2, 4]},
    dates={'day': (['2020-01-31', None, '2020-01-31'], '')},
    rules=tables.Rules(fill_missing=True),
  )
  parts = dict(importance._columns(fitted))
  assert parts['day'] == {'numeric': [1], 'categories': []}


@pytest.mark.parametrize(
  ('change', 'complaint'),
  [
    ({'merged': {'y': [0]}}, "'y' of merged must have a vocabulary"),
    ({'merged': {'x': [0, 1]}}, 'for each of its 2 values, found 2 ids'),
    ({'merged': {'x': [0, 1, '1']}}, 'must hold whole numbers'),
    ({'merged': {'x': [0, 1, True]}}, 'must hold whole numbers'),
    ({'merged': {'x': [1, 0, 0]}}, 'must begin with 0'),
    ({'merged': {'x': [0, 2, 2]}}, 'every number up to its largest'),
    ({'merged': {'x': [0, -1, 1]}}, 'every number up to its largest'),
    ({'merged': {'x': 3}}, ''),
    ({'numerics': {'n': {'only_bins': 1}}}, r'only_bins \(a bool\)'),
    (
      {'numerics': {'n': {'only_bins': True, 'interpolate': True}}},
      'which an interpolated number does not have',
    ),
  ],
)
def test_data_that_to_json_did_not_return(change, complaint):
  number = {'log': False, 'mean': 0.0, 'std': 1.0, 'edges': [0.5]}
  data = {'vocabularies': {'x': ['a', 'b']}, 'numerics': {}} | change
  data['numerics'] = {k: number | v for k, v in data['numerics'].items()}
  with pytest.raises(ValueError, match=f'Tables.to_json .*{complaint}'):
    tables.Tables.from_json(data)
