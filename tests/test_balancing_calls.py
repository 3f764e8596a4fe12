"""What all methods take, refuse and promise, whatever their equations."""

import functools
import inspect

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import lplmtl
from lplmtl import balancing
from lplmtl.balancing import _keys, coordinates
from lplmtl.types import Aggregator
from tests import contracts
from tests.test_balancing import (
  AGGREGATORS,
  BALANCERS,
  GRAMIAN,
  GRAMIAN_METHODS,
  LOSSES,
)

KEY = jax.random.key(0)
PARAMS = {'a': jnp.ones((2, 3)), 'b': jnp.ones(4)}
METHODS = {**BALANCERS, **AGGREGATORS}
PRESENT = jnp.array([True, False, True])


def _gradients(num_tasks=3, dtype=np.float32):
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=(num_tasks, *x.shape)), dtype), PARAMS
  )


def _update(method):
  """`(losses, state, **extra) -> (what it makes, state)` of any method."""
  if isinstance(method, Aggregator):

    def update(losses, state, **extra):
      *found, state = method.update(_gradients(), losses, state, **extra)
      return found, state

    return update
  return functools.partial(method.update, gramian=GRAMIAN)


def _first(name, num_tasks=3):
  return balancing.first_state(METHODS[name](), KEY, PARAMS, num_tasks)


@pytest.mark.parametrize('name', METHODS)
def test_first_states_can_be_donated_and_saved(name):
  state = _first(name)
  leaves = jax.tree.leaves(state)
  pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves]
  assert len(set(pointers)) == len(pointers)
  restored = flax.serialization.from_bytes(
    jax.tree.map(jnp.zeros_like, state), flax.serialization.to_bytes(state)
  )
  contracts.assert_trees_equal(restored, state)
  contracts.assert_same_structure(restored, state)


def test_states_with_keys():
  """Such as typed keys were saved as; keys of other generators, too."""
  data = np.asarray(jax.random.key_data(KEY))
  for name in ('rlw', 'random', 'pcgrad', 'graddrop'):
    np.testing.assert_array_equal(_first(name), data)
  np.testing.assert_array_equal(_first('gradvac').key, data)
  other = jax.random.key(0, impl='rbg')
  for method in (balancing.rlw(), balancing.graddrop()):
    state = balancing.first_state(method, other, PARAMS, 3)
    assert state.shape == (2,) and state.dtype == jnp.uint32
  assert _keys.to_data(jnp.asarray(data)) is not None
  for wrong in (0, None, jnp.ones(2), jnp.ones(3, jnp.uint32)):
    with pytest.raises(ValueError, match=r'jax.random.key\(seed\); found'):
      balancing.rlw().init(wrong, 3)


def test_states_of_other_numbers():
  """Of whole numbers, or losses in the state's place."""
  for name in sorted(METHODS):
    method, state = METHODS[name](), _first(name, 2)
    if isinstance(method, Aggregator):
      gradients = _gradients(2)
      extra = {}
      update = functools.partial(method.update, gradients)
    else:
      update, extra = method.update, {'gramian': jnp.eye(2)}
    leaves = jax.tree.leaves(state)
    if not leaves:
      continue
    is_float = any(x.dtype == jnp.float32 for x in leaves)
    other = jax.tree.map(
      lambda x, kind=jnp.int32 if is_float else jnp.float32: x.astype(kind),
      state,
    )
    with pytest.raises(ValueError, match=r'state.* must hold .*, found '):
      update(jnp.ones(2), other, **extra)
    if method.after is not None:
      with pytest.raises(ValueError, match='hold floats, found integers'):
        method.after(jnp.ones(2), jnp.ones(2), other)
    if isinstance(state, jax.Array) and state.shape == (2,):  # a random key
      with pytest.raises(
        ValueError, match='hold unsigned integers, found floats'
      ):
        update(state, jnp.ones(2), **extra)


def test_losses_after_of_another_number():
  method = balancing.famo()
  for wrong in (jnp.ones(2), [1.0] * 4):
    with pytest.raises(ValueError, match=r'same tasks; found shapes \(3'):
      method.after(LOSSES, wrong, _first('famo'))


