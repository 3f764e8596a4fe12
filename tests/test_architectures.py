"""Contracts, references and identities of all architectures."""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import architectures, losses, prng, tasks
from lplmtl.layers import experts
from tests import contracts, reference

NAMES = tuple(contracts.architectures())
MODELS = contracts.architectures(encoder=contracts.encoder())
CHAINS = contracts.chains(encoder=contracts.encoder())
MODELS |= CHAINS
KEY = jax.random.key(0)
X = contracts.features()


@functools.cache
def apply(model):
  """A model's jitted forward pass, compiled once for all tests."""
  return jax.jit(model.apply)


@functools.cache
def draw(model, seed=0):
  return contracts.random_params(model, X, seed)


def predict(model, params):
  return apply(model)({'params': params}, X)[0]


def encoded(params):
  """What the encoder makes of X, `[B, D]`, by NumPy."""
  table = np.asarray(params['encoder']['embedding'])
  first = np.cumsum((0, *contracts.NUM_CATEGORIES[:-1]))
  rows = table[np.asarray(X['categories']) + first]
  return np.concatenate([rows.reshape(len(rows), -1), X['numeric']], axis=1)


def with_one_encoder(params):
  """The parameters, the first encoder's for every encoder."""
  names = [name for name in params if name.startswith('encoder')]
  return params | dict.fromkeys(names, params[names[0]])


def test_chains_are_listed_as_such():
  for listed, table in (
    (architectures.ARCHITECTURES, contracts.architectures()),
    (architectures.CHAINS, contracts.chains()),
  ):
    assert set(listed) == {type(model) for model in table.values()}


@pytest.mark.parametrize('name', MODELS)
def test_contract(name):
  model = MODELS[name]
  params = {'params': draw(model)}
  predictions, aux = apply(model)(params, X)
  assert set(predictions) == {task.name for task in model.tasks}
  for task in model.tasks:
    assert predictions[task.name].shape == (7, task.num_outputs)
    assert predictions[task.name].dtype == jnp.float32
  for level in aux['gates']:
    for pools in level.values():
      weights = np.concatenate(list(pools.values()), axis=1)
      assert weights.shape[0] == 7
      np.testing.assert_allclose(weights.sum(axis=1), np.ones(7), atol=1e-6)
      # DSelect-k selects few experts and gives the others no weight.
      assert (weights >= 0 if name == 'dselect_k' else weights > 0).all()
  # A row does not depend on the others.
  kept = np.isin(np.arange(7), (2, 3, 4))
  other = jax.tree.map(
    lambda a, b: np.where(kept[:, None], a, b), X, contracts.features(seed=1)
  )
  changed = apply(model)(params, other)[0]
  for task in predictions:
    before, after = np.asarray(predictions[task]), np.asarray(changed[task])
    np.testing.assert_allclose(before[kept], after[kept], atol=1e-6)


# One that calls `mixture.mix` itself, one with levels, one with its own gates.
@pytest.mark.parametrize('name', ['mmoe', 'sple_concat', 'dselect_k'])
def test_jit_does_not_change_the_result(name):
  params = {'params': draw(MODELS[name])}
  contracts.assert_trees_close(
    apply(MODELS[name])(params, X), MODELS[name].apply(params, X)
  )


# Made of the layers of others, which are computed.
OF_OTHERS = {
  'single_task', 'soft_sharing', 'omoe', 'stacked_mmoe', 'cgc', 'sple_concat',
  'sple_identity', 'sple_shared',
}  # fmt: skip


@pytest.mark.parametrize('name', MODELS)
def test_bfloat16(name):
  model = MODELS[name]
  low, rough = jax.tree.map(
    lambda v: np.asarray(v, 'bfloat16') if v.dtype == np.float32 else v,
    (draw(model), X),
  )
  dtypes = jax.eval_shape(model.apply, {'params': low}, rough)
  assert {x.dtype for x in jax.tree.leaves(dtypes)} == {jnp.dtype('float32')}
  if name not in OF_OTHERS:
    expected = predict(model, draw(model))
    found = apply(model)({'params': low}, rough)[0]
    for task in expected:
      np.testing.assert_allclose(
        found[task], expected[task], atol=0.1, rtol=0.1
      )


# Their gates mix all experts: two of each task, then the shared ones.
MIX_ALL = ('adatt', 'stem')


