"""Sparse matrices, against sorted lists and the schedule as it is written."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, checkpoint, compression
from lplmtl.compression import leaves, magnitude, sparsity
from tests import contracts

MODEL = contracts.architectures(encoder=contracts.encoder())['shared_bottom']
ROWS = contracts.batch(rows=32)


@pytest.fixture(scope='module')
def params():
  return contracts.random_params(MODEL, ROWS.features)


def _kernels(params):
  return sparsity.matrices(params)


def _zeros(params):
  return {
    name: int((np.asarray(x) == 0).sum())
    for name, x in _kernels(params).items()
  }


def _fit(optimizer, key=jax.random.key(0), **options):  # noqa: B008
  return lplmtl.fit(
    key, MODEL, optimizer, balancing.equal(), ROWS, batch_size=16,
    **options,
  )  # fmt: skip


def _slow_share(step, share, begin, end):
  """Zhu & Gupta's eq. 1, from s_i = 0, with n dt = end - begin."""
  if step < begin:
    return 0.0
  if step > end:
    return share
  return share + (0 - share) * (1 - (step - begin) / (end - begin)) ** 3


def test_schedule():
  for step in range(0, 40, 3):
    found = magnitude.share_at(step, 0.9, 5, 30)
    np.testing.assert_allclose(found, _slow_share(step, 0.9, 5, 30), atol=1e-6)


def _slow_run(params, gradients, rate, share, begin, end, every):
  """Plain gradient descent; the smallest weights are set to 0 by a sort."""
  weights = {k: np.array(x, np.float32) for k, x in params.items()}
  masks = {k: np.ones(x.shape, bool) for k, x in weights.items()}
  for step, gradient in enumerate(gradients, 1):
    for name, w in weights.items():
      w -= np.float32(rate) * gradient[name] * masks[name]
      is_due = begin <= step <= end and (step - begin) % every == 0
      if name != 'bias' and (is_due or step == end):
        count = round(_slow_share(step, share, begin, end) * w.size)
        alive = sorted(
          np.argwhere(masks[name]).tolist(), key=lambda i, w=w: abs(w[tuple(i)])
        )
        for i in alive[: count - int((~masks[name]).sum())]:
          masks[name][tuple(i)] = False
      w[~masks[name]] = 0
  return weights


@pytest.mark.parametrize(
  'begin, end, every', [(0, 12, 4), (3, 10, 2), (1, 6, 9)]
)
def test_gradual_pruning_step_by_step(begin, end, every):
  rng = np.random.default_rng(0)
  shapes = {'kernel': (6, 5), 'bias': (5,), 'embedding': (11, 2)}
  draw = lambda: {  # noqa: E731
    k: np.float32(rng.normal(size=shape)) for k, shape in shapes.items()
  }
  params, gradients = draw(), [draw() for _ in range(15)]
  optimizer = magnitude.gradual(
    optax.sgd(0.1), 0.8, begin=begin, end=end, every=every
  )
  current, state = params, optimizer.init(params)
  step = jax.jit(optimizer.update)
  for gradient in gradients:
    updates, state = step(gradient, state, current)
    current = optax.apply_updates(current, updates)
  expected = _slow_run(params, gradients, 0.1, 0.8, begin, end, every)
  contracts.assert_trees_close(current, expected)
  assert {k: int((x == 0).sum()) for k, x in current.items()} == {
    'kernel': 24, 'bias': 0, 'embedding': 18,
  }  # fmt: skip


@pytest.mark.slow
def test_at_once(params):
  sparse = magnitude.prune(params, 0.6)
  for name, x in leaves.names(params).items():
    new = np.asarray(leaves.names(sparse)[name])
    if name not in _kernels(params):
      np.testing.assert_array_equal(new, x)
      continue
    count = round(0.6 * x.size)
    order = np.argsort(np.abs(x), axis=None)
    expected = np.array(x).reshape(-1)
    expected[order[:count]] = 0
    np.testing.assert_array_equal(new, expected.reshape(x.shape))
  towers = magnitude.prune(params, 0.5, chosen=lambda name: 'tower' in name)
  assert all(('tower' in k) == (n > 0) for k, n in _zeros(towers).items())


