"""Contracts and values of the balancers."""

import functools
import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, tasks
from lplmtl.types import Aggregator, Balancer
from tests import contracts, reference


def _by_name(*constructors):
  return {constructor.__name__: constructor for constructor in constructors}


LOSS_WEIGHTINGS = _by_name(*balancing.LOSS_WEIGHTINGS)
GRAMIAN_METHODS = _by_name(*balancing.GRAMIAN_METHODS)
AGGREGATORS = _by_name(*balancing.AGGREGATORS)
BALANCERS = {**LOSS_WEIGHTINGS, **GRAMIAN_METHODS}
NUM_TASKS = 3
LOSSES = jnp.array([0.1, 2.0, 30.0])


# Task gradients of which the first two conflict.
_GRADIENTS = jnp.array([[1.0, 0.0, 0.5], [-1.0, 1.0, 0.0], [0.2, 0.3, 2.0]])
GRAMIAN = _GRADIENTS @ _GRADIENTS.T
# Whose many problems under vmap `test_gramian_methods.py` compares with solvers
# of other kinds.
SOLVING = {*GRAMIAN_METHODS} - {'pcgrad', 'gradvac', 'gradnorm'}
# Made by `_learned.learned`: weights with their own optimiser, at most exp(15).
LEARNED = {'uncertainty', 'uncertainty_revised', 'imtl_l'}


def test_every_constructor_stands_in_the_tuple_of_its_kind():
  made = {
    name: fn()
    for name, fn in vars(balancing).items()
    if inspect.isfunction(fn)
    and inspect.signature(fn).return_annotation in (Balancer, Aggregator)
    and fn is not balancing.normalized
  }
  assert set(made) == {*BALANCERS, *AGGREGATORS}
  for name, method in made.items():
    assert isinstance(method, Aggregator) == (name in AGGREGATORS)
    assert method.needs_gramian == (name in GRAMIAN_METHODS)


@functools.cache
def _method(name):
  """One balancer for all tests: each would compile its solver again."""
  return BALANCERS[name]()


def _is_random(balancer):
  """Whether the first state depends on the key."""
  leaves = [
    jax.tree.leaves(balancer.init(jax.random.key(i), NUM_TASKS)) for i in (0, 1)
  ]
  return any((a != b).any() for a, b in zip(*leaves, strict=True))


EVERYONE = jnp.ones(NUM_TASKS, bool)


@pytest.mark.parametrize('name', BALANCERS)
def test_contract(name):
  balancer = _method(name)
  state = balancer.init(jax.random.key(0), NUM_TASKS)

  def update(losses, state, gramian=GRAMIAN):
    return balancer.update(losses, state, gramian=gramian, present=EVERYONE)

  weights, new = update(LOSSES, state)
  assert weights.shape == (NUM_TASKS,) and weights.dtype == jnp.float32
  if name not in {*GRAMIAN_METHODS, 'stch'}:  # which may leave a task out
    assert (weights > 0).all()
  contracts.assert_same_structure(new, state)
  # What says that it does not need the losses gives its weights without.
  if not balancer.needs_losses:
    np.testing.assert_array_equal(update(0 * LOSSES, state)[0], weights)
  # Tasks may come in any order.
  if not _is_random(balancer):
    order = jnp.array([2, 0, 1])
    turned, _ = update(LOSSES[order], state, GRAMIAN[order][:, order])
    rounding = 1e-4 if name in GRAMIAN_METHODS else 1e-6
    np.testing.assert_allclose(turned, weights[order], rtol=rounding)

  # No gradient flows through the weights: JAX sees that there is none.
  slopes = jax.jit(jax.grad(lambda losses: update(losses, state)[0].sum()))
  np.testing.assert_array_equal(slopes(LOSSES), np.zeros(NUM_TASKS))
  # Under jit and vmap the same.
  if name not in SOLVING:
    both = jax.jit(jax.vmap(lambda losses: update(losses, state)))
    contracts.assert_trees_close(
      jax.tree.map(lambda x: x[0], both(jnp.stack([LOSSES, 2 * LOSSES]))),
      (weights, new),
    )
  # bfloat16 losses do not change the state's dtypes.
  low = jax.eval_shape(update, LOSSES.astype(jnp.bfloat16), state)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), low[1]) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )


@pytest.mark.parametrize('shape', [(), (NUM_TASKS, 2)])
def test_losses_of_another_shape(shape):
  """Not one number a task: a loss that was summed, or that of each row."""
  losses, stacked = jnp.ones(shape), {'w': jnp.ones((NUM_TASKS, 4))}
  for fn in BALANCERS.values():
    balancer = fn()
    state = balancer.init(jax.random.key(0), NUM_TASKS)
    with pytest.raises(ValueError, match='losses'):
      balancer.update(losses, state, gramian=GRAMIAN)
  for make in AGGREGATORS.values():
    aggregator = make()
    first = aggregator.init(jax.random.key(0), {'w': jnp.ones(4)}, NUM_TASKS)
    with pytest.raises(ValueError, match='losses .* shape'):
      aggregator.update(stacked, losses, first)


@pytest.mark.parametrize('name', BALANCERS)
def test_weights_stay_finite(name):
  learned = name in LEARNED
  balancer, update = _method(name), _method(name).update
  if learned:
    balancer = BALANCERS[name](learning_rate=1.0)
  if name not in GRAMIAN_METHODS:  # whose updates are jitted already
    update = jax.jit(balancer.update)
  gramian = np.asarray(GRAMIAN)
  for size in (0.0, 1e-12, 1e6):
    losses = jnp.asarray(np.full(NUM_TASKS, size), jnp.float32)
    extra = {'gramian': np.float32(size) * gramian, 'present': EVERYONE}
    state = balancer.init(jax.random.key(0), NUM_TASKS)
    for _ in range(200):
      before = state
      weights, state = update(losses, before, **extra)
      assert np.isfinite(weights).all()
      assert (np.asarray(weights) > 0).all() or name in GRAMIAN_METHODS
      if jax.tree.all(jax.tree.map(np.array_equal, state, before)):
        break  # all further steps are this one
    if learned:
      assert (jnp.abs(state[0]) <= 15).all()
      # A loss of next to nothing drives the variance down to its bound.
      if size <= 1e-12 and name == 'uncertainty':
        np.testing.assert_array_equal(state.log_vars, -15.0)


def test_equal():
  weights, state = balancing.equal().update(LOSSES, ())
  np.testing.assert_array_equal(weights, np.ones(3))
  assert state == ()


def test_static():
  weights, state = balancing.static((0.5, 0.0, 2.0)).update(LOSSES, ())
  np.testing.assert_array_equal(weights, [0.5, 0.0, 2.0])
  assert state == ()
  with pytest.raises(ValueError, match='weights must have .*, 3; found 1'):
    balancing.static((1.0,)).init(jax.random.key(0), 3)
  for wrong, found in (
    ((-1.0, 1.0), r'weights\[0\] .* at least 0'),
    ((0.0, 0.0), 'weights must not all be 0'),
    ((np.inf, 1.0), r'weights\[0\] must be'),
    ((1.0, 'a'), r"weights\[1\] .* found 'a'"),
    (3, 'a tuple .* found 3'),
  ):
    with pytest.raises(ValueError, match=found):
      balancing.static(wrong)


def _run(balancer, rows, present=None):
  """Weights of every step over `[N, T]` losses."""
  state = balancer.init(jax.random.key(0), rows.shape[1])
  here = np.ones(rows.shape, bool) if present is None else present

  def step(state, row):
    weights, state = balancer.update(row[0], state, present=row[1])
    return state, weights

  return np.asarray(jax.lax.scan(step, state, (rows, jnp.asarray(here)))[1])


