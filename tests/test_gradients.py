"""Task gradients, the Gramian, what is shared, and batches in parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

import lplmtl
from lplmtl import balancing, losses
from lplmtl.training import balanced, gradients, microbatch, steps
from tests import contracts, reference

MODELS = contracts.architectures(encoder=contracts.encoder())
# Whose programs are smaller by half.
WITHOUT_ENCODER = contracts.architectures()
KEY = jax.random.key(0)
NUM_TASKS = len(contracts.TASKS)


def _batch(rows=8):
  """Without categories."""
  batch = contracts.batch(rows)
  return batch._replace(features=batch.features['numeric'])


def _example(name):
  model, batch = WITHOUT_ENCODER[name], _batch()
  return model, contracts.random_params(model, batch.features), batch


def _state(model, params, balancer, optimizer):
  return steps.TrainState(
    jnp.int32(0),
    params,
    optimizer.init(params),
    balancer.init(KEY, NUM_TASKS),
    KEY,
  )


@pytest.mark.parametrize('name, levels', [('ple', 3), ('sple_concat', 4)])
def test_what_is_shared_in_the_middle(name, levels):
  """`test_architectures.py` compares the models of one or two levels."""
  model = dataclasses.replace(MODELS[name], levels=(lplmtl.MLP((6,)),) * levels)
  batch = contracts.batch(8)
  sets = [contracts.random_params(model, batch.features, i) for i in range(3)]
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *sets)
  _, found = contracts.reached(model, stacked, batch)
  contracts.assert_shared_as_reached(model, found)


@pytest.mark.slow
@pytest.mark.parametrize('num_tasks', [2, 3])  # without and with a loop
def test_task_gradients(num_tasks):
  todo = contracts.TASKS[:num_tasks]
  model = dataclasses.replace(
    MODELS['cgc'], tasks=todo, num_specific=1, num_shared=1
  )
  batch = contracts.batch(8)
  params = contracts.random_params(model, batch.features)

  @jax.value_and_grad
  def loss(params, i):
    predictions = model.apply({'params': params}, batch.features)[0]
    return losses.task_losses(todo, predictions, batch)[0][i]

  @jax.jit
  def both(params):
    found = gradients.task_gradients(model, todo, params, batch)
    return *found, jax.lax.map(lambda i: loss(params, i), jnp.arange(num_tasks))

  values, found, each = jax.device_get(both(params))
  for i in range(num_tasks):
    value, expected = jax.tree.map(lambda x, i=i: x[i], each)
    np.testing.assert_allclose(values[i], value, rtol=1e-5)
    contracts.assert_trees_close(
      jax.tree.map(lambda g, i=i: np.asarray(g)[i], found), expected, atol=1e-6
    )


@pytest.mark.parametrize(
  'platform, takes_turns', [('cpu', True), ('tpu', False)]
)
def test_pull_backs_take_turns_on_a_cpu_alone(platform, takes_turns):
  def each(x):
    _, vjp = jax.vjp(lambda x: jnp.outer(jnp.ones(3), jnp.sin(x)), x)

    def pull_back(weights, penalty_weight):
      del penalty_weight
      return vjp(jnp.outer(weights, jnp.ones(4)))[0]

    return gradients.each_pulled_back(pull_back, 3)

  traced = jax.jit(each).trace(jnp.ones(4))
  program = traced.lower(lowering_platforms=(platform,)).as_text()
  assert ('stablehlo.while' in program) == takes_turns


@pytest.mark.slow
@pytest.mark.parametrize('scope', ['all', 'shared'])
def test_a_gramian_step_by_hand(scope):
  """Weights from PCGrad's own definition, on whole gradient vectors."""
  model, params, batch = _example('shared_bottom')
  balancer = balancing.pcgrad(scope)
  optimizer = optax.sgd(0.1)
  state = _state(model, params, balancer, optimizer)
  step = steps.make_train_step(model, contracts.TASKS, optimizer, balancer)

  @jax.jit
  def both(state):
    found = gradients.task_gradients(
      model, contracts.TASKS, state.params, batch
    )
    return step(state, batch), found[1]

  (new, metrics), found = jax.device_get(both(state))
  shared = gradients.shared_leaves(model, params)
  if scope == 'all':
    shared = jax.tree.map(lambda _: True, shared)
  acted = [
    g
    for g, ok in zip(
      jax.tree.leaves(found), jax.tree.leaves(shared), strict=True
    )
    if ok
  ]
  flat = np.concatenate([np.reshape(g, (NUM_TASKS, -1)) for g in acted], axis=1)
  _, order_key = jax.random.split(KEY)
  orders = np.argsort(jax.random.uniform(order_key, (NUM_TASKS,) * 2), axis=1)
  expected = reference.pcgrad(flat.astype(np.float64), orders)
  np.testing.assert_allclose(
    np.asarray(metrics['weights']) @ flat, expected, atol=1e-5, rtol=1e-4
  )
  weights = np.asarray(metrics['weights'])
  moved = jax.tree.map(
    lambda p, g, acts: (
      p - 0.1 * np.tensordot(weights if acts else np.ones(NUM_TASKS), g, 1)
    ),
    params,
    found,
    shared,
  )
  contracts.assert_trees_close(new.params, moved, atol=1e-5)
  contracts.assert_same_structure(new, state)


