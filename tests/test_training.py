"""Steps, chunks, seeds, selection and early stopping."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, tasks, training
from lplmtl.training import (
  arrays,
  checks,
  evaluation,
  parallel,
  progress,
  steps,
)
from tests import contracts

TASKS = (tasks.binary('zebra'), tasks.regression('apple'))
MODEL = lplmtl.SharedBottom(
  TASKS, bottom=lplmtl.MLP((8,)), tower=lplmtl.MLP(())
)
OPTIMIZER = optax.adam(1e-2)
BALANCER = balancing.uncertainty()
BATCH = 16


def _data(rows=160, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(rows, 5)).astype(np.float32)
  hidden = x[:, 0] - x[:, 1] * x[:, 2]
  labels = {
    'zebra': (hidden + 0.5 * rng.normal(size=rows) > 0).astype(np.int32),
    'apple': (hidden + rng.normal(size=rows)).astype(np.float32),
  }
  return lplmtl.Batch(x, labels)


def _state(key, model=MODEL, tasks=TASKS, balancer=BALANCER):
  return steps.init_state(
    key, model, tasks, OPTIMIZER, balancer, _data().features
  )


def _fit(key=None, **changes):
  arguments = {
    'model': MODEL,
    'optimizer': OPTIMIZER,
    'balancer': BALANCER,
    'data': _data(),
    'validation': _data(rows=80, seed=1),
    'batch_size': BATCH,
    'num_epochs': 3,
    **changes,
  }
  return lplmtl.fit(jax.random.key(0) if key is None else key, **arguments)


def _keys(num_seeds):
  return jax.vmap(jax.random.key)(jnp.arange(num_seeds))


@pytest.fixture(scope='module')
def three_seeds():
  return _fit(_keys(3))


@jax.jit
def _predict(params, features):
  return MODEL.apply({'params': params}, features)[0]


def test_one_step_by_hand():
  """Loss, weights, gradient and update of one step, spelled out."""
  step = jax.jit(lplmtl.make_train_step(MODEL, TASKS, optax.sgd(0.1), BALANCER))
  batch = jax.tree.map(lambda x: x[:BATCH], _data())
  params = contracts.random_params(MODEL, batch.features)
  state = steps.TrainState(
    jnp.int32(0),
    params,
    optax.sgd(0.1).init(params),
    BALANCER.init(jax.random.key(0), 2),
    jax.random.key(0),
  )
  new, metrics = step(state, batch)

  def total(params):
    predictions = MODEL.apply({'params': params}, batch.features)[0]
    log_odds, mean = predictions['zebra'][:, 0], predictions['apple'][:, 0]
    y = batch.labels['zebra']
    cross_entropy = jnp.mean(jnp.log1p(jnp.exp(log_odds)) - y * log_odds)
    squared = jnp.mean((mean - batch.labels['apple']) ** 2 / 2)
    return cross_entropy + squared, (cross_entropy, squared)

  gradient, losses = jax.jit(jax.grad(total, has_aux=True))(params)
  np.testing.assert_allclose(metrics['losses'], losses, rtol=1e-5)
  np.testing.assert_allclose(metrics['weights'], [1.0, 1.0])
  expected = jax.tree.map(
    lambda p, g: p - np.float32(0.1) * g, *jax.device_get((params, gradient))
  )
  contracts.assert_trees_close(new.params, expected, atol=1e-6)
  assert new.step == 1
  contracts.assert_same_structure(new, state)


def test_golden_step():
  """A change of these numbers is a change of the training that users get.

  If it is meant, update them and say so in CHANGELOG.md.
  """
  model = lplmtl.MMoE(
    TASKS, expert=lplmtl.MLP((8,)), num_experts=2, tower=lplmtl.MLP((4,))
  )
  step = jax.jit(lplmtl.make_train_step(model, TASKS, OPTIMIZER, BALANCER))
  batch = jax.tree.map(lambda x: jnp.asarray(x[:BATCH]), _data())
  params = contracts.random_params(model, batch.features)
  state = steps.TrainState(
    jnp.int32(0),
    params,
    OPTIMIZER.init(params),
    BALANCER.init(jax.random.key(0), 2),
    jax.random.key(0),
  )
  for _ in range(5):
    state, metrics = step(state, batch)
  np.testing.assert_allclose(metrics['losses'], GOLDEN_LOSSES, rtol=1e-4)
  np.testing.assert_allclose(metrics['weights'], GOLDEN_WEIGHTS, rtol=1e-4)


GOLDEN_LOSSES = [0.5839559, 1.1621073]
GOLDEN_WEIGHTS = [0.9612215, 0.9610066]


@pytest.mark.slow
def test_scan_is_a_loop():
  step = lplmtl.make_train_step(MODEL, TASKS, OPTIMIZER, BALANCER)
  data = _data()
  rows = np.random.default_rng(0).permutation(160)[:80].reshape(5, BATCH)
  params = contracts.random_params(MODEL, data.features)
  state = steps.TrainState(
    jnp.int32(0),
    params,
    OPTIMIZER.init(params),
    BALANCER.init(jax.random.key(0), 2),
    jax.random.key(0),
  )
  scanned, metrics = jax.jit(
    lambda state, data, rows: steps.train_chunk(step, state, data, rows)
  )(state, data, rows)
  metrics = jax.device_get(metrics)
  one = jax.jit(step)
  for i, row in enumerate(rows):
    state, now = one(state, jax.tree.map(lambda x, row=row: x[row], data))
    contracts.assert_trees_close(
      jax.tree.map(lambda x, i=i: x[i], metrics), now, atol=1e-5
    )
  contracts.assert_trees_close(scanned.params, state.params, atol=1e-5)
  contracts.assert_same_structure(scanned, state)


@pytest.mark.slow
def test_a_seed_alone_equals_that_seed_among_others():
  """50 steps, to 1e-5."""
  step = lplmtl.make_train_step(MODEL, TASKS, OPTIMIZER, BALANCER)
  data = jax.device_put(_data())
  keys = _keys(3)
  rows = training.make_shuffle(keys, 160, BATCH)
  rows = np.concatenate([rows(epoch) for epoch in range(5)], axis=1)
  assert rows.shape == (3, 50, BATCH)

  def run(keys, rows):
    count = len(keys)
    mesh = parallel.make_mesh(count)
    spread = functools.partial(parallel.over_seeds, num_seeds=count, mesh=mesh)
    state = jax.jit(spread(_state, in_axes=(0,)))(keys)
    chunk = lambda s, r: steps.train_chunk(step, s, data, r)  # noqa: E731
    return jax.jit(spread(chunk, in_axes=(0, 0)))(state, rows)

  state, metrics = run(keys, rows)
  alone, metrics_alone = run(keys[1:2], rows[1:2])
  for many, one in ((metrics, metrics_alone), (state.params, alone.params)):
    contracts.assert_trees_close(
      jax.tree.map(lambda x: x[1:2], many), one, atol=1e-5, rtol=1e-5
    )


def test_a_predictor_knows_its_parameters():
  data = _data(rows=25)
  params = contracts.random_params(MODEL, data.features)
  expected = _predict(params, data.features)
  predictor = lplmtl.make_predictor(MODEL, params, chunk_size=10)
  for rows in (1, 10, 25):
    found = predictor(data.features[:rows])
    for name in expected:
      np.testing.assert_allclose(found[name], expected[name][:rows], atol=1e-5)
  assert 'dot' in predictor.lower(data.features).as_text()  # for jax.export


@pytest.mark.parametrize(
  'features, found',
  [({}, 'nothing'), ([1.0, 2.0], 'float'), (np.float32(1), 'float32')],
)
def test_features_that_are_none(features, found):
  with pytest.raises(ValueError, match=rf'shape \[N, ...\], found {found}'):
    _fit(data=_data()._replace(features=features))


def test_nothing_to_predict():
  params = contracts.random_params(MODEL, _data().features)
  for rows, chunk_size in ((0, 10), (5, 0)):
    predictor = lplmtl.make_predictor(MODEL, params, chunk_size=chunk_size)
    with pytest.raises(ValueError, match=f'found {rows} rows and a chunk_size'):
      predictor(_data().features[:rows])


@pytest.mark.slow
def test_a_batched_program_equals_one_seed_after_the_other():
  """What runs on accelerators is vmapped; here seeds take turns."""
  step = lplmtl.make_train_step(MODEL, TASKS, OPTIMIZER, BALANCER)
  data, keys = jax.device_put(_data()), _keys(2)
  rows = training.make_shuffle(keys, 160, BATCH)(0)
  state = jax.jit(jax.vmap(_state))(keys)
  chunk = lambda s, r: steps.train_chunk(step, s, data, r)  # noqa: E731
  batched = jax.jit(jax.vmap(chunk))(state, rows)
  mesh = parallel.make_mesh(2)
  in_turn = jax.jit(parallel.over_seeds(chunk, 2, (0, 0), mesh))(state, rows)
  contracts.assert_trees_close(batched[1], in_turn[1])
  contracts.assert_trees_close(batched[0].params, in_turn[0].params)


@pytest.mark.slow
def test_a_population_equals_its_members():
  """Numbers as traced values: all four kinds, on dropout too."""

  def parts(h):
    widths = {'widths': (8,), 'dropout_rate': h['dropout']}
    return (
      lplmtl.SharedBottom(
        TASKS, bottom=lplmtl.MLP(**widths), tower=lplmtl.MLP(())
      ),
      optax.adamw(h['rate'], weight_decay=h['decay']),
      balancing.uncertainty(h['weight_rate']),
    )

  settings = {
    'dropout': [0.0, 0.25, 0.5],
    'rate': [1e-3, 1e-2, 3e-3],
    'decay': [0.0, 0.1, 0.01],
    'weight_rate': [1e-2, 1e-1, 0.0],
  }
  keys = _keys(3)
  together = _fit(
    keys,
    model=lambda h: parts(h)[0],
    optimizer=lambda h: parts(h)[1],
    balancer=lambda h: parts(h)[2],
    hyperparams=jax.tree.map(
      jnp.float32, settings, is_leaf=lambda x: isinstance(x, list)
    ),
  )
  model, optimizer, balancer = parts({n: v[1] for n, v in settings.items()})
  alone = _fit(
    keys[1], model=model, optimizer=optimizer, balancer=balancer,
    validation=None,
  )  # fmt: skip
  for many, one in zip(together.history, alone.history, strict=True):
    for name in ('losses', 'loss_weights'):
      np.testing.assert_allclose(many[name][1], one[name][0], atol=1e-5)
  contracts.assert_trees_close(
    jax.tree.map(lambda x: np.asarray(x)[1], together.state.params),
    alone.state.params,
    atol=1e-4,
  )


def test_fit_repeats_bit_for_bit(three_seeds):
  again = _fit(_keys(3))
  contracts.assert_trees_equal(again.params, three_seeds.params)
  contracts.assert_trees_equal(again.history, three_seeds.history)


def test_fit_learns_and_reports(three_seeds):
  history = three_seeds.history
  assert [record['epoch'] for record in history] == [1, 2, 3]
  losses = np.stack([record['losses'] for record in history])
  assert losses.shape == (3, 3, 2)
  assert (losses[-1] < losses[0]).all()
  assert list(history[0]['validation']) == ['zebra', 'apple']
  assert next(iter(history[0]['validation']['zebra'])) == 'auc'
  assert history[-1]['validation']['zebra']['auc'].mean() > 0.7
  assert (three_seeds.state.step == 30).all()
  assert three_seeds.seconds['compile'] > 0 and three_seeds.seconds['train'] > 0
  # The seeds differ in their initial parameters and in their shuffling.
  kernel = three_seeds.params['tower_zebra']['head']['kernel']
  assert kernel.shape == (3, 8, 1)
  assert not np.allclose(kernel[0], kernel[1])


@pytest.mark.slow
def test_fit_with_one_key_has_no_seed_axis(three_seeds):
  one = _fit(jax.random.key(1))
  assert one.params['tower_zebra']['head']['kernel'].shape == (8, 1)
  assert one.best_epoch.shape == ()
  contracts.assert_trees_close(
    one.params,
    jax.tree.map(lambda x: x[1], three_seeds.params),
    atol=1e-4,
    rtol=1e-4,
  )


def test_selection_is_by_the_mean_primary_metric(three_seeds):
  scores = np.stack(
    [
      (r['validation']['zebra']['auc'] + r['validation']['apple']['r2']) / 2
      for r in three_seeds.history
    ]
  )
  np.testing.assert_array_equal(
    three_seeds.best_epoch, scores.argmax(axis=0) + 1
  )
  evaluate = jax.vmap(lplmtl.make_eval_step(MODEL, TASKS), (0, None))
  found = jax.jit(evaluate)(three_seeds.params, jax.device_put(_data(80, 1)))
  for seed, epoch in enumerate(three_seeds.best_epoch):
    expected = three_seeds.history[epoch - 1]['validation']['zebra']['auc']
    np.testing.assert_allclose(
      found['zebra']['auc'][seed], expected[seed], rtol=1e-5
    )


@pytest.mark.slow
def test_validation_rows_of_one_class():
  """The other task chooses; said once, naming task and metric."""
  rows = _data(rows=80, seed=1)
  labels = {**rows.labels, 'zebra': np.zeros(80, np.int32)}
  with pytest.warns(
    UserWarning, match="not define auc of task 'zebra'"
  ) as told:
    found = _fit(
      validation=rows._replace(labels=labels), optimizer=optax.adam(5e-2)
    )
  assert len(told) == 1 and told[0].filename == __file__
  r2 = [record['validation']['apple']['r2'][0] for record in found.history]
  assert found.best_epoch == np.argmax(r2) + 1 > 1
  assert np.isnan(found.history[0]['validation']['zebra']['auc']).all()


@pytest.mark.slow
def test_an_evaluation_without_a_label_tells_nothing():
  rows = _data(rows=8)._replace(where={'apple': np.zeros(8, bool)})
  params = contracts.random_params(MODEL, rows.features)
  found = jax.jit(lplmtl.make_eval_step(MODEL, TASKS))(params, rows)
  assert np.isnan(found['apple']['loss']) and found['zebra']['loss'] > 0


@pytest.mark.slow
def test_choice_and_early_stopping():
  """Ties go to the earlier epoch; a stopped seed's choice stays."""
  choice = progress.start(_state(_keys(1)[0]), 3, 10, 2).choice
  scores = [
    [0.5, -np.inf, 0.9],
    [0.5, -np.inf, 0.8],
    [0.6, 0.1, 0.7],
    [0.9, 0.2, 1.0],
  ]
  improved = []
  for epoch, found in enumerate(scores, 1):
    choice, better = progress.choose(choice, np.array(found), epoch, patience=2)
    improved.append(better)
  np.testing.assert_array_equal(
    improved,
    [[1, 1, 1], [0, 0, 0], [1, 1, 0], [1, 1, 0]],
  )
  np.testing.assert_array_equal(choice.best_epoch, [4, 4, 1])
  np.testing.assert_array_equal(choice.active, [True, True, False])
  np.testing.assert_array_equal(choice.best_score, [0.9, 0.2, 0.9])


