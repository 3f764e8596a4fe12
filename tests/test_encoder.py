"""Hashed columns and positions in a TabularEncoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import tables
from lplmtl.layers import piecewise
from lplmtl.training import checks

FEATURES = {
  'categories': jnp.array([[1, 0], [2, 3]]),
  'numeric': jnp.ones((2, 1)),
  'hashed': jnp.array([[[0, 4]], [[4, 4]]]),
}
ENCODER = lplmtl.TabularEncoder((3, 4), embed_dim=2, num_buckets=(5,))


@pytest.fixture(scope='module')
def variables():
  return jax.jit(ENCODER.init)(jax.random.key(0), FEATURES)


def test_the_embeddings_of_two_buckets_are_added(variables):
  buckets = np.asarray(variables['params']['buckets'])
  assert buckets.shape == (5, 2)
  encoded = ENCODER.apply(variables, FEATURES)
  assert encoded.shape == (2, 3 * 2 + 1)
  expected = [buckets[0] + buckets[4], 2 * buckets[4]]
  np.testing.assert_array_equal(encoded[:, 4:6], expected)
  # What stands left and right of them is what an encoder without them returns.
  params = {'embedding': variables['params']['embedding']}
  rest = {k: v for k, v in FEATURES.items() if k != 'hashed'}
  bare = lplmtl.TabularEncoder((3, 4), 2).apply({'params': params}, rest)
  np.testing.assert_array_equal(encoded[:, [0, 1, 2, 3, 6]], bare)


def test_columns_of_buckets_are_apart():
  """Equal buckets of two columns have embeddings of their own."""
  encoder = lplmtl.TabularEncoder((), embed_dim=1, num_buckets=(2, 3))
  features = {
    'categories': np.zeros((1, 0), np.int32),
    'numeric': np.zeros((1, 0), np.float32),
    'hashed': np.array([[[0, 1], [2, 2]]]),
  }
  table = np.arange(5, dtype=np.float32)[:, None] + 1
  encoded = encoder.apply({'params': {'buckets': table}}, features)
  assert encoded.tolist() == [[1 + 2, 5 + 5]]


@pytest.mark.parametrize(
  'hashed, complaint',
  [
    (None, r"'hashed', \[B, H, 2\], for a TabularEncoder; found \['categ"),
    (np.zeros((2, 2, 2), int), r'shape \[B, 1, 2\], found \(2, 2, 2\)'),
    (np.zeros((2, 2), int), r'shape \[B, 1, 2\], found \(2, 2\)'),
  ],
)
def test_features_must_have_the_hashed_columns(variables, hashed, complaint):
  features = {**FEATURES, 'hashed': hashed}
  if hashed is None:
    del features['hashed']
  with pytest.raises(ValueError, match=complaint):
    ENCODER.apply(variables, features)


@pytest.mark.parametrize('bucket', [-1, 5])
def test_buckets_are_checked(bucket):
  ENCODER.check_features(FEATURES, 'features')
  hashed = np.array([[[0, 1]], [[bucket, 2]]])
  with pytest.raises(
    ValueError, match=r"features\['hashed'\] must be from 0 to 4 in column 0"
  ):
    ENCODER.check_features({**FEATURES, 'hashed': hashed}, 'features')


@pytest.mark.parametrize(
  'changes, complaint',
  [
    # It would learn nothing from the hashed columns.
    (
      {'num_buckets': ()},
      r'shape \[B, 0, 2\], found \(2, 1, 2\): pass .*num_b',
    ),
    ({'num_buckets': (0,)}, r'num_buckets .* at least 1, .*found \(0,\)'),
    ({'num_buckets': 5}, 'num_buckets .* must be a tuple .*; found 5'),
    ({'num_categories': (-5, 4)}, r'num_categories .* found \(-5, 4\)'),
    ({'num_categories': (1.5, 4)}, r'num_categories .* found \(1.5, 4\)'),
    ({'num_pieces': (True,)}, r'num_pieces .*; found \(True,\)'),
    ({'num_pieces': (2, 2)}, 'expects numeric with 2 positions, .*found 1'),
    ({'embed_dim': 0}, 'embed_dim .* at least 1, found 0'),
    ({'embed_dim': 1.5}, 'embed_dim .* whole number .* found 1.5'),
    ({'num_ordered': 3}, 'num_ordered must be from 0 to the 2 .*, found 3'),
    ({'num_ordered': -1}, 'num_ordered .* at least 0, found -1'),
    ({'collisions': 2.5}, 'collisions .* whole number .* found 2.5'),
    ({'collisions': 0}, 'collisions .* at least 1, found 0'),
    ({'compose_above': None}, 'compose_above .* whole number .* found None'),
    ({'compose_by': 'nosuch'}, "compose_by .* concat, or None, found 'nosuch'"),
    ({'multiple_of': 0}, 'multiple_of .* at least 1, found 0'),
    (
      {'num_buckets': (2**31,)},
      'at most 2,147,483,647 rows, .* found 2,147,483,648: .*num_buckets',
    ),
  ],
)
def test_settings_and_features_must_fit(changes, complaint):
  """Shapes alone are needed: nothing is computed."""
  encoder = ENCODER.clone(**changes)
  key = jax.random.key(0)
  with pytest.raises(ValueError, match=complaint):
    jax.eval_shape(encoder.init, key, FEATURES)


def test_fit_refuses_columns_that_the_encoder_was_not_told_of():
  encoder = ENCODER.clone(num_buckets=())
  model = lplmtl.SharedBottom((lplmtl.tasks.binary('y'),), encoder)
  rows = lplmtl.Batch(FEATURES, {'y': np.array([0, 1])})
  with pytest.raises(ValueError, match=r'hashed columns of shape \[B, 0, 2\]'):
    checks.check_batches(model, rows, None)
  others = {**FEATURES, 'image': np.zeros((2, 4))}
  with pytest.raises(
    ValueError, match=r"of data; found also \['image'\]: leave"
  ):
    ENCODER.check_features(others, 'data')


def test_a_hashed_table_trains_and_scores(tmp_path):
  """From raw rows to predictions, through a saved model."""
  rows = {'user': [f'u{i % 40}' for i in range(80)], 'n': [*range(79), None]}
  fitted = lplmtl.tables.fit(
    {'user': rows['user']}, {'n': rows['n']}, rules=lplmtl.tables.Rules(
      fill_missing=True, max_vocabulary=8, num_buckets=64,
    ),
  )  # fmt: skip
  encoder = lplmtl.TabularEncoder(
    fitted.num_categories, 2, fitted.num_ordered, fitted.num_buckets
  )
  model = lplmtl.SingleTask((lplmtl.tasks.binary('y'),), encoder=encoder)
  features = fitted.encode(rows)
  params = jax.jit(model.init)(jax.random.key(0), features)['params']
  lplmtl.checkpoint.save(tmp_path / 'model', model, params, fitted)
  loaded, parameters, again = lplmtl.checkpoint.load(tmp_path / 'model')
  assert (loaded, again) == (model, fitted)
  np.testing.assert_array_equal(
    lplmtl.predict(loaded, parameters, again.encode(rows))['y'],
    lplmtl.predict(model, params, features)['y'],
  )


def test_numbers_follow_lines_between_their_edges():
  """Against NumPy's own interpolation of the values at the edges."""
  encoder = piecewise.PiecewiseLinear((2, 3), embed_dim=2)
  u = np.random.default_rng(0).uniform(-1, 4, (50, 2)).astype(np.float32)
  # All values are positive, so that the activation changes nothing.
  params = {
    'pieces': np.arange(1, 11, dtype=np.float32).reshape(5, 2),
    'slopes': np.array([[1, 2], [3, 4]], np.float32),
    'bias': np.full((2, 2), 20, np.float32),
  }
  encoded = encoder.apply({'params': params}, jnp.asarray(u))
  assert encoded.shape == (50, 2 * 2)
  for m, rows in enumerate((slice(0, 2), slice(2, 5))):
    bends = np.concatenate([np.zeros((1, 2)), params['pieces'][rows]])
    places = np.arange(len(bends))
    trend = 2 * places[:, None] / places[-1] - 1
    values = 20 + np.cumsum(bends, axis=0) + trend * params['slopes'][m]
    for k in range(2):
      expected = np.interp(u[:, m], places, values[:, k])
      np.testing.assert_allclose(encoded[:, 2 * m + k], expected, rtol=1e-5)


