"""Contracts, references and identities of all architectures."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import architectures, losses, tasks
from lplmtl.layers import experts
from tests import contracts, reference

NAMES = tuple(contracts.architectures())
CELLS = contracts.architectures(encoder=contracts.encoder())
CHAINS = contracts.chains(encoder=contracts.encoder())


def test_every_architecture_stands_in_its_tuple_and_in_the_tables():
  made = {cls for cls in vars(architectures).values() if isinstance(cls, type)}
  for listed, table in (
    (architectures.ARCHITECTURES, CELLS), (architectures.CHAINS, CHAINS),
  ):  # fmt: skip
    assert set(listed) == {type(model) for model in table.values()}
    made -= set(listed)
  assert not made


@pytest.fixture(scope='module')
def variables():
  """Parameters of every architecture, and its jitted forward pass."""
  cache = {}

  def get(name):
    if name not in cache:
      model = (CELLS | CHAINS)[name]
      params = {'params': contracts.random_params(model, contracts.features())}
      cache[name] = model, params, jax.jit(model.apply)
    return cache[name]

  return get


@pytest.mark.parametrize('name', (*NAMES, *CHAINS))
def test_contract(name, variables):
  model, params, apply = variables(name)
  x = contracts.features()
  predictions, aux = apply(params, x)
  assert set(predictions) == {task.name for task in model.tasks}
  for task in model.tasks:
    assert predictions[task.name].shape == (7, task.num_outputs)
    assert predictions[task.name].dtype == jnp.float32
  for level in aux['gates']:
    for pools in level.values():
      weights = jnp.concatenate(list(pools.values()), axis=1)
      assert weights.shape[0] == 7
      np.testing.assert_allclose(weights.sum(axis=1), np.ones(7), atol=1e-6)
      # DSelect-k chooses few experts, and gives the others nothing.
      assert (weights >= 0 if name == 'dselect_k' else weights > 0).all()
  # jit = eager.
  contracts.assert_trees_close((predictions, aux), model.apply(params, x))
  # A row does not look at its neighbours.
  fewer = jax.tree.map(lambda v: v[2:5], x)
  alone = apply(params, fewer)[0]
  contracts.assert_trees_close(
    alone, jax.tree.map(lambda v: v[2:5], predictions)
  )
  # vmap over parameter sets = each alone.
  two = jax.tree.map(lambda v: jnp.stack([v, 2 * v]), params)
  both = jax.jit(jax.vmap(model.apply, (0, None)))(two, x)[0]
  contracts.assert_trees_close(jax.tree.map(lambda v: v[0], both), predictions)
  contracts.assert_trees_close(
    jax.tree.map(lambda v: v[1], both),
    apply(jax.tree.map(lambda v: 2 * v, params), x)[0],
    atol=1e-4,
    rtol=1e-4,
  )


@pytest.mark.parametrize('name', (*NAMES, *CHAINS))
def test_bfloat16(name, variables):
  model, params, apply = variables(name)
  x = contracts.features()
  low = jax.tree.map(lambda v: v.astype(jnp.bfloat16), params)
  rough = {**x, 'numeric': x['numeric'].astype(jnp.bfloat16)}
  expected = apply(params, x)[0]
  found, aux = apply(low, rough)
  for task in (task.name for task in model.tasks):
    assert found[task].dtype == jnp.float32
    np.testing.assert_allclose(found[task], expected[task], atol=0.1, rtol=0.1)
  assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(aux))


@pytest.mark.parametrize('name', (*NAMES, *CHAINS))
def test_every_parameter_gets_a_gradient(name, variables):
  model, params, _ = variables(name)

  @jax.jit
  def gradient(params, x):
    def total(params):
      predictions = model.apply(params, x)[0]
      return sum(jnp.sum(jnp.sin(p)) for p in predictions.values())

    return jax.grad(total)(params)

  # Many rows: a relu unit may be off for seven of them.
  found = gradient(params, contracts.features(rows=64))
  for path, leaf in jax.tree_util.tree_flatten_with_path(found)[0]:
    assert jnp.abs(leaf).sum() > 0, jax.tree_util.keystr(path)


def _turn(params):
  """Parameters that follow the order of three tasks, for the reversed order."""

  def turn(path, leaf):
    name = path[-1].key
    if name.startswith('stitch_'):
      return leaf[::-1]
    columns = leaf.shape[-1]
    # Two experts of each task, then shared ones.
    mixes_all = name == 'shared_gate' or columns in ADATT_AND_STEM
    if name.startswith(('gate_', 'shared_gate')) and mixes_all:
      parts = jnp.split(leaf, [2, 4, 6], axis=1)
      return jnp.concatenate([parts[2], parts[1], parts[0], parts[3]], axis=1)
    return leaf

  return jax.tree_util.tree_map_with_path(turn, params)


# 3 x 2 experts of tasks, and 2 or 3 shared ones; no other gate is as wide.
ADATT_AND_STEM = (8, 9)


@pytest.mark.parametrize('name', NAMES)
def test_order_of_tasks_does_not_matter(name, variables):
  model, params, apply = variables(name)
  turned = dataclasses.replace(model, tasks=contracts.TASKS[::-1])
  x = contracts.features()
  found = jax.jit(turned.apply)(_turn(params), x)[0]
  contracts.assert_trees_close(found, apply(params, x)[0])


@pytest.mark.parametrize('name', (*NAMES, *CHAINS))
def test_reference(name, variables):
  """Each row against a literal loop over the paper's equations."""
  model, params, _ = variables(name)
  params = {
    name: value
    for name, value in params['params'].items()
    if not name.startswith('encoder')
  }
  bare = dataclasses.replace(model, encoder=None)
  x = np.random.default_rng(3).normal(size=(4, 7)).astype(np.float32)
  contracts.assert_as_reference(name, bare, params, x)