@pytest.mark.slow
def test_stopped_seeds_are_frozen_until_the_last_one_stops():
  """A learning rate that is too high: seeds stop at different epochs."""
  found = _fit(_keys(3), optimizer=optax.adam(0.06), num_epochs=30, patience=1)
  stops = []
  for seed in range(3):
    active = np.array([record['active'][seed] for record in found.history])
    last = int(active.sum())
    stops.append(last)
    assert active[:last].all()
    assert found.best_epoch[seed] == last - 1 or last == 30
    for record in found.history[last:]:
      frozen = found.history[last - 1]
      assert record['losses'][seed].tolist() == frozen['losses'][seed].tolist()
      for task in ('zebra', 'apple'):
        for name, values in record['validation'][task].items():
          assert values[seed] == frozen['validation'][task][name][seed]
  assert len(set(stops)) > 1, 'choose a setting where the seeds differ'
  assert len(found.history) == max(stops) < 30


def test_one_compilation_a_program():
  """No recompilation from epoch to epoch."""
  traces = []

  class Counted(lplmtl.SharedBottom):
    def __call__(self, features, *, train=False):
      traces.append(train)
      return super().__call__(features, train=train)

  fields = {'bottom': MODEL.bottom, 'tower': MODEL.tower}
  _fit(model=Counted(TASKS, **fields), num_epochs=4)
  assert traces.count(True) == 1
  # Initialisation and evaluation.
  assert traces.count(False) == 2