def _turn(params, architecture):
  """Parameters that follow the order of three tasks, for the reversed order."""

  def turn(path, leaf):
    name = path[-1].key
    if name.startswith('stitch_'):
      return leaf[::-1]
    mixes_all = name == 'shared_gate' or architecture in MIX_ALL
    if name.startswith(('gate_', 'shared_gate')) and mixes_all:
      parts = np.split(leaf, [2, 4, 6], axis=1)
      return np.concatenate([parts[2], parts[1], parts[0], parts[3]], axis=1)
    return leaf

  return jax.tree_util.tree_map_with_path(turn, params)


def _batch(model):
  batch = contracts.batch(len(X['numeric']))
  zeros_and_ones = batch.labels['zebra']
  chain = {task.name: zeros_and_ones for task in contracts.CHAIN}
  return batch._replace(labels=batch.labels | chain)


@pytest.mark.parametrize('name', MODELS)
def test_order_of_tasks_and_vmap_and_what_is_shared(name):
  """The reversed tasks (but for a chain), mapped over sets of parameters.

  By this program, too: what is shared receives more than one task's gradient.
  """
  model, turned = MODELS[name], MODELS[name]
  plain = [jax.device_get(draw(model, seed)) for seed in range(3)]
  sets = plain
  if name not in CHAINS:
    turned = dataclasses.replace(model, tasks=contracts.TASKS[::-1])
    sets = [_turn(params, name) for params in plain]
  both = jax.tree.map(lambda *leaves: np.stack(leaves), *sets)
  found, tasks_of = contracts.reached(turned, both, _batch(model))
  contracts.assert_shared_as_reached(turned, tasks_of)
  for i, params in enumerate(plain):
    contracts.assert_trees_close(
      jax.tree.map(lambda v, i=i: v[i], found),
      predict(model, params),
      atol=1e-4,
      rtol=1e-4,
    )


@pytest.mark.parametrize('name', MODELS)
def test_reference(name):
  """Each row against a literal loop over the paper's equations."""
  model = MODELS[name]
  params = with_one_encoder(jax.device_get(draw(model)))
  encoder = next(v for k, v in params.items() if k.startswith('encoder'))
  contracts.assert_as_reference(
    name,
    predict(model, params),
    tuple(task.name for task in model.tasks),
    {k: v for k, v in params.items() if not k.startswith('encoder')},
    encoded({'encoder': encoder}),
  )


def test_mmoe_with_one_expert_is_shared_bottom():
  mmoe = dataclasses.replace(MODELS['mmoe'], num_experts=1)
  params = draw(mmoe)
  same = {k: v for k, v in params.items() if k.startswith(('tower', 'encoder'))}
  bottom = jax.tree.map(lambda v: v[0], params['experts'])
  contracts.assert_trees_close(
    predict(mmoe, params),
    predict(MODELS['shared_bottom'], {'bottom': bottom, **same}),
  )


def test_one_level_ple_is_cgc():
  cgc = MODELS['cgc']
  ple = dataclasses.replace(
    MODELS['ple'], levels=(cgc.expert,), tower=cgc.tower
  )
  contracts.assert_trees_close(predict(ple, draw(cgc)), predict(cgc, draw(cgc)))


def test_cgc_without_specific_experts_is_mmoe():
  cgc = dataclasses.replace(MODELS['cgc'], num_specific=0, num_shared=4)
  params = draw(cgc)
  level = dict(params['level_0'])
  level['experts'] = level.pop('shared_experts')
  others = {k: v for k, v in params.items() if k != 'level_0'}
  contracts.assert_trees_close(
    predict(cgc, params), predict(MODELS['mmoe'], {**others, **level})
  )


def test_one_level_of_stacked_mmoe_is_mmoe():
  mmoe = MODELS['mmoe']
  stacked = dataclasses.replace(
    MODELS['stacked_mmoe'], levels=(mmoe.expert,), num_experts=4
  )
  params = draw(stacked)
  flat = {**params, **params['level_0']}
  del flat['level_0']
  contracts.assert_trees_close(predict(stacked, params), predict(mmoe, flat))