def _input(rows=5, width=7):
  x = np.random.default_rng(0).normal(size=(rows, width))
  return jnp.asarray(x, jnp.float32)


def test_mmoe_with_one_expert_is_shared_bottom():
  small = contracts.architectures()
  mmoe = dataclasses.replace(small['mmoe'], num_experts=1)
  x = _input()
  params = contracts.random_params(mmoe, x, seed=0)
  bottom = jax.tree.map(lambda v: v[0], params['experts'])
  towers = {k: v for k, v in params.items() if k.startswith('tower')}
  expected = small['shared_bottom'].apply(
    {'params': {'bottom': bottom, **towers}}, x
  )[0]
  contracts.assert_trees_close(mmoe.apply({'params': params}, x)[0], expected)


def test_one_level_ple_is_cgc():
  small = contracts.architectures()
  cgc = small['cgc']
  ple = dataclasses.replace(small['ple'], levels=(cgc.expert,))
  x = _input()
  params = {'params': contracts.random_params(cgc, x)}
  contracts.assert_trees_close(ple.apply(params, x)[0], cgc.apply(params, x)[0])


def test_cgc_without_specific_experts_is_mmoe():
  small = contracts.architectures()
  cgc = dataclasses.replace(small['cgc'], num_specific=0, num_shared=4)
  x = _input()
  params = contracts.random_params(cgc, x, seed=0)
  level = params['level_0']
  others = {
    'experts': level['shared_experts'],
    **{k: v for k, v in level.items() if k.startswith('gate')},
    **{k: v for k, v in params.items() if k.startswith('tower')},
  }
  contracts.assert_trees_close(
    cgc.apply({'params': params}, x)[0],
    small['mmoe'].apply({'params': others}, x)[0],
  )


def test_one_level_of_stacked_mmoe_is_mmoe():
  small = contracts.architectures()
  mmoe = small['mmoe']
  stacked = dataclasses.replace(
    small['stacked_mmoe'], levels=(mmoe.expert,), num_experts=4
  )
  x = _input()
  params = contracts.random_params(stacked, x)
  flat = {**params, **params['level_0']}
  del flat['level_0']
  contracts.assert_trees_close(
    stacked.apply({'params': params}, x)[0], mmoe.apply({'params': flat}, x)[0]
  )


def test_mmoe_with_equal_gates_is_omoe():
  small = contracts.architectures()
  x = _input()
  params = contracts.random_params(small['omoe'], x)
  gates = {f'gate_{name}': params['gate'] for name in contracts.NAMES}
  contracts.assert_trees_close(
    small['mmoe'].apply({'params': {**params, **gates}}, x)[0],
    small['omoe'].apply({'params': params}, x)[0],
  )


