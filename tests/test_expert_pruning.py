"""Models with fewer experts, against the whole ones with masked gates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, checkpoint, compression, inspection, losses
from lplmtl.compression import leaves, pruning
from lplmtl.layers import mixture
from tests import contracts

X = contracts.features(rows=9)['numeric']  # no expert is in an encoder
NAMES = contracts.NAMES
NUM_TASKS = len(NAMES)
BODY = lplmtl.MLP((3,))


def _models():
  models = contracts.architectures()
  three = {'levels': (contracts.SMALL,) * 3}
  return models | {
    'deep_gates': models['ple'].clone(gate_body=BODY),
    'deep_gate': models['omoe'].clone(gate_body=BODY),
    'uneven': lplmtl.PLE(
      contracts.TASKS,
      num_specific=((1, 0, 2), (2, 1, 1), (0, 3, 0)),
      num_shared=(2, 1, 2),
      **three,
    ),
    'three_levels': lplmtl.StackedMMoE(
      contracts.TASKS, num_experts=(2, 12, 3), gate_body=BODY, **three
    ),
    'one_level': models['sple_concat'].clone(levels=(contracts.SMALL,)),
  }


def _use(model, params):
  """What `inspection.usage` returns, with weights drawn at random."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda p: inspection.usage(model, p, X), params)
  return jax.tree.map(lambda x: rng.random(x.shape, np.float32), shapes)


def _maskable(monkeypatch, model, num_levels):
  """Compiles a model whose gates may be told to leave experts out.

  Args:
    monkeypatch: pytest's.
    model: the whole model.
    num_levels: with gates.

  Returns:
    `(params, kept) -> (predictions, use)`, where `kept` holds per level `{pool:
    numbers of the experts that stay}`: the logits of all others are minus
    infinity.
  """
  weigh, pools, most = mixture.weigh, [], 64

  def masked(stays, outputs, logits, gates, **options):
    pools.append([(name, x.shape[1]) for name, x in outputs.items()])
    stay = stays[len(pools) - 1, : sum(n for _, n in pools[-1])]
    logits = {k: jnp.where(stay[None], x, -jnp.inf) for k, x in logits.items()}
    return weigh(outputs, logits, gates, **options)

  @jax.jit
  def run(params, stays):
    pools.clear()
    with monkeypatch.context() as patch:
      patch.setattr(mixture, 'weigh', functools.partial(masked, stays))
      predictions, aux = model.apply({'params': params}, X)
    return predictions, jax.tree.map(lambda w: w.mean(axis=0), aux['gates'])

  def call(params, kept):
    stays = np.ones((num_levels + NUM_TASKS, most), bool)
    for i, names in enumerate(pools if kept else ()):
      # A level is one call, but STEM's is one for each task.
      level = kept[min(i, num_levels - 1)]
      stay = [e in level.get(name, (e,)) for name, n in names for e in range(n)]
      stays[i, : len(stay)] = stay
    return jax.device_get(run(params, stays))

  return call


def _kept(use, num_experts, least):
  """The experts with the largest peaks, by a slow loop.

  Args:
    use: from `inspection.usage`.
    num_experts: how many stay.
    least: `(kept of one level, pool) -> bool`, whether a pool may lose one.
  """
  peaks = [inspection.peaks(level) for level in use]
  kept = [
    {pool: set(range(len(x))) for pool, x in level.items() if pool not in NAMES}
    for level in peaks
  ]
  while sum(len(x) for level in kept for x in level.values()) > num_experts:
    _, i, pool, expert = min(
      (peaks[i][pool][e], i, pool, e)
      for i, level in enumerate(kept)
      for pool, x in level.items()
      for e in x
      if least(level, pool)
    )
    kept[i][pool].remove(expert)
  return kept


def _may_lose(name):
  def least(level, pool):
    if pool.startswith('expert_'):
      return sum(map(len, level.values())) > 1
    free = pool.startswith('specific') and name != 'stem'
    return free or len(level[pool]) > 1

  return least


SIZES = {
  'omoe': 2, 'deep_gate': 1, 'mmoe': 3, 'stacked_mmoe': 3, 'three_levels': 9,
  'cgc': 4, 'ple': 7, 'deep_gates': 5, 'uneven': 6, 'stem': 5,
  'sple_concat': 6, 'sple_identity': 2, 'sple_shared': 2, 'one_level': 1,
}  # fmt: skip

# Whose equations those of a model with another name are.
EQUATIONS = {
  'deep_gate': 'omoe', 'deep_gates': 'ple', 'uneven': 'ple',
  'three_levels': 'stacked_mmoe', 'one_level': 'sple_concat',
}  # fmt: skip