def test_mmoe_with_equal_gates_is_omoe():
  params = dict(draw(MODELS['omoe']))
  expected = predict(MODELS['omoe'], params)
  gate = params.pop('gate')
  gates = {f'gate_{name}': gate for name in contracts.NAMES}
  contracts.assert_trees_close(
    predict(MODELS['mmoe'], {**params, **gates}), expected
  )


def _for_each_task(params):
  """Parameters with a shared encoder, for a model with one per task."""
  copies = {f'encoder_{name}': params['encoder'] for name in contracts.NAMES}
  return copies | {k: v for k, v in params.items() if k.startswith('tower_')}


def test_stitches_of_the_identity_are_single_tasks():
  stitched = dataclasses.replace(
    MODELS['cross_stitch'], levels=(contracts.SMALL,)
  )
  params = draw(stitched)
  single = _for_each_task(params)
  level = dict(params['level_0'])
  for i, name in enumerate(contracts.NAMES):
    level[f'stitch_{name}'] = np.zeros((3, 6), np.float32)
    level[f'stitch_{name}'][i] = 1.0
    single[f'bottom_{name}'] = jax.tree.map(
      lambda v: v[0], level[f'trunk_{name}']
    )
  contracts.assert_trees_close(
    predict(stitched, {**params, 'level_0': level}),
    predict(MODELS['single_task'], single),
  )


def test_single_task_with_one_task_is_shared_bottom():
  single, shared = (
    dataclasses.replace(MODELS[name], tasks=contracts.TASKS[:1])
    for name in ('single_task', 'shared_bottom')
  )
  params = draw(shared)
  own = {
    'encoder_zebra': params['encoder'],
    'bottom_zebra': params['bottom'],
    'tower_zebra': params['tower_zebra'],
  }
  contracts.assert_trees_close(predict(single, own), predict(shared, params))


def test_full_rank_tensor_factors_can_be_any_single_task_layer():
  """Unit factors: the core is then the stack of the kernels itself."""
  model = dataclasses.replace(
    MODELS['tensor_factorization'], bottom=contracts.SMALL, ranks=(7, 6, 3)
  )
  params = draw(model)
  layer = dict(params['layer_0'])
  unit = lambda n: np.eye(n, dtype=np.float32)  # noqa: E731
  layer |= {'input_factor': unit(7), 'output_factor': unit(6)}
  single = _for_each_task(params)
  core = np.asarray(layer['core'])
  for i, name in enumerate(contracts.NAMES):
    layer[f'task_factor_{name}'] = unit(3)[i]
    dense = {'kernel': core[:, :, i], 'bias': layer[f'bias_{name}']}
    single[f'bottom_{name}'] = {'layer_0': dense}
  contracts.assert_trees_close(
    predict(model, {**params, 'layer_0': layer}),
    predict(MODELS['single_task'], single),
  )