@pytest.mark.slow
def test_missing_labels_and_row_weights():
  """Rows without a label or with weight 0 do not matter to a task."""
  data = _data()
  known = np.arange(160) % 3 > 0
  spoiled = np.where(known, data.labels['apple'], np.nan).astype(np.float32)
  weights = (np.arange(160) % 5 > 0).astype(np.float32)
  masked = lplmtl.Batch(
    data.features,
    {**data.labels, 'apple': spoiled},
    {'apple': known},
    weights,
  )
  by_task = masked._replace(weights={'apple': weights})
  found = _fit(data=by_task, num_epochs=2, validation=masked)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(found.params))
  used = known & (weights > 0)
  kept = lplmtl.Batch(
    data.features[used], {k: v[used] for k, v in data.labels.items()}
  )
  evaluate = jax.jit(lplmtl.make_eval_step(MODEL, TASKS))
  np.testing.assert_allclose(
    found.history[-1]['validation']['apple']['loss'][0],
    evaluate(jax.tree.map(lambda x: x, found.state.params), kept)['apple'][
      'loss'
    ],
    rtol=1e-4,
  )


def test_penalty_is_added_outside_of_the_balancing():
  class Penalised(lplmtl.SharedBottom):
    def __call__(self, features, *, train=False):
      predictions, aux = super().__call__(features, train=train)
      # Acts on nothing but the bottom's bias.
      bias = self.variables['params']['bottom']['layer_0']['bias']
      return predictions, {**aux, 'penalty': 3.0 * jnp.sum(bias)}

  fields = {'bottom': lplmtl.MLP((6,)), 'tower': lplmtl.MLP((4,))}
  batch = jax.tree.map(lambda x: jnp.asarray(x[:BATCH]), _data())
  plain = lplmtl.SharedBottom(TASKS, **fields)
  params = contracts.random_params(plain, batch.features)
  biases = []
  for cls in (lplmtl.SharedBottom, Penalised):
    model = cls(TASKS, **fields)
    step = lplmtl.make_train_step(model, TASKS, optax.sgd(0.1), BALANCER)
    state = steps.TrainState(
      jnp.int32(0),
      params,
      optax.sgd(0.1).init(params),
      BALANCER.init(jax.random.key(0), 2),
      jax.random.key(0),
    )
    new, _ = jax.jit(step)(state, batch)
    biases.append(new.params['bottom']['layer_0']['bias'])
  np.testing.assert_allclose(biases[0] - biases[1], 0.3, rtol=1e-4)