def test_what_is_no_method():
  for wrong, found in ((balancing.mgda, r'mgda\(\); found'), (None, 'None')):
    with pytest.raises(ValueError, match=f'method must be .*{found}'):
      balancing.first_state(wrong, KEY, PARAMS, 3)
    with pytest.raises(ValueError, match=f'method must be .*{found}'):
      balancing.balance(wrong, _gradients(), LOSSES, ())


def test_a_method_of_ones_own_without_keywords():
  def update(losses, state):
    return losses, state

  wanted = r'keywords present; .*: add present='
  own = lplmtl.Balancer(lambda key, num_tasks: (), update)
  with pytest.raises(ValueError, match=wanted):
    balancing.balance(own, _gradients(), LOSSES, ())
  own = own._replace(needs_gramian=True)
  with pytest.raises(ValueError, match='present, gramian; found'):
    balancing.balance(own, _gradients(), LOSSES, ())
  own = lplmtl.Aggregator(
    lambda key, params, num_tasks: (), lambda gradients, losses, state: None
  )
  with pytest.raises(ValueError, match='add present=None'):
    balancing.balance(own, _gradients(), LOSSES, ())
  own = lplmtl.Balancer(lambda *_: (), lambda losses, state, **_: (losses, ()))
  balancing.balance(own, _gradients(), LOSSES, ())


@pytest.mark.parametrize(
  'shared, complaint',
  [
    ({'a': 'yes', 'b': True}, "hold True or False, found 'yes'"),
    ({'a': 1.0, 'b': 0.0}, 'hold True or False, found 1.0'),
    (True, r'like the parameters, .*; found PyTreeDef\(\*\)'),
    ({'a': True}, "like the parameters, .*'b'.*; found"),
    ({'a': False, 'b': False}, 'at least one parameter, found False for all'),
  ],
)
def test_what_says_not_which_are_shared(shared, complaint):
  for name in ('equal', 'mgda', 'graddrop'):
    with pytest.raises(ValueError, match=f'shared must .*{complaint}'):
      balancing.balance(
        METHODS[name](), _gradients(), LOSSES, _first(name), shared=shared
      )
  for call in (
    lambda: balancing.gramian(_gradients(), shared),
    lambda: balancing.combine(jnp.ones(3), _gradients(), shared),
    lambda: balancing.first_state(
      METHODS['moco'](), KEY, PARAMS, 3, shared=shared
    ),
  ):
    with pytest.raises(ValueError, match=f'shared must .*{complaint}'):
      call()


def _with_tasks():
  """Methods whose state holds something for each task."""
  for name in sorted(METHODS):
    shapes = [
      jax.tree.map(jnp.shape, jax.tree.leaves(_first(name, num_tasks)))
      for num_tasks in (3, 4)
    ]
    if shapes[0] != shapes[1]:
      yield name


def test_states_of_another_number_of_tasks():
  names = list(_with_tasks())
  assert set(names) >= {
    'gradvac', 'famo', 'dwa', 'gradnorm', 'uncertainty', 'moco', 'db_mtl',
  }  # fmt: skip
  for name in names:
    method = METHODS[name]()
    with pytest.raises(ValueError, match=r'shape.*num_tasks=3'):
      _update(method)(LOSSES, _first(name, 2))
    if method.after is not None:
      with pytest.raises(ValueError, match=r'shape.*num_tasks=3'):
        method.after(LOSSES, LOSSES, _first(name, 2))
  with pytest.raises(ValueError, match='expected a GradVacState of 2 arrays, '):
    _update(balancing.gradvac())(LOSSES, _first('famo'))
  # Settings with a number for each task.
  with pytest.raises(ValueError, match='rates .* 3; found 2'):
    balancing.exponential(rates=(0.5, 0.5)).update(LOSSES, jnp.int32(0))


