"""DiSparse, against the paper's masks as loops over tasks and weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, losses
from lplmtl.compression import disparse, leaves, magnitude, sparsity
from tests import contracts

ROWS = contracts.batch(rows=32)
MODEL = contracts.architectures(encoder=contracts.encoder())['ple']


@pytest.fixture(scope='module')
def params():
  return contracts.random_params(MODEL, ROWS.features)


@pytest.fixture(scope='module')
def gradients(params):
  """`{matrix: [batches, T, ...]}`, of two batches of 16 rows."""

  def task_losses(params, rows):
    predictions, _ = MODEL.apply({'params': params}, rows.features)
    return losses.task_losses(MODEL.tasks, predictions, rows)[0]

  of = jax.jit(jax.jacrev(task_losses))
  batches = [jax.tree.map(lambda x, i=i: x[i : i + 16], ROWS) for i in (0, 16)]
  each = [leaves.names(of(params, rows)) for rows in batches]
  return {k: np.stack([x[k] for x in each]) for k in sparsity.matrices(params)}


def _slow_masks(params, gradients, criterion, kappa):
  """True where some task keeps a weight, as the paper writes it."""
  kept = {name: np.zeros(x.shape, bool) for name, x in params.items()}
  for k in range(len(MODEL.tasks)):
    scores = []
    for name, weights in params.items():
      if not gradients[name][:, k].any():
        continue  # another task's own weights
      for i in np.ndindex(*weights.shape):
        w, slopes = float(weights[i]), gradients[name][(slice(None), k, *i)]
        scores.append(
          {
            'sensitivity': sum(abs(w * g) for g in slopes),
            'taylor': w**2 * sum(abs(g) for g in slopes),
            'magnitude': abs(w),
          }[criterion]
        )
        scores[-1] = (-scores[-1], name, i)
    for _, name, i in sorted(scores, key=lambda x: x[0])[
      : int(kappa * len(scores))
    ]:
      kept[name][i] = True
  return kept


@pytest.mark.slow
@pytest.mark.parametrize('criterion', ['sensitivity', 'taylor', 'magnitude'])
@pytest.mark.parametrize('kappa', [0.2, 0.5])
def test_is_the_union_of_the_tasks_masks(criterion, kappa, params, gradients):
  matrices = {k: np.asarray(x) for k, x in sparsity.matrices(params).items()}
  expected = _slow_masks(matrices, gradients, criterion, kappa)
  flat = np.concatenate([x.ravel() for x in expected.values()])
  share = 1 - flat.mean()
  # Each task keeps kappa of its own; together they keep more.
  assert kappa < flat.mean() < 1
  sparse = disparse.prune(
    MODEL, params, ROWS, share, criterion=criterion, batch_size=16
  )
  named = leaves.names(sparse)
  for name, mask in expected.items():
    np.testing.assert_array_equal(np.asarray(named[name]) != 0, mask)
  for name, x in leaves.names(params).items():
    if name in matrices:
      x = jnp.where(named[name] != 0, x, 0)
    np.testing.assert_array_equal(named[name], x)


@pytest.mark.slow
def test_tasks_rank_what_their_gradient_reaches(params):
  found = disparse.saliencies(MODEL, params, ROWS)
  known = np.isfinite(found['tower_zebra/head/kernel']).all(axis=(1, 2))
  assert known.tolist() == [True, False, False]
  # A specific expert below the top reaches all tasks by the shared gate.
  below = found['level_0/specific_experts_zebra/layer_0/kernel']
  assert np.isfinite(below).all()
  top = found['level_1/specific_experts_apple/layer_0/kernel']
  assert np.isfinite(top).all(axis=(1, 2, 3)).tolist() == [False, True, False]


def test_seeds_share_their_program(num_compiled):
  model = contracts.architectures(encoder=contracts.encoder())['shared_bottom']
  seeds = [
    contracts.random_params(model, ROWS.features, seed=i) for i in (0, 1)
  ]

  def saliencies(seed):
    disparse.saliencies(model.clone(), seeds[seed], ROWS)

  assert num_compiled(saliencies, 0) > 0
  assert num_compiled(saliencies, 1) == 0


@pytest.mark.slow
def test_sparse_training_keeps_the_zeros():
  model = contracts.architectures(encoder=contracts.encoder())['shared_bottom']
  params = contracts.random_params(model, ROWS.features)
  sparse = disparse.prune(model, params, ROWS, 0.7)
  zeros = jax.tree.map(lambda x: x == 0, sparse)
  result = lplmtl.fit(
    jax.random.key(0), model, magnitude.keep_zeros(optax.adam(1e-2)),
    balancing.equal(), ROWS, batch_size=16, num_epochs=2, start=sparse,
  )  # fmt: skip
  for name, was in sparsity.matrices(zeros).items():
    now = leaves.names(result.params)[name] == 0
    np.testing.assert_array_equal(now, was)


def test_mistakes(params):
  prune = lambda rows=ROWS, share=0.5, **options: disparse.prune(  # noqa: E731
    MODEL, params, rows, share, **options
  )
  with pytest.raises(ValueError, match='from 0 to below 1'):
    prune(share=1)
  with pytest.raises(ValueError, match="one of .*'taylor'.*, found 'snip'"):
    prune(criterion='snip')
  other = contracts.architectures(encoder=contracts.encoder())['mmoe']
  with pytest.raises(ValueError, match='not those of this MMoE, of which they'):
    disparse.prune(other, params, ROWS, 0.5)
  with pytest.raises(ValueError, match='one seed, found an axis of seeds'):
    disparse.prune(MODEL, jax.tree.map(lambda x: x[None], params), ROWS, 0.5)
  none = jax.tree.map(lambda x: x[:0], ROWS)
  with pytest.raises(ValueError, match='batch must have at least one row'):
    prune(none)
  masked = ROWS._replace(where={'apple': jnp.zeros(32, bool)})
  with pytest.raises(
    ValueError, match="no row of batch has a label of task 'apple'"
  ):
    prune(masked)
  with pytest.raises(ValueError, match="batch has no labels of task 'mango'"):
    prune(ROWS._replace(labels={k: ROWS.labels[k] for k in ('zebra', 'apple')}))
  with pytest.raises(ValueError, match='must be a lplmtl.Batch .* found dict'):
    prune(ROWS.features)
  model = contracts.architectures(encoder=contracts.encoder())['shared_bottom']
  nan = jax.tree.map(
    lambda x: x * jnp.nan, contracts.random_params(model, ROWS.features)
  )
  with pytest.raises(ValueError, match='gradients .* are not finite'):
    disparse.prune(model, nan, ROWS, 0.5)