@pytest.mark.slow
def test_fit_prunes_and_fine_tunes(params, tmp_path):
  """Several seeds; zeros are exact, stay, and survive saving and resuming."""
  adam = optax.adam(1e-2)
  keys = jax.random.split(jax.random.key(0), 2)
  optimizer = magnitude.gradual(adam, 0.75, begin=0, end=9, every=2)

  def fit(keeper=None):
    return _fit(optimizer, keys, num_epochs=6, keeper=keeper)

  whole = fit()
  resumed = contracts.fit_in_pieces(fit, tmp_path / 'run', (2,), every_steps=3)
  contracts.assert_trees_equal(resumed.params, whole.params)
  for seed in range(2):
    one = jax.tree.map(lambda x, seed=seed: np.asarray(x)[seed], whole.params)
    assert _zeros(one) == {
      k: round(0.75 * x.size) for k, x in _kernels(params).items()
    }
  checkpoint.save(tmp_path / 'm', MODEL, one)
  _, start, _ = checkpoint.load(tmp_path / 'm')
  tuned = _fit(
    magnitude.keep_zeros(adam), start=start, validation=ROWS, num_epochs=2
  )
  assert _zeros(tuned.params) == _zeros(one)


@pytest.mark.slow
def test_what_is_not_0_moves_as_without_a_mask(params):
  one = magnitude.prune(params, 0.75)
  tuner = magnitude.keep_zeros(optax.sgd(0.5))
  ones = jax.tree.map(np.ones_like, one)
  updates, _ = jax.jit(tuner.update)(ones, tuner.init(one), one)
  moved = leaves.names(optax.apply_updates(one, updates))
  for name, x in leaves.names(jax.tree.map(np.asarray, one)).items():
    stays = (name in _kernels(params)) & (x == 0)
    np.testing.assert_array_equal(moved[name], np.where(stays, 0, x - 0.5))


def test_number_of_weights_by_hand():
  x = jnp.ones((1, 8))
  model = lplmtl.SharedBottom(
    (lplmtl.tasks.binary('a'),), bottom=lplmtl.MLP((5,)), tower=lplmtl.MLP(())
  )
  params = contracts.random_params(model, x)
  sparse = magnitude.prune(params, 0.9)
  kept = sum(int((x != 0).sum()) for x in jax.tree.leaves(sparse))
  # Of 40 and 5 weights 4 and 1 stay (4.5 pruned rounds to 4), and 6 biases.
  assert compression.count_parameters(params) == 40 + 5 + 6
  assert kept == 4 + 1 + 6
  # 5 and 1 bytes of masks; values of 4 bits in 2 and 1; biases of 4 bytes.
  assert magnitude.sparse_bytes(sparse, bits=4) == 5 + 1 + 2 + 1 + 6 * 4
  # Without zeros a mask would be a waste: 20 bytes, and 2.5.
  assert magnitude.sparse_bytes(params, bits=4) == 20 + 3 + 6 * 4


def test_mistakes(params):
  for share in (1, 1.0, -0.1, '0.5', True, float('nan')):
    with pytest.raises(ValueError, match='from 0 to below 1'):
      magnitude.prune(params, share)
  adam = optax.adam(1e-3)
  with pytest.raises(ValueError, match='above 0 and below 1,.* found 0'):
    magnitude.gradual(adam, 0, begin=0, end=5)
  with pytest.raises(ValueError, match='after begin, found begin=5 and end=5'):
    magnitude.gradual(adam, 0.5, begin=5, end=5)
  with pytest.raises(ValueError, match='every must .* at least 1, found 0'):
    magnitude.gradual(adam, 0.5, begin=0, end=5, every=0)
  with pytest.raises(ValueError, match='no matrix to prune is chosen'):
    magnitude.prune(params, 0.5, chosen=lambda name: 'ghost' in name)
  free = optax.contrib.schedule_free_adamw(1e-3)
  with pytest.raises(ValueError, match='schedule-free optimizer averages'):
    magnitude.keep_zeros(free).init(params)
  with pytest.raises(ValueError, match=r"variables\['params'\]"):
    magnitude.prune({'params': params}, 0.5)
