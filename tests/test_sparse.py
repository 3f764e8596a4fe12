"""Row-sparse optimisers: what they change, what they refuse, what they cost."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, sparse, tasks
from lplmtl.layers import lookup
from lplmtl.training import rowwise, steps
from tests import contracts

TASKS = (tasks.binary('zebra'), tasks.regression('apple'))
SIZES, BUCKETS, BATCH = (5, 9, 4), (7,), 8
# Values, ordered bins and buckets: every way in which an encoder looks up.
ENCODER = lplmtl.TabularEncoder(
  SIZES, embed_dim=3, num_ordered=1, num_buckets=BUCKETS
)
MODEL = lplmtl.SharedBottom(
  TASKS, ENCODER, bottom=lplmtl.MLP((6,)), tower=lplmtl.MLP(())
)


def _data(rows=BATCH, seed=0):
  rng = np.random.default_rng(seed)
  ids = np.stack([rng.integers(0, n, rows) for n in SIZES], axis=1)
  numbers = rng.normal(size=(rows, 1)).astype(np.float32)
  hashed = rng.integers(0, BUCKETS[0], (rows, 1, 2)).astype(np.int32)
  return lplmtl.Batch(
    {'categories': ids.astype(np.int32), 'numeric': numbers, 'hashed': hashed},
    {
      'zebra': ids[:, 0] % 2,
      'apple': (ids[:, 1] + numbers[:, 0]).astype(np.float32),
    },
    where={'apple': np.arange(rows) % 3 > 0},
  )


def _train(optimizer, balancer, batches, **options):
  """Returns the states before and after a step for each batch."""
  step = jax.jit(
    lplmtl.make_train_step(MODEL, TASKS, optimizer, balancer, **options)
  )
  params = contracts.random_params(MODEL, batches[0].features)
  key = jax.random.key(0)
  first = steps.TrainState(
    jnp.int32(0), params, optimizer.init(params),
    balancer.init(key, len(TASKS)), key,
  )  # fmt: skip
  states = [first]
  for batch in batches:
    states.append(step(states[-1], jax.tree.map(jnp.asarray, batch))[0])
  return states


def _assert_close(found, expected):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6),
    found, expected,
  )  # fmt: skip


def test_lazy_adagrad_is_adagrad():
  """With a Gramian, microbatches and a norm of the whole gradient."""
  optimizer = optax.chain(optax.clip_by_global_norm(0.1), optax.adagrad(0.1))
  batches = [_data(seed=seed) for seed in range(4)]
  options = {'num_microbatches': 2, 'skip_nonfinite': True}
  dense = _train(optimizer, contracts.by_gramian(), batches, **options)[-1]
  optimizer = sparse.lazy(optimizer)
  lazy = _train(optimizer, contracts.by_gramian(), batches, **options)[-1]
  _assert_close(lazy.params, dense.params)
  _assert_close(lazy.opt_state, dense.opt_state)


def _every_row():
  """Rows that read every value of every table."""
  data = _data(rows=9)
  ids = np.stack([np.arange(9) % n for n in SIZES], axis=1).astype(np.int32)
  hashed = np.stack([np.arange(9) % 7] * 2, axis=1)[:, None].astype(np.int32)
  features = {**data.features, 'categories': ids, 'hashed': hashed}
  return data._replace(features=features)


def test_lazy_adam_is_adam_where_every_row_is_read():
  """FAMO also needs the losses after the step."""
  optimizer = optax.adamw(0.05, weight_decay=0.1)
  batches = [_every_row()] * 4
  dense = _train(optimizer, balancing.famo(), batches)[-1]
  lazy = _train(sparse.lazy(optimizer), balancing.famo(), batches)[-1]
  _assert_close(lazy.params, dense.params)
  _assert_close(lazy.opt_state, dense.opt_state)
  _assert_close(lazy.balancer_state, dense.balancer_state)


def test_rows_that_are_not_read_stay_to_the_bit():
  """So do their moments, which dense Adam would let decay."""
  first, second, bad = _every_row(), _data(rows=9), _data(rows=9)
  second.features['hashed'][:] = [[2, 4]]
  bad.features['numeric'][0] = np.nan
  optimizer = sparse.lazy(optax.adamw(0.1), ['encoder/embedding', 'buckets'])
  _, before, after, skipped = _train(
    optimizer, balancing.equal(), [first, second, bad], skip_nonfinite=True
  )
  offsets = np.cumsum((0, *SIZES[:-1]))
  read = {
    'embedding': second.features['categories'] + offsets,
    'buckets': second.features['hashed'],
  }
  for name, ids in read.items():
    is_read = np.zeros(len(before.params['encoder'][name]), bool)
    is_read[np.ravel(ids)] = True
    assert not is_read.all()
    for old, new in zip(_kept(before), _kept(after), strict=True):
      changed = (np.asarray(old[name]) != np.asarray(new[name])).any(axis=1)
      np.testing.assert_array_equal(changed, is_read)
  # A step that is not finite changes nothing at all.
  jax.tree.map(np.testing.assert_array_equal, _kept(skipped), _kept(after))
  assert skipped.step == 3


def _kept(state):
  """Returns the encoder's parameters and their two moments."""
  moments = state.opt_state[0]
  return [tree['encoder'] for tree in (state.params, moments.mu, moments.nu)]


