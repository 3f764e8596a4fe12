"""Every balancer inside training: loops, seeds, and what a step hands it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing
from lplmtl.balancing import _solvers
from lplmtl.training import balanced, gradients, microbatch, steps
from lplmtl.types import Aggregator
from tests import contracts
from tests.test_balancing import AGGREGATORS, BALANCERS

# Together more than a minute.
pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
# Two, and without an encoder: they compile faster.
TASKS = contracts.TASKS[1:]
NUM_TASKS = len(TASKS)
MODELS = contracts.architectures(TASKS)
# Whose seeds are compared with runs of their own: a learned weighting, a random
# one, a second forward pass, a solver, an aggregator.
ONE_OF_EACH_KIND = ('uncertainty', 'rlw', 'famo', 'upgrad', 'moco')
REPRESENTING = ('shared_bottom', 'omoe', 'mmoe')


def _example(model, number=12):
  """Random parameters, and rows without categories."""
  batch = contracts.batch(number)
  batch = batch._replace(features=batch.features['numeric'])
  return contracts.random_params(model, batch.features), batch


@pytest.mark.parametrize('name', sorted({**BALANCERS, **AGGREGATORS}))
def test_fifty_steps_over_seeds(name):
  """jit(vmap(scan)) without the host; losses fall; seeds as each alone.

  A method without a memory is traced alone: each of its steps is one of those
  that the tests of its weights compute.
  """
  model, batch = contracts.Tiny(), contracts.tiny_rows()
  balancer, optimizer = getattr(balancing, name)(), optax.sgd(0.005)
  step = steps.make_train_step(model, model.tasks, optimizer, balancer)

  def run(state):
    state, metrics = jax.lax.scan(
      lambda state, _: step(state, batch), state, None, length=50
    )
    return state.params, metrics

  # Not jitted: all balancers share what draws the parameters.
  states = jax.vmap(
    lambda key: steps.init_state(
      key, model, model.tasks, optimizer, balancer, batch.features
    )
  )(jax.random.split(KEY, 3))
  both = jax.jit(jax.vmap(run)).lower(states)
  assert 'callback' not in both.as_text()
  memory = states.balancer_state
  has_none = not jax.tree.leaves(memory) or isinstance(memory, _solvers.Solved)
  if has_none and name not in ONE_OF_EACH_KIND:
    return
  program = both.compile()
  params, metrics = jax.device_get(program(states))
  assert (metrics.pop('residual') < 1e-3).all()
  losses = metrics['losses'].sum(axis=2)
  assert (losses[:, -1] < losses[:, 0]).all()
  if name not in ONE_OF_EACH_KIND:
    return
  alone = jax.jit(run)
  for i in range(3):
    one = jax.tree.map(lambda x, i=i: x[i], states)
    if name in (
      'upgrad',
      'moco',
    ):  # with a loop inside, or each task's gradient
      again = alone(one)
    else:  # beside itself
      again = program(jax.tree.map(lambda x: jnp.stack([x] * 3), one))
      again = jax.tree.map(lambda x: x[0], again)
    del again[1]['residual']  # which is rounding
    contracts.assert_trees_close(
      jax.tree.map(lambda x, i=i: x[i], (params, metrics)), again,
      rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_the_losses_after_a_step():
  """FAMO's hook gets the same rows, the same dropout, the new parameters."""
  noisy = lplmtl.MLP((6,), dropout_rate=0.4)
  model = dataclasses.replace(MODELS['shared_bottom'], bottom=noisy)
  params, batch = _example(model)

  def watching(key, num_tasks):
    return {'before': jnp.zeros(num_tasks), 'after': jnp.zeros(num_tasks)}

  def after(before, now, state, *, present):
    assert present.shape == before.shape
    return {'before': before, 'after': now}

  balancer = balancing.equal()._replace(init=watching, after=after)
  found = {}
  state = steps.TrainState(
    jnp.int32(0), params, optax.sgd(0.1).init(params),
    watching(KEY, NUM_TASKS), KEY,
  )  # fmt: skip

  @functools.partial(jax.jit, static_argnames='num_microbatches')
  def run(rate, num_microbatches):
    step = steps.make_train_step(
      model, TASKS, optax.sgd(rate), balancer,
      num_microbatches=num_microbatches,
    )  # fmt: skip
    return step(state, batch)

  for rate, num_microbatches in ((0.0, 1), (0.1, 1), (0.1, 3)):
    new, metrics = run(rate, num_microbatches=num_microbatches)
    found[rate, num_microbatches] = np.asarray(new.balancer_state['after'])
    np.testing.assert_array_equal(
      new.balancer_state['before'], metrics['losses']
    )
  np.testing.assert_allclose(found[0.0, 1], metrics['losses'], rtol=1e-6)
  assert (np.abs(found[0.1, 1] - np.asarray(metrics['losses'])) > 1e-4).any()
  np.testing.assert_allclose(found[0.1, 3], found[0.1, 1], rtol=1e-5)


def _fixed(weights, scope):
  """Weights that do not depend on anything; keeps the Gramian as its state."""
  return lplmtl.Balancer(
    lambda key, num_tasks: jnp.zeros((num_tasks, num_tasks)),
    lambda losses, state, *, gramian, **extra: (jnp.asarray(weights), gramian),
    needs_gramian=True,
    scope=scope,
  )


