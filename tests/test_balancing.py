"""Contracts and values of the balancers."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lplmtl import balancing
from tests import contracts, reference

BALANCERS = {
  name: fn
  for name, fn in vars(balancing).items()
  if inspect.isfunction(fn) and not name.endswith('_loss')
}
NUM_TASKS = 3
LOSSES = jnp.array([0.1, 2.0, 30.0])


# Task gradients of which the first two conflict.
_GRADIENTS = jnp.array([[1.0, 0.0, 0.5], [-1.0, 1.0, 0.0], [0.2, 0.3, 2.0]])
GRAMIAN = _GRADIENTS @ _GRADIENTS.T
RANDOM = {'pcgrad'}


def test_all_balancers_are_here():
  assert set(BALANCERS) == {
    'equal', 'pcgrad', 'uncertainty', 'uncertainty_revised',
  }  # fmt: skip


@pytest.mark.parametrize('name', BALANCERS)
def test_contract(name):
  balancer = BALANCERS[name]()
  state = balancer.init(jax.random.key(0), NUM_TASKS)
  update = functools.partial(balancer.update, gramian=GRAMIAN)
  present = jnp.ones(NUM_TASKS, bool)
  weights, new = jax.jit(update)(LOSSES, state, present=present)
  assert weights.shape == (NUM_TASKS,) and weights.dtype == jnp.float32
  assert (weights > 0).all()
  contracts.assert_same_structure(new, state)
  eager = update(LOSSES, state, present=present)
  contracts.assert_trees_close(_data((weights, new)), _data(eager))
  # vmap over seeds = each alone.
  many = jnp.stack([LOSSES, 2 * LOSSES])
  both = jax.vmap(update, (0, None))(many, state)
  contracts.assert_trees_close(
    _data(jax.tree.map(lambda x: x[0], both)),
    _data((weights, update(LOSSES, state)[1])),
  )
  # Tasks may come in any order.
  if name not in RANDOM:
    order = jnp.array([2, 0, 1])
    turned, _ = balancer.update(
      LOSSES[order],
      balancer.init(jax.random.key(0), NUM_TASKS),
      gramian=GRAMIAN[order][:, order],
    )
    np.testing.assert_allclose(turned, weights[order], rtol=1e-6)
  # No gradient flows through the weights.
  gradient = jax.grad(lambda x: jnp.sum(update(x, state)[0]))(LOSSES)
  np.testing.assert_array_equal(gradient, np.zeros(NUM_TASKS))
  # What says that it does not need the losses gives its weights without.
  if not balancer.needs_losses:
    np.testing.assert_array_equal(update(0 * LOSSES, state)[0], weights)
  # bfloat16 losses do not change the state's dtypes.
  low = update(LOSSES.astype(jnp.bfloat16), state)
  contracts.assert_same_structure(low[1], state)


def _data(tree):
  """Random keys as numbers."""
  return jax.tree.map(
    lambda x: (
      jax.random.key_data(x)
      if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
      else x
    ),
    tree,
  )


@pytest.mark.parametrize('name', BALANCERS)
@pytest.mark.parametrize('size', [0.0, 1e-12, 1e6])
def test_weights_stay_finite(name, size):
  learned = name.startswith('uncertainty')
  balancer = BALANCERS[name](**({'learning_rate': 1.0} if learned else {}))
  losses = jnp.full(NUM_TASKS, size)

  def step(state, _):
    weights, state = balancer.update(losses, state, gramian=size * GRAMIAN)
    return state, weights

  state = balancer.init(jax.random.key(0), NUM_TASKS)
  state, weights = jax.lax.scan(step, state, None, length=200)
  assert jnp.isfinite(weights).all() and (weights > 0).all()
  if learned:
    assert (jnp.abs(state.log_vars) <= 15).all()
    # A loss of next to nothing drives the variance down to its bound.
    if size <= 1e-12 and name == 'uncertainty':
      np.testing.assert_array_equal(state.log_vars, -15.0)


def test_equal():
  weights, state = balancing.equal().update(LOSSES, ())
  np.testing.assert_array_equal(weights, np.ones(3))
  assert state == ()


def test_total_losses_are_the_papers():
  log_vars = jnp.array([-1.0, 0.5, 2.0])
  regression = (False, True, False)
  np.testing.assert_allclose(
    balancing.uncertainty_loss(LOSSES, log_vars, regression),
    reference.kendall(LOSSES, log_vars, regression),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    balancing.uncertainty_revised_loss(LOSSES, log_vars),
    reference.liebel_koerner(LOSSES, log_vars),
    rtol=1e-6,
  )
  # Negative totals are normal for Kendall, impossible for Liebel & Körner.
  tiny, low = jnp.full(3, 1e-3), jnp.full(3, -6.0)
  assert balancing.uncertainty_loss(tiny, low) < 0
  assert balancing.uncertainty_revised_loss(tiny, low) > 0


def test_first_weights_and_steps():
  """One step from s = 0, by hand."""
  regression = (False, True, False)
  balancer = balancing.uncertainty(learning_rate=0.01, is_regression=regression)
  state = balancer.init(jax.random.key(0), 3)
  weights, state = balancer.update(LOSSES, state)
  np.testing.assert_allclose(weights, [1.0, 0.5, 1.0])
  factor = np.array([1.0, 0.5, 1.0])
  gradient = -factor * np.asarray(LOSSES) + 0.5
  step = [reference.adam([g], 0.01)[0] for g in gradient]
  np.testing.assert_allclose(state.log_vars, step, rtol=1e-5)
  weights, _ = balancer.update(LOSSES, state)
  np.testing.assert_allclose(
    weights, factor * np.exp(-np.array(step)), rtol=1e-5
  )

  revised = balancing.uncertainty_revised(learning_rate=0.01)
  weights, state = revised.update(LOSSES, revised.init(jax.random.key(0), 3))
  np.testing.assert_allclose(weights, [0.5, 0.5, 0.5])
  gradient = -np.asarray(LOSSES) / 2 + 0.5
  step = [reference.adam([g], 0.01)[0] for g in gradient]
  np.testing.assert_allclose(state.log_vars, step, rtol=1e-5)


def test_converges_to_the_optimum():
  """Kendall: s = ln(2 L), or ln L for a regression; revised: sigma^2 = ..."""
  losses = jnp.array([0.2, 3.0])

  def run(balancer):
    def step(state, _):
      return balancer.update(losses, state)[1], None

    start = balancer.init(jax.random.key(0), 2)
    return jax.lax.scan(step, start, None, length=3000)[0].log_vars

  found = run(balancing.uncertainty(0.01, is_regression=(False, True)))
  np.testing.assert_allclose(found, np.log([2 * 0.2, 3.0]), atol=1e-3)
  # L / (2 v) = v / (1 + v) at the optimum.
  variance = np.exp(run(balancing.uncertainty_revised(0.01)))
  np.testing.assert_allclose(
    losses / (2 * variance), variance / (1 + variance), rtol=1e-2
  )


def test_a_task_without_labels_skips_its_update():
  balancer = balancing.uncertainty(learning_rate=0.1)
  state = balancer.init(jax.random.key(0), 2)
  losses = jnp.array([3.0, 3.0])
  _, state = balancer.update(losses, state)
  _, skipped = balancer.update(losses, state, present=jnp.array([True, False]))
  assert skipped.log_vars[0] != state.log_vars[0]
  assert skipped.log_vars[1] == state.log_vars[1]
  moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
  after = [x for x in jax.tree.leaves(skipped.opt_state) if x.ndim]
  assert moments
  for old, new in zip(moments, after, strict=True):
    assert new[0] != old[0] and new[1] == old[1]


def test_number_of_tasks_must_fit():
  balancer = balancing.uncertainty(is_regression=(True,))
  with pytest.raises(ValueError, match='1 entries for 3 tasks'):
    balancer.init(jax.random.key(0), 3)