def test_pcgrad_meets_conflict():
  """Two opposed gradients: the conflict is taken out of both."""
  balancer = balancing.pcgrad()
  gramian = jnp.array([[4.0, -2.0], [-2.0, 2.0]])
  state = balancer.init(KEY, 2)
  weights, _ = jax.jit(balancer.update)(jnp.ones(2), state, gramian=gramian)
  np.testing.assert_allclose(weights, [1 + 2 / 4, 1 + 2 / 2])
  for calm in (jnp.eye(2), jnp.zeros((2, 2))):
    weights, _ = jax.jit(balancer.update)(jnp.ones(2), state, gramian=calm)
    np.testing.assert_array_equal(weights, [1, 1])


@pytest.mark.slow
def test_weights_for_shared_parameters_without_a_gramian():
  model, params, batch = _example('mmoe')
  plain = lplmtl.Balancer(
    lambda key, num_tasks: (),
    lambda losses, state, **extra: (jnp.array([2.0, 0.0, 0.5]), state),
    needs_losses=False,
  )

  @jax.jit
  def all_ways(params):
    found = {
      scope: balanced.gradient(
        model, contracts.TASKS, plain._replace(scope=scope), (), params,
        microbatch.Rows(batch, KEY),
      )[0]
      for scope in ('all', 'shared')
    }  # fmt: skip
    each = gradients.task_gradients(model, contracts.TASKS, params, batch)
    return found, each[1]

  found, each = jax.device_get(all_ways(params))
  contracts.assert_trees_close(
    found['shared']['experts'], found['all']['experts'], atol=1e-6
  )
  contracts.assert_trees_close(
    found['shared']['tower_apple'],
    jax.tree.map(lambda g: g.sum(axis=0), each['tower_apple']),
    atol=1e-6,
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  'balancer',
  [
    balancing.uncertainty(),
    contracts.by_gramian('all'),
    contracts.by_gramian('shared'),
  ],
)
def test_parts_give_the_gradient_of_the_whole(balancer):
  """Also with dropout, uneven missing labels, and weights, also by task."""
  noisy = lplmtl.MLP((6,), dropout_rate=0.3)
  todo = (contracts.TASKS[0], contracts.TASKS[2])
  model = lplmtl.SharedBottom(todo, bottom=noisy, tower=lplmtl.MLP(()))
  batch = _batch(rows=12)
  params = contracts.random_params(model, batch.features)
  weights = jnp.linspace(0.0, 2.0, 12)
  batch = batch._replace(
    where={'zebra': jnp.arange(12) % 5 > 1, 'mango': jnp.zeros(12, bool)},
    weights=weights if balancer.scope == 'all' else {'zebra': weights},
  )
  state = balancer.init(KEY, 2)

  @jax.jit
  def both(params):
    return [
      balanced.gradient(
        model, todo, balancer, state, params, microbatch.Rows(batch, KEY, n)
      )
      for n in (1, 3)
    ]

  whole, split = both(params)
  contracts.assert_trees_close(split, whole, atol=1e-6)
  assert whole[-1]['present'].tolist() == [True, False]


