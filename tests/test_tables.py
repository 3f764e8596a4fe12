"""Encoder tables: ids, scaling, bins."""

import json

import numpy as np
import pytest

from lplmtl import tables
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
  # The lowest bin is no unseen value.
  assert fitted.unseen(features) == {}


def test_bin_edges_give_spikes_a_bin_of_their_own():
  rng = np.random.default_rng(0)
  values = np.concatenate([np.zeros(9000), rng.exponential(size=1000)])
  edges = np.array(tables.bin_edges(values, 11))
  assert len(edges) == 10 and (np.diff(edges) > 0).all()
  counts = np.bincount(np.searchsorted(edges, values, side='right'))
  assert counts[0] == 9000
  np.testing.assert_allclose(counts[1:], 100, atol=1)
  # Plain quantiles would give a single edge there.
  assert len(np.unique(np.quantile(values, np.linspace(0, 1, 12)[1:-1]))) == 2
  # Without spikes, equally many rows in each.
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
  with pytest.raises(ValueError, match=r"columns \['age'\] are missing"):
    fitted.encode({k: v for k, v in COLUMNS.items() if k != 'age'})
  with pytest.raises(
    ValueError, match="'pay' must hold finite numbers; found nan in row 1"
  ):
    fitted.encode({**COLUMNS, 'pay': [0, np.nan, 1, 1]})
  with pytest.raises(ValueError, match=r'same number of rows, found \[3, 4\]'):
    fitted.encode({**COLUMNS, 'age': [1, 2, 3]})
  with pytest.raises(
    ValueError, match="'colour' .* a single row is a list of one"
  ):
    fitted.encode({name: column[0] for name, column in COLUMNS.items()})
  with pytest.raises(ValueError, match="'pay' must hold numbers"):
    fitted.encode({**COLUMNS, 'pay': ['big'] * 4})
  with pytest.raises(ValueError, match='0 or at least 2, found 1'):
    _fit(num_bins=1)