def test_former_name_of_microbatches():
  with pytest.warns(DeprecationWarning, match='num_microbatches'):
    lplmtl.make_train_step(MODEL, TASKS, OPTIMIZER, BALANCER, num_parts=2)


def test_predict_in_chunks():
  x = _data(rows=53).features
  params = contracts.random_params(MODEL, x)
  whole = _predict(params, x)
  for size in (10, 53, 1000):
    found = jax.jit(
      evaluation.predict, static_argnums=0, static_argnames='chunk_size'
    )(MODEL, params, x, chunk_size=size)
    contracts.assert_trees_close(found, whole)


@pytest.fixture(scope='module')
def spoiled():
  """Rows of which one has a label whose square is not a float; its step."""
  data = _data()
  labels = {**data.labels, 'apple': data.labels['apple'].copy()}
  labels['apple'][7] = 3e38
  rows = training.make_shuffle(_keys(1), 160, BATCH)(0)[0]
  return lplmtl.Batch(data.features, labels), int(np.argwhere(rows == 7)[0, 0])


def test_a_loss_that_is_not_finite_names_step_and_task(spoiled):
  data, step = spoiled
  expected = (
    rf"step {step + 1} of epoch 1 \(seed number 0\): the loss of task 'apple' "
    'is inf'
  )
  with pytest.raises(training.NonFiniteError, match=expected):
    _fit(data=data, num_epochs=1, validation=None)


