"""Any Linen module as a part, wherever an architecture takes one."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing
from lplmtl.layers import experts, modules
from lplmtl.training import steps
from tests import contracts

MODELS = contracts.architectures() | contracts.chains()
# The readings of SPLE's top take the same parts.
del MODELS['sple_concat'], MODELS['sple_shared']
PLACES = tuple(
  (name, field)
  for name, model in MODELS.items()
  for field in ('encoder', 'bottom', 'expert', 'levels', 'tower')
  if hasattr(model, field)
)
# They use nothing of an MLP but its fields.
FIELDS_ALONE = (('tensor_factorization', 'bottom'), ('mtan', 'levels'))
X = jnp.ones((2, 6))
KEY = jax.random.key(0)


def _with(name, field, module):
  value = module
  if field == 'levels':
    value = (module,) * len(MODELS[name].levels)
  return dataclasses.replace(MODELS[name], **{field: value})


def _programs(model):
  """The texts of a forward pass, in training or not; nothing is compiled."""
  variables = jax.eval_shape(model.init, KEY, X)
  return [
    str(
      jax.make_jaxpr(
        functools.partial(model.apply, rngs={'dropout': KEY}, train=train)
      )(variables, X)
    )
    for train in (True, False)
  ]


class Turned(lplmtl.MLP):
  """An MLP with more to it, which must be told whether it is trained."""

  @nn.compact
  def __call__(self, x, *, train):
    x = super().__call__(x, train=train)
    return jnp.tan(x) if train else jnp.atan2(x, x)


@pytest.mark.parametrize('name, field', PLACES)
def test_a_subclass_is_what_it_is(name, field):
  """Its own `__call__`, and its `train`, count in every place."""
  model = _with(name, field, Turned((6,)))
  if (name, field) in FIELDS_ALONE:
    with pytest.raises(ValueError, match=r'not a subclass, .*Turned'):
      jax.eval_shape(model.init, KEY, X)
    return
  training, scoring = _programs(model)
  assert ' tan ' in training
  assert 'atan2' in scoring and ' tan ' not in scoring


class Normed(nn.Module):
  @nn.compact
  def __call__(self, x, *, train=False):
    return nn.BatchNorm(use_running_average=not train)(nn.Dense(6)(x))


@pytest.mark.parametrize('name, field', sorted({*PLACES} - {*FIELDS_ALONE}))
def test_batch_statistics_are_refused(name, field):
  model = _with(name, field, Normed())
  with pytest.raises(ValueError, match=r"\['batch_stats'\] in Normed"):
    jax.eval_shape(model.init, KEY, X)


class FirstRow(nn.Module):
  """What it returns could be broadcast over the batch."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(6)(x)[:1]


@pytest.mark.parametrize('name, field', sorted({*PLACES} - {*FIELDS_ALONE}))
def test_a_part_that_loses_rows_is_refused(name, field):
  complaint = r'FirstRow must return one array \[B, .* \(1, 6\) .* \(2, '
  with pytest.raises(ValueError, match=complaint):
    jax.eval_shape(_with(name, field, FirstRow()).init, KEY, X)


@pytest.mark.parametrize('name', ['mmoe', 'sple_identity', 'single_task'])
@pytest.mark.parametrize(
  'function, found',
  [
    (lambda x: (x, x), 'tuple'),
    (lambda x: None, 'NoneType'),
    (lambda x: {'a': x}, 'dict'),
    (jnp.sum, r'the shape \(\)'),
  ],
)
def test_a_part_that_returns_no_array_is_refused(name, function, found):
  part = type('Part', (nn.Module,), {'__call__': lambda _, x: function(x)})()
  complaint = rf'Part must return one array .*; found {found}'
  for place, field in PLACES:
    if place == name:
      with pytest.raises(ValueError, match=complaint):
        jax.eval_shape(_with(name, field, part).init, KEY, X)


