"""Hashed columns and knots in a TabularEncoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import tables
from lplmtl.layers import piecewise

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
  bare = lplmtl.TabularEncoder((3, 4), 2).apply({'params': params}, FEATURES)
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


def test_sizes_of_hashed_columns():
  with pytest.raises(ValueError, match='at least 1, found 4 and .*, 0'):
    lplmtl.TabularEncoder((3, 4), num_buckets=(0,)).apply({}, FEATURES)


def test_a_hashed_table_trains_and_scores(tmp_path):
  """From raw rows to predictions, through a saved model."""
  rows = {'user': [f'u{i % 40}' for i in range(80)], 'n': [*range(79), None]}
  fitted = lplmtl.tables.fit(
    {'user': rows['user']}, {'n': rows['n']}, max_vocabulary=8, num_buckets=64,
    fill_missing=True,
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


KNOTS = ((-1.0, 0.0, 2.0), (), (-3.0, -2.0, 5.0, 6.0))


def test_numbers_follow_lines_between_their_knots():
  """Against NumPy's own interpolation of the values at the knots."""
  encoder = piecewise.PiecewiseLinear(KNOTS, embed_dim=2)
  x = np.random.default_rng(0).normal(0, 3, (50, 3)).astype(np.float32)
  # All values are positive, so that the activation changes nothing.
  params = {
    'pieces': np.arange(1, 11, dtype=np.float32).reshape(5, 2),
    'slopes': np.array([[1, 2], [3, 4]], np.float32),
    'bias': np.full((2, 2), 20, np.float32),
  }
  encoded = encoder.apply({'params': params}, jnp.asarray(x))
  assert encoded.shape == (50, 2 * 2 + 3)
  first = 0
  for m, column in enumerate((0, 2)):
    knots = np.array(KNOTS[column])
    last = first + len(knots) - 1
    bends = np.concatenate([np.zeros((1, 2)), params['pieces'][first:last]])
    values = (
      20 + np.cumsum(bends, axis=0) + knots[:, None] * params['slopes'][m]
    )
    for k in range(2):
      expected = np.interp(x[:, column], knots, values[:, k])
      np.testing.assert_allclose(encoded[:, 2 * m + k], expected, rtol=1e-5)
    clamped = np.clip(x[:, column], knots[0], knots[-1])
    np.testing.assert_array_equal(encoded[:, 4 + column], clamped)
    first = last
  np.testing.assert_array_equal(encoded[:, 5], x[:, 1])  # has no knots


def test_an_encoder_with_knots_reads_no_bins():
  table = {'age': np.array([1.0, 2.0, np.nan, 4.0, 80.0]), 'one': np.ones(5)}
  fitted = tables.fit(
    {'city': ['a', 'b', 'a', 'b', 'a']}, table, num_bins=3, fill_missing=True
  )
  rows = fitted.encode(
    {'city': ['a', 'b'], **{k: v[:2] for k, v in table.items()}}
  )
  assert [len(knots) for knots in fitted.knots] == [4, 0, 0]
  encoder = lplmtl.TabularEncoder(
    fitted.num_categories, 2, fitted.num_ordered, knots=fitted.knots
  )
  encoded, variables = encoder.init_with_output(jax.random.key(0), rows)
  assert encoded.shape == (2, 2 + 2 + 3)
  assert variables['params']['embedding'].shape == (3, 2)
  other = {**rows, 'categories': np.where([True, False], rows['categories'], 0)}
  np.testing.assert_array_equal(encoder.apply(variables, other), encoded)


@pytest.mark.parametrize(
  'knots, embed_dim, complaint',
  [
    (((0.0, 1.0),), 2, r'shape \[B, 1\], a column .* found \(2, 2\)'),
    (((0.0,), ()), 2, r'increasing order; found \(0.0,\)'),
    (((0.0, 0.0), ()), 2, r'increasing order; found \(0.0, 0.0\)'),
    (((0.0, 1.0), ()), 0, 'at least 1, found 0'),
  ],
)
def test_knots_must_fit(knots, embed_dim, complaint):
  encoder = piecewise.PiecewiseLinear(knots, embed_dim)
  with pytest.raises(ValueError, match=complaint):
    encoder.init(jax.random.key(0), jnp.ones((2, 2)))