@pytest.mark.parametrize('name', METHODS)
def test_losses_in_a_list_and_what_is_refused(name):
  method, state = METHODS[name](), _first(name)
  update = _update(method)
  for losses in (list(LOSSES), tuple(LOSSES.tolist()), np.asarray(LOSSES)):
    found = jax.eval_shape(lambda s, x=losses: update(x, s), state)
    assert _kinds(found[1]) == _kinds(state)
    if name in ('gls', 'equal'):
      np.testing.assert_array_equal(
        update(losses, state)[0], update(LOSSES, state)[0]
      )
  for wrong in ({'a': 1.0}, [[1.0, 2.0]], ['a', 'b', 'c'], [], 3.0, None):
    with pytest.raises(ValueError, match='losses must '):
      update(wrong, state)
  with pytest.raises(ValueError, match='keywords .* presnet'):
    update(LOSSES, state, presnet=PRESENT)
  with pytest.raises(ValueError, match=r'present must be \(3,\) bool'):
    update(LOSSES, state, present=PRESENT[:2])
  for wrong in (0, 2.0, True, None):
    with pytest.raises(ValueError, match='num_tasks .* whole number'):
      balancing.first_state(method, KEY, PARAMS, wrong)
  if 'scope' in inspect.signature(METHODS[name]).parameters:
    with pytest.raises(ValueError, match="scope must be .* found 'share'"):
      METHODS[name](scope='share')


def test_fractions_of_an_epoch():
  for make in (balancing.dwa, balancing.exponential):
    with pytest.raises(ValueError, match='steps_per_epoch .* whole'):
      make(steps_per_epoch=2.5)


def _double_or_strict(kind):
  if kind == 'x64':
    return contracts.double_precision()
  return jax.numpy_dtype_promotion('strict')


@pytest.mark.parametrize('kind', ['x64', 'strict'])
@pytest.mark.parametrize('name', METHODS)
def test_dtypes(name, kind):
  """Traced alone: float32 gives float32, and states stay what they are."""
  method = METHODS[name]()
  with _double_or_strict(kind):

    def run(present):
      state = balancing.first_state(method, KEY, PARAMS, 3)
      found = balancing.balance(
        method, _gradients(), LOSSES, state, present=present
      )
      if method.after is not None:
        after = method.after(LOSSES, LOSSES, found[2], present=present)
        assert _kinds(after) == _kinds(state)
      return state, found

    for present in (None, PRESENT):
      state, (gradient, weights, new) = jax.eval_shape(run, present)
      assert _kinds(new) == _kinds(state)
      assert jnp.float64 not in [x.dtype for x in jax.tree.leaves(state)]
      assert weights.dtype == jnp.float32
      assert _kinds(gradient) == _kinds(PARAMS)
    if kind == 'x64':  # wider losses and labels change nothing
      state = balancing.first_state(method, KEY, PARAMS, 3)
      wide = jnp.asarray(np.asarray(LOSSES), jnp.float64)
      found = jax.eval_shape(_update(method), wide, state)
      assert _kinds(found[1]) == _kinds(state)


def _kinds(tree):
  return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)


@pytest.mark.parametrize('kind', ['x64', 'strict'])
def test_options_that_have_dtypes(kind):
  each = (0.2, 0.3, 0.5)
  with _double_or_strict(kind):
    for method in (
      balancing.stch(0.1, each, each), balancing.exponential(each, each),
      balancing.famo(lowest=each), balancing.static(each),
      balancing.rlw('dirichlet'), balancing.graddrop(each),
      balancing.mgda('loss+'), balancing.aligned_mtl('median'),
      balancing.aligned_mtl('rmse'), balancing.moco(rho=0.1),
      balancing.uncertainty(),
      balancing.normalized(balancing.mgda()), balancing.fairgrad(0.5),
    ):  # fmt: skip
      state = balancing.first_state(method, KEY, PARAMS, 3)
      weights, new = jax.eval_shape(
        lambda s, method=method: balancing.balance(
          method, _gradients(), LOSSES, s
        )[1:],
        state,
      )
      assert weights.dtype == jnp.float32
      assert _kinds(new) == _kinds(state)


@pytest.mark.parametrize('name', sorted(GRAMIAN_METHODS))
def test_no_gradient_through_a_gramian(name):
  """In a loss that is differentiated with the weights inside."""
  rng = np.random.default_rng(0)
  matrix = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
  balancer, state = BALANCERS[name](), _first(name)

  def losses(params):
    return jnp.tanh(matrix[0] @ params) ** 2 + 0.1 * (matrix[1] @ params) ** 2

  def weigh(params):
    products = balancing.gramian(jax.jacrev(losses)(params))
    return balancer.update(losses(params), state, gramian=products)[0]

  def both(params):
    found = jax.grad(lambda p: jnp.sum(weigh(p) * losses(p)))(params)
    return found, weigh(params) @ jax.jacrev(losses)(params)

  # Where there is a loop, a gradient through it does not even trace.
  has_loop = 'while' in str(jax.make_jaxpr(weigh)(jnp.ones(5)))
  jax.eval_shape(both, jnp.ones(5))
  if not has_loop:
    found, wanted = jax.jit(both)(jnp.ones(5))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', sorted(AGGREGATORS))