def test_penalties_are_the_papers():
  def penalty(name):
    params = draw(MODELS[name])
    predictions, aux = apply(MODELS[name])({'params': params}, X)
    return MODELS[name], params, predictions, aux['penalty']

  model, params, _, found = penalty('soft_sharing')
  expected = reference.soft_sharing_penalty(
    params, contracts.NAMES, model.strength
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  model, params, _, found = penalty('dselect_k')
  entropies = [
    sum(
      reference.dselect_gate(params[f'gate_{k}'], row)[1]
      for k in contracts.NAMES
    )
    for row in np.float64(encoded(params))
  ]
  np.testing.assert_allclose(
    found, model.entropy * np.mean(entropies), rtol=1e-4
  )
  model, params, predictions, found = penalty('aitm')
  p = [reference.sigmoid(predictions[t.name]) for t in contracts.CHAIN]
  expected = sum(np.maximum(b - a, 0).mean() for a, b in itertools.pairwise(p))
  assert expected > 0
  np.testing.assert_allclose(found, model.calibration * expected, rtol=1e-5)


def test_dselect_gates_become_binary():
  """Saturated codes select at most k experts, and leave no entropy."""
  model = MODELS['dselect_k']
  sure = lambda path, v: 50 * v if 'codes' in str(path) else v  # noqa: E731
  params = jax.tree_util.tree_map_with_path(sure, jax.device_get(draw(model)))
  _, aux = apply(model)({'params': params}, X)
  for pools in aux['gates'][0].values():
    weights = np.asarray(pools['experts'])
    assert ((weights > 0).sum(axis=1) <= model.num_selected).mean() > 0.7


def test_probabilities_along_a_chain():
  """ESMM: never rising, and finite where they are next to 0 or 1."""
  model = MODELS['esmm']
  params = jax.device_get(draw(model))
  for scale in (1.0, 1e3):
    towers = {
      k: jax.tree.map(lambda v, s=scale: np.float32(s) * v, v)
      if 'tower' in k
      else v
      for k, v in params.items()
    }
    found = jax.device_get(predict(model, towers))
    view, click, buy = (found[t.name] for t in contracts.CHAIN)
    assert (click <= view + 1e-4).all() and (buy <= click + 1e-4).all()
    assert np.isfinite(buy).all()


@pytest.mark.parametrize('scale', [1.0, 1e3])
def test_conditional_probabilities_of_a_chain(scale):
  """ESMM's own target, p(step | the step before): also where it is 0 or 1."""
  model = MODELS['esmm']
  params = jax.tree.map(
    lambda v: np.float32(scale**0.5) * v, jax.device_get(draw(model))
  )
  predictions, aux = jax.device_get(apply(model)({'params': params}, X))
  found = aux['conditional_logits']
  assert set(found) == {task.name for task in contracts.CHAIN}
  for i, row in enumerate(np.float64(encoded(params))):
    p = 1.0
    for name in (task.name for task in contracts.CHAIN):
      bottom, tower = (params[f'{part}_{name}'] for part in ('bottom', 'tower'))
      logit = reference.tower(tower, reference.mlp(bottom, row))
      assert found[name].shape == (7, 1) and found[name].dtype == jnp.float32
      np.testing.assert_allclose(found[name][i], logit, rtol=1e-4, atol=1e-4)
      if scale == 1:  # else the quotient is 0 / 0
        before, p = p, reference.sigmoid(np.float64(predictions[name][i]))
        np.testing.assert_allclose(
          reference.sigmoid(np.float64(found[name][i])), p / before, rtol=1e-4
        )
  if scale > 1:
    assert max(np.abs(v).max() for v in found.values()) > 100


def test_sple_shared_is_ple_with_its_top_experts_pruned():
  """top='shared' = a PLE whose top gates give specific experts no weight."""
  ple = MODELS['ple']
  sple = dataclasses.replace(
    MODELS['sple_shared'], levels=ple.levels, num_top=ple.num_shared,
    tower=ple.tower,
  )  # fmt: skip
  params, unpruned = draw(sple), draw(ple, seed=1)
  top = {
    **unpruned['level_1'],
    'shared_experts': params['level_1']['shared_experts'],
  }
  # The gates read relus, never below 0: -1e4 in a column shuts it.
  for name in contracts.NAMES:
    kernel = np.asarray(params['level_1'][f'gate_{name}'])
    shut = np.full((len(kernel), ple.num_specific), -1e4, np.float32)
    top[f'gate_{name}'] = np.concatenate([shut, kernel], axis=1)
  contracts.assert_trees_close(
    predict(ple, {**params, 'level_1': top}), predict(sple, params)
  )


def test_any_module_can_be_the_expert():
  """Convolutional experts and a tower with layers of its own."""
  image = np.random.default_rng(0).normal(size=(3, 6, 6, 1)).astype(np.float32)
  flatten = lambda x: x.reshape(x.shape[0], -1)  # noqa: E731
  conv = nn.Sequential([nn.Conv(2, (3, 3)), nn.relu])
  tower = nn.Sequential([flatten, nn.Dense(4), nn.relu])
  pair = (tasks.binary('a'), tasks.binary('b'))
  model = lplmtl.PLE(pair, levels=(conv, conv), num_shared=1, tower=tower)
  params = contracts.random_params(model, image, seed=0)
  kernel = params['level_0']['specific_experts_a']['layers_0']['kernel']
  assert kernel.shape == (2, 3, 3, 1, 2)
  # Towers do not share what their template holds.
  assert set(params) == {'level_0', 'level_1', 'tower_a', 'tower_b'}
  predictions, aux = jax.eval_shape(model.apply, {'params': params}, image)
  assert predictions['a'].shape == (3, 1)
  widths = {k: v.shape[1] for k, v in aux['gates'][0]['shared'].items()}
  assert widths == {
    'specific_experts_a': 2, 'specific_experts_b': 2, 'shared_experts': 1
  }  # fmt: skip
  # The convolution of expert 1, by itself; each draws its own parameters.
  pool = experts.Experts(nn.Conv(2, (3, 3)), 3)
  stack = jax.jit(pool.init)(prng.row_key(KEY), image)
  outputs = jax.jit(pool.apply)(stack, image)
  kernels = np.asarray(stack['params']['stack']['kernel'])
  assert not np.allclose(kernels[0], kernels[1])
  one = jax.tree.map(lambda v: v[1], stack['params']['stack'])
  alone = nn.Conv(2, (3, 3)).apply({'params': one}, image)
  assert outputs.shape == (3, 3, 6, 6, 2)
  np.testing.assert_allclose(np.asarray(outputs)[:, 1], alone, atol=1e-5)


def _input(rows=5, width=7):
  x = np.random.default_rng(0).normal(size=(rows, width))
  return x.astype(np.float32)


def test_experts_may_not_have_other_collections():
  pool = experts.Experts(nn.BatchNorm(use_running_average=True), 2)
  with pytest.raises(ValueError, match=r"collections \['batch_stats'\]"):
    jax.eval_shape(pool.init, KEY, _input())


def test_parameters_of_another_number_of_experts_are_refused():
  three, two = (experts.Experts(contracts.SMALL, n) for n in (3, 2))
  params = contracts.random_params(three, _input())
  with pytest.raises(ValueError, match="'stack' must hold 2 experts"):
    jax.eval_shape(two.apply, {'params': params}, _input())


def test_mlps_of_several_layers_run_as_each_alone():
  """The joint contraction of a pool, expert by expert."""
  expert = lplmtl.MLP((5, 4), activation=jnp.tanh)
  pool = experts.Experts(expert, 3)
  x = _input()
  stack = contracts.random_params(pool, x)['stack']
  outputs = np.asarray(jax.jit(pool.apply)({'params': {'stack': stack}}, x))
  alone = jax.jit(jax.vmap(expert.apply, (0, None)))({'params': stack}, x)
  np.testing.assert_allclose(outputs.transpose(1, 0, 2), alone, atol=1e-6)


def test_initial_scale_follows_each_experts_own_fan_in():
  pool = experts.Experts(lplmtl.MLP((400,)), 5)
  x = jnp.zeros((1, 100))
  params = jax.jit(pool.init)(prng.row_key(KEY), x)['params']
  kernel = np.asarray(params['stack']['layer_0']['kernel'])
  assert kernel.shape == (5, 100, 400)
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / 100), rtol=0.02)