def test_exponential():
  balancer = balancing.exponential((1.0, 2.0), (0.5, 1.1), steps_per_epoch=2)
  found = _run(balancer, jnp.ones((5, 2)))
  want = [[0.5**t, 2 * 1.1**t] for t in (0, 0, 1, 1, 2)]
  np.testing.assert_allclose(found, want, rtol=1e-6)
  # A rate above 1 does not end in infinity.
  balancer = balancing.exponential(rates=(10.0, 0.1))
  weights, _ = balancer.update(jnp.ones(2), jnp.int32(10**6))
  assert np.isfinite(weights).all()
  with pytest.raises(ValueError, match=r'rates\[0\] .* above 0'):
    balancing.exponential(rates=(0.0, 1.0))
  with pytest.raises(ValueError, match='initial .* 2; found 1'):
    balancing.exponential(initial=(1.0,)).init(jax.random.key(0), 2)
  with pytest.raises(ValueError, match='steps_per_epoch .* at least 1'):
    balancing.exponential(steps_per_epoch=0)


def test_dwa():
  """Against a loop over epochs; and a task whose labels are missing."""
  rows = np.random.default_rng(0).uniform(0.5, 2.0, (12, 3)).astype(np.float32)
  present = np.ones((12, 3), bool)
  present[4:6, 1] = False  # in one step of an epoch, and in a whole one below
  found = _run(balancing.dwa(steps_per_epoch=3, temperature=1.5), rows, present)
  want = reference.dwa(rows, present, 3, 1.5)
  np.testing.assert_allclose(found, want, rtol=1e-5)
  np.testing.assert_allclose(found.sum(axis=1), 3.0, rtol=1e-6)
  np.testing.assert_array_equal(found[:6], 1.0)
  present[3:9, 1] = False
  found = _run(balancing.dwa(steps_per_epoch=3, temperature=1.5), rows, present)
  np.testing.assert_allclose(
    found, reference.dwa(rows, present, 3, 1.5), rtol=1e-5
  )
  with pytest.raises(ValueError, match='temperature .* above 0'):
    balancing.dwa(3, 0)


def test_gls_is_the_gradient_of_the_geometric_mean():
  weights, _ = balancing.gls().update(LOSSES, ())
  gradient = jax.grad(lambda x: jnp.prod(x) ** (1 / 3))(LOSSES)
  np.testing.assert_allclose(weights, gradient, rtol=1e-5)
  here = jnp.array([True, False, True])
  weights, _ = balancing.gls().update(LOSSES, (), present=here)
  gradient = jax.grad(lambda x: jnp.sqrt(x[0] * x[2]))(LOSSES)
  np.testing.assert_allclose(weights, here * gradient, rtol=1e-5)
  # Whatever the scale of a loss, its share of the step is the same.
  scaled, _ = balancing.gls().update(LOSSES * jnp.array([1.0, 1e4, 1.0]), ())
  first, _ = balancing.gls().update(LOSSES, ())
  np.testing.assert_allclose(
    scaled[1] * 1e4 / scaled[0], first[1] / first[0], rtol=1e-4
  )


@pytest.mark.parametrize('distribution', ['normal', 'dirichlet'])
def test_rlw(distribution):
  found = _run(balancing.rlw(distribution), jnp.ones((4000, 3)))
  np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)
  np.testing.assert_allclose(found.mean(axis=0), 1 / 3, atol=0.02)
  rng = np.random.default_rng(0)
  want = rng.dirichlet(np.ones(3), 4000)
  if distribution == 'normal':
    want = np.exp(rng.normal(size=(4000, 3)))
    want /= want.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(found.var(axis=0), want.var(), rtol=0.1)
  np.testing.assert_allclose(
    np.quantile(found, [0.1, 0.5, 0.9]), np.quantile(want, [0.1, 0.5, 0.9]),
    rtol=0.1,
  )  # fmt: skip
  with pytest.raises(ValueError, match="'normal' or 'dirichlet', found 'x'"):
    balancing.rlw('x')