def test_stitches_of_the_identity_are_single_tasks():
  small = contracts.architectures()
  stitched = dataclasses.replace(
    small['cross_stitch'], levels=(contracts.SMALL,)
  )
  x = _input()
  params = contracts.random_params(stitched, x)
  own = {k: v for k, v in params.items() if k.startswith('tower_')}
  level = dict(params['level_0'])
  for i, name in enumerate(contracts.NAMES):
    level[f'stitch_{name}'] = jnp.zeros((3, 6)).at[i].set(1.0)
    own[f'bottom_{name}'] = jax.tree.map(lambda v: v[0], level[f'trunk_{name}'])
  contracts.assert_trees_close(
    stitched.apply({'params': {**params, 'level_0': level}}, x)[0],
    small['single_task'].apply({'params': own}, x)[0],
  )


def test_single_task_with_one_task_is_shared_bottom():
  small = contracts.architectures(tasks=contracts.TASKS[:1])
  x = _input()
  params = contracts.random_params(small['shared_bottom'], x)
  own = {'bottom_zebra': params['bottom'], 'tower_zebra': params['tower_zebra']}
  contracts.assert_trees_close(
    small['single_task'].apply({'params': own}, x)[0],
    small['shared_bottom'].apply({'params': params}, x)[0],
  )


def test_full_rank_tensor_factors_can_be_any_single_task_layer():
  """Unit factors: the core is then the stack of the kernels itself."""
  small = contracts.architectures()
  model = dataclasses.replace(
    small['tensor_factorization'], bottom=contracts.SMALL, ranks=(7, 6, 3)
  )
  x = _input()
  params = contracts.random_params(model, x)
  layer = params['layer_0']
  own = {k: v for k, v in params.items() if k.startswith('tower_')}
  layer |= {'input_factor': jnp.eye(7), 'output_factor': jnp.eye(6)}
  for i, name in enumerate(contracts.NAMES):
    layer[f'task_factor_{name}'] = jnp.eye(3)[i]
    own[f'bottom_{name}'] = {
      'layer_0': {
        'kernel': layer['core'][:, :, i], 'bias': layer[f'bias_{name}']
      }
    }  # fmt: skip
  contracts.assert_trees_close(
    model.apply({'params': params}, x)[0],
    small['single_task'].apply({'params': own}, x)[0],
  )


def test_penalties_are_the_papers(variables):
  x = contracts.features()
  model, params, apply = variables('soft_sharing')
  expected = reference.soft_sharing_penalty(
    params['params'], contracts.NAMES, model.strength
  )
  np.testing.assert_allclose(
    apply(params, x)[1]['penalty'], expected, rtol=1e-5
  )
  model, params, apply = variables('dselect_k')
  bare = dataclasses.replace(model, encoder=None)
  rows = _input()
  found = bare.apply(params, rows)[1]['penalty']
  expected = np.mean(
    [
      sum(
        reference.dselect_gate(params['params'][f'gate_{k}'], row)[1]
        for k in contracts.NAMES
      )
      for row in np.float64(rows)
    ]
  )
  np.testing.assert_allclose(found, model.entropy * expected, rtol=1e-4)
  model, params, apply = variables('aitm')
  predictions, aux = apply(params, x)
  p = [1 / (1 + np.exp(-predictions[t.name])) for t in contracts.CHAIN]
  expected = sum(np.maximum(b - a, 0).mean() for a, b in itertools.pairwise(p))
  assert expected > 0
  np.testing.assert_allclose(
    aux['penalty'], model.calibration * expected, rtol=1e-5
  )


def test_dselect_gates_become_binary():
  """Sure codes choose at most k experts, and leave no entropy."""
  model = dataclasses.replace(contracts.architectures()['dselect_k'])
  x = _input()
  params = contracts.random_params(model, x)
  sure = lambda path, v: 50 * v if 'codes' in str(path) else v  # noqa: E731
  params = jax.tree_util.tree_map_with_path(sure, params)
  _, aux = model.apply({'params': params}, x)
  for pools in aux['gates'][0].values():
    weights = pools['experts']
    assert ((weights > 0).sum(axis=1) <= model.num_selected).mean() > 0.7