class _Penalised(contracts.Tiny):
  """A model with a penalty: half the squared length of its parameters."""

  def apply(self, variables, features, **options):
    predictions, aux = super().apply(variables, features, **options)
    squares = jax.tree.map(lambda x: jnp.sum(x**2), variables['params'])
    penalty = sum(jax.tree.leaves(squares)) / 2
    return predictions, {**aux, 'penalty': penalty}


@pytest.mark.slow
@pytest.mark.parametrize(
  'balancer, num_microbatches',
  [(balancing.equal(), 1), (contracts.by_gramian(), 2)],
)
def test_a_penalty_is_added_once_and_not_weighted(balancer, num_microbatches):
  batch, plain = contracts.tiny_rows(), contracts.Tiny()
  params = {'shared': jnp.linspace(-1, 1, 4), 'a': jnp.ones(1)}
  params['b'] = 2 * params['a']

  @jax.jit
  def both(params):
    return [
      balanced.gradient(
        model, model.tasks, balancer, balancer.init(KEY, 2), params,
        microbatch.Rows(batch, KEY, num_microbatches),
      )[0]
      for model in (_Penalised(), plain)
    ]  # fmt: skip

  added = jax.tree.map(np.subtract, *jax.device_get(both(params)))
  contracts.assert_trees_close(added, params, atol=1e-5)


def test_models_that_do_not_say_or_do_not_share():
  _, params, batch = _example('mmoe')

  class Silent:
    pass

  with pytest.raises(ValueError, match=r'is_shared\(path\), which Silent'):
    gradients.shared_leaves(Silent(), params)

  class Alone:
    def is_shared(self, path):
      return False

  with pytest.raises(ValueError, match='Alone shares no parameters'):
    gradients.shared_leaves(Alone(), params)
  with pytest.raises(
    ValueError, match=r"found {'params'.* variables\['params'"
  ):
    gradients.shared_leaves(MODELS['mmoe'], {'params': params})
  with pytest.raises(ValueError, match="'representation'\\), found 'some'"):
    balanced.gradient(
      MODELS['mmoe'],
      contracts.TASKS,
      balancing.equal()._replace(scope='some'),
      (),
      params,
      microbatch.Rows(batch, KEY),
    )


def test_a_balancer_that_returns_no_weights():
  model, params, batch = _example('mmoe')
  wrong = balancing.equal()._replace(
    update=lambda losses, state, **extra: (losses.sum(), state)
  )
  expected = rf'weights of shape \({NUM_TASKS},\), one per task; found \(\)'
  with pytest.raises(ValueError, match=expected):
    balanced.gradient(
      model, contracts.TASKS, wrong, (), params, microbatch.Rows(batch, KEY)
    )


@pytest.mark.parametrize(
  ('batch_size', 'limit', 'number'),
  [
    (16, 256, 1),
    (256, 256, 1),
    (257, 256, 1),
    (512, 256, 2),
    (1000, 256, 4),
    (1021, 256, 1),
    (4096, 1024, 4),
    (1024, 1024, 1),
    (4096, None, 1),
  ],
)
def test_number_of_microbatches(batch_size, limit, number):
  assert microbatch.count_microbatches(batch_size, limit) == number


def test_arguments_of_task_gradients():
  """Columns of pandas are read as by fit; swapped ones are named."""
  model, params, batch = _example('mmoe')
  columns = {
    k: pd.Series(np.asarray(v), range(5, 5 + len(v)))
    for k, v in batch.labels.items()
  }
  alike = [
    jax.make_jaxpr(
      lambda p, b=b: lplmtl.task_gradients(model, contracts.TASKS, p, b)
    )(params)
    for b in (batch, batch._replace(labels=columns))
  ]
  assert alike[0].out_avals == alike[1].out_avals
  for args, complaint in (
    ((contracts.TASKS, params, batch.features), 'must be an lplmtl.Batch'),
    ((params, contracts.TASKS, batch), 'a tuple of lplmtl.Task, found dict'),
    ((contracts.TASKS, {'params': params}, batch), r"params'\]"),
    (
      (contracts.TASKS, params, batch._replace(labels={'zebra': [0] * 8})),
      r"batch.labels\['zebra'\]\[0\] must be part of an array, found int",
    ),
  ):
    with pytest.raises(ValueError, match=complaint):
      lplmtl.task_gradients(model, *args)