def test_no_gradient_through_an_aggregator(name):
  aggregator, state = AGGREGATORS[name](), _first(name)

  def total(gradients, losses):
    found, weights, _ = aggregator.update(gradients, losses, state)
    return sum(jnp.sum(x) for x in jax.tree.leaves((found, weights)))

  slopes = jax.jit(jax.grad(total, (0, 1)))(_gradients(), LOSSES)
  assert not any(x.any() for x in jax.tree.leaves(slopes))


@pytest.mark.parametrize('name', ['mgda', 'gradnorm', 'pcgrad'])
def test_a_gramian_that_is_not_finite(name):
  balancer, state = BALANCERS[name](), _first(name)
  for wrong in (jnp.nan, jnp.inf):
    spoiled = GRAMIAN.at[0, 0].set(wrong)
    weights, _ = balancer.update(LOSSES, state, gramian=spoiled)
    assert np.isnan(weights).all()


def _losses(params):
  return jnp.stack(
    [
      jnp.sum((params['a'] - 1) ** 2) + jnp.sum(params['x'] ** 2),
      jnp.sum((params['a'] + 1) ** 2) + jnp.sum((params['y'] - 2) ** 2),
    ]
  )


@pytest.mark.parametrize('name', sorted(METHODS))
def test_one_loop_for_every_method(name):
  """Also on shared parameters alone, where the others get the plain sum."""
  method, optimizer = METHODS[name](), optax.sgd(0.02)
  params = {'a': jnp.array([0.5, -2.0]), 'x': jnp.ones(1), 'y': jnp.ones(1)}
  shared = {'a': True, 'x': False, 'y': False}
  state = balancing.first_state(method, KEY, params, 2, shared=shared)
  opt_state, first = optimizer.init(params), _losses(params)

  def step(params, state, opt_state):
    losses, each = _losses(params), jax.jacrev(_losses)(params)
    gradient, weights, state = balancing.balance(
      method, each, losses, state, shared=shared
    )
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    params = optax.apply_updates(params, updates)
    if method.after is not None:
      state = method.after(losses, _losses(params), state)
    return params, state, opt_state, gradient, weights, each

  found = jax.eval_shape(step, params, state, opt_state)
  assert _kinds(found[:3]) == _kinds((params, state, opt_state))
  assert method.needs_gramian == (name in GRAMIAN_METHODS)
  if name not in ('famo', 'config', 'excess_mtl'):
    return
  step = jax.jit(step)
  for _ in range(3):
    params, state, opt_state, gradient, weights, each = step(
      params, state, opt_state
    )
    for own in 'xy':
      np.testing.assert_allclose(gradient[own], each[own].sum(axis=0))
    if name in BALANCERS:
      np.testing.assert_allclose(
        gradient['a'], weights @ each['a'], rtol=1e-5, atol=1e-6
      )
  assert _losses(params).sum() < first.sum()


def test_combine_and_gramian_of_some_parameters():
  each, weights = _gradients(), jnp.array([1.0, 2.0, 3.0])
  found = balancing.combine(weights, each, {'a': True, 'b': False})
  np.testing.assert_allclose(
    found['a'], np.einsum('t,tij->ij', weights, each['a']), rtol=1e-5
  )
  np.testing.assert_allclose(found['b'], each['b'].sum(axis=0), rtol=1e-5)
  some = balancing.gramian(each, {'a': False, 'b': True})
  np.testing.assert_allclose(some, each['b'] @ each['b'].T, rtol=1e-5)
  with pytest.raises(
    ValueError, match=r'leading axis .*, 2; found shape \(3, 2'
  ):
    balancing.combine(weights[:2], each)