def test_probabilities_along_a_chain():
  """ESMM: never rising, and finite where they are next to 0 or 1."""
  model = contracts.chains()['esmm']
  x = _input()
  params = contracts.random_params(model, x)
  for scale in (1.0, 1e3):
    towers = {
      k: jax.tree.map(lambda v, s=scale: s * v, v) if 'tower' in k else v
      for k, v in params.items()
    }
    found = model.apply({'params': towers}, x)[0]
    view, click, buy = (found[t.name] for t in contracts.CHAIN)
    assert (click <= view + 1e-4).all() and (buy <= click + 1e-4).all()
    assert jnp.isfinite(buy).all()


@pytest.mark.parametrize('scale', [1.0, 1e3])
def test_conditional_probabilities_of_a_chain(scale):
  """ESMM's own target, p(step | the step before): also where it is 0 or 1."""
  model = contracts.chains()['esmm']
  x = _input()
  params = jax.tree.map(
    lambda v: np.float32(scale**0.5 * v), contracts.random_params(model, x)
  )
  predictions, aux = model.apply({'params': params}, x)
  found = aux['conditional_logits']
  assert set(found) == {task.name for task in contracts.CHAIN}
  for i, row in enumerate(np.float64(x)):
    p = 1.0
    for name in found:
      bottom, tower = (params[f'{part}_{name}'] for part in ('bottom', 'tower'))
      logit = reference.tower(tower, reference.mlp(bottom, row))
      assert found[name].shape == (5, 1) and found[name].dtype == jnp.float32
      np.testing.assert_allclose(found[name][i], logit, rtol=1e-4, atol=1e-4)
      if scale == 1:  # else the quotient is 0 / 0
        before, p = p, reference.sigmoid(np.float64(predictions[name][i]))
        np.testing.assert_allclose(
          reference.sigmoid(np.float64(found[name][i])), p / before, rtol=1e-5
        )
  if scale > 1:
    assert max(np.abs(v).max() for v in found.values()) > 100


def test_sple_shared_is_ple_with_its_top_experts_pruned():
  """top='shared' = a PLE whose top gates give specific experts no weight."""
  small = contracts.architectures()
  ple, sple = small['ple'], small['sple_shared']
  sple = dataclasses.replace(sple, num_top=ple.num_shared)
  x = _input()
  params = contracts.random_params(sple, x, seed=0)
  whole = contracts.random_params(ple, x, seed=1)
  top = {
    **whole['level_1'],
    'shared_experts': params['level_1']['shared_experts'],
  }
  # A selector that is never negative (relu): -1e4 on its columns shuts a gate.
  for name in contracts.NAMES:
    kernel = params['level_1'][f'gate_{name}']
    shut = jnp.full((kernel.shape[0], ple.num_specific), -1e4)
    top[f'gate_{name}'] = jnp.concatenate([shut, kernel], axis=1)
  contracts.assert_trees_close(
    ple.apply({'params': {**params, 'level_1': top}}, x)[0],
    sple.apply({'params': params}, x)[0],
  )


def _reaches(model, params, x):
  """`{task: {top-level path: True where its loss has a gradient}}`."""

  @jax.jit
  def gradients(params):
    def losses(params):
      predictions = model.apply({'params': params}, x)[0]
      return jnp.stack(
        [jnp.sum(jnp.sin(predictions[n])) for n in contracts.NAMES]
      )

    return jax.jacrev(losses)(params)

  found = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(gradients(params))[0]:
    keys = [k.key for k in path]
    name = '/'.join(keys[:2]) if keys[0].startswith('level') else keys[0]
    reached = np.abs(np.asarray(leaf)).reshape(len(leaf), -1).sum(axis=1) > 0
    found[name] = found.get(name, False) | reached
  return {
    path: {n for n, r in zip(contracts.NAMES, reached, strict=True) if r}
    for path, reached in found.items()
  }


@pytest.mark.parametrize(
  'name', ['shared_bottom', 'mmoe', 'cgc', 'ple', 'sple_concat']
)
def test_which_parameters_are_shared(name, variables):
  """The docstrings' lists, against numerically computed task gradients."""
  model, params, _ = variables(name)
  x = contracts.features(rows=64)
  everyone = set(contracts.NAMES)
  for path, reached in _reaches(model, params['params'], x).items():
    own = path.rsplit('_', 1)[-1]
    below_top = path.startswith('level_0/') and name != 'cgc'
    if (
      path in ('encoder', 'bottom', 'experts')
      or path.endswith(('shared_experts', 'shared_gate'))
      or ('specific_experts' in path and below_top)
    ):
      assert reached == everyone, path
    else:
      assert reached == {own}, path