def test_positions_replace_bins():
  table = {'age': np.array([1.0, 2.0, np.nan, 4.0, 80.0]), 'one': np.ones(5)}
  city = {'city': ['a', 'b', 'a', 'b', 'a']}
  fitted = tables.fit(
    city,
    table,
    num_bins=3,
    interpolate=True,
    rules=tables.Rules(fill_missing=True),
  )
  rows = fitted.encode({**city, **table})
  assert fitted.num_categories == (3,) and fitted.num_pieces == (3,)
  assert rows['categories'].shape == (5, 1)
  # Two numbers, one flag; 2 of three pieces end at 1.5 and 3 (or 42).
  assert rows['numeric'].shape == (5, 4)
  positions = rows['numeric'][:, 3]
  edges = fitted.numerics['age'].edges
  assert 0 < positions[0] < 1 and 2 < positions[4] <= 3
  between = fitted.encode({**city, **table, 'age': [*edges, *edges, np.nan]})
  np.testing.assert_allclose(between['numeric'][:4, 3], [1, 2, 1, 2], rtol=1e-5)
  assert tables.Tables.from_json(fitted.to_json()) == fitted
  encoder = lplmtl.TabularEncoder(
    fitted.num_categories, 2, num_pieces=fitted.num_pieces
  )
  encoded, variables = encoder.init_with_output(jax.random.key(0), rows)
  assert encoded.shape == (5, 2 + 2 + 3)
  assert set(variables['params']) == {'embedding', 'numbers'}
  # An outlier is clipped, and its embedding is that of the highest edge.
  far = fitted.encode({**city, **table, 'age': [1e6, 1e7, 1, 1, 1]})
  first, second, *_ = np.asarray(encoder.apply(variables, far))
  np.testing.assert_array_equal(first[2:], second[2:])
  assert first[4] == 5


@pytest.mark.parametrize(
  'num_pieces, embed_dim, complaint',
  [
    ((2,), 2, r'shape \[B, 1\], found \(2, 2\)'),
    ((2, 0), 2, r'at least 1, found \(2, 0\) and 2'),
    ((2, 2), 0, r'at least 1, found \(2, 2\) and 0'),
  ],
)
def test_pieces_must_fit(num_pieces, embed_dim, complaint):
  encoder = piecewise.PiecewiseLinear(num_pieces, embed_dim)
  with pytest.raises(ValueError, match=complaint):
    encoder.init(jax.random.key(0), jnp.ones((2, 2)))
