"""Narrower layers, against the whole model with units that put out 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, checkpoint, compression, losses
from lplmtl.compression import neurons, programs, unit_search, units
from lplmtl.layers import experts
from tests import contracts

ROWS = jax.device_get(contracts.batch(rows=24))
X = ROWS.features['numeric']  # an encoder has no units, but takes time
ROWS = ROWS._replace(features=X)


def _models():
  models = contracts.architectures()
  for name in ('shared_bottom', 'tensor_factorization', 'sple_identity'):
    models[name] = models[name].clone(tower=lplmtl.MLP((4,)))  # with units
  two = lplmtl.MLP((7, 6))
  return models | {
    'deep_towers': models['ple'].clone(
      tower=(lplmtl.MLP((4, 3)), two, lplmtl.MLP(())), gate_body=two
    ),
    'gelu': models['mmoe'].clone(
      expert=lplmtl.MLP((7, 6), activation=jax.nn.gelu), tower=lplmtl.MLP((4,))
    ),
  }


def _predict(model, params):
  """By the function that `prune` has compiled, if it has."""
  return programs.of(neurons._predict, model)(params, X)


# How many copies of each layer choose units of their own.
COPIES = {
  # Experts of a stack do, unless they are added up.
  'ple': {'levels[0].widths[0]': 9, 'levels[0].widths[1]': 1,
          'levels[1].widths[0]': 1, 'tower.widths[0]': 3},
  'sple_concat': {'levels[0].widths[0]': 9, 'levels[0].widths[1]': 1,
                  'levels[1].widths[0]': 1, 'tower.widths[0]': 3},
  # Both levels must be of equal width.
  'sple_identity': {'tower.widths[0]': 3},
  'gelu': {'expert.widths[0]': 4, 'expert.widths[1]': 1,
           'tower.widths[0]': 3},
  'single_task': {'bottom.widths[0]': 1},
  # Widths stand on both axes of one matrix.
  'mtan': {'tower.widths[0]': 3},
  'deep_towers': {
    'levels[0].widths[0]': 9, 'levels[0].widths[1]': 1,
    'levels[1].widths[0]': 1, 'tower[0].widths[0]': 1,
    'tower[0].widths[1]': 1, 'tower[1].widths[0]': 1,
    'tower[1].widths[1]': 1, 'gate_body.widths[0]': 7,
    'gate_body.widths[1]': 2},
}  # fmt: skip


@pytest.mark.parametrize(
  'name', [*contracts.architectures(), 'deep_towers', 'gelu']
)
def test_is_the_masked_model(name, monkeypatch):
  model = _models()[name]
  params = contracts.random_params(model, X)
  layers = unit_search.find(model, params, X)
  # It takes half of the time, and would be called twice more.
  monkeypatch.setattr(unit_search, 'find', lambda *_: layers)
  if name != 'gelu':  # by the paper's equations, which need not be compiled
    equations = 'ple' if name == 'deep_towers' else name
    compute = functools.partial(
      contracts.by_reference, equations, contracts.NAMES
    )
    monkeypatch.setattr(programs, 'of', lambda *_: compute)
  smaller, pruned = neurons.prune(model, params, ROWS, 0.4, criterion='norm')
  copies = {layer.name: len(layer.copies) for layer in layers}
  assert copies == COPIES.get(name, copies)
  scores = neurons.importances(model, params, ROWS, criterion='norm')
  kept = {}
  for layer in layers:
    field = getattr(smaller, layer.field)
    mlp = field if layer.entry is None else field[layer.entry]
    order = np.argsort(scores[layer.name], axis=1)[:, ::-1]
    kept[layer.name] = order[:, : mlp.widths[layer.number]]
  total = sum(layer.width for layer in layers)
  assert sum(x.shape[1] for x in kept.values()) == total - round(0.4 * total)
  # `test_taylor...` multiplies what units put out, without `units.mask`.
  masked = units.mask(params, layers, kept)
  contracts.assert_trees_close(
    _predict(smaller, pruned), _predict(model, masked), atol=1e-6, rtol=1e-5
  )
  drawn = jax.eval_shape(smaller.init, jax.random.key(0), X)['params']
  assert jax.tree.map(np.shape, pruned) == jax.tree.map(np.shape, drawn)


def test_parameters_by_hand():
  """MMoE: 4 experts (7, 6) on 3 inputs; towers (4) with 1, 3 and 1 outputs."""
  model = _models()['gelu']
  params = contracts.random_params(model, X)
  smaller, pruned = neurons.prune(
    model, params, ROWS, 0.5, criterion='norm',
    chosen=lambda name: name == 'expert.widths[0]',
  )  # fmt: skip
  assert smaller.expert.widths == (3, 6)  # round(3.5) = 4 of 7 go
  assert compression.count_parameters(pruned) == (
    compression.count_parameters(params) - 4 * 4 * (3 + 1 + 6)
  )


def test_norm_by_loops():
  model = _models()['shared_bottom']
  params = contracts.random_params(model, X)
  found = neurons.importances(model, params, ROWS, criterion='norm')
  kernel, bias = (
    np.asarray(params['bottom']['layer_0'][k]) for k in ('kernel', 'bias')
  )
  slow = np.array(
    [abs(kernel[:, h]).sum() + abs(bias[h]) for h in range(len(bias))]
  )
  expected = slow / np.sqrt((slow**2).sum())
  np.testing.assert_allclose(
    found['bottom.widths[0]'], expected[None], rtol=1e-5
  )


@pytest.mark.slow
def test_taylor_is_the_derivative_for_each_units_output(monkeypatch):
  """Against gradients for factors that multiply the outputs, row by row."""
  model = lplmtl.MMoE(
    contracts.TASKS, expert=lplmtl.MLP((5,), activation=jax.nn.gelu),
    num_experts=3, tower=lplmtl.MLP(()),
  )  # fmt: skip
  x = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
  rows = ROWS._replace(
    features=x, labels=jax.tree.map(lambda y: y[:6], ROWS.labels)
  )
  params = contracts.random_params(model, x)
  found = neurons.importances(model, params, rows)['expert.widths[0]']
  finish = experts._finish

  def predict(factor, features):
    factors = jnp.tile(factor, 3)[None]
    with monkeypatch.context() as patch:
      patch.setattr(
        experts,
        '_finish',
        lambda expert, *rest: finish(expert, *rest) * factors,
      )
      return model.apply({'params': params}, features)[0]

  @jax.jit
  @jax.grad
  def slope(factor, row):
    predictions = predict(factor, row.features)
    return losses.task_losses(model.tasks, predictions, row)[0].sum()

  slopes = [
    slope(
      np.ones(5, np.float32), jax.tree.map(lambda v, i=i: v[i : i + 1], rows)
    )
    for i in range(6)
  ]
  slow = np.mean(np.abs(slopes), axis=0)
  np.testing.assert_allclose(
    found, slow[None] / np.linalg.norm(slow), rtol=1e-4, atol=1e-6
  )
  # Two of five units go, exactly as if they put out 0.
  smaller, pruned = neurons.prune(model, params, rows, 0.4)
  factor = np.ones(5, np.float32)
  factor[np.argsort(slow)[:2]] = 0
  contracts.assert_trees_close(
    programs.of(neurons._predict, smaller)(pruned, x),
    jax.jit(predict)(factor, x),
    atol=1e-6,
  )


@pytest.mark.slow
def test_a_unit_that_does_nothing_goes_first():
  model = _models()['sple_concat']
  params = contracts.random_params(model, X)
  # Unit 2 of the top experts is not read by any tower: [5 or 6 below ; 6].
  for name in contracts.NAMES:
    layer = params[f'tower_{name}']['body']['layer_0']
    layer['kernel'] = np.array(layer['kernel'])
    layer['kernel'][6 + 2] = 0
  smaller, pruned = neurons.prune(
    model, params, ROWS, 0.01, chosen=lambda name: name.startswith('levels[1]')
  )
  assert smaller.levels[1].widths == (5,)
  contracts.assert_trees_close(
    _predict(smaller, pruned), _predict(model, params), atol=1e-6
  )


def test_seeds_lose_equally_many_units_of_their_own():
  model = _models()['shared_bottom']
  seeds = [contracts.random_params(model, X, seed=i) for i in range(2)]
  layer = 'bottom.widths[0]'
  options = {'criterion': 'norm', 'chosen': lambda name: name == layer}
  narrow, pruned = neurons.prune_seeds(model, seeds, ROWS, 0.4, **options)
  stayed = []
  for params, new in zip(seeds, pruned, strict=True):
    scores = neurons.importances(model, params, ROWS, **options)[layer][0]
    count = narrow.bottom.widths[0]
    stayed.append(sorted(np.argsort(scores)[-count:].tolist()))
    before, after = (x['bottom']['layer_0']['bias'] for x in (params, new))
    np.testing.assert_array_equal(before[np.array(stayed[-1])], after)
  assert stayed[0] != stayed[1]
  with pytest.raises(ValueError, match='at least one seed'):
    neurons.prune_seeds(model, [], ROWS, 0.4)
  with pytest.raises(ValueError, match='other shapes'):
    neurons.prune_seeds(model, [seeds[0], pruned[0]], ROWS, 0.4, **options)


@pytest.mark.slow
def test_fine_tuning_and_saving(tmp_path):
  model = _models()['mmoe']
  params = contracts.random_params(model, X)
  smaller, pruned = neurons.prune(model, params, ROWS, 0.5, criterion='norm')
  checkpoint.save(tmp_path / 'm', smaller, pruned)
  loaded, start, _ = checkpoint.load(tmp_path / 'm')
  assert loaded == smaller
  result = lplmtl.fit(
    jax.random.key(0), loaded, optax.sgd(0.0), balancing.equal(), ROWS,
    batch_size=24, num_epochs=1, start=start,
  )  # fmt: skip
  predictions = _predict(smaller, pruned)
  expected, _ = jax.jit(losses.task_losses, static_argnums=0)(
    model.tasks, predictions, ROWS
  )
  np.testing.assert_allclose(
    np.squeeze(result.history[0]['losses']), expected, rtol=1e-5
  )


def test_mistakes():
  model = _models()['shared_bottom']
  params = contracts.random_params(model, X)

  def prune(model=model, params=params, rows=ROWS, share=0.5, **options):
    return neurons.prune(model, params, rows, share, **options)

  for share in (0, 1, -1, True):
    with pytest.raises(ValueError, match='above 0 and below 1,.* found'):
      prune(share=share)
  # 2 of the 10 units must stay, one in each layer.
  with pytest.raises(ValueError, match=r'without units: take at most 0\.8'):
    prune(share=0.9, criterion='norm')
  with pytest.raises(ValueError, match="one of .*, found 'l3'"):
    prune(criterion='l3')
  with pytest.raises(ValueError, match=r"no layer .* found \['bottom.widths"):
    prune(chosen=lambda name: False)
  other = _models()['mmoe']
  with pytest.raises(
    ValueError, match='not those of this MMoE, of which they lack'
  ):
    prune(model=other)
  none = jax.tree.map(lambda x: x[:0], ROWS)
  with pytest.raises(ValueError, match='batch must have at least one row'):
    prune(rows=none)
  sigmoid = model.clone(bottom=lplmtl.MLP((6,), activation=jax.nn.sigmoid))
  with pytest.raises(ValueError, match='Activations must be 0 at 0'):
    prune(model=sigmoid, criterion='norm')
