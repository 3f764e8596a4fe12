"""Models with fewer experts, against the whole ones with masked gates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, checkpoint, compression, inspection
from lplmtl.compression import leaves, pruning
from lplmtl.layers import mixture
from tests import contracts

X = contracts.features(rows=9)
NAMES = contracts.NAMES
BODY = lplmtl.MLP((3,))


def _models():
  models = contracts.architectures(encoder=contracts.encoder())
  three = dict(levels=(contracts.SMALL,) * 3, encoder=contracts.encoder())
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
  return jax.jit(lambda p: inspection.usage(model, p, X))(params)


def _masked(monkeypatch, model, params, kept):
  """Predicts with the gate logits of all other experts at minus infinity.

  Args:
    monkeypatch: pytest's.
    model: the whole model.
    params: its parameters.
    kept: per level, `{pool: numbers of the experts that stay}`.
  """
  weigh, calls = mixture.weigh, []

  def masked(outputs, logits, gates, **options):
    # A level is one call, but STEM's is one for each task.
    level = kept[min(len(calls), len(kept) - 1)]
    calls.append(level)
    mask = []
    for name, x in outputs.items():
      stay = np.zeros(x.shape[1], bool)
      stay[list(level.get(name, range(x.shape[1])))] = True
      mask.append(stay)
    mask = np.concatenate(mask)[None]
    logits = {k: jnp.where(mask, x, -jnp.inf) for k, x in logits.items()}
    return weigh(outputs, logits, gates, **options)

  with monkeypatch.context() as patch:
    patch.setattr(mixture, 'weigh', masked)
    # A new function, so that no unmasked program is reused.
    return jax.jit(lambda p: model.apply({'params': p}, X))(params)


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


@pytest.mark.parametrize('name', SIZES)
def test_is_the_masked_model(name, monkeypatch):
  model = _models()[name]
  # With gates that prefer some experts, so that few rows tell.
  params = leaves.map_named(
    lambda path, x: x * 3 if 'gate' in path or 'selector' in path else x,
    contracts.random_params(model, X),
  )
  use = _use(model, params)
  smaller, pruned = pruning.by_gate_use(model, params, use, SIZES[name])
  kept = _kept(use, SIZES[name], _may_lose(name))
  expected, _ = _masked(monkeypatch, model, params, kept)
  found, aux = jax.jit(smaller.apply)({'params': pruned}, X)
  contracts.assert_trees_close(found, expected, atol=1e-6, rtol=1e-6)
  # It has just the parameters that such a model draws.
  drawn = jax.eval_shape(smaller.init, jax.random.key(0), X)['params']
  contracts.assert_same_structure(
    pruned, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), drawn)
  )
  counts = [
    {n: x.shape[-1] for n, x in level.items() if n not in NAMES}
    for level in map(inspection.peaks, aux['gates'])
  ]
  assert [sum(level.values()) for level in counts] == [
    sum(map(len, level.values())) for level in kept
  ]


def test_number_of_parameters_by_hand():
  model = _models()['mmoe']
  params = contracts.random_params(model, X)
  inputs = 2 * 2 + 3
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
  rows = contracts.batch(rows=9)
  result = lplmtl.fit(
    jax.random.key(0), loaded, optax.sgd(0.0), balancing.equal(), rows,
    batch_size=9, num_epochs=1, start=start,
  )  # fmt: skip
  predictions = lplmtl.predict(model, params, rows.features)
  expected, _ = lplmtl.losses.task_losses(model.tasks, predictions, rows)
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
  seeds = jax.tree.map(lambda x: jnp.stack([x, x, x]), params)
  with pytest.raises(ValueError, match='pass the parameters of one seed'):
    prune(params=seeds)
  bad = jax.tree.map(lambda x: x * jnp.nan, use)
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
