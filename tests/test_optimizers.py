"""What training hands to optax, and which parameters it evaluates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import lplmtl
from lplmtl import balancing, tasks
from lplmtl.training import finite, optimizers, steps
from tests import contracts

PARAMS = {'w': jnp.array([1.0, -2.0]), 'b': jnp.array(0.5)}
GRADIENT = {'w': jnp.array([0.5, 0.25]), 'b': jnp.array(-1.0)}


def _update(optimizer, loss=3.0):
  state = optimizer.init(PARAMS)
  return optimizers.update(
    optimizer, GRADIENT, state, PARAMS, jnp.float32(loss)
  )


def test_an_optimizer_that_wants_the_loss():
  """Polyak's step: (f - min) / |g|^2, here 3 / 1.3125."""
  updates, _ = _update(optax.polyak_sgd(max_learning_rate=10.0))
  np.testing.assert_allclose(updates['b'], 3 / 1.3125, rtol=1e-5)
  plain, _ = _update(optax.sgd(0.1))
  np.testing.assert_allclose(plain['b'], 0.1, rtol=1e-6)


@pytest.mark.parametrize('name', ['lbfgs', 'lookahead'])
def test_an_optimizer_that_wants_more(name):
  optimizer = {
    'lbfgs': optax.lbfgs,
    'lookahead': lambda: optax.lookahead(optax.sgd(0.1), 5, 0.5),
  }[name]()
  with pytest.raises(ValueError, match='the optimizer cannot take a step'):
    _update(optimizer)


def test_parameters_for_evaluation():
  """As optax means them, wherever the state stands, and under a mask."""
  plain = contrib.schedule_free_sgd(0.3)
  chained = optax.chain(optax.clip_by_global_norm(0.5), plain)
  own = {'w': 'averaged', 'b': 'sgd'}
  masked = optax.partition({'averaged': plain, 'sgd': optax.sgd(0.3)}, own)
  for optimizer in (plain, chained, masked):
    state, params = optimizer.init(PARAMS), PARAMS
    for _ in range(3):
      updates, state = optimizer.update(GRADIENT, state, params)
      params = optax.apply_updates(params, updates)
    (inner,) = optimizers.averages(state)
    found = optimizers.eval_params(state, params)
    expected = (params['w'] - (1 - inner.b1) * inner.z['w']) / inner.b1
    np.testing.assert_allclose(found['w'], expected, rtol=1e-5)
    assert not np.allclose(found['w'], params['w'])
    is_trained = optimizer is masked
    assert np.allclose(found['b'], params['b']) == is_trained
  assert optimizers.eval_params(optax.adam(0.1).init(PARAMS), PARAMS) is PARAMS


def test_what_was_infinite_before():
  before = {'best': jnp.inf, 'other': jnp.zeros(2)}
  before = jax.tree.map(jnp.asarray, before)
  assert not finite.is_finite(before)
  assert finite.is_finite(before, before)
  spoiled = {**before, 'other': jnp.array([0.0, jnp.nan])}
  assert not finite.is_finite(spoiled, before)


def test_small_leaves_are_joined():
  tree = {
    'a': np.arange(3, dtype='f4'),
    'b': jnp.full((2, 2), 5, jnp.bfloat16),
    'c': np.full((1, 2), 7, 'f4'),
    'count': np.zeros(2, 'i4'),
    'large': np.ones(2**16 + 1, 'f4'),
  }
  found = finite.joined(jax.tree.map(jnp.asarray, tree))
  assert [(x.shape, x.dtype) for x in found] == [
    ((2**16 + 1,), 'float32'), ((5,), 'float32'), ((4,), 'bfloat16'),
  ]  # fmt: skip
  np.testing.assert_array_equal(found[1], [0, 1, 2, 7, 7])


