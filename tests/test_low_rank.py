"""Matrices as products: against NumPy's decomposition, and in training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, checkpoint, compression
from lplmtl.compression import leaves, low_rank
from lplmtl.training import gradients
from tests import contracts

TASKS = contracts.TASKS
MODEL = contracts.architectures(encoder=contracts.encoder())['ple']


@pytest.fixture(scope='module')
def params():
  return contracts.random_params(MODEL, contracts.features())


def test_ranks_name_what_gets_smaller(params):
  """A kernel [7, 5] with 2 (7 + 5) numbers instead of 35, and not its bias."""
  found = dict(low_rank.ranks(params, 2))
  assert found['level_0/specific_experts_zebra/layer_0/kernel'] == 2
  shapes = {name: x.shape for name, x in leaves.names(params).items()}
  assert all(
    (name in found)
    == (
      name.split('/')[-1] not in ('bias', 'steps')
      and len(shape) > 1
      and 2 * sum(shape[-2:]) < shape[-2] * shape[-1]
    )
    for name, shape in shapes.items()
  )
  towers = low_rank.ranks(params, 1, chosen=lambda name: 'tower' in name)
  assert towers and all('tower' in name for name, _ in towers)


@pytest.mark.slow
def test_a_trained_model_is_split_by_singular_values(params):
  ranks = low_rank.ranks(params, 2)
  small, factors = low_rank.factorise(MODEL, params, ranks)
  before, after = (
    compression.count_parameters(tree) for tree in (params, factors)
  )
  shapes = {name: x.shape for name, x in leaves.names(params).items()}
  saved = sum(
    np.prod(shapes[name][:-2], dtype=int)
    * (shapes[name][-2] * shapes[name][-1] - 2 * sum(shapes[name][-2:]))
    for name, _ in ranks
  )
  assert after == before - saved
  inner, whole = low_rank.multiply(small, factors)
  assert inner is MODEL
  whole, given = leaves.names(whole), leaves.names(params)
  for name in given:
    expected = np.asarray(given[name])
    if name in dict(ranks):
      left, values, right = np.linalg.svd(expected, full_matrices=False)
      values[..., 2:] = 0
      expected = left * values[..., None, :] @ right
    np.testing.assert_allclose(whole[name], expected, atol=1e-5)


def test_energy_is_the_share_of_squared_singular_values():
  rng = np.random.default_rng(0)
  left, _ = np.linalg.qr(rng.normal(size=(9, 9)))
  right, _ = np.linalg.qr(rng.normal(size=(8, 8)))
  values = np.array([4.0, 2, 1, 0.5, 0, 0, 0, 0])  # squares: 16 4 1 .25
  kernel = left[:, :8] * values @ right
  params = {'a': {'kernel': jnp.asarray(kernel, jnp.float32)}}
  for energy, rank in ((0.7, 1), (0.76, 2), (0.98, 3), (0.999, 4)):
    assert low_rank.energy_ranks(params, energy) == (('a/kernel', rank),)
  # Two experts share a rank: the second one has rank 1.
  other = 3 * left[:, :1] @ right[:1]  # squares: 25 4 1 .25 of 30.25
  stack = {'a': {'kernel': jnp.asarray(np.stack([kernel, other]), np.float32)}}
  assert low_rank.energy_ranks(stack, 0.82) == (('a/kernel', 1),)
  assert low_rank.energy_ranks(stack, 0.83) == (('a/kernel', 2),)
  # Whatever has full rank is left out, and so is what becomes no smaller.
  with pytest.raises(ValueError, match=r'energy 1.0 makes none of 1 matri'):
    low_rank.energy_ranks({'kernel': jnp.eye(3)}, 1.0)


@pytest.mark.slow
def test_trains_saves_and_shares_like_the_model_inside(tmp_path):
  model = contracts.architectures(encoder=contracts.encoder())['cgc']
  x, rows = contracts.features(), contracts.batch(32)
  params = contracts.random_params(model, x)
  small = compression.LowRank(model, low_rank.ranks(params, 2))
  result = lplmtl.fit(
    jax.random.key(0), small, optax.sgd(0.05), balancing.equal(), rows,
    batch_size=16, num_epochs=3,
  )  # fmt: skip
  losses = [h['losses'].sum() for h in result.history]
  assert losses[-1] < losses[0]
  predicted = lplmtl.predict(small, result.params, x)
  inner, whole = low_rank.multiply(small, result.params)
  contracts.assert_trees_close(lplmtl.predict(inner, whole, x), predicted)
  checkpoint.save(tmp_path / 'm', small, result.params)
  loaded, loaded_params, _ = checkpoint.load(tmp_path / 'm')
  assert loaded == small and hash(loaded) == hash(small)
  contracts.assert_trees_equal(loaded_params, result.params)

  shared = gradients.shared_leaves(small, result.params)
  plain = leaves.names(gradients.shared_leaves(model, params))
  for name, is_shared in leaves.names(shared).items():
    whole = name.removesuffix('/down').removesuffix('/up')
    assert is_shared == plain[whole]


@pytest.mark.slow
def test_representation_scope_and_missing_methods():
  model = lplmtl.MMoE(TASKS, expert=contracts.SMALL, num_experts=2)
  x = jnp.ones((2, 7))
  params = contracts.random_params(model, x)
  small, factors = low_rank.factorise(model, params, low_rank.ranks(params, 1))
  assert hasattr(small, 'represent')
  found = small.apply({'params': factors}, x, method='represent')
  assert found.shape == (2, 2, 6)
  assert not hasattr(compression.LowRank(MODEL), 'represent')
  assert not hasattr(compression.LowRank(lplmtl.MLP((3,))), 'is_shared')


def test_mistakes(params):
  with pytest.raises(ValueError, match='at least 1, found 0'):
    low_rank.ranks(params, 0)
  with pytest.raises(ValueError, match=r'rank 100 makes none of \d+ matrices'):
    low_rank.ranks(params, 100)
  for energy in (0, 1.5, True):
    with pytest.raises(ValueError, match='above 0 and at most 1, found'):
      low_rank.energy_ranks(params, energy)
  with pytest.raises(ValueError, match=r'the parameters lack .bottom'):
    low_rank.factorise(MODEL, params, (('bottom/layer_0/kernel', 2),))
  name = low_rank.ranks(params, 2)[0][0]
  with pytest.raises(ValueError, match='split at rank 100 .* found'):
    low_rank.factorise(MODEL, params, ((name, 100),))
  small = compression.LowRank(MODEL, ((name, 2),))
  with pytest.raises(ValueError, match='found a whole matrix'):
    small.apply({'params': params}, contracts.features())
  with pytest.raises(ValueError, match=r"variables\['params'\]"):
    low_rank.ranks({'params': params}, 2)