def test_bfloat16_is_for_the_products_alone():
  """In experts and towers; gates and logits stay float32."""
  low, high = lplmtl.MLP((32,), dtype='bfloat16'), lplmtl.MLP((32,))
  x = _input()
  full = lplmtl.MMoE(contracts.TASKS, expert=high, tower=high)
  half = lplmtl.MMoE(contracts.TASKS, expert=low, tower=low)
  params = contracts.random_params(half, x)
  contracts.assert_same_structure(params, contracts.random_params(full, x))
  run = lambda model: jax.jit(model.apply)({'params': params}, x)  # noqa: E731
  (exact, _), (rough, aux) = run(full), run(half)
  for name in exact:
    assert rough[name].dtype == jnp.float32
    np.testing.assert_allclose(rough[name], exact[name], atol=0.1)
    assert not np.array_equal(rough[name], exact[name])
  for pools in aux['gates'][0].values():
    assert pools['experts'].dtype == jnp.float32
    total = np.asarray(pools['experts']).sum(axis=1)
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_factors_have_the_dtype_of_their_mlp():
  small = MODELS['tensor_factorization']
  low = dataclasses.replace(small, bottom=lplmtl.MLP((6, 5), dtype='bfloat16'))
  contracts.assert_same_structure(draw(low), draw(small))
  exact, rough = (predict(model, draw(low))['zebra'] for model in (small, low))
  assert rough.dtype == jnp.float32 and not np.array_equal(rough, exact)
  np.testing.assert_allclose(rough, exact, atol=0.1, rtol=0.1)