def test_stch_is_the_gradient_of_the_smooth_maximum():
  wanted, best, mu = np.array([0.2, 0.5, 0.3]), np.array([0.0, 1.0, 2.0]), 3.0
  balancer = balancing.stch(mu, tuple(wanted), tuple(best))
  weights, _ = balancer.update(LOSSES, ())
  gradient = jax.grad(
    lambda x: mu * jnp.log(jnp.sum(jnp.exp(wanted * (x - best) / mu)))
  )(LOSSES)
  np.testing.assert_allclose(weights, gradient, rtol=1e-5)
  # Near 0 the worst task alone counts; a task without labels never does.
  weights, _ = balancing.stch(1e-4).update(LOSSES, ())
  np.testing.assert_allclose(weights, [0, 0, 1 / 3], atol=1e-6)
  here = jnp.array([True, True, False])
  weights, _ = balancing.stch(1e-4).update(LOSSES, (), present=here)
  np.testing.assert_allclose(weights, [0, 1 / 3, 0], atol=1e-6)
  nobody = jnp.zeros(3, bool)
  weights, _ = balancing.stch().update(LOSSES, (), present=nobody)
  assert np.isfinite(weights).all()
  with pytest.raises(ValueError, match='smoothing .* above 0'):
    balancing.stch(0.0)
  with pytest.raises(ValueError, match='ideal .* 3; found 2'):
    balancing.stch(ideal=(0.0, 0.0)).init(jax.random.key(0), 3)


def test_imtl_l_brings_every_loss_to_one():
  losses = jnp.array([0.2, 3.0])
  weights = _run(balancing.imtl_l(0.01), jnp.tile(losses, (3000, 1)))
  np.testing.assert_allclose(weights[0], 1.0)
  np.testing.assert_allclose(weights[-1] * losses, 1.0, rtol=1e-3)
  scales = jnp.array([-0.5, 0.7])
  np.testing.assert_allclose(
    balancing.imtl_l_loss(losses, scales),
    sum(np.exp(s) * x - s for x, s in zip(losses, scales, strict=True)),
    rtol=1e-6,
  )


@pytest.mark.parametrize('name', BALANCERS)
def test_normalized(name):
  """One sum; the same shares; and zeros stay zeros."""
  plain, scaled = _method(name), balancing.normalized(_method(name))
  state = plain.init(jax.random.key(0), NUM_TASKS)
  extra = {'gramian': GRAMIAN, 'present': EVERYONE}
  weights, _ = plain.update(LOSSES, state, **extra)
  found, new = scaled.update(LOSSES, state, **extra)
  np.testing.assert_allclose(found.sum(), 3.0, rtol=1e-6)
  np.testing.assert_allclose(
    found / found.sum(), weights / weights.sum(), rtol=1e-5
  )
  assert scaled.needs_losses == plain.needs_losses
  assert scaled.scope == plain.scope
  contracts.assert_same_structure(new, state)
  # Without a label a task has no weight, and its share of the sum is missing.
  extra['present'] = jnp.array([True, True, False])
  found, _ = scaled.update(LOSSES, state, **extra)
  assert found[2] == 0
  np.testing.assert_allclose(found.sum(), 2.0, rtol=1e-5)


def test_what_normalized_refuses():
  with pytest.raises(ValueError, match='total must be .* above 0'):
    balancing.normalized(balancing.equal(), 0.0)
  with pytest.raises(ValueError, match='Balancer; found Aggregator'):
    balancing.normalized(balancing.moco())


