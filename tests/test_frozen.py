"""Which parameters an optimiser leaves alone, and what that means to balancers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, tasks
from lplmtl.training import frozen, gradients, steps

PARAMS = {'a': jnp.ones((2, 3)), 'b': jnp.ones(4)}
MASK = {'a': True, 'b': False}  # what is frozen
NAMES = {'a': 'frozen', 'b': 'free'}
FREEZE = optax.masked(optax.set_to_zero(), MASK)
MULTI = optax.multi_transform(
  {'free': optax.adam(0.1), 'frozen': optax.set_to_zero()}, NAMES
)


@pytest.mark.parametrize(
  'optimizer',
  [
    MULTI,
    optax.multi_transform(
      {'free': optax.sgd(0.1), 'frozen': optax.set_to_zero()},
      lambda params: jax.tree.map(lambda x: NAMES['ab'[x.ndim == 1]], params),
    ),
    optax.chain(optax.adam(0.1), FREEZE),
    optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1), FREEZE),
    optax.chain(MULTI, optax.clip_by_global_norm(1.0)),
    optax.chain(MULTI, optax.scale_by_schedule(lambda step: 1 / (1 + step))),
    # Decay moves it, but no gradient does.
    optax.chain(MULTI, optax.add_decayed_weights(0.1)),
  ],
)
def test_what_is_frozen(optimizer):
  assert frozen.moving(optimizer, PARAMS) == {'a': False, 'b': True}


def _late(when):
  """An update that is the gradient of the step before, where `when`."""

  def update(gradient, state, params=None):
    late = jax.tree.map(
      lambda old, new, is_late: old if is_late else new, state, gradient, when
    )
    return late, gradient

  zeros = lambda params: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
  return optax.GradientTransformation(zeros, update)


@pytest.mark.parametrize(
  'optimizer',
  [
    optax.adamw(0.1),
    optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
    optax.inject_hyperparams(optax.adam)(learning_rate=0.0),
    optax.sgd(0.0),  # leaves all alone: nothing to tell apart
    _late(MASK),  # moves it, one step later
    optax.MultiSteps(MULTI, 2),  # cannot be told
  ],
)
def test_what_may_move(optimizer):
  assert frozen.moving(optimizer, PARAMS) is None


def test_settings_of_a_population():
  def run(rate):
    optimizer = optax.chain(optax.adam(rate), FREEZE)
    assert frozen.moving(optimizer, PARAMS) == {'a': False, 'b': True}
    return rate

  jax.eval_shape(jax.vmap(run), jnp.ones(2))


class Two:
  """Two shared vectors, and one of each task's own."""

  tasks = (tasks.regression('x'), tasks.regression('y'))

  def init(self, rngs, features):
    shared = {'still': jnp.ones(3), 'moved': jnp.ones(3)}
    return {'params': {'shared': shared, 'x': jnp.ones(1), 'y': jnp.ones(1)}}

  def apply(self, variables, features, *, train=False, rngs=None):
    params = variables['params']
    hidden = features @ params['shared']['still']
    hidden = jnp.tanh(hidden + features**2 @ params['shared']['moved'])[:, None]
    return {name: hidden * params[name][None] for name in 'xy'}, {}

  def is_shared(self, path):
    return path[0] == 'shared'


def _frozen(*names):
  return optax.multi_transform(
    {'free': optax.sgd(0.1), 'frozen': optax.set_to_zero()},
    lambda params: jax.tree_util.tree_map_with_path(
      lambda path, _: 'frozen' if path[-1].key in names else 'free', params
    ),
  )


@pytest.mark.parametrize('scope', ['shared', 'all'])
def test_frozen_parameters_do_not_count(scope):
  """Neither in a Gramian nor for an aggregator; and they stay what they were."""
  model, x = Two(), np.random.default_rng(0).normal(size=(8, 3))
  batch = lplmtl.Batch(
    jnp.asarray(x, jnp.float32),
    {'x': jnp.asarray(x[:, 0]), 'y': jnp.asarray(-x[:, 1])},
  )

  def keeping(key, num_tasks):
    return jnp.zeros((num_tasks, num_tasks))

  def seen(losses, state, *, gramian, **extra):
    return jnp.ones(2), gramian

  def step(balancer, optimizer):
    state = steps.init_state(
      jax.random.key(0), model, model.tasks, optimizer, balancer, batch.features
    )
    run = steps.make_train_step(model, model.tasks, optimizer, balancer)
    return state, run(state, batch)[0]

  balancer = lplmtl.Balancer(keeping, seen, needs_gramian=True, scope=scope)
  old, new = step(balancer, _frozen('still'))
  _, each = gradients.task_gradients(model, model.tasks, old.params, batch)
  each = {**each, 'shared': {'moved': each['shared']['moved']}}
  counted = each if scope == 'all' else each['shared']
  flat = np.concatenate(
    [np.reshape(g, (2, -1)) for g in jax.tree.leaves(counted)], axis=1
  )
  np.testing.assert_allclose(new.balancer_state, flat @ flat.T, rtol=1e-4)
  np.testing.assert_array_equal(new.params['shared']['still'], 1)
  assert (new.params['shared']['moved'] != 1).all()
  assert new.params['x'] != 1

  old, new = step(balancing.moco(scope=scope), _frozen('still'))
  assert old.balancer_state.tracked['shared']['still'] is None
  assert (new.balancer_state.tracked['shared']['moved'] != 0).all()
  np.testing.assert_array_equal(new.params['shared']['still'], 1)
  if scope == 'shared':
    for other in (balancer, balancing.graddrop()):
      with pytest.raises(ValueError, match='freezes every shared parameter'):
        step(other, _frozen('still', 'moved'))
