"""Use of experts by gates, against plain means; experts that no gate uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import inspection
from lplmtl.training import parallel, programs, steps
from tests import contracts


@pytest.mark.parametrize(
  'name, chunk_size', [('mmoe', 1000), ('omoe', 5), ('sple_identity', 5)]
)
def test_usage_is_the_mean_over_rows(name, chunk_size):
  model = contracts.architectures(encoder=contracts.encoder())[name]
  x = contracts.features(rows=13)
  params = contracts.random_params(model, x)
  usage = jax.jit(
    lambda params, x: inspection.usage(model, params, x, chunk_size=chunk_size)
  )(params, x)
  aux = jax.device_get(jax.jit(model.apply)({'params': params}, x)[1])
  expected = jax.tree.map(lambda w: w.mean(axis=0), aux['gates'])
  contracts.assert_trees_close(usage, expected)
  for level in usage:
    for pools in level.values():
      total = sum(float(w.sum()) for w in pools.values())
      np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_usage_beside_metrics():
  """Of two seeds, and rows that leave the second chunk almost empty."""
  model = contracts.architectures(encoder=contracts.encoder())['mmoe']
  x = contracts.features(rows=1030)
  names = [task.name for task in model.tasks]
  rows = lplmtl.Batch(x, {name: np.arange(1030) % 2 for name in names})
  seeds = [contracts.random_params(model, x, seed) for seed in (0, 1)]
  params = jax.tree.map(lambda *leaves: np.stack(leaves), *seeds)
  mesh = parallel.make_mesh(2, 1)
  evaluate = programs.make_scores(
    model, model.tasks, num_rows=1030, num_seeds=2, mesh=mesh
  )
  found, usage = evaluate(params, rows)
  plain = programs.make_evaluate(model, model.tasks, num_seeds=2, mesh=mesh)
  contracts.assert_trees_close(found, plain(params, None, rows))
  look = jax.jit(lambda params: inspection.usage(model, params, x))
  for seed, params in enumerate(seeds):
    of_seed = jax.tree.map(lambda w, s=seed: w[s], usage)
    contracts.assert_trees_close(of_seed, look(params))


def test_a_model_without_gates():
  model = contracts.architectures(encoder=contracts.encoder())['shared_bottom']
  x = contracts.features()
  assert inspection.usage(model, contracts.random_params(model, x), x) == ()
  with pytest.raises(ValueError, match='0 rows'):
    inspection.usage(model, {}, {'a': jnp.zeros((0, 3))})
  with pytest.raises(ValueError, match='chunk_size=0'):
    inspection.usage(model, {}, {'a': jnp.zeros((3, 3))}, chunk_size=0)


def test_collapse():
  """An expert is unused if none of the gates that may choose it does."""
  level = {
    'a': {'own_a': np.array([0.5, 0.0]), 'both': np.array([0.496, 0.004])},
    'b': {'own_b': np.array([0.98, 0.0]), 'both': np.array([0.009, 0.011])},
  }
  # No gate uses own_a[1] and own_b[1]; b uses both[1].
  assert inspection.collapsed(level) == 2 / 6
  assert inspection.collapsed(level, least=0.02) == 3 / 6
  assert inspection.peaks(level)['both'].tolist() == [0.496, 0.011]
  assert np.isnan(
    inspection.collapsed({'a': {'own_a': np.array([np.nan, 1.0])}})
  )
  with pytest.raises(ValueError, match=r'expected one level .* found tuple'):
    inspection.collapsed((level,))


@pytest.mark.parametrize('call', [lplmtl.predict, inspection.usage])
def test_arguments_in_the_place_of_others(call):
  x = np.zeros((2, 3), np.float32)
  model = lplmtl.SharedBottom(contracts.TASKS)
  params = {'bottom': {}}
  state = steps.TrainState(0, params, (), (), None)
  for args, complaint in (
    ((params, model), 'before its parameters; found dict'),
    ((lplmtl.MMoE, params), 'before its parameters; found MMoE'),
    ((model, {'params': params}), r"variables\['params'\]"),
    ((model, state), 'found TrainState'),
  ):
    with pytest.raises(ValueError, match=complaint):
      call(*args, x)
    with pytest.raises(ValueError, match=complaint):
      lplmtl.make_predictor(*args)
  with pytest.raises(ValueError, match='a whole number, found 7.0'):
    call(model, params, x, chunk_size=7.0)
  with pytest.raises(ValueError, match='a whole number, found 7.0'):
    lplmtl.make_predictor(model, params, chunk_size=7.0)