def test_any_module_can_be_the_expert():
  """Convolutional experts and a tower with layers of its own."""
  image = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 6, 1)))
  flatten = lambda x: x.reshape(x.shape[0], -1)  # noqa: E731
  conv = nn.Sequential([nn.Conv(2, (3, 3)), nn.relu])
  tower = nn.Sequential([flatten, nn.Dense(4), nn.relu])
  pair = (tasks.binary('a'), tasks.binary('b'))
  model = lplmtl.PLE(pair, levels=(conv, conv), num_shared=1, tower=tower)
  params = contracts.random_params(model, image, seed=0)
  kernel = params['level_0']['specific_experts_a']['layers_0']['kernel']
  assert kernel.shape == (2, 3, 3, 1, 2)
  assert not np.allclose(kernel[0], kernel[1])
  # Towers do not share what their template holds.
  assert set(params) == {'level_0', 'level_1', 'tower_a', 'tower_b'}
  predictions, aux = model.apply({'params': params}, image)
  assert predictions['a'].shape == (3, 1)
  # The convolution of expert 1, by itself.
  pool = experts.Experts(nn.Conv(2, (3, 3)), 3)
  stack = pool.init(jax.random.key(1), image)
  outputs = pool.apply(stack, image)
  one = jax.tree.map(lambda v: v[1], stack['params']['stack'])
  alone = nn.Conv(2, (3, 3)).apply({'params': one}, image)
  assert outputs.shape == (3, 3, 6, 6, 2)
  np.testing.assert_allclose(outputs[:, 1], alone, atol=1e-5)
  widths = {k: v.shape[1] for k, v in aux['gates'][0]['shared'].items()}
  assert widths == {
    'specific_experts_a': 2, 'specific_experts_b': 2, 'shared_experts': 1
  }  # fmt: skip


def test_experts_may_not_have_other_collections():
  pool = experts.Experts(nn.BatchNorm(use_running_average=True), 2)
  with pytest.raises(
    ValueError, match=r"found the collections \['batch_stats'\]"
  ):
    jax.eval_shape(pool.init, jax.random.key(0), _input())


def test_mlps_of_several_layers_run_as_each_alone():
  """The joint contraction of a pool, expert by expert."""
  expert = lplmtl.MLP((5, 4), activation=jnp.tanh)
  pool = experts.Experts(expert, 3)
  x = _input()
  stack = contracts.random_params(pool, x)['stack']
  outputs = pool.apply({'params': {'stack': stack}}, x)
  for i in range(3):
    one = jax.tree.map(lambda v, i=i: v[i], stack)
    np.testing.assert_allclose(
      outputs[:, i], expert.apply({'params': one}, x), atol=1e-6
    )


def test_initial_scale_follows_each_experts_own_fan_in():
  pool = experts.Experts(lplmtl.MLP((400,)), 5)
  params = pool.init(jax.random.key(0), jnp.zeros((1, 100)))['params']
  kernel = params['stack']['layer_0']['kernel']
  assert kernel.shape == (5, 100, 400)
  np.testing.assert_allclose(kernel.std(), np.sqrt(2 / 100), rtol=0.02)


def test_bfloat16_is_for_the_products_alone():
  low = lplmtl.MLP((32,), dtype='bfloat16')
  high = lplmtl.MLP((32,))
  x = _input()
  full = lplmtl.PLE(contracts.TASKS, levels=(high, high), tower=high)
  half = lplmtl.PLE(contracts.TASKS, levels=(low, low), tower=low)
  params = contracts.random_params(half, x)
  contracts.assert_same_structure(params, contracts.random_params(full, x))
  run = lambda model: jax.jit(model.apply)({'params': params}, x)  # noqa: E731
  (exact, _), (rough, aux) = run(full), run(half)
  for name in exact:
    assert rough[name].dtype == jnp.float32
    np.testing.assert_allclose(rough[name], exact[name], atol=0.1)
    assert not np.array_equal(rough[name], exact[name])
  for level in aux['gates']:
    for pools in level.values():
      weights = jnp.concatenate(list(pools.values()), axis=1)
      assert weights.dtype == jnp.float32
      np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