def test_dropout_acts_in_training_only():
  model = lplmtl.MMoE(
    contracts.TASKS, expert=lplmtl.MLP((32,), dropout_rate=0.5)
  )
  x = _input()
  params = {'params': contracts.random_params(model, x)}

  @functools.partial(jax.jit, static_argnames='train')
  def run(seed, train=True):
    rngs = {'dropout': jax.random.key(seed)}
    return model.apply(params, x, train=train, rngs=rngs)[0]['zebra']

  dry = run(0, train=False)
  np.testing.assert_array_equal(dry, run(1, train=False))
  noisy = [run(seed) for seed in (0, 0, 1)]
  np.testing.assert_array_equal(noisy[0], noisy[1])
  assert not np.allclose(noisy[0], noisy[2])
  assert not np.allclose(noisy[0], dry)


def test_models_with_equal_fields_are_equal():
  """So that jit recognises a model that was built twice."""
  again = contracts.architectures(encoder=contracts.encoder())
  for name in NAMES:
    assert again[name] == MODELS[name]
    assert hash(again[name]) == hash(MODELS[name])


@pytest.mark.parametrize(
  'change, complaint',
  [
    ({'num_shared': 0}, 'num_shared .* at least 1'),
    ({'num_shared': 2.5}, r'num_shared .* 2\.5'),
    ({'num_shared': True}, 'num_shared .* True'),
    ({'num_specific': -1}, 'num_specific .* at least 0'),
    ({'num_specific': (True, 2)}, r'num_specific .* \(True, 2\)'),
    ({'num_top': True}, 'shared_experts .* True'),
    ({'levels': ()}, 'levels'),
    ({'levels': lplmtl.MLP((4,))}, 'levels.* one MLP'),
    ({'levels': (16, 16)}, 'levels'),
    ({'levels': (lplmtl.MLP((0,)),) * 2}, r'widths .* \(0,\)'),
    ({'levels': (lplmtl.MLP((4,), activation='relu'),) * 2}, 'activation'),
    ({'levels': (lplmtl.MLP((8,)), lplmtl.MLP((4,))), 'top': 'identity'},
     r'equal widths; .*\(8,\).*\(4,\)'),
    ({'top': 'none'}, "'none'"),
    ({'tasks': ()}, 'at least one task'),
    ({'tasks': (tasks.binary('a'), tasks.binary('a'))}, 'different names'),
    ({'tasks': (tasks.binary('shared'),)}, "'shared'"),
    ({'tasks': (tasks.binary('shared_experts'),)}, "'shared_experts'"),
    ({'tasks': tasks.binary('a')}, 'tuple of lplmtl.Task'),
    ({'tasks': ('a', 'b')}, 'tuple of lplmtl.Task'),
    ({'tower': 32}, 'Linen module .* 32'),
    ({'tower': None}, 'Linen module .* None'),
    ({'tower': lplmtl.MLP}, 'not its class'),
    ({'tower': lplmtl.MLP(64)}, 'widths .* 64'),
    ({'tower': lplmtl.MLP(('8',))}, 'widths'),
    ({'tower': lplmtl.MLP((True,))}, r'widths .* \(True,\)'),
    ({'tower': lplmtl.MLP((), dtype='float17')}, "dtype .* 'float17'"),
    ({'tower': lplmtl.MLP((4,), dtype=jnp.int32)}, 'dtype .*int'),
  ],
)  # fmt: skip
def test_sizes_that_make_no_sense(change, complaint):
  _refused(lplmtl.SPLE(contracts.TASKS), change, complaint)