@jax.custom_vjp
def _bad_gradient(x):
  return x


_bad_gradient.defvjp(
  lambda x: (x, x[:, 0] > 2.4),
  lambda is_bad, g: (jnp.where(is_bad.any(), jnp.nan, g),),
)


@pytest.mark.slow
def test_a_gradient_that_is_not_finite():
  """The losses are; only one of the tasks is to blame; names a parameter."""

  class Tower(nn.Module):
    bad: bool

    @nn.compact
    def __call__(self, x):
      return nn.Dense(1)(_bad_gradient(x) if self.bad else x)

  class Both(nn.Module):
    tasks: tuple = TASKS

    @nn.compact
    def __call__(self, x, *, train=False):
      shared = nn.Dense(8, name='shared')(x)
      own = {'zebra': Tower(False, name='a'), 'apple': Tower(True, name='b')}
      return {name: tower(shared) for name, tower in own.items()}, {}

  expected = (
    r"\(seed number 0\): the gradient of task 'apple', whose loss is [\d.]+, is "
    'not finite, first in the gradient of shared/bias'
  )
  with pytest.raises(training.NonFiniteError, match=expected):
    _fit(model=Both(), num_epochs=2, validation=None)


@pytest.mark.slow
def test_a_weight_that_is_too_large():
  """Neither losses nor gradients are to blame: the weights are named."""
  expected = (
    'is not finite, though all losses and gradients are; .* and the weights of '
    "the losses are 1e\\+30 for 'zebra', 2 for 'apple'"
  )
  with pytest.raises(training.NonFiniteError, match=expected):
    _fit(balancer=balancing.static((1e30, 2.0)), num_epochs=1, validation=None)