def test_total_losses_are_the_papers():
  """Kendall's two formulas, for classifications and regressions, are one."""
  log_vars = jnp.array([-1.0, 0.5, 2.0])
  is_regression = np.array([False, True, False])
  np.testing.assert_allclose(
    balancing.uncertainty_loss(
      jnp.where(is_regression, LOSSES / 2, LOSSES), log_vars
    ),
    reference.kendall(LOSSES, log_vars, is_regression),
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


def test_training_with_a_regression_follows_the_papers_formula():
  """`exp(-s) L_class + exp(-s) squared_error / 2 + ...`, in a plain loop."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(32, 4)), jnp.float32)
  labels = {
    'click': (x[:, 0] > 0).astype(jnp.int32),
    'price': x[:, 1] - x[:, 2],
  }
  todo = (tasks.binary('click'), tasks.regression('price'))
  batch = lplmtl.Batch(x, labels)
  model = lplmtl.SharedBottom(todo, bottom=contracts.SMALL)
  params = contracts.random_params(model, x)
  sgd, adam = optax.sgd(0.1), optax.adam(0.05)
  balancer = balancing.uncertainty(learning_rate=0.05)
  step = lplmtl.make_train_step(model, todo, sgd, balancer)
  key = jax.random.key(0)
  state = lplmtl.TrainState(
    jnp.int32(0), params, sgd.init(params), balancer.init(key, 2), key
  )

  def total(params, log_vars):
    found, _ = model.apply({'params': params}, x)
    click = lplmtl.losses.binary_cross_entropy(
      found['click'], labels['click']
    ).mean()
    price = lplmtl.losses.squared_error(found['price'], labels['price']).mean()
    s_click, s_price = log_vars
    return (
      jnp.exp(-s_click) * click + s_click / 2
      + jnp.exp(-s_price) * price / 2 + s_price / 2
    )  # fmt: skip

  def plain(state, _):
    params, log_vars, opt_states = state
    slopes = jax.grad(total, (0, 1))(params, log_vars)
    moves = [
      optimizer.update(slope, opt_state)
      for optimizer, slope, opt_state in zip(
        (sgd, adam), slopes, opt_states, strict=True
      )
    ]
    params, log_vars = optax.apply_updates(
      (params, log_vars), tuple(updates for updates, _ in moves)
    )
    return (params, log_vars, tuple(new for _, new in moves)), None

  zeros = jnp.zeros(2)
  start = params, zeros, (sgd.init(params), adam.init(zeros))

  @jax.jit
  def both(state, start):
    state, _ = jax.lax.scan(
      lambda s, _: (step(s, batch)[0], None), state, None, length=20
    )
    return state, jax.lax.scan(plain, start, None, length=20)[0]

  state, (params, log_vars, _) = both(state, start)
  contracts.assert_trees_close(state.params, params, atol=1e-5)
  np.testing.assert_allclose(state.balancer_state.log_vars, log_vars, atol=1e-5)
  assert abs(log_vars).min() > 0.1


def test_first_weights_and_steps():
  """One step from s = 0, by hand."""
  for make, first in (
    (balancing.uncertainty, 1.0), (balancing.uncertainty_revised, 0.5),
  ):  # fmt: skip
    balancer = make(learning_rate=0.01)
    state = balancer.init(jax.random.key(0), 3)
    weights, state = balancer.update(LOSSES, state)
    np.testing.assert_allclose(weights, first)
    slopes = -first * np.asarray(LOSSES) + 0.5
    moved = np.array([reference.adam([slope], 0.01)[0] for slope in slopes])
    np.testing.assert_allclose(state.log_vars, moved, rtol=1e-5)
    weights, _ = balancer.update(LOSSES, state)
    np.testing.assert_allclose(weights, first * np.exp(-moved), rtol=1e-5)


def test_converges_to_the_optimum():
  """Kendall: s = ln(2 L); revised: L / (2 v) = v / (1 + v), v = sigma^2."""
  losses = jnp.array([0.2, 3.0])

  def run(balancer):
    def step(state, _):
      return balancer.update(losses, state)[1], None

    start = balancer.init(jax.random.key(0), 2)
    return jax.lax.scan(step, start, None, length=3000)[0].log_vars

  found = run(balancing.uncertainty(0.01))
  np.testing.assert_allclose(found, np.log([2 * 0.2, 2 * 3.0]), atol=1e-3)
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


def test_famo():
  """Two steps of Algorithm 1 by hand, its softmax and its Adam."""
  balancer = balancing.famo(0.1, 0.01, lowest=(0.05, 0.0, 10.0))
  state = balancer.init(jax.random.key(0), 3)
  weights, same = balancer.update(LOSSES, state)
  above = np.asarray(LOSSES) - [0.05, 0.0, 10.0]
  np.testing.assert_allclose(weights, 1 / above / np.sum(1 / above), rtol=1e-5)
  contracts.assert_trees_equal(same, state)
  later = np.array([[0.09, 1.0, 30.0], [0.08, 0.9, 20.0]], np.float32)
  logits, slopes, before = np.zeros(3), [], np.asarray(LOSSES)
  for now in later:
    shares = reference.softmax(logits)
    fall = np.log(before - [0.05, 0, 10]) - np.log(now - [0.05, 0, 10])
    jacobian = np.diag(shares) - np.outer(shares, shares)
    slopes.append(jacobian @ fall + 0.01 * logits)
    logits = logits + [
      reference.adam([g[k] for g in slopes], 0.1)[-1] for k in range(3)
    ]
    state = balancer.after(jnp.asarray(before), jnp.asarray(now), state)
    np.testing.assert_allclose(state.logits, logits, atol=1e-5)
    before = now
  # A task without labels takes no part.
  here = jnp.array([True, False, True])
  weights, _ = balancer.update(LOSSES, state, present=here)
  assert weights[1] == 0
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
  fresh = balancer.init(jax.random.key(0), 3)
  moved = balancer.after(LOSSES, LOSSES.at[1].set(1e-3), fresh, present=here)
  np.testing.assert_allclose(moved.logits, fresh.logits, atol=1e-6)
  moved = balancer.after(LOSSES, LOSSES / 2, state, present=here)
  assert moved.logits[1] == state.logits[1] != moved.logits[0]
  with pytest.raises(ValueError, match='lowest .* 3; found 2'):
    balancing.famo(lowest=(0.0, 0.0)).init(jax.random.key(0), 3)


def test_random_is_rlw_for_shared_parameters():
  own, other = balancing.random(), balancing.rlw()
  state = own.init(jax.random.key(0), 3)
  contracts.assert_trees_equal(
    own.update(LOSSES, state)[0], other.update(LOSSES, state)[0]
  )
  assert own.scope == 'shared' and not own.needs_gramian


def test_total_losses_of_another_shape():
  for loss in (
    balancing.uncertainty_loss, balancing.uncertainty_revised_loss,
    balancing.imtl_l_loss,
  ):  # fmt: skip
    for shape in ((), (2, 1), (3,)):
      with pytest.raises(ValueError, match='learned .* shape'):
        loss(jnp.ones(shape), jnp.zeros(2))


def test_total_losses_take_lists():
  losses, learned = [1.0, 2.0], (0.5, -0.5)
  for loss in (
    balancing.uncertainty_loss, balancing.uncertainty_revised_loss,
    balancing.imtl_l_loss,
  ):  # fmt: skip
    wanted = loss(jnp.array(losses), jnp.array(learned))
    assert loss(losses, learned) == loss(losses, np.array(learned)) == wanted
    with pytest.raises(ValueError, match='learned .* dict'):
      loss({'a': 1.0}, learned)
  # Whose parts are learned.
  slope = jax.grad(lambda x: balancing.imtl_l_loss(losses, [x, 0.0]))(0.0)
  assert slope == losses[0] - 1


@pytest.fixture(scope='module')
def compiled():
  """The names of JAX's events; a listener stays as long as the process."""
  events = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: events.append(event)
  )
  return events


@pytest.mark.parametrize('name', GRAMIAN_METHODS)
def test_a_loop_that_is_not_jitted_compiles_once(name, compiled):
  balancer = _method(name)
  state = balancer.init(jax.random.key(0), NUM_TASKS)
  counts = []
  for _ in range(3):
    _, state = balancer.update(LOSSES, state, gramian=GRAMIAN, present=EVERYONE)
    counts.append(sum('backend_compile' in event for event in compiled))
  assert counts[1:] == [counts[0]] * 2


def test_compilations_are_counted(compiled):
  before = len(compiled)
  jax.jit(lambda x: x + 1)(jnp.ones(3))
  assert any('backend_compile' in event for event in compiled[before:])


def test_tables_of_the_readme():
  """A row for each constructor, in the table of its kind."""
  text = pathlib.Path(balancing.__file__).with_name('README.md').read_text()
  tables = re.findall(r'^\|---.*\n((?:\|.*\n)+)', text, re.MULTILINE)
  found = [re.findall(r'^\| `(\w+)`', table, re.MULTILINE) for table in tables]
  assert found == [[*LOSS_WEIGHTINGS], [*GRAMIAN_METHODS], [*AGGREGATORS]]
