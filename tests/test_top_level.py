"""A PLE without its top specific experts is an SPLE."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, checkpoint, compression
from lplmtl.compression import top_level
from lplmtl.layers import mixture
from tests import contracts

X = contracts.features(rows=40)
SMALL, NAMES = contracts.SMALL, contracts.NAMES


def _ple(**changes):
  model = contracts.architectures(encoder=contracts.encoder())['ple']
  model = model.clone(**changes)
  return model, contracts.random_params(model, X)


def _apply(model, params, x=X):
  return jax.jit(lambda p: model.apply({'params': p}, x)[0])(params)


def _masked(monkeypatch, model, params):
  """Predicts without the top specific experts: their logits are -inf."""
  weigh, calls = mixture.weigh, []

  def masked(outputs, logits, gates, **options):
    calls.append(gates)
    if len(calls) == len(model.levels):
      stay = [
        np.full(x.shape[1], name == 'shared_experts')
        for name, x in outputs.items()
      ]
      mask = np.concatenate(stay)[None]
      logits = {k: jnp.where(mask, x, -jnp.inf) for k, x in logits.items()}
    return weigh(outputs, logits, gates, **options)

  with monkeypatch.context() as patch:
    patch.setattr(mixture, 'weigh', masked)
    return _apply(model, params)


VARIANTS = {
  'usual': {},
  'one_top_expert': {'num_shared': (2, 1), 'gate_body': lplmtl.MLP((3,))},
  'no_tower_bodies': {'tower': lplmtl.MLP(())},
  'one_level': {'levels': (SMALL,)},
  'uneven': {'num_specific': ((0, 2, 1), (1, 0, 2)), 'num_shared': (1, 2)},
}


@pytest.mark.slow
@pytest.mark.parametrize('name', VARIANTS)
def test_is_the_masked_model(name, monkeypatch):
  model, params = _ple(**VARIANTS[name])
  expected = _masked(monkeypatch, model, params)
  for top in ('concat', 'shared'):
    small, new = top_level.to_sple(model, params, top=top)
    assert isinstance(small, lplmtl.SPLE) and small.top == top
    drawn = jax.eval_shape(small.init, jax.random.key(0), X)['params']
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, drawn)
    contracts.assert_trees_close(
      _apply(small, new), expected, atol=1e-6, rtol=1e-6
    )


def test_number_of_parameters_by_hand():
  """Two experts a task go, with columns; concat's towers read 6 more."""
  model, params = _ple()
  before = compression.count_parameters(params)
  counts = {
    top: compression.count_parameters(
      top_level.to_sple(model, params, top=top)[1]
    )
    for top in ('concat', 'shared')
  }
  experts, columns = 2 * (6 * 6 + 6), 2 * 6
  assert counts['shared'] == before - 3 * (experts + columns)
  assert counts['concat'] == counts['shared'] + 3 * 6 * 4


@pytest.mark.slow
def test_towers_take_over_what_is_linear_in_the_level_below():
  """Top specific experts that are linear are estimated without error."""
  linear = lplmtl.MLP((6,), activation=jax.nn.identity)
  # Without shared experts in the mixture, gates are constants: no specific
  # expert's weight depends on the row, so that what goes is linear.
  model, params = _ple(levels=(SMALL, linear), num_specific=((2, 2, 2), 1))
  top = dict(params['level_1'])
  top |= {f'gate_{name}': 0 * top[f'gate_{name}'] for name in NAMES}
  top['shared_experts'] = jax.tree.map(lambda x: 0 * x, top['shared_experts'])
  params = {**params, 'level_1': top}
  small, new = top_level.to_sple(model, params, features=X)
  zeros = top_level.to_sple(model, params)[1]
  rows = contracts.features(rows=20, seed=5)
  errors = [
    max(
      float(jnp.abs(x - y).max())
      for x, y in zip(
        jax.tree.leaves(_apply(small, p, rows)),
        jax.tree.leaves(_apply(model, params, rows)),
        strict=True,
      )
    )
    for p in (new, zeros)
  ]
  assert errors[0] < 0.05 * errors[1]


@pytest.mark.slow
def test_fine_tuning_and_saving(tmp_path):
  model, params = _ple()
  small, new = top_level.to_sple(model, params, features=X)
  checkpoint.save(tmp_path / 'm', small, new)
  small, new, _ = checkpoint.load(tmp_path / 'm')
  rows = contracts.batch(rows=16)
  result = lplmtl.fit(
    jax.random.key(0), small, optax.sgd(0.0), balancing.equal(), rows,
    batch_size=16, num_epochs=1, start=new,
  )  # fmt: skip
  predictions = _apply(small, new, rows.features)
  expected, _ = lplmtl.losses.task_losses(model.tasks, predictions, rows)
  np.testing.assert_allclose(
    np.squeeze(result.history[0]['losses']), expected, rtol=1e-5
  )


def test_mistakes():
  model, params = _ple()
  with pytest.raises(ValueError, match='expected a lplmtl.PLE .* found CGC'):
    cgc = contracts.architectures(encoder=contracts.encoder())['cgc']
    top_level.to_sple(cgc, contracts.random_params(cgc, X))
  with pytest.raises(ValueError, match="found 'identity'"):
    top_level.to_sple(model, params, top='identity')
  mmoe = contracts.architectures(encoder=contracts.encoder())['mmoe']
  with pytest.raises(ValueError, match='lack level_0/shared_experts'):
    top_level.to_sple(model, contracts.random_params(mmoe, X))
  seeds = jax.tree.map(lambda x: jnp.stack([x, x, x, x, x]), params)
  with pytest.raises(ValueError, match=r'one seed|\[D, '):
    top_level.to_sple(model, seeds)
  none = jax.tree.map(lambda x: x[:0], X)
  with pytest.raises(ValueError, match='one row of features, found none'):
    top_level.to_sple(model, params, features=none)
  import flax.linen as nn

  odd, odd_params = _ple(tower=nn.Sequential((nn.Dense(4), nn.LayerNorm())))
  with pytest.raises(ValueError, match='towers that are MLPs, found one with'):
    top_level.to_sple(odd, odd_params)
  top_level.to_sple(odd, odd_params, top='shared')