@pytest.mark.parametrize('name', REPRESENTING)
def test_weights_from_the_representation(name):
  """The gradient as with scope 'shared'; the Gramian by an explicit one."""
  model = MODELS[name]
  params, batch = _example(model)
  if name == 'shared_bottom':  # which is the smallest
    model, batch = model.clone(encoder=contracts.encoder()), contracts.batch(12)
    params = contracts.random_params(model, batch.features)
  rows = microbatch.Rows(batch, KEY)

  def run(params, scope):
    return balanced.gradient(
      model, TASKS, _fixed([0.5, 2.0], scope),
      jnp.zeros((NUM_TASKS, NUM_TASKS)), params, rows,
    )  # fmt: skip

  def explicit(params):
    z = model.apply({'params': params}, batch.features, method='represent')

    def head(z):
      predictions, _ = model.apply(
        {'params': params}, z, batch.features, method='predict'
      )
      return lplmtl.losses.task_losses(TASKS, predictions, batch)[0]

    # The two ways to the predictions are one model.
    direct, _ = model.apply({'params': params}, batch.features)
    again, _ = model.apply(
      {'params': params}, z, batch.features, method='predict'
    )
    return head(z), jax.jacrev(head)(z), direct, again

  @jax.jit  # one program, whose parts share what they have in common
  def all_ways(params):
    found = run(params, 'representation'), run(params, 'shared')
    return *found, explicit(params)

  (found, gramian, metrics), (wanted, _, same), made = all_ways(params)
  contracts.assert_trees_close(found, wanted, atol=1e-5)
  np.testing.assert_allclose(metrics['losses'], same['losses'], rtol=1e-5)
  values, jacobian, direct, again = made
  np.testing.assert_allclose(metrics['losses'], values, rtol=1e-5)
  flat = np.asarray(jacobian).reshape(NUM_TASKS, -1)
  np.testing.assert_allclose(gramian, flat @ flat.T, rtol=1e-4, atol=1e-8)
  contracts.assert_trees_close(again, direct, atol=1e-5)


def test_dropout_and_penalty_with_a_representation():
  """One mask in both halves; a penalty is added once, not weighted."""
  noisy = lplmtl.MLP((6,), dropout_rate=0.4)
  model = dataclasses.replace(
    MODELS['shared_bottom'],
    bottom=noisy,
    tower=lplmtl.MLP((4,), dropout_rate=0.4),
  )
  params, batch = _example(model)

  class Penalised:
    is_shared, represent, predict = model.is_shared, None, None

    def apply(self, variables, *args, method=None, **kwargs):
      found = model.apply(variables, *args, method=method, **kwargs)
      if method == 'represent':
        return found
      squares = jax.tree.map(lambda x: jnp.sum(x**2), variables['params'])
      return found[0], {'penalty': sum(jax.tree.leaves(squares)) / 2}

  def run(params, model, scope):
    return balanced.gradient(
      model, TASKS, _fixed([0.5, 2.0], scope),
      jnp.zeros((NUM_TASKS, NUM_TASKS)), params, microbatch.Rows(batch, KEY),
    )[0]  # fmt: skip

  @jax.jit
  def all_ways(params):
    return (
      run(params, model, 'representation'),
      run(params, model, 'shared'),
      run(params, Penalised(), 'representation'),
    )

  found, wanted, penalised = jax.device_get(all_ways(params))
  contracts.assert_trees_close(found, wanted, atol=1e-5)
  added = jax.tree.map(np.subtract, penalised, found)
  contracts.assert_trees_close(added, params, atol=1e-5)


def test_what_offers_no_representation():
  params, batch = _example(MODELS['ple'], 4)
  for balancer, model, found in (
    (balancing.mgda(scope='representation'), MODELS['ple'], 'found PLE'),
    (balancing.moco()._replace(scope='representation'), MODELS['mmoe'],
     'an aggregator'),
    (balancing.rlw()._replace(scope='representation'), MODELS['mmoe'],
     'or a loss weighting'),
  ):  # fmt: skip
    with pytest.raises(ValueError, match=found):
      balanced.gradient(
        model,
        TASKS,
        balancer,
        (),
        params,
        microbatch.Rows(batch, KEY),
      )


@pytest.mark.parametrize('scope', ['all', 'shared'])
def test_an_aggregator_step_by_hand(scope):
  """It gets the gradients in its scope; the others stay plain."""
  model = MODELS['shared_bottom']
  params, batch = _example(model, 8)
  weights = jnp.array([0.5, 2.0])

  def update(stacked, losses, state, *, present):
    assert present.shape == losses.shape == (NUM_TASKS,)
    found = jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), stacked)
    return found, weights, jnp.int32(len(jax.tree.leaves(stacked)))

  balancer = Aggregator(
    lambda key, params, num_tasks: jnp.int32(len(jax.tree.leaves(params))),
    update, scope,
  )  # fmt: skip
  first = balanced.init(KEY, model, TASKS, balancer, params)
  run = jax.jit(
    lambda p: (
      balanced.gradient(
        model, TASKS, balancer, first, p, microbatch.Rows(batch, KEY)
      ),
      gradients.task_gradients(
        model,
        TASKS,
        p,
        batch,
        key=microbatch.Rows(batch, KEY).dropout_key(),
      )[1],
    )
  )
  (found, number, metrics), each = jax.device_get(run(params))
  shared = gradients.shared_leaves(model, params)
  if scope == 'all':
    shared = jax.tree.map(lambda _: True, shared)
  wanted = jax.tree.map(
    lambda acts, g: np.tensordot(
      weights if acts else np.ones(NUM_TASKS), g, 1
    ),
    shared, each,
  )  # fmt: skip
  contracts.assert_trees_close(found, wanted, atol=1e-5)
  assert number == first == sum(jax.tree.leaves(shared))
  np.testing.assert_array_equal(metrics['weights'], weights)
