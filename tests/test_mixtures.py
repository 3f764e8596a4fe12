"""Gates and numbers of experts: a single expert, gate bodies, numbers per task."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import checkpoint, inspection
from lplmtl.architectures import dselect_k
from lplmtl.compression import cost
from lplmtl.layers import mixture, products
from lplmtl.training import gradients
from tests import contracts

MODELS = contracts.architectures()
X = np.random.default_rng(3).normal(size=(3, 7)).astype(np.float32)
DEEP = {'gate_body': lplmtl.MLP((5, 4))}
# Three tasks, two levels.
VARIANTS = {
  'mmoe': [DEEP, {'num_experts': 1}],
  'omoe': [DEEP, {'num_experts': 1}],
  'stacked_mmoe': [DEEP | {'num_experts': (2, 3)}, {'num_experts': (3, 1)}],
  'dselect_k': [{'num_experts': 1, 'num_selected': 1}, {'num_selected': 1}],
  'cgc': [DEEP | {'num_specific': (0, 3, 1), 'num_shared': 1}],
  'ple': [
    DEEP | {'num_specific': (1, 3, 2)},
    {'num_specific': ((1, 3, 2), 0), 'num_shared': (2, 1)},
  ],
  'sple_concat': [
    DEEP | {'num_specific': (1, 3, 2)}, {'num_top': 1, 'num_shared': (1,)},
  ],
  'sple_identity': [DEEP | {'num_specific': ((1, 3, 2),), 'num_top': 1}],
  'sple_shared': [{'num_top': 1}],
  'adatt': [
    DEEP | {'num_specific': (1, 3, 2)},
    {'num_specific': ((1, 3, 2), 2), 'num_shared': (1, 2)},
  ],
  'stem': [DEEP | {'num_specific': (1, 3, 2)}],
}  # fmt: skip
CASES = [(name, change) for name in VARIANTS for change in VARIANTS[name]]


@pytest.mark.parametrize('name, change', CASES)
def test_reference(name, change):
  model = dataclasses.replace(MODELS[name], **change)
  params = contracts.random_params(model, X)
  found = jax.jit(model.apply)({'params': params}, X)[0]
  contracts.assert_as_reference(name, found, contracts.NAMES, params, X)


@pytest.mark.parametrize(
  'name, dtype', [('ple', 'float32'), ('mmoe', 'bfloat16')]
)
def test_training_computes_what_scoring_does(name, dtype):
  """Training pads products and unrolls mixtures, with a gradient of its own."""
  expert = lplmtl.MLP((6,), dtype=dtype)
  levels = {'levels': (expert, expert)} if name != 'mmoe' else {}
  model = dataclasses.replace(
    MODELS[name], **levels or {'expert': expert}, encoder=None
  )
  params = contracts.random_params(model, X)
  weights = np.random.default_rng(0).normal(size=(3, 1)).astype(np.float32)

  def loss(params, x, train):
    predictions = model.apply({'params': params}, x, train=train)[0]
    return sum(jnp.sum(x * weights) for x in predictions.values())

  grad = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
  found, expected = grad(params, X, True), grad(params, X, False)
  tolerance = {'float32': 1e-5, 'bfloat16': 5e-2}[dtype]
  for new, old in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    scale = np.abs(old).max()
    np.testing.assert_allclose(new, old, atol=tolerance * scale)


@pytest.mark.parametrize(
  'width, num_gates, training',
  [(64, 3, 208), (64, 8, 208), (60, 4, 192), (5, 2, 19)],
)
def test_products_are_as_wide_as_registers(width, num_gates, training):
  """Unless that is over a sixteenth more, as 32 columns for 19."""
  kernels = [jnp.ones((7, 3 * width)), jnp.ones((7, 2 * num_gates))]
  kernels[1:] = jnp.split(kernels[1], 2, axis=1)
  sizes = [kernel.shape[1] for kernel in kernels]
  bias = jnp.arange(sizes[0], dtype=jnp.float32)

  def run(train, x):
    return products.joined(x, kernels, sizes, bias=bias, train=train)

  for train, columns in ((True, training), (False, sum(sizes))):
    one = functools.partial(run, train)
    assert cost.matrix_products(one, X) == [(3, 7, columns)]
    parts = one(X)
    assert [x.shape[1] for x in parts] == sizes
    np.testing.assert_allclose(parts[0], X @ kernels[0] + bias[None], atol=1e-5)
    np.testing.assert_allclose(parts[-1], X @ kernels[-1], atol=1e-5)


def test_one_number_for_all_is_each_number():
  for name, short, long in (
    ('ple', 2, ((2, 2, 2), 2)), ('ple', (1, 3, 2), ((1, 3, 2), (1, 3, 2))),
    ('adatt', 2, (2, 2, 2)), ('stem', 2, (2, 2, 2)), ('cgc', 2, ((2, 2, 2),)),
    ('sple_concat', 2, ([2, 2, 2],)),
  ):  # fmt: skip
    a, b = (
      contracts.random_params(
        dataclasses.replace(MODELS[name], num_specific=counts), X
      )
      for counts in (short, long)
    )
    contracts.assert_trees_equal(a, b)


@pytest.mark.parametrize(
  'name, change, complaint',
  [
    ('ple', {'num_specific': (1, 2)}, r'num_specific .* 3 tasks, .* \(1, 2\)'),
    ('ple', {'num_specific': ((1, 2, 1),) * 3}, 'num_specific .* 2 levels'),
    ('cgc', {'num_specific': (1, 2, -1)}, r'num_specific .* 0, .* \(1, 2, -1\)'),
    ('cgc', {'num_shared': (2,)}, r'num_shared .* \(\(2,\),\)'),
    ('stem', {'num_specific': (1, 2, 0)}, 'num_specific .* at least 1'),
    ('ple', {'num_shared': (1, 2, 3)}, r'num_shared .* 2 levels.* \(1, 2, 3\)'),
    ('sple_concat', {'num_shared': (1, 2)}, 'num_shared .* 1 levels'),
    ('adatt', {'num_shared': (0, 1)}, r'num_shared=\(0, 1\)'),
    ('stacked_mmoe', {'num_experts': (2, 2, 2)}, 'num_experts'),
    ('ple', {'num_specific': '2'}, "num_specific .* '2'"),
  ],
)  # fmt: skip
def test_numbers_that_make_no_sense(name, change, complaint):
  model = dataclasses.replace(MODELS[name], **change)
  with pytest.raises(ValueError, match=complaint):
    jax.eval_shape(model.init, jax.random.key(0), X)


@pytest.mark.parametrize('name', ['omoe', 'stacked_mmoe', 'ple'])
def test_what_deep_gates_share(name):
  """The predicate against what the predictions depend on: on every parameter."""
  levels = {'levels': (contracts.SMALL,) * 2} if name == 'ple' else {}
  model = dataclasses.replace(
    MODELS[name], **levels, gate_body=lplmtl.MLP((5,))
  )
  batch = contracts.batch(16)
  batch = batch._replace(features=batch.features['numeric'])
  params = contracts.random_params(model, batch.features)
  one = jax.tree.map(lambda x: x[None], params)
  _, tasks_of = contracts.reached(model, one, batch)
  assert all(found.any() for found in jax.tree.leaves(tasks_of))
  assert any('hidden_' in str(p) for p in jax.tree.leaves_with_path(tasks_of))
  shared = gradients.shared_leaves(model, params)
  assert shared == jax.tree.map(lambda found: bool(found.sum() > 1), tasks_of)


def test_a_gate_without_a_choice_has_no_parameters(tmp_path):
  """Its weight is 1; models that were saved with one predict as they did."""
  model = dataclasses.replace(MODELS['sple_concat'], num_top=1)
  params = contracts.random_params(model, X)
  assert set(params['level_1']) == {'shared_experts'}
  apply = jax.jit(model.apply)
  predictions, aux = apply({'params': params}, X)
  for name in contracts.NAMES:
    weights = aux['gates'][1][name]['shared_experts']
    assert weights.dtype == jnp.float32
    np.testing.assert_array_equal(weights, np.ones((3, 1)))
  used = inspection.usage(model, params, X)[1]['zebra']['shared_experts']
  np.testing.assert_allclose(used, [1.0])
  old = {f'gate_{name}': jnp.ones((6, 1)) for name in contracts.NAMES}
  before = {**params, 'level_1': {**params['level_1'], **old}}
  checkpoint.save(tmp_path / 'model', model, before)
  loaded, before, _ = checkpoint.load(tmp_path / 'model')
  assert loaded == model
  contracts.assert_trees_equal(apply({'params': before}, X)[0], predictions)


def test_numbers_and_gates_are_saved(tmp_path):
  change = {'num_specific': ((1, 3, 2), 2), 'num_shared': (1, 2), **DEEP}
  model = dataclasses.replace(MODELS['ple'], **change)
  checkpoint.save(tmp_path / 'model', model, {'w': jnp.zeros(1)})
  assert checkpoint.load(tmp_path / 'model')[0] == model


def test_dropout_in_gates():
  wet = lplmtl.MLP((16,), dropout_rate=0.5)
  model = dataclasses.replace(MODELS['mmoe'], gate_body=wet)
  params = {'params': contracts.random_params(model, X)}
  rngs = {'dropout': jax.random.key(0)}

  @functools.partial(jax.jit, static_argnames='train')
  def gates(train):
    return model.apply(params, X, train=train, rngs=rngs)[1]['gates'][0]

  wet, dry = gates(train=True), gates(train=False)
  for name in contracts.NAMES:
    assert not np.allclose(wet[name]['experts'], dry[name]['experts'])


def test_the_old_name_of_a_gate_is_handed_on():
  with pytest.warns(DeprecationWarning, match='mixture.Gate'):
    assert mixture.Selector is mixture.Gate
  with pytest.raises(AttributeError, match='Selectors'):
    mixture.Selectors  # noqa: B018


@pytest.mark.parametrize('gamma', [0.01, 0.1, 1.0, 10.0])
def test_dselect_codes_start_where_the_step_has_a_slope(gamma):
  """Whatever its width, and in the same place relative to it."""
  x = np.random.default_rng(0).normal(size=(500, 20)).astype(np.float32)
  gate = dselect_k._Gate(16, 2, gamma)
  params = jax.jit(gate.init)(jax.random.key(0), x)['params']
  codes = np.einsum('bd,dim->bim', x, params['codes']['kernel'])
  codes = codes + np.asarray(params['codes']['bias'])
  assert (np.abs(codes) < gamma / 2).all()
  np.testing.assert_allclose(codes.std() / gamma, 0.1, rtol=0.3)