@pytest.mark.parametrize('num_tasks', [2, 3])
@pytest.mark.parametrize('shared', [None, {'a': False, 'b': True}])
def test_separate_gradients_as_stacked_ones(num_tasks, shared):
  stacked, weights = _gradients(num_tasks), jnp.arange(1.0, num_tasks + 1)
  each = [jax.tree.map(lambda x, k=k: x[k], stacked) for k in range(num_tasks)]
  np.testing.assert_allclose(
    coordinates.products_of(each, shared),
    balancing.gramian(stacked, shared), rtol=1e-5,
  )  # fmt: skip
  contracts.assert_trees_equal(
    coordinates.combine_each(weights, each, shared),
    balancing.combine(weights, stacked, shared),
  )


def test_gradients_in_a_list():
  """T gradients, or the parts of each: nobody can tell."""
  one, two = jnp.arange(4.0), jnp.ones(4)
  for both in ([one, two], (one, two)):
    with pytest.raises(ValueError, match='[Ss]tack T gradients'):
      balancing.gramian(both)
  # Leaves as long as there are tasks do not give it away.
  short = [jnp.ones(3)] * 3
  for name in METHODS:
    with pytest.raises(ValueError, match='[Ss]tack T gradients'):
      balancing.balance(METHODS[name](), short, LOSSES, _first(name))
  stacked = jax.tree.map(lambda *g: jnp.stack(g), *[one, two])
  np.testing.assert_array_equal(balancing.gramian(stacked), [[14, 6], [6, 4]])
  parts = dict(enumerate((stacked, stacked)))
  np.testing.assert_array_equal(balancing.gramian(parts), [[28, 12], [12, 8]])
  for wrong, found in (
    (
      {'a': jnp.ones((2, 3)), 'b': jnp.ones(3)},
      r', 2; found shape \(3,\) at gr',
    ),
    (jnp.ones(()), r'found shape \(\) at gradients\.'),
    ({}, 'at least one array; found none'),
  ):
    with pytest.raises(ValueError, match=found):
      balancing.gramian(wrong)
  with pytest.raises(ValueError, match=r'T, the number of tasks, 3; found sh'):
    balancing.graddrop().update([one, two], LOSSES, _first('graddrop'))


def test_devices_average_gradients_before_the_gramian():
  """By `jax.shard_map`; and the other way round is another matrix."""
  x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
  params = jnp.array([0.3, -0.2, 0.5])

  def losses(params, x):
    return jnp.stack(
      [jnp.mean((x @ params) ** 2), jnp.mean(jnp.sin(x @ params))]
    )

  def step(params, x):
    gradients = jax.lax.pmean(jax.jacrev(losses)(params, x), 'data')
    return balancing.gramian(gradients)

  alone = jax.jit(lambda p, x: balancing.gramian(jax.jacrev(losses)(p, x)))
  wanted = alone(params, x)
  mesh = jax.make_mesh((jax.device_count(),), ('data',), (AxisType.Auto,))
  everywhere, rows = PartitionSpec(), PartitionSpec('data')
  spread = jax.shard_map(
    step, mesh=mesh, in_specs=(everywhere, rows), out_specs=everywhere
  )
  np.testing.assert_allclose(jax.jit(spread)(params, x), wanted, rtol=1e-4)
  # Two devices, as a mapped axis.
  halves = x.reshape(2, 4, 3)
  both = jax.jit(jax.vmap(step, (None, 0), axis_name='data'))
  found = both(params, halves)
  np.testing.assert_allclose(found, jnp.stack([wanted] * 2), rtol=1e-4)
  own = [alone(params, half) for half in halves]
  assert abs(sum(own) / 2 - wanted).max() > 0.01


def test_shared_leaves_are_public():
  model = lplmtl.SharedBottom(contracts.TASKS, bottom=contracts.SMALL)
  params = contracts.random_params(model, jnp.ones((2, 3)))
  shared = lplmtl.shared_leaves(model, params)
  assert jax.tree.structure(shared) == jax.tree.structure(params)
  assert {True, False} == set(jax.tree.leaves(shared))


@pytest.mark.parametrize('name', sorted(GRAMIAN_METHODS))
def test_programs_do_not_grow_with_the_tasks(name):
  def lines(size):
    balancer = BALANCERS[name]()
    state = balancer.init(KEY, size)
    program = jax.jit(
      lambda losses, gramian: balancer.update(losses, state, gramian=gramian)
    ).lower(jnp.ones(size), jnp.eye(size))
    return program.as_text().count('\n')

  assert lines(20) == lines(5)
