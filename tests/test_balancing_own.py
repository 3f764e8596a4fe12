"""Balancers of one's own in training, and training under other dtype rules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import _progress_data, balancing, resume, tasks
from lplmtl.training import progress, steps
from tests import contracts

KEY = jax.random.key(0)
NAMES = ('x', 'y', 'z')


class Model:
  """A shared vector, and a scale of each task's own; sees its representation."""

  def __init__(self, num_tasks=2):
    self.tasks = tuple(tasks.regression(name) for name in NAMES[:num_tasks])

  def init(self, rngs, features):
    ones = {task.name: jnp.ones(1, jnp.float32) for task in self.tasks}
    shared = jnp.ones(features.shape[-1], jnp.float32)
    return {'params': {'shared': shared, **ones}}

  def represent(self, variables, features):
    return jnp.tanh(features @ variables['params']['shared'])[:, None]

  def predict(self, variables, hidden):
    own = variables['params']
    return {t.name: hidden * own[t.name][None] for t in self.tasks}, {}

  def apply(
    self, variables, features, *more, train=False, rngs=None, method=None
  ):
    if method is not None:
      return getattr(self, method)(variables, features)
    return self.predict(variables, self.represent(variables, features))

  def is_shared(self, path):
    return path[0] == 'shared'


def _batch(rows=4):
  x = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
  labels = {name: jnp.asarray(x[:, i]) for i, name in enumerate(NAMES)}
  return lplmtl.Batch(jnp.asarray(x), labels)


def _trace(balancer, model=None):
  """Kinds of the state before and after a step that is traced alone."""
  model, batch = model or Model(), _batch()
  optimizer = optax.sgd(0.1)
  step = steps.make_train_step(model, model.tasks, optimizer, balancer)

  def run(batch):
    state = steps.init_state(
      KEY, model, model.tasks, optimizer, balancer, batch.features
    )
    return state, *step(state, batch)

  return jax.eval_shape(run, batch)


@pytest.mark.parametrize('kind', ['x64', 'strict'])
@pytest.mark.parametrize('num_tasks', [2, 3])
def test_steps_under_other_dtype_rules(num_tasks, kind):
  rules = (
    contracts.double_precision()
    if kind == 'x64'
    else jax.numpy_dtype_promotion('strict')
  )
  with rules:
    for balancer in (
      balancing.equal(), balancing.famo(), balancing.gradnorm(),
      balancing.pcgrad(), balancing.mgda(scope='representation'),
      balancing.moco(), balancing.random(),
    ):  # fmt: skip
      state, new, metrics = _trace(balancer, Model(num_tasks))
      contracts.assert_same_structure(*map(_zeros, (new, state)))
      assert {str(x.dtype) for x in jax.tree.leaves(new.params)} == {'float32'}
      assert metrics['weights'].dtype == metrics['losses'].dtype == jnp.float32


def _zeros(tree):
  """Typed keys have no zeros."""
  return jax.tree.map(
    lambda x: np.zeros(x.shape, str(x.dtype).replace('key<fry>', 'uint8')), tree
  )


def _own(update, **more):
  init = lambda key, num_tasks: jnp.zeros(num_tasks)  # noqa: E731
  return lplmtl.Balancer(init, update, **more)


def _ones(losses, state, **extra):
  return jnp.ones(2), state


@pytest.mark.parametrize('needs_gramian', [False, True])
def test_what_a_balancer_of_ones_own_returns(needs_gramian):
  for update, complaint in (
    (lambda losses, state, **extra: jnp.ones(2), r'return \(weights, state\)'),
    (lambda losses, state, **extra: (jnp.ones(3), state), r'shape \(2,\), one'),
    (
      lambda losses, state, **extra: (jnp.ones(2), (state, 0)),
      r'update must return a state .*float32\[2\]; found \(.float32\[2\]',
    ),
    (
      lambda losses, state, **extra: (jnp.ones(2), state.astype(int)),
      r'float32\[2\]; found int32\[2\]',
    ),
  ):
    with pytest.raises(ValueError, match=complaint):
      _trace(_own(update, needs_gramian=needs_gramian))
  after = lambda before, now, state, *, present: state[:1]  # noqa: E731
  with pytest.raises(
    ValueError, match=r"balancer's after .* found float32\[1\]"
  ):
    _trace(_own(_ones, after=after))
  # Weights of another dtype are numbers all the same.
  whole = lambda losses, state, **extra: (jnp.array([1, 2]), state)  # noqa: E731
  _trace(_own(whole, needs_gramian=needs_gramian))


def test_what_an_aggregator_of_ones_own_returns():
  def make(update):
    return lplmtl.Aggregator(lambda key, params, num_tasks: (), update)

  def mean(gradients, losses, state, *, present):
    found = jax.tree.map(lambda g: g.mean(axis=0), gradients)
    return found, jnp.ones(2), state

  _trace(make(mean))
  for update, complaint in (
    (lambda g, x, s, *, present: (g, s), r'\(gradient, weights, state\)'),
    (lambda g, x, s, *, present: (g, x, s), 'shapes and dtypes of the parame'),
    (
      lambda g, x, s, *, present: (mean(g, x, s, present=0)[0], 1.0, s),
      r'weights of shape \(2,\)',
    ),
  ):
    with pytest.raises(ValueError, match=complaint):
      _trace(make(update))


@pytest.mark.parametrize('name', ['rlw', 'pcgrad', 'gradvac', 'graddrop'])
def test_progress_of_typed_keys_is_read(name):
  """As checkpoints held the keys of balancers before they were numbers."""
  balancer, model = getattr(balancing, name)(), Model()
  params = model.init({}, _batch().features)['params']
  state = balancing.first_state(balancer, KEY, params, 2)
  nothing = jnp.zeros(1)
  state = steps.TrainState(
    step=nothing, params=params, opt_state=nothing, balancer_state=state,
    key=jnp.stack([KEY]),
  )  # fmt: skip
  now = progress.start(state, num_seeds=1, num_steps=2, num_tasks=2)

  def typed(leaf):
    is_key = getattr(leaf, 'dtype', None) == jnp.uint32
    return jax.random.wrap_key_data(leaf) if is_key else leaf

  old = now._replace(state=jax.tree.map(typed, now.state))
  arrays, meta = resume.to_data(old)
  found = _progress_data.from_data(
    now, arrays, {**meta, 'history': []}, 'folder'
  )
  contracts.assert_trees_equal(
    found.state.balancer_state, now.state.balancer_state
  )


def test_an_update_without_keywords():
  own = lplmtl.Balancer(lambda key, num_tasks: (), lambda losses, state: None)
  for balancer in (own, own._replace(needs_gramian=True)):
    with pytest.raises(ValueError, match='keywords .*pres'):
      _trace(balancer)
  own = lplmtl.Aggregator(
    lambda key, params, num_tasks: (), lambda gradients, losses, state: None
  )
  with pytest.raises(ValueError, match='keywords present'):
    _trace(own)