@pytest.mark.parametrize(
  'name, change, complaint',
  [
    ('dselect_k', {'num_experts': 6}, 'power of 2 .* 6: take 8'),
    ('dselect_k', {'num_experts': 0}, 'take 1'),
    ('dselect_k', {'num_experts': True}, 'True'),
    ('dselect_k', {'num_experts': 4.0}, r'4\.0: take 4'),
    ('dselect_k', {'num_selected': 5}, 'num_selected .* 4; found 5'),
    ('dselect_k', {'num_selected': True}, 'num_selected .* True'),
    ('dselect_k', {'gamma': 0.0}, 'gamma'),
    ('dselect_k', {'entropy': -1.0}, 'entropy'),
    ('tensor_factorization', {'ranks': 4}, 'ranks'),
    ('tensor_factorization', {'ranks': (4, 0, 2)}, 'ranks'),
    ('tensor_factorization', {'ranks': (4, True, 2)}, 'ranks'),
    ('tensor_factorization', {'bottom': nn.Dense(4)}, 'bottom.* Dense'),
    ('tensor_factorization', {'bottom': lplmtl.MLP((0,))}, 'widths'),
    ('tensor_factorization', {'bottom': lplmtl.MLP((4,), 'relu')}, 'activation'),
    ('mtan', {'levels': (lplmtl.MLP((4, 4)),)}, 'of one layer'),
    ('mtan', {'levels': (nn.Dense(4),)}, r"\['Dense'\]"),
    ('mtan', {'levels': (lplmtl.MLP((0,)),)}, 'widths'),
    ('mtan', {'levels': (lplmtl.MLP(4),)}, 'widths'),
    ('mtan', {'levels': (lplmtl.MLP((4,), 'relu'),)}, 'activation'),
    ('adatt', {'num_specific': 0}, 'num_specific .* at least 1'),
    ('stem', {'num_specific': 0}, 'num_specific .* at least 1'),
    ('cross_stitch', {'levels': ()}, 'levels'),
    ('cross_stitch', {'own': 2.0}, 'own'),
    ('soft_sharing', {'strength': '0.1'}, "strength .* '0.1'"),
    ('soft_sharing', {'strength': -1.0}, 'strength'),
    ('aitm', {'calibration': float('nan')}, 'calibration'),
    ('aitm', {'tasks': contracts.TASKS}, "'apple' is not binary"),
    ('esmm', {'tasks': contracts.CHAIN[:1]}, 'two or more binary tasks'),
    ('esmm', {'tasks': (contracts.CHAIN[0], tasks.regression('price'))},
     "'price' is not binary"),
    ('mmoe', {'expert': (lplmtl.MLP((4,)),)}, 'Linen module'),
    ('mmoe', {'num_experts': True}, 'experts .* True'),
    ('stacked_mmoe', {'num_experts': True}, 'num_experts .* True'),
    ('stacked_mmoe', {'num_experts': 0}, 'num_experts .* at least 1'),
    ('omoe', {'num_experts': 0}, 'experts .* at least 1'),
  ],
)  # fmt: skip
def test_what_an_architecture_refuses(name, change, complaint):
  _refused(
    (contracts.architectures() | contracts.chains())[name], change, complaint
  )


def _refused(model, change, complaint):
  model = dataclasses.replace(model, **change)
  with pytest.raises(ValueError, match=complaint):
    jax.eval_shape(model.init, KEY, _input())


def _with_numpy(value):
  """Python's whole numbers as NumPy's."""
  if type(value) is int:
    return np.int64(value)
  if isinstance(value, tuple):
    return tuple(map(_with_numpy, value))
  if isinstance(value, lplmtl.MLP):
    return dataclasses.replace(value, widths=_with_numpy(value.widths))
  return value


@pytest.mark.parametrize('name', MODELS)
def test_numbers_of_numpy(name):
  model = MODELS[name]
  fields = [f.name for f in dataclasses.fields(model) if f.init]
  change = {f: _with_numpy(getattr(model, f)) for f in fields if f != 'tasks'}
  other = dataclasses.replace(model, **change)
  shapes = jax.eval_shape(other.init, KEY, X)['params']
  assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, draw(model))


class Twice(nn.Module):
  """A trunk without parameters."""

  def __call__(self, x):
    return 2 * x


@pytest.mark.parametrize('name', ['single_task', 'soft_sharing'])
@pytest.mark.parametrize('bottom', [None, Twice()])
def test_trunks_without_parameters(name, bottom):
  model = dataclasses.replace(contracts.architectures()[name], bottom=bottom)
  x = _input()
  params = contracts.random_params(model, x)
  assert set(params) == {f'tower_{t.name}' for t in model.tasks}
  predictions, aux = jax.jit(model.apply)({'params': params}, x)
  assert all(y.shape[0] == len(x) for y in predictions.values())
  assert aux.get('penalty', 0.0) == 0.0


@pytest.mark.parametrize('name', ['single_task', 'soft_sharing', 'stem'])
def test_encoders_of_tasks_share_nothing_of_a_wrapped_module(name):
  wrapped = lplmtl.CrossNetwork(contracts.encoder(), rank=2)
  model = contracts.architectures(encoder=wrapped)[name]
  params = jax.eval_shape(model.init, KEY, contracts.features())['params']
  readers = [t.name for t in model.tasks] + ['shared'] * (name == 'stem')
  assert {f'encoder_{reader}' for reader in readers} <= set(params)
  for reader in readers:
    assert 'encoder' in params[f'encoder_{reader}'], reader