def test_factors_have_the_dtype_of_their_mlp():
  small = contracts.architectures()['tensor_factorization']
  low = dataclasses.replace(small, bottom=lplmtl.MLP((6, 5), dtype='bfloat16'))
  x = _input()
  params = contracts.random_params(low, x)
  contracts.assert_same_structure(params, contracts.random_params(small, x))
  exact, rough = (
    model.apply({'params': params}, x)[0]['zebra'] for model in (small, low)
  )
  assert rough.dtype == jnp.float32 and not np.array_equal(rough, exact)
  np.testing.assert_allclose(rough, exact, atol=0.1, rtol=0.1)


def test_dropout_acts_in_training_only():
  model = lplmtl.MMoE(
    contracts.TASKS, expert=lplmtl.MLP((32,), dropout_rate=0.5)
  )
  x = _input()
  params = {'params': contracts.random_params(model, x)}
  predict = lambda **kwargs: model.apply(params, x, **kwargs)[0]['zebra']  # noqa: E731
  np.testing.assert_array_equal(predict(), predict())
  noisy = [
    predict(train=True, rngs={'dropout': jax.random.key(i)}) for i in (0, 0, 1)
  ]
  np.testing.assert_array_equal(noisy[0], noisy[1])
  assert not np.allclose(noisy[0], noisy[2])
  assert not np.allclose(noisy[0], predict())


def test_models_with_equal_fields_are_equal():
  """So that jit recognises a model that was built twice."""
  first, second = contracts.architectures(), contracts.architectures()
  for name in NAMES:
    assert first[name] == second[name]
    assert hash(first[name]) == hash(second[name])


@pytest.mark.parametrize(
  'change, complaint',
  [
    (
      {'num_shared': 0},
      'num_shared must be a whole number of at least 1, .* found 0',
    ),
    (
      {'num_specific': -1},
      'num_specific must be a whole number of at least 0, .* found -1',
    ),
    ({'levels': ()}, 'one expert template per level'),
    ({'levels': lplmtl.MLP((4,))}, 'per level, .* found one MLP'),
    ({'levels': (16, 16)}, 'one expert template per level'),
    ({'top': 'none'}, "'concat', 'identity' or 'shared', found 'none'"),
    (
      {'levels': (lplmtl.MLP((0,)),) * 2},
      r'whole numbers of at least 1, .* found \(0,\)',
    ),
    (
      {'levels': (lplmtl.MLP((8,)), lplmtl.MLP((4,))), 'top': 'identity'},
      r'equal widths; .*\(8,\).*\(4,\)',
    ),
    ({'tasks': ()}, 'at least one task'),
    ({'tasks': (tasks.binary('a'), tasks.binary('a'))}, 'different names'),
    ({'tasks': (tasks.binary('shared'),)}, "none of them 'shared'"),
    ({'tasks': (tasks.binary('shared_experts'),)}, "none of them 'shared'"),
    ({'tasks': tasks.binary('a')}, 'must be a tuple of lplmtl.Task'),
    ({'tasks': ('a', 'b')}, 'must be a tuple of lplmtl.Task'),
    ({'tower': 32}, 'expected a Linen module .* found 32'),
    ({'tower': None}, 'expected a Linen module .* found None'),
    ({'tower': lplmtl.MLP}, r'not its class\)'),
    ({'tower': lplmtl.MLP(64)}, 'must be a tuple of whole numbers .* found 64'),
    ({'tower': lplmtl.MLP(('8',))}, 'must be a tuple of whole numbers'),
    ({'num_shared': 2.5}, 'whole number of at least 1, .* found 2.5'),
    ({'num_shared': True}, 'whole number of at least 1, .* found True'),
    ({'num_specific': (True, 2)}, r'whole number .* found \(True, 2\)'),
    ({'num_top': True}, 'whole number of at least 1, found True'),
    ({'tower': lplmtl.MLP((True,))}, r'of whole numbers .* found \(True,\)'),
    (
      {'levels': (lplmtl.MLP((4,), activation='relu'),) * 2},
      "MLP activation must be a function, .*; found 'relu'",
    ),
    ({'tower': lplmtl.MLP((), dtype='float17')}, "dtype must .* 'float17'"),
    ({'tower': lplmtl.MLP((4,), dtype=jnp.int32)}, 'dtype must .* found .*int'),
  ],
)
def test_sizes_that_make_no_sense(change, complaint):
  _refused(lplmtl.SPLE(contracts.TASKS), change, complaint)


