"""Hashed columns in a TabularEncoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl

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