def test_encoder():
  encoder = lplmtl.TabularEncoder((3, 4), embed_dim=2)
  x = {
    'categories': np.array([[2, 0], [1, 3]]),
    'numeric': np.array([[0.5], [1.5]], np.float32),
  }
  params = {'params': contracts.random_params(encoder, x)}
  table = np.asarray(params['params']['embedding'])
  assert table.shape == (7, 2)
  expected = [
    [*table[2], *table[3 + 0], 0.5],
    [*table[1], *table[3 + 3], 1.5],
  ]
  found = jax.jit(encoder.apply)(params, x)
  np.testing.assert_array_equal(found, np.array(expected))
  wrong = {**x, 'categories': np.zeros((2, 3), np.int32)}
  with pytest.raises(ValueError, match=r'shape \[B, 2\], found \(2, 3\)'):
    jax.eval_shape(encoder.apply, params, wrong)
  with pytest.raises(ValueError, match='num_ordered .* 2 columns, found 3'):
    other = lplmtl.TabularEncoder((3, 4), 2, num_ordered=3)
    jax.eval_shape(other.init, KEY, x)
  bare = {**x, 'categories': np.zeros((2, 0), np.int32)}
  only_numbers = lplmtl.TabularEncoder(()).apply({}, bare)
  np.testing.assert_array_equal(only_numbers, x['numeric'])


def test_bins_in_their_order():
  """Each bin's own vector, and the steps up to it."""
  encoder = lplmtl.TabularEncoder((2, 3, 4), embed_dim=2, num_ordered=2)
  x = {
    'categories': np.array([[1, 2, 0], [0, 0, 3]]),
    'numeric': np.zeros((2, 1), np.float32),
  }
  params = {'params': contracts.random_params(encoder, x)}
  table, steps = (np.array(params['params'][n]) for n in ('embedding', 'steps'))
  assert table.shape == (9, 2) and steps.shape == (7, 2)
  first = [
    table[1],
    table[2 + 2] + 0.3 * (steps[0] + steps[1] + steps[2]),
    table[5 + 0] + 0.3 * steps[3],
  ]
  second = [
    table[0],
    table[2 + 0] + 0.3 * steps[0],
    table[5 + 3] + 0.3 * (steps[3] + steps[4] + steps[5] + steps[6]),
  ]
  expected = [[*np.concatenate(row), 0] for row in (first, second)]
  np.testing.assert_allclose(
    jax.jit(encoder.apply)(params, x), expected, rtol=1e-5
  )


def test_crosses():
  """DCN-V2's layers, by hand; on any encoder."""
  x = {
    'categories': np.array([[2, 0]]),
    'numeric': np.array([[0.5]], np.float32),
  }
  columns = lplmtl.TabularEncoder((3, 4), embed_dim=2)
  crosses = lplmtl.CrossNetwork(columns, rank=3, num_layers=2)
  params = jax.device_get(contracts.random_params(crosses, x))
  table = params['encoder']['embedding']
  start = np.concatenate([table[2], table[3 + 0], [0.5]])[None]
  crossed = start
  for i in range(2):
    down, up = params[f'down_{i}']['kernel'], params[f'up_{i}']
    crossed = start * (crossed @ down @ up['kernel'] + up['bias']) + crossed
  np.testing.assert_allclose(
    jax.jit(crosses.apply)({'params': params}, x), crossed, rtol=1e-5
  )
  own = jax.tree.leaves({k: v for k, v in params.items() if k != 'encoder'})
  assert sum(leaf.size for leaf in own) == 2 * (2 * 5 * 3 + 5)
  with pytest.raises(ValueError, match='at least 1, found 0 and 2'):
    jax.eval_shape(lplmtl.CrossNetwork(columns, rank=0).init, KEY, x)


def test_losses_of_a_model_are_finite():
  model, batch = MODELS['ple'], contracts.batch()
  values, present = jax.jit(losses.task_losses, static_argnums=0)(
    contracts.TASKS, predict(model, draw(model)), batch
  )
  assert values.shape == (3,) and present.all() and (values > 0).all()