@pytest.mark.parametrize('name', SIZES)
def test_is_the_masked_model(name, monkeypatch):
  model = _models()[name]
  # With gates that prefer some experts, so that few rows tell.
  params = leaves.map_named(
    lambda path, x: x * 3 if 'gate' in path or 'selector' in path else x,
    contracts.random_params(model, X),
  )
  levels = len(getattr(model, 'levels', (None,)))
  masked = _maskable(monkeypatch, model, levels)
  _, use = masked(params, None)
  smaller, pruned = pruning.by_gate_use(model, params, use, SIZES[name])
  kept = _kept(use, SIZES[name], _may_lose(name))
  expected, _ = masked(params, kept)
  # The pruned parameters by the paper's equations, which compile nothing; the
  # smaller model, which computes these, reads just such parameters.
  contracts.assert_as_reference(
    EQUATIONS.get(name, name), expected, NAMES, pruned, X
  )
  drawn = jax.eval_shape(smaller.init, jax.random.key(0), X)['params']
  contracts.assert_same_structure(
    pruned, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), drawn)
  )
  _, aux = jax.eval_shape(smaller.apply, {'params': pruned}, X)
  counts = [
    {pool: x.shape[-1] for weights in level.values() for pool, x in weights.items()
     if pool not in NAMES}
    for level in aux['gates']
  ]  # fmt: skip
  assert [sum(level.values()) for level in counts] == [
    sum(map(len, level.values())) for level in kept
  ]


def test_number_of_parameters_by_hand():
  model = _models()['mmoe']
  params = contracts.random_params(model, X)
  inputs = 3
  smaller, pruned = pruning.by_gate_use(model, params, _use(model, params), 3)
  one = inputs * 6 + 6 + len(NAMES) * inputs
  assert smaller.num_experts == 3
  assert compression.count_parameters(pruned) == (
    compression.count_parameters(params) - one
  )


@pytest.mark.slow
def test_keeping_all_changes_nothing():
  model = _models()['ple']
  params = contracts.random_params(model, X)
  total = 2 * (3 * 2 + 3)
  _, same = pruning.by_gate_use(model, params, _use(model, params), total)
  contracts.assert_trees_equal(same, params)


@pytest.mark.slow
def test_fine_tuning_starts_where_pruning_ended(tmp_path):
  """Saved, loaded, and trained on: the first loss is the pruned model's."""
  model = _models()['mmoe']
  params = contracts.random_params(model, X)
  model, params = pruning.by_gate_use(model, params, _use(model, params), 3)
  checkpoint.save(tmp_path / 'm', model, params)
  loaded, start, _ = checkpoint.load(tmp_path / 'm')
  assert loaded == model
  contracts.assert_trees_equal(start, params)
  rows = contracts.batch(rows=9)._replace(features=X)
  result = lplmtl.fit(
    jax.random.key(0), loaded, optax.sgd(0.0), balancing.equal(), rows,
    batch_size=9, num_epochs=1, start=start,
  )  # fmt: skip
  predictions = lplmtl.predict(model, params, rows.features)
  expected, _ = jax.jit(losses.task_losses, static_argnums=0)(
    model.tasks, predictions, rows
  )
  np.testing.assert_allclose(
    np.squeeze(result.history[0]['losses']), expected, rtol=1e-5
  )


@pytest.mark.parametrize(
  'name, complaint',
  [
    ('adatt', r"AdaTT: they also reach the tasks by \['native_apple'"),
    ('dselect_k', r"DSelectK at level 0 .* found \['codes', 'shares'\]"),
    ('shared_bottom', 'SharedBottom has no gates, and so no experts'),
    ('mtan', 'MTAN has no gates'),
  ],
)
def test_models_without_softmax_gates(name, complaint):
  model = _models()[name]
  params = contracts.random_params(model, X)
  with pytest.raises(ValueError, match=complaint):
    pruning.by_gate_use(model, params, _use(model, params), 1)


def test_mistakes():
  models = _models()
  model, other = models['ple'], models['mmoe']
  params = contracts.random_params(model, X)
  others = contracts.random_params(other, X)
  use = _use(model, params)

  def prune(model=model, params=params, use=use, num_experts=8):
    return pruning.by_gate_use(model, params, use, num_experts)

  for count in (0, 1, 19, 2.0, True):
    with pytest.raises(ValueError, match='from 2, .* to the 18 that there are'):
      prune(num_experts=count)
  with pytest.raises(ValueError, match="3 experts 'shared_experts' at level 0"):
    prune(model=other, params=others)
  with pytest.raises(ValueError, match="4 experts 'experts' at level 0, the"):
    prune(use=_use(other, others))
  seeds = jax.tree.map(lambda x: np.stack([x, x, x]), params)
  with pytest.raises(ValueError, match='pass the parameters of one seed'):
    prune(params=seeds)
  bad = jax.tree.map(lambda x: x * np.nan, use)
  with pytest.raises(ValueError, match='finite weights, found NaN'):
    prune(use=bad)
  with pytest.raises(ValueError, match='found dict'):
    prune(use=use[0])
  with pytest.raises(ValueError, match='found LowRank: prune the model inside'):
    prune(model=compression.LowRank(model))
  with pytest.raises(ValueError, match=r"variables\['params'\]"):
    prune(params={'params': params})
  with pytest.raises(ValueError, match='at least one row'):
    inspection.usage(model, params, jax.tree.map(lambda x: x[:0], X))