def test_a_loop_over_steps_copies_no_table():
  """Nor does it compute with one: a step costs what its rows cost."""
  size = 50_003  # of no other array
  model = MODEL.clone(encoder=lplmtl.TabularEncoder((size,), embed_dim=3))
  method = model, TASKS, sparse.lazy(optax.adam(0.1)), contracts.by_gramian()
  data = _data(rows=40)
  data.features['categories'] = np.arange(40, dtype=np.int32)[:, None]
  del data.features['hashed']
  state = jax.eval_shape(
    lambda key: steps.init_state(key, *method, data.features),
    jax.random.key(0),
  )
  step = lplmtl.make_train_step(*method, skip_nonfinite=True)
  run = jax.jit(functools.partial(steps.train_chunk, step), donate_argnums=0)
  compiled = run.lower(state, data, jnp.zeros((5, BATCH), jnp.int32)).compile()
  made = re.findall(rf'= f32\[{size},3\]\S* ([\w-]+)\(', compiled.as_text())
  assert made.count('scatter') == 3  # the table and its two moments
  assert not {'copy', 'add', 'multiply', 'select'} & set(made), made
  assert compiled.memory_analysis().temp_size_in_bytes < size
  assert compiled.cost_analysis()['flops'] < size


@pytest.mark.parametrize(
  'optimizer, complaint',
  [
    (optax.lamb(0.1), 'treats each row of a table by itself.*reduce_sum'),
    (optax.contrib.muon(0.1), 'treats each row .* computes'),
    (
      optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
      "in every step, .* computes 'cond'",
    ),
    (optax.MultiSteps(optax.adam(0.1), 2), 'refuses .* that collect steps'),
    (optax.adafactor(0.1), 'treats each row .*'),
  ],
)
def test_optimisers_that_relate_rows_are_refused(optimizer, complaint):
  with pytest.raises(ValueError, match=complaint):
    _traced(sparse.lazy(optimizer))


@pytest.mark.parametrize(
  'optimizer',
  [
    optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)),
    optax.inject_hyperparams(optax.adamw)(0.1),
    optax.rmsprop(optax.cosine_decay_schedule(0.1, 9), momentum=0.9),
    optax.lion(0.1),
    optax.contrib.schedule_free_adamw(0.1),
    optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau()),
    optax.partition(
      {'a': optax.adam(0.1), 'b': optax.set_to_zero()},
      lambda params: {k: 'ab'[k == 'bottom'] for k in params},
    ),
  ],
)
def test_optimisers_of_rows_are_accepted(optimizer):
  before, after = _traced(sparse.lazy(optimizer))
  assert jax.tree.map(jnp.shape, before) == jax.tree.map(jnp.shape, after)


