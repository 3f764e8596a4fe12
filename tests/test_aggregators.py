"""Aggregators against loops over whole gradients, and their contract."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lplmtl import balancing
from tests import contracts
from tests.test_balancing import AGGREGATORS, LOSSES

KEY = jax.random.key(0)
PARAMS = {'a': jnp.zeros((2, 3)), 'b': {'c': jnp.zeros(4), 'd': None}}
NUM_TASKS = 3


def _gradients(seed=0, size=1.0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(
      size * rng.normal(size=(NUM_TASKS, *x.shape)), jnp.float32
    ),
    PARAMS,
  )


def _flat(tree, leading=1):
  leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
  return np.concatenate(
    [x.reshape(*x.shape[:leading], -1) for x in leaves], axis=-1
  )


@pytest.mark.parametrize('name', AGGREGATORS)
def test_contract(name):
  aggregator = AGGREGATORS[name]()
  state = aggregator.init(KEY, PARAMS, NUM_TASKS)
  gradients, present = _gradients(), jnp.ones(NUM_TASKS, bool)
  update = jax.jit(aggregator.update)
  found, weights, new = update(gradients, LOSSES, state, present=present)
  contracts.assert_same_structure(found, PARAMS)
  contracts.assert_same_structure(new, state)
  assert weights.shape == (NUM_TASKS,) and weights.dtype == jnp.float32
  # vmap over seeds = each alone.
  many = jax.tree.map(lambda *x: jnp.stack(x), gradients, _gradients(1))
  both = jax.vmap(lambda g: aggregator.update(g, LOSSES, state)[:2])(many)
  contracts.assert_trees_close(
    jax.tree.map(lambda x: x[0], both), (found, weights), atol=1e-5
  )
  for size in (0.0, 1e-12, 1e6):
    now = state
    for seed in range(3):
      found, weights, now = update(
        _gradients(seed, size), LOSSES, now, present=present
      )
    assert np.isfinite(_flat(found, 0)).all() and jnp.isfinite(weights).all()


@pytest.mark.parametrize('leak', [None, (0.0, 0.3, 1.0)])
def test_graddrop(leak):
  """Algorithm 1, coordinate by coordinate, with the numbers it draws."""
  aggregator = balancing.graddrop(leak)
  gradients = _gradients()
  state = aggregator.init(KEY, PARAMS, NUM_TASKS)
  update = jax.jit(aggregator.update)
  found, weights, key = update(gradients, LOSSES, state)
  new_key, *keys = jax.random.split(KEY, 3)
  np.testing.assert_array_equal(key, jax.random.key_data(new_key))
  passed = np.zeros(NUM_TASKS)
  for own, g, out in zip(
    keys, jax.tree.leaves(gradients), jax.tree.leaves(found), strict=True
  ):
    drawn = np.asarray(jax.random.uniform(own, g.shape[1:])).ravel()
    rows = np.asarray(g, np.float64).reshape(NUM_TASKS, -1)
    for j, column in enumerate(rows.T):
      purity = (1 + column.sum() / np.abs(column).sum()) / 2
      total = 0.0
      for k, value in enumerate(column):
        sign_kept = value > 0 if purity > drawn[j] else value < 0
        share = 0 if leak is None else leak[k]
        total += (share + (1 - share) * sign_kept) * value
        passed[k] += (share + (1 - share) * sign_kept) * value**2
      np.testing.assert_allclose(np.ravel(out)[j], total, atol=1e-5)
  squares = np.sum(_flat(gradients) ** 2, axis=1)
  np.testing.assert_allclose(weights, passed / squares, rtol=1e-4)
  # Where all agree, all pass.
  agreed = jax.tree.map(jnp.abs, gradients)
  found, weights, _ = update(agreed, LOSSES, state)
  np.testing.assert_allclose(
    _flat(found, 0), _flat(agreed).sum(axis=0), rtol=1e-5
  )
  np.testing.assert_allclose(weights, 1, rtol=1e-5)


def test_graddrop_refuses():
  with pytest.raises(ValueError, match=r'leak\[0\] .* at most 1'):
    balancing.graddrop((2.0,))
  with pytest.raises(ValueError, match='leak .* 3; found 1'):
    balancing.graddrop((0.5,)).init(KEY, PARAMS, 3)


def _run(aggregator, steps=4, present=None):
  """Several steps: the gradients, losses, masks, and what came of them."""
  state = aggregator.init(KEY, PARAMS, NUM_TASKS)
  update = jax.jit(aggregator.update)
  rows = []
  for t in range(steps):
    here = np.ones(NUM_TASKS, bool) if present is None else present[t]
    gradients = jax.tree.map(
      lambda g, here=here: jnp.where(
        here.reshape(-1, *(1,) * (g.ndim - 1)), g, 0
      ),
      _gradients(t),
    )
    losses = np.asarray(LOSSES) * (t + 1) * here
    found, weights, state = update(
      gradients, jnp.asarray(losses), state, present=jnp.asarray(here)
    )
    rows.append((_flat(gradients), losses, here, _flat(found, 0), weights))
  return rows


PRESENT = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]], bool)


def test_moco():
  tracked, weights = np.zeros((3, 10)), np.full(3, 1 / 3)
  aggregator = balancing.moco(beta=0.6, gamma=0.4, rho=0.1)
  for t, (g, _, here, found, reported) in enumerate(
    _run(aggregator, present=PRESENT), start=1
  ):
    tracked = tracked + 0.6 / t**0.5 * here[:, None] * (g - tracked)
    gramian = tracked @ tracked.T
    slope = (gramian / gramian.diagonal().max() + 0.1 * np.eye(3)) @ weights
    weights = _nearest_in_simplex(weights - 0.4 / t**0.5 * slope)
    np.testing.assert_allclose(reported, weights, atol=1e-5)
    np.testing.assert_allclose(found, weights @ tracked, atol=1e-5)
  with pytest.raises(ValueError, match='beta .* above 0 .* at most 1'):
    balancing.moco(beta=0.0)
  with pytest.raises(ValueError, match='rho .* at least 0'):
    balancing.moco(rho=-1.0)


def _nearest_in_simplex(values):
  """By bisection on what is taken off every number."""
  low, high = values.min() - 1, values.max()
  for _ in range(100):
    middle = (low + high) / 2
    if np.maximum(values - middle, 0).sum() > 1:
      low = middle
    else:
      high = middle
  return np.maximum(values - low, 0)


def test_db_mtl():
  tracked = np.zeros((3, 10))
  for t, (g, losses, here, found, reported) in enumerate(
    _run(balancing.db_mtl(beta=0.8), present=PRESENT), start=1
  ):
    for k in range(3):
      if here[k]:
        beta = 0.8 / t**0.5
        tracked[k] = beta * tracked[k] + (1 - beta) * g[k] / losses[k]
    norms = np.linalg.norm(tracked, axis=1)
    np.testing.assert_allclose(reported, norms.max() / norms, rtol=1e-4)
    wanted = norms.max() * np.sum(tracked / norms[:, None], axis=0)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * norms.max())
  with pytest.raises(ValueError, match='beta .* below 1'):
    balancing.db_mtl(beta=1.0)


def test_excess_mtl():
  squares, weights, first = np.zeros((3, 10)), np.ones(3), np.zeros(3)
  for g, _, here, found, reported in _run(
    balancing.excess_mtl(0.5), present=PRESENT
  ):
    squares += g**2
    risks = np.sum(g**2 / np.sqrt(squares + 1e-7), axis=1)
    for k in range(3):
      if here[k] and first[k] > 0:
        weights[k] *= np.exp(0.5 * risks[k] / first[k])
      elif here[k]:
        first[k] = risks[k]
    kept = weights[~here].sum()
    weights[here] *= (3 - kept) / weights[here].sum()
    np.testing.assert_allclose(reported, weights, rtol=1e-4)
    np.testing.assert_allclose(found, weights @ g, atol=1e-4)
  with pytest.raises(ValueError, match='learning_rate .* above 0'):
    balancing.excess_mtl(0.0)