@pytest.mark.slow
def test_steps_that_are_not_finite_may_be_skipped(spoiled):
  data, _ = spoiled
  fit = functools.partial(_fit, _keys(2), data=data, validation=None)
  found = fit(num_epochs=2, skip_nonfinite=2)
  np.testing.assert_array_equal(found.num_skipped, [2, 2])
  assert (found.state.step == 20).all()
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(found.params))
  assert np.isfinite(found.history[0]['losses']).all()
  with pytest.raises(training.NonFiniteError, match='of epoch 2'):
    fit(num_epochs=3, skip_nonfinite=1)


@pytest.mark.slow
def test_without_a_bad_step_skipping_changes_nothing(three_seeds):
  found = _fit(_keys(3), skip_nonfinite=5, validation=None)
  contracts.assert_trees_close(
    found.state.params, three_seeds.state.params, atol=1e-6
  )


@pytest.mark.parametrize(
  'change, complaint',
  [
    (
      {'batch_size': 161},
      'from 1 to the number of training rows, 160; found 161',
    ),
    ({'batch_size': 0}, 'found 0'),
    ({'batch_size': '50'}, "batch_size must be a whole number, found '50'"),
    ({'num_epochs': 2.0}, 'num_epochs must be a whole number, found 2.0'),
    (
      {'data': (np.zeros((9, 2)), {})},
      'must be an lplmtl.Batch.* found tuple',
    ),
    ({'num_epochs': 0}, 'must be at least 1, found 0, 1 and None'),
    ({'patience': 0}, 'must be at least 1'),
    ({'skip_nonfinite': -1}, 'skip_nonfinite must be at least 0, found -1'),
    ({'key': jnp.zeros(2, jnp.uint32)}, 'one typed key'),
    ({'key': 3}, 'one typed key'),
    ({'validation': None, 'patience': 1}, 'patience needs validation rows'),
    (
      {'balancer': balancing.equal},
      r'such as balancing.equal\(\).*found <function',
    ),
    ({'optimizer': 1e-3}, 'optimizer must be a pair of functions'),
    (
      {'hyperparams': {'rate': jnp.ones(2)}, 'balancer': lambda h: BALANCER},
      r"hyperparams\['rate'\] must be an array of the shape of the keys, \(\)",
    ),
    ({'hyperparams': {'rate': jnp.ones(())}}, 'need a function that makes'),
    (
      {'optimizer': lambda h: OPTIMIZER},
      'needs hyperparams, .*not given',
    ),
  ],
)
def test_bad_arguments(change, complaint):
  with pytest.raises(ValueError, match=complaint):
    _fit(**change)


def _change(**changes):
  return _data()._replace(**changes)


