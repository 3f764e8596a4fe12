"""Embeddings composed of quotients and remainders, and models with them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from experiments.launcher import build, options
from experiments.launcher.errors import InputError
from lplmtl import balancing, compression, sparse, tables, tasks
from lplmtl.compression import merging_sensitivity, packing, quantization
from lplmtl.layers import composed
from lplmtl.training import steps

SIZES, WIDTH = (11, 3, 20), 4
NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)
IDS = np.array([[10, 2, 19], [3, 0, 7]])


def _encoder(by='multiply', **changes):
  options = {'compose_by': by, 'compose_above': 10, 'collisions': 4}
  return lplmtl.TabularEncoder(SIZES, WIDTH, **{**options, **changes})


def _features(ids=IDS):
  return {'categories': jnp.asarray(ids, jnp.int32), 'numeric': NUMBERS}


def _params(encoder):
  init = jax.jit(encoder.init)
  return init(jax.random.key(0), _features())['params']


@pytest.mark.parametrize('by', composed.OPERATIONS)
def test_two_rows_for_each_value(by):
  """Equation 5 of the paper, with a loop over rows and columns."""
  encoder = _encoder(by)
  params = jax.device_get(_params(encoder))
  pair = params['composed']
  width = WIDTH // 2 if by == 'concat' else WIDTH
  # m is 3 of 11 and 5 of 20; 11 / 3 and 20 / 5 make 4 quotients each.
  assert pair['remainders'].shape == (3 + 5, width)
  assert pair['quotients'].shape == (4 + 4, width)
  assert params['embedding'].shape == (3, WIDTH)
  counted = compression.count_parameters(params)
  assert counted == 3 * WIDTH + 16 * width
  join = {
    'multiply': np.multiply,
    'add': np.add,
    'concat': lambda a, b: np.concatenate([a, b]),
  }[by]
  found = encoder.apply({'params': params}, _features())
  for row, ids in enumerate(IDS):
    expected = [params['embedding'][ids[1]]]
    for column, m, first, start in ((0, 3, 0, 0), (2, 5, 3, 4)):
      r = pair['remainders'][first + ids[column] % m]
      q = pair['quotients'][start + ids[column] // m]
      expected.append(join(r, q))
    expected = np.concatenate([*expected, NUMBERS[row]])
    np.testing.assert_allclose(found[row], expected, rtol=1e-6)


def test_no_two_values_share_both_rows():
  for size, collisions in ((11, 4), (20, 4), (1000, 32), (7, 100), (5, 1)):
    (rows,), (others,) = composed.counts([size], collisions)
    ids = np.arange(size)
    pairs = set(zip(ids % rows, ids // rows, strict=True))
    assert len(pairs) == size
    assert others == (ids // rows).max() + 1
    assert others <= collisions


def test_embeddings_start_alike():
  """Those of all operations have a standard deviation near 0.05."""
  features = {
    'categories': np.arange(4000, dtype=np.int32)[:, None],
    'numeric': np.zeros((4000, 0), np.float32),
  }
  for by in composed.OPERATIONS:
    encoder = lplmtl.TabularEncoder((4000,), 16, compose_by=by)
    encoder = encoder.clone(compose_above=10)
    run = jax.jit(encoder.init_with_output)
    found = np.asarray(run(jax.random.key(0), features)[0])
    assert 0.04 < found.std() < 0.07, by


@pytest.mark.parametrize(
  'changes, complaint',
  [
    ({'by': 'divide'}, 'one of multiply, add, concat, .*found .divide'),
    ({'by': 'concat', 'embed_dim': 3}, 'even, to concatenate .*, found 3'),
    ({'num_ordered': 1}, 'compose_above must be at least the number of bins'),
  ],
)
def test_what_cannot_be_composed(changes, complaint):
  by = changes.pop('by', 'multiply')
  with pytest.raises(ValueError, match=complaint):
    _params(_encoder(by).clone(**changes))


TASKS = (tasks.binary('buy'),)


def test_both_tables_may_be_trained_row_by_row():
  model = lplmtl.SharedBottom(TASKS, _encoder(), bottom=lplmtl.MLP((4,)))
  names = ['composed/remainders', 'embedding']
  batch = lplmtl.Batch(_features(), {'buy': np.array([0, 1])})

  # The batch is an argument: of constants, jaxlib 0.7.2 folds the remainders of
  # whole numbers to wrong ones.
  def run(optimizer, batch):
    method = model, TASKS, optimizer, balancing.equal()
    state = steps.init_state(jax.random.key(0), *method, batch.features)
    return state.params, lplmtl.make_train_step(*method)(state, batch)[0].params

  _, dense = jax.jit(run, static_argnums=0)(optax.adagrad(0.1), batch)
  old, new = jax.jit(run, static_argnums=0)(
    sparse.lazy(optax.adagrad(0.1), names), batch
  )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), new, dense
  )
  pairs = (tree['encoder']['composed']['remainders'] for tree in (old, new))
  changed = np.asarray(np.not_equal(*pairs)).any(axis=1)
  assert np.flatnonzero(changed).tolist() == [0, 1, 3 + 2, 3 + 4]


def test_bits_and_what_needs_a_row_for_each_value():
  columns = {'city': [str(i) for i in range(12)], 'sex': [*'fm'] * 6}
  fitted = tables.fit(columns, {})
  features = fitted.encode(columns)
  encoder = lplmtl.TabularEncoder(
    fitted.num_categories, 2, compose_by='add', compose_above=5
  )
  model = lplmtl.SharedBottom(TASKS, encoder, bottom=lplmtl.MLP((4,)))
  quantized = quantization.Quantized(model, quantization.Scheme(bits=4))
  params = jax.jit(quantized.init)(jax.random.key(0), features)['params']
  frozen = quantization.freeze(quantized, params)
  codes = frozen['encoder']['composed']['remainders']
  assert codes.bits == 4 and codes.sizes == (4,)
  packed = packing.pack(frozen)
  assert 'embeddings4' in packed.sections
  counted = compression.count_bytes(quantized, params)
  assert sum(counted.values()) == packed.num_bytes
  with pytest.raises(ValueError, match='row for each category: found composed'):
    packing.pack(frozen, fitted)
  rows = lplmtl.Batch(features, {'buy': np.arange(12) % 2})
  with pytest.raises(ValueError, match='found columns composed of two rows'):
    merging_sensitivity.sensitivity(fitted, model, params, rows)


def test_flags_reach_the_encoder_and_the_optimiser():
  fitted = tables.fit({'city': [str(i) for i in range(12)]}, {})
  config = options.Config(
    compose_by='add', compose_above=9, collisions=3, lazy=True,
    optimizer='adagrad',
  )  # fmt: skip
  encoder = build.make_encoder(config, fitted)
  assert encoder.composed_columns == (0,)
  assert encoder.table_sizes['remainders'] == (5,)  # 13 ids, 3 a row
  assert build.make_encoder(options.Config(), fitted).composed_columns == ()
  assert isinstance(build.make_optimizer(config, 10), sparse.Lazy)
  config = dataclasses.replace(config, schedule='free')
  with pytest.raises(InputError, match='free is for adam, .*=adagrad'):
    build.make_optimizer(config, 10)