def _traced(optimizer, balancer=None, model=MODEL):
  """Returns the shapes of a state before and after a step."""
  method = model, TASKS, optimizer, balancer or balancing.equal()
  data = _data()

  def run(key):
    state = steps.init_state(key, *method, data.features)
    return state, lplmtl.make_train_step(*method)(state, data)[0]

  return jax.eval_shape(run, jax.random.key(0))


def test_numbers_of_rows_must_fit_in_int32():
  """A step numbers the rows that it leaves out behind those of the table."""
  encoder = ENCODER.clone(num_buckets=(2**31 - 1,))
  with pytest.raises(
    ValueError, match=r'up to 2,147,483,631 rows where .* 16,.* encoder/buckets'
  ):
    _traced(sparse.lazy(optax.sgd(0.1)), model=MODEL.clone(encoder=encoder))


def test_tables_are_named():
  with pytest.raises(
    ValueError, match=r"tables \['encoder/buckets', 'encoder/embedding'\].*'x'"
  ):
    _traced(sparse.lazy(optax.adam(0.1), ['x']))
  with pytest.raises(ValueError, match='looks up tables by .*; found none'):
    bare = lplmtl.SharedBottom(TASKS, encoder=_Numbers())
    _traced(sparse.lazy(optax.adam(0.1)), model=bare)
  with pytest.raises(ValueError, match="list of names.*found 'embedding'"):
    sparse.lazy(optax.adam(0.1), 'embedding')
  with pytest.raises(ValueError, match='an optax optimiser.*; found 0.1'):
    sparse.lazy(0.1)
  with pytest.raises(ValueError, match='found one that is lazy'):
    sparse.lazy(sparse.lazy(optax.adam(0.1)))


class _Numbers(nn.Module):
  def __call__(self, features):
    return features['numeric']


class _Tied(nn.Module):
  """Uses a table in another way than by looking it up."""

  @nn.compact
  def __call__(self, features):
    init = nn.initializers.normal()
    table = self.param('table', init, (SIZES[0], 2), jnp.float32)
    found = lookup.take(self, 'table', table, features['categories'][:, 0])
    return found @ table.T


def test_other_uses_of_a_table_are_refused():
  model = lplmtl.SharedBottom(TASKS, encoder=_Tied())
  with pytest.raises(ValueError, match=r"only be looked.*\['encoder/table'\]"):
    _traced(sparse.lazy(optax.adam(0.1)), model=model)


def test_what_does_not_go_with_lazy_tables():
  with pytest.raises(ValueError, match='remembers a gradient of .*/encoder/'):
    _traced(sparse.lazy(optax.adam(0.1)), balancing.moco())
  with pytest.raises(ValueError, match='must be the outermost optimiser'):
    _traced(optax.chain(sparse.lazy(optax.adam(0.1))))


def test_rows_of_a_table_are_followed_through_an_optimiser():
  """A reduction of other parameters is no concern of a table."""
  params = {'table': jnp.ones((4, 2)), 'kernel': jnp.ones((2, 2))}
  lamb = optax.masked(optax.lamb(0.1), {'table': False, 'kernel': True})
  rowwise.check(optax.chain(lamb, optax.sgd(0.1)), params, [('table',)])
  with pytest.raises(ValueError, match='treats each row'):
    rowwise.check(lamb, params, [('kernel',)])


@pytest.mark.slow
def test_fit_with_seeds_and_settings():
  """Values that no row has keep what they started from, in every seed."""
  data = _data(rows=24)
  data.features['categories'][:, 1] %= 5
  start = contracts.random_params(MODEL, data.features)
  result = lplmtl.fit(
    jax.random.split(jax.random.key(1), 2), MODEL,
    lambda h: sparse.lazy(optax.adam(h['rate'])), balancing.equal(),
    data, batch_size=BATCH, num_epochs=2, start=start,
    hyperparams={'rate': np.array([0.02, 0.05], np.float32)},
  )  # fmt: skip
  old = np.asarray(start['encoder']['embedding'])
  first, second = np.asarray(result.params['encoder']['embedding'])
  for new in (first, second):
    np.testing.assert_array_equal(new[10:14], old[10:14])
    assert (new[5:10] != old[5:10]).all()
  assert (first[5:10] != second[5:10]).all()