@pytest.mark.parametrize(
  'data, complaint',
  [
    (
      _change(labels={**_data().labels, 'zebra': _data().labels['zebra'][:-1]}),
      r"data.labels\['zebra'\] must have the 160 rows .* found shape \(159,\)",
    ),
    (
      _change(labels={'zebra': _data().labels['zebra']}),
      "no label for task 'apple'",
    ),
    (
      _change(labels={**_data().labels, 'zebra': _data().labels['zebra'] * 2}),
      "labels of task 'zebra' in data must be from 0 to 1, found 0 to 2",
    ),
    (
      _change(labels={**_data().labels, 'apple': np.full(160, np.nan)}),
      "labels of task 'apple' in data are not all finite: mark .* Batch.where",
    ),
    (_change(features=_data().features * np.nan), 'data.features holds values'),
    (
      _change(labels={**_data().labels, 'apple': np.array(['a'] * 160)}),
      'must hold numbers',
    ),
    (
      _change(labels={**_data().labels, 'zebra': [0] * 160}),
      r"data.labels\['zebra'\]\[0\] must be part of an array, found int",
    ),
    (
      _change(where={'apple': np.zeros(160, bool)}),
      "'apple' has no label in data",
    ),
    (
      _change(where={'apples': np.ones(160, bool)}),
      r"names \['apples'\], which are",
    ),
    (
      _change(where={'apple': np.ones(160)}),
      r'must be \[N\] bool, found float64',
    ),
    (_change(where={'apple': np.ones(10, bool)}), 'must have the 160 rows'),
    (_change(weights=np.ones((160, 1))), r'must be \[160\] numbers >= 0'),
    (_change(weights=-np.ones(160)), 'from -1.0 to -1.0'),
    (_change(weights=np.zeros(160)), 'not all of them 0'),
    (
      _change(labels={**_data().labels, 'apple': np.ones((160, 1))}),
      r"task 'apple': half_squared_error expects",
    ),
  ],
)
def test_rows_that_could_only_train_a_wrong_model(data, complaint):
  with pytest.raises(ValueError, match=complaint):
    _fit(data=data)


def test_classes_are_whole_numbers():
  batch = lplmtl.Batch(np.zeros((4, 2)), {'kind': np.array([0, 0.5, 1, 1])})
  with pytest.raises(ValueError, match='must be class numbers, found 0.5'):
    arrays.read_batch((tasks.multiclass('kind', 2),), batch, 'data')


def test_validation_rows_are_looked_at_too():
  with pytest.raises(ValueError, match='validation.features holds values'):
    _fit(validation=_change(features=_data().features * np.inf))


def test_predict_takes_numpy_and_wants_rows():
  x = _data().features
  params = contracts.random_params(MODEL, x)
  found = lplmtl.predict(MODEL, params, x)
  contracts.assert_trees_close(found, _predict(params, x))
  with pytest.raises(ValueError, match='at least one row'):
    lplmtl.predict(MODEL, params, x[:0])


def test_without_validation_the_last_epoch_is_kept():
  found = _fit(validation=None, num_epochs=2)
  assert found.best_epoch == 2
  contracts.assert_trees_equal(found.params, found.state.params)
  assert 'validation' not in found.history[-1]


def test_uncertainty_weights_train_with_the_parameters():
  """The balanced step descends Kendall's total loss in both."""
  found = _fit(num_epochs=20, validation=None)
  log_vars = found.state.balancer_state.log_vars
  weights = found.history[-1]['loss_weights'][0]
  # The last weights were given before the last update.
  np.testing.assert_allclose(weights, np.exp(-log_vars), rtol=0.03)
  assert (np.abs(log_vars) > 0.01).all()


def test_tasks_third_as_in_release_01():
  """That order works once more, unless the tasks are not the model's."""
  todo = (tasks.binary('a'),)
  model = lplmtl.SharedBottom(todo)
  rest = optax.sgd(0.1), balancing.equal(), {}
  with pytest.warns(DeprecationWarning, match='model.tasks'):
    assert checks.without_tasks(model, (todo, *rest[:2]), rest[2:]) == rest
  assert checks.without_tasks(model, rest, ()) == rest
  for wrong, surplus in (
    ((tasks.binary('b'),), rest[2:]),
    (todo, ()),
    (todo, (*rest[2:], 5)),
    (lambda h: optax.sgd(h), (5,)),
  ):
    with pytest.raises(ValueError, match='model.tasks'):
      checks.without_tasks(model, (wrong, *rest[:2]), surplus)
