"""Dropout, and whether cheap random numbers are random enough for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lplmtl import prng
from lplmtl.layers import dropout


def _key(seed=0):
  return prng.row_key(jax.random.key(seed))


@pytest.mark.parametrize('rate', [0.0, 0.2, 0.5, 0.9])
def test_dropout_keeps_the_mean(rate):
  x = jnp.ones((1000, 100))
  found = np.asarray(dropout.dropout(jax.random.key(0), x, rate))
  np.testing.assert_allclose((found == 0).mean(), rate, atol=0.005)
  np.testing.assert_allclose(found.mean(), 1.0, atol=0.02)
  kept = found[found > 0]
  assert (kept == kept[0]).all()
  traced = jax.jit(dropout.dropout)(jax.random.key(0), x, rate)
  np.testing.assert_array_equal(traced, found)


def _streams():
  """Long rows of numbers that must not depend on each other."""
  key = _key()
  draw = lambda key: jax.random.bits(key, (1 << 14,), jnp.uint32)  # noqa: E731
  return {
    'one after the other': jax.random.bits(key, (64, 1 << 14), jnp.uint32),
    'columns': jax.random.bits(key, (1 << 14, 64), jnp.uint32).T,
    'split': jax.vmap(draw)(jax.random.split(key, 64)),
    'fold_in': jax.vmap(lambda i: draw(jax.random.fold_in(key, i)))(
      jnp.arange(64)
    ),
    'seeds': jax.vmap(lambda i: draw(prng.row_key(jax.random.key(i))))(
      jnp.arange(64)
    ),
  }


@pytest.fixture(scope='module')
def streams():
  return jax.tree.map(np.asarray, jax.jit(_streams)())


NAMES = ('one after the other', 'columns', 'split', 'fold_in', 'seeds')


@pytest.mark.parametrize('name', NAMES)
def test_bits_are_even(name, streams):
  """Every bit is set half of the time; every byte is as frequent as others."""
  bits = streams[name]
  count = bits.size
  for i in range(32):
    share = (bits >> i & 1).mean()
    assert abs(share - 0.5) < 4 * 0.5 / count**0.5, i
  for shift in (0, 8, 16, 24):
    seen = np.bincount((bits >> shift & 255).ravel(), minlength=256)
    chi_squared = ((seen - count / 256) ** 2 / (count / 256)).sum()
    assert abs(chi_squared - 255) < 5 * (2 * 255) ** 0.5, shift


@pytest.mark.parametrize('name', NAMES)
def test_streams_do_not_depend_on_each_other(name, streams):
  """Correlations of rows, of neighbours, and of masks at a dropout's rate."""
  for values in (streams[name] / 2.0**32, (streams[name] >> 8) < 0.8 * 2**24):
    values = values - values.mean()
    values /= values.std()
    length = values.shape[1]
    between = values @ values.T / length
    worst = np.abs(between - np.diag(np.diag(between))).max()
    assert worst < 5 / length**0.5
    for lag in (1, 2, 3, 4, 64):
      along = (values[:, lag:] * values[:, :-lag]).mean()
      assert abs(along) < 5 / values.size**0.5, lag


def test_keys_do_not_repeat():
  key = _key()
  split = jax.random.split(key, 1 << 14)
  folded = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(1 << 14))
  words = np.concatenate([jax.random.key_data(k) for k in (split, folded)])
  assert len(np.unique(words, axis=0)) == 1 << 15


@pytest.mark.slow
def test_everything_in_jax_random_works():
  key = _key()
  normal = jax.random.normal(key, (1000, 100))
  np.testing.assert_allclose(normal.mean(), 0, atol=0.01)
  np.testing.assert_allclose(normal.std(), 1, atol=0.01)
  assert jax.random.bits(key, (3,), jnp.uint8).dtype == jnp.uint8
  assert sorted(jax.random.permutation(key, 10).tolist()) == list(range(10))
  # The same numbers alone and mapped over, in one dimension and in two.
  keys = jax.random.split(key, 3)
  many = jax.vmap(lambda k: jax.random.bits(k, (4, 5)))(keys)
  np.testing.assert_array_equal(many[1], jax.random.bits(keys[1], (4, 5)))
  flat = jax.random.bits(keys[1], (20,))
  np.testing.assert_array_equal(many[1].ravel(), flat)


def test_each_row_has_its_own_numbers_wherever_it_is():
  """In a part of a batch, on another device: also after folding in."""
  key = jax.random.key(3)
  x = jnp.ones((12, 5, 2))
  drop = jax.jit(
    lambda x, start, step: dropout.dropout(
      jax.random.fold_in(prng.row_key(key, start, step), 7), x, 0.5
    )
  )
  whole = drop(x, 0, 1)
  np.testing.assert_array_equal(drop(x[:4], 8, 1), whole[8:])
  np.testing.assert_array_equal(drop(x[:4], 1, 3), whole[1::3])
  assert 0 < (whole == 0).mean() < 1