@pytest.mark.parametrize(
  'name, change, complaint',
  [
    ('dselect_k', {'num_experts': 6}, 'a power of 2 as num_experts, found 6: take 8'),
    ('dselect_k', {'num_experts': 0}, 'found 0: take 1'),
    ('dselect_k', {'num_selected': 5}, 'from 1 to the number of experts, 4; found 5'),
    ('tensor_factorization', {'ranks': (4, 0, 2)}, r'found \(4, 0, 2\)'),
    ('tensor_factorization', {'bottom': nn.Dense(4)}, 'not a subclass, .* found Dense'),
    ('mtan', {'levels': (lplmtl.MLP((4, 4)),)}, 'must be an lplmtl.MLP of one layer'),
    ('adatt', {'num_specific': 0}, 'num_specific must be .* at least 1, .* found 0'),
    ('stem', {'num_specific': 0}, 'num_specific must be .* at least 1, .* found 0'),
    ('cross_stitch', {'levels': ()}, 'one expert template per level'),
    ('mtan', {'levels': (nn.Dense(4),)}, r"found \['Dense'\]"),
    ('mtan', {'levels': (lplmtl.MLP((0,)),)}, 'of at least 1'),
    ('mtan', {'levels': (lplmtl.MLP(4),)}, 'a tuple of whole numbers .* found 4'),
    ('mtan', {'levels': (lplmtl.MLP((4,), 'relu'),)}, 'must be a function'),
    ('tensor_factorization', {'bottom': lplmtl.MLP((4,), 'relu')}, 'be a function'),
    ('tensor_factorization', {'ranks': (4, True, 2)}, 'three numbers'),
    ('dselect_k', {'num_experts': True}, 'found True'),
    ('dselect_k', {'num_selected': True}, '4; found True'),
    ('mmoe', {'num_experts': True}, 'of at least 1, found True'),
    ('stacked_mmoe', {'num_experts': True}, 'of at least 1, .* found True'),
    ('tensor_factorization', {'ranks': 4}, 'three numbers .* found 4'),
    ('tensor_factorization', {'bottom': lplmtl.MLP((0,))}, 'of at least 1'),
    ('dselect_k', {'num_experts': 4.0}, 'found 4.0: take 4'),
    ('dselect_k', {'gamma': 0.0}, 'gamma must be above 0, found 0.0'),
    ('dselect_k', {'entropy': -1.0}, 'entropy must be a number of at least 0.0'),
    ('soft_sharing', {'strength': '0.1'}, "strength must be a number .* found '0.1'"),
    ('soft_sharing', {'strength': -1.0}, 'strength must be a number'),
    ('cross_stitch', {'own': 2.0}, 'own must be from 0 to 1, found 2.0'),
    ('aitm', {'calibration': float('nan')}, 'calibration must be a number'),
    ('mmoe', {'expert': (lplmtl.MLP((4,)),)}, 'expected a Linen module'),
    ('stacked_mmoe', {'num_experts': 0}, 'num_experts must be .* at least 1, .* found 0'),
    ('omoe', {'num_experts': 0}, 'of at least 1, found 0'),
    ('esmm', {'tasks': contracts.CHAIN[:1]}, 'two or more binary tasks in the order'),
    ('aitm', {'tasks': contracts.TASKS}, "of which 'apple' is not binary"),
    (
      'esmm',
      {'tasks': (contracts.CHAIN[0], tasks.regression('price'))},
      "'price' is not binary",
    ),
  ],
)  # fmt: skip
def test_what_an_architecture_refuses(name, change, complaint):
  _refused(
    (contracts.architectures() | contracts.chains())[name], change, complaint
  )


def _with_numpy(value):
  """Python's whole numbers as NumPy's."""
  if type(value) is int:
    return np.int64(value)
  if isinstance(value, tuple):
    return tuple(map(_with_numpy, value))
  if isinstance(value, lplmtl.MLP):
    return dataclasses.replace(value, widths=_with_numpy(value.widths))
  return value


@pytest.mark.parametrize('name', (*NAMES, *CHAINS))
def test_numbers_of_numpy(name):
  model = (contracts.architectures() | contracts.chains())[name]
  fields = [f.name for f in dataclasses.fields(model) if f.init]
  change = {f: _with_numpy(getattr(model, f)) for f in fields if f != 'tasks'}
  other = dataclasses.replace(model, **change)

  def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0), _input())

  assert shapes(other) == shapes(model)