@pytest.mark.slow
def test_fit_hands_over_the_loss_and_returns_averages():
  """Two steps: the values are weighted losses, params are the averages."""
  todo = (tasks.binary('zebra'), tasks.regression('apple'))
  x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
  data = lplmtl.Batch(x, {'zebra': x[:, 0] > 0, 'apple': x[:, 1]})
  model = lplmtl.SharedBottom(
    todo, bottom=lplmtl.MLP((4,)), tower=lplmtl.MLP(())
  )
  recorder = optax.GradientTransformationExtraArgs(
    lambda params: jnp.zeros(()),
    lambda updates, state, params, *, value, **_: (updates, state + value),
  )
  optimizer = optax.chain(
    recorder,
    contrib.schedule_free_sgd(0.2),
    # Its best loss so far is infinite for a hundred steps.
    contrib.reduce_on_plateau(accumulation_size=100),
  )
  result = lplmtl.fit(
    jax.random.split(jax.random.key(0), 2), model, optimizer,
    balancing.static((2.0, 0.5)), data, validation=data, batch_size=10,
    num_epochs=1, skip_nonfinite=1,
  )  # fmt: skip
  value, averaged, plateau = result.state.opt_state
  assert (result.num_skipped == 0).all() and np.isinf(plateau.best_value).all()
  expected = jax.vmap(contrib.schedule_free_eval_params)(
    averaged, result.state.params
  )
  contracts.assert_trees_close(result.params, expected, atol=1e-6)
  far = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), result.params, result.state.params
  )
  assert max(jax.tree.leaves(far)) > 1e-3
  losses = result.history[0]['losses']
  np.testing.assert_allclose(value / 2, losses @ [2.0, 0.5], rtol=1e-5)


def test_an_optimizer_whose_state_changes():
  """Traced alone: what a loop over steps would refuse in words of its own."""
  todo = (tasks.binary('zebra'),)
  x = np.zeros((4, 3), np.float32)
  batch = lplmtl.Batch(x, {'zebra': np.zeros(4)})
  model = lplmtl.SharedBottom(
    todo, bottom=lplmtl.MLP((2,)), tower=lplmtl.MLP(())
  )
  counting = optax.GradientTransformation(
    lambda params: jnp.int32(0),
    lambda updates, state, params=None: (updates, state + 0.5),
  )
  args = model, todo, counting, balancing.equal()

  def run():
    state = steps.init_state(jax.random.key(0), *args, x)
    rows = np.zeros((2, 3), int)
    return steps.train_chunk(
      lplmtl.make_train_step(*args),
      state,
      jax.tree.map(jnp.asarray, batch),
      rows,
    )

  with pytest.raises(
    ValueError, match=r"opt_state was .*'int32'.*became .*32'"
  ):
    jax.eval_shape(run)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['x64', 'strict'])
def test_fit_in_other_modes_of_jax(kind):
  """Parameters and states stay float32 and int32, whatever the rows are."""
  todo = (tasks.binary('zebra'), tasks.multiclass('apple', 3))
  x = np.random.default_rng(0).normal(size=(20, 3))
  labels = {'zebra': x[:, 0] > 0, 'apple': np.arange(20) % 3}
  data = lplmtl.Batch(x, labels, {'apple': np.arange(20) > 3}, np.ones(20))
  model = lplmtl.SharedBottom(
    todo, bottom=lplmtl.MLP((4,), dropout_rate=0.1), tower=lplmtl.MLP(())
  )
  optimizer = optax.chain(
    optax.adam(0.1), contrib.reduce_on_plateau(accumulation_size=2)
  )
  if kind == 'x64':
    mode = contracts.double_precision()
  else:  # where features are not cast to the parameters' dtype
    mode = jax.numpy_dtype_promotion('strict')
    data = data._replace(features=x.astype(np.float32))
  with mode:
    result = lplmtl.fit(
      jax.random.split(jax.random.key(0), 2), model, optimizer,
      balancing.uncertainty(), data, validation=data, batch_size=10,
      num_epochs=1, skip_nonfinite=1,
    )  # fmt: skip
  state = result.state
  adam = state.opt_state[0]  # the plateau's state is float64 in older optax
  trained = (result.params, adam, state.balancer_state, state.step)
  dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(trained)}
  assert dtypes == {'float32', 'int32'}
  for found in result.history[0]['validation'].values():
    assert all(np.isfinite(values).all() for values in found.values())