def test_encoders_read_what_they_like():
  """Arrays of any names; what does not have the rows may be among them."""
  part = type(
    'Part', (nn.Module,), {'__call__': lambda _, x: x['a'] * x['scale']}
  )()
  for name in ('stem', 'soft_sharing'):
    inputs = {'scale': jnp.ones(()), 'a': X}
    model = _with(name, 'encoder', part)
    found = jax.eval_shape(model.init_with_output, KEY, inputs)[0][0]
    assert found == jax.eval_shape(MODELS[name].init_with_output, KEY, X)[0][0]


def _state(model):
  return jax.eval_shape(
    lambda: steps.init_state(
      KEY, model, contracts.TASKS, optax.sgd(0.1), balancing.equal(), X
    )
  )


def test_batch_statistics_of_ones_own_model_are_refused():
  with pytest.raises(ValueError, match=r"\['batch_stats'\]"):
    _state(Normed())
  with pytest.raises(ValueError, match='in BatchNorm: .*LayerNorm'):
    jax.eval_shape(_with('mmoe', 'tower', nn.BatchNorm()).init, KEY, X)


def test_what_is_sown_changes_nothing():
  class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(6)(x)

  class Sower(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = nn.Dense(6)(x)
      self.sow('intermediates', 'x', x)
      return self.perturb('x', x)

  for field in ('encoder', 'expert', 'tower'):
    plain, model = (_with('mmoe', field, part()) for part in (Dense, Sower))
    params = _state(model).params
    assert params == _state(plain).params
    program, expected = (
      str(jax.make_jaxpr(lambda p, m=m: m.apply({'params': p}, X))(params))
      for m in (model, plain)
    )
    assert program == expected


def _keyword(self, x, *, train=False):
  return train


def _position(self, x, train, /):
  return train


def _training(self, x, training=False):
  return training


def _deterministic(self, x, *, deterministic: bool = True):
  return not deterministic


def _both(self, x, mask=None, deterministic=None, train=True):
  assert deterministic == (not train)
  return train


@pytest.mark.parametrize(
  'call', [_keyword, _position, _training, _deterministic, _both]
)
def test_flags(call):
  module = type('Own', (nn.Module,), {'__call__': call})().bind({})
  for train in (False, True):
    assert modules.call(module, X, train=train) is train


def test_flags_that_are_set_or_out_of_reach():
  params = {'params': {}}
  dry = nn.Dropout(0.5, deterministic=True).bind(params)
  assert modules.call(dry, X, train=True) is X  # two values would be an error
  # nn.Sequential hands its keywords to the first layer: it gets none.
  rest = type('Rest', (nn.Module,), {'__call__': lambda self, x, **rest: rest})
  assert modules.call(rest().bind({}), X, train=True) == {}
  hidden = type(
    'Hidden', (nn.Module,), {'__call__': lambda self, x, mask, train, /: x}
  )
  with pytest.raises(ValueError, match="Hidden takes 'train' .*by position"):
    modules.call(hidden().bind({}), X, train=True)
  with pytest.raises(ValueError, match='expected a Linen module'):
    modules.call(nn.Module(), X, train=True)


def test_layers_of_a_sequence_are_told():
  """nn.Sequential itself hands nothing on: its layers would never drop."""
  layers = nn.Sequential(
    [nn.Sequential([nn.Dense(64), jnp.tanh]), nn.Dropout(0.5),
     lplmtl.MLP((64,), dropout_rate=0.5)]
  )  # fmt: skip
  shapes = jax.eval_shape(functools.partial(modules.init, layers), KEY, X)
  assert set(shapes) == {'layers_0', 'layers_2'}
  pool = experts.Experts(layers, 2)
  params = {'params': contracts.random_params(pool, X)}

  @functools.partial(jax.jit, static_argnames='train')
  def run(train):
    return pool.apply(params, X, train=train, rngs={'dropout': KEY})

  dry, wet = ((np.asarray(run(train=t)) == 0).mean() for t in (False, True))
  assert wet > dry + 0.15
  several = nn.Sequential(
    [lambda x: (x, 2 * x), lambda a, b: {'c': b - a}, lambda c: c]
  )
  found = modules.call(several.bind({}), X, train=True)
  np.testing.assert_array_equal(found, X)
  with pytest.raises(ValueError, match='Empty Sequential'):
    modules.call(nn.Sequential([]).bind({}), X, train=True)


@pytest.mark.slow
def test_rematerialised_mlps():
  """As trunk and expert: the checkpoint is there, the numbers stay."""
  plain = lplmtl.MLP((6,), dropout_rate=0.5)
  lean = nn.remat(lplmtl.MLP)((6,), dropout_rate=0.5)
  x = contracts.features()['numeric']

  def run(model, params, **options):
    apply = functools.partial(model.apply, **options)
    return jax.jit(apply)({'params': params}, x)[0]

  training = {'train': True, 'rngs': {'dropout': KEY}}
  for name, field in (('shared_bottom', 'bottom'), ('mmoe', 'expert')):
    usual, model = _with(name, field, plain), _with(name, field, lean)
    params = contracts.random_params(usual, x)
    contracts.assert_same_structure(contracts.random_params(model, x), params)
    program = str(jax.make_jaxpr(lambda p, m=model: run(m, p))(params))
    assert 'checkpoint' in program or 'remat' in program
    dry, wet = run(model, params), run(model, params, **training)
    contracts.assert_trees_close(dry, run(usual, params))
    assert not np.allclose(dry['zebra'], wet['zebra'])
    if field == 'bottom':
      contracts.assert_trees_close(wet, run(usual, params, **training))


@pytest.mark.parametrize(
  'name, field', [('shared_bottom', 'bottom'), ('mmoe', 'expert')]
)
def test_a_static_flag_under_remat(name, field):
  """Flax's way: `train` by position, not traced."""

  class Block(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      x = nn.Dense(6)(x)
      return jnp.tan(x) if train else x

  model = _with(name, field, nn.remat(Block, static_argnums=(2,))())
  training, scoring = _programs(model)
  assert ' tan ' in training and ' tan ' not in scoring


def test_mapped_mlps():
  """nn.vmap makes a subclass too: here a kernel for each column."""
  each = nn.vmap(
    lplmtl.MLP, in_axes=1, out_axes=1, variable_axes={'params': 0},
    split_rngs={'params': True, 'dropout': True},
  )((4,))  # fmt: skip
  pool = experts.Experts(each, 2)
  x = jnp.ones((3, 5, 7))
  shapes = jax.eval_shape(pool.init, KEY, x)['params']['stack']
  assert shapes['layer_0']['kernel'].shape == (2, 5, 7, 4)
  params = contracts.random_params(pool, x)
  one = jax.tree.map(lambda v: v[1], params['stack'])
  expected = each.apply({'params': one}, x)
  found = pool.apply({'params': params}, x)[:, 1]
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_experts_without_parameters():
  for expert in (lplmtl.MLP(()), nn.Sequential([jnp.tanh])):
    pool = experts.Experts(expert, 3)
    variables = pool.init(KEY, X)
    assert pool.apply(variables, X).shape == (2, 3, 6)


@pytest.mark.parametrize('name', ['shared_bottom', 'mmoe'])
def test_dropout_wants_a_key(name):
  field = 'bottom' if name == 'shared_bottom' else 'expert'
  model = _with(name, field, lplmtl.MLP((6,), dropout_rate=0.5))
  params = contracts.random_params(model, X)
  with pytest.raises(ValueError, match='needs a random key'):
    jax.eval_shape(lambda p: model.apply(p, X, train=True), {'params': params})
  # Without dropout no key is needed, and training computes the same.
  training, predicting = (
    jax.jit(lambda p, t=t: MODELS[name].apply({'params': p}, X, train=t))(
      params
    )
    for t in (True, False)
  )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
    training, predicting,
  )  # fmt: skip