class Twice(nn.Module):
  """A trunk without parameters."""

  def __call__(self, x):
    return 2 * x


@pytest.mark.parametrize('name', ['single_task', 'soft_sharing'])
@pytest.mark.parametrize('bottom', [None, Twice()])
def test_trunks_without_parameters(name, bottom):
  model = contracts.architectures()[name]
  model = dataclasses.replace(model, bottom=bottom)
  (predictions, aux), variables = model.init_with_output(
    jax.random.key(0), _input()
  )
  assert set(variables['params']) == {f'tower_{t.name}' for t in model.tasks}
  assert all(x.shape[0] == len(_input()) for x in predictions.values())
  assert aux.get('penalty', 0.0) == 0.0


def _refused(model, change, complaint):
  model = dataclasses.replace(model, **change)
  with pytest.raises(ValueError, match=complaint):
    jax.eval_shape(model.init, jax.random.key(0), _input())


def test_encoder():
  encoder = lplmtl.TabularEncoder((3, 4), embed_dim=2)
  x = {
    'categories': jnp.array([[2, 0], [1, 3]]),
    'numeric': jnp.array([[0.5], [1.5]]),
  }
  params = encoder.init(jax.random.key(0), x)
  table = params['params']['embedding']
  assert table.shape == (7, 2)
  expected = [
    [*table[2], *table[3 + 0], 0.5],
    [*table[1], *table[3 + 3], 1.5],
  ]
  np.testing.assert_array_equal(encoder.apply(params, x), np.array(expected))
  with pytest.raises(ValueError, match=r'shape \[B, 2\], found \(2, 3\)'):
    encoder.apply(params, {**x, 'categories': jnp.zeros((2, 3), jnp.int32)})
  with pytest.raises(ValueError, match='from 0 to the 2 columns, found 3'):
    lplmtl.TabularEncoder((3, 4), 2, num_ordered=3).init(jax.random.key(0), x)
  only_numbers = lplmtl.TabularEncoder(())
  bare = {**x, 'categories': jnp.zeros((2, 0), jnp.int32)}
  np.testing.assert_array_equal(only_numbers.apply({}, bare), x['numeric'])


def test_bins_in_their_order():
  """Each bin's own vector, and the steps up to it."""
  encoder = lplmtl.TabularEncoder((2, 3, 4), embed_dim=2, num_ordered=2)
  x = {
    'categories': jnp.array([[1, 2, 0], [0, 0, 3]]),
    'numeric': jnp.zeros((2, 1)),
  }
  params = encoder.init(jax.random.key(0), x)
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
  np.testing.assert_allclose(encoder.apply(params, x), expected, rtol=1e-6)


def test_crosses():
  """DCN-V2's layers, by hand; on any encoder."""
  x = {'categories': jnp.array([[2, 0]]), 'numeric': jnp.array([[0.5]])}
  columns = lplmtl.TabularEncoder((3, 4), embed_dim=2)
  crosses = lplmtl.CrossNetwork(columns, rank=3, num_layers=2)
  params = jax.device_get(contracts.random_params(crosses, x))
  start = np.array(columns.apply({'params': params['encoder']}, x))
  found = start
  for i in range(2):
    down, up = params[f'down_{i}']['kernel'], params[f'up_{i}']
    found = start * (found @ down @ up['kernel'] + up['bias']) + found
  np.testing.assert_allclose(
    crosses.apply({'params': params}, x), found, rtol=1e-5
  )
  own = jax.tree.leaves({k: v for k, v in params.items() if k != 'encoder'})
  assert sum(leaf.size for leaf in own) == 2 * (2 * 5 * 3 + 5)
  with pytest.raises(ValueError, match='at least 1, found 0 and 2'):
    lplmtl.CrossNetwork(columns, rank=0).init(jax.random.key(0), x)


def test_losses_of_a_model_are_finite():
  data = contracts.batch()
  model = contracts.architectures(encoder=contracts.encoder())['ple']
  params = {'params': contracts.random_params(model, data.features)}
  values, present = losses.task_losses(
    contracts.TASKS, model.apply(params, data.features)[0], data
  )
  assert values.shape == (3,) and present.all() and (values > 0).all()
