"""Many tasks: what is alike runs at once, and equals one task after another."""

import collections
import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from experiments.launcher import scoring
from lplmtl import _alike, balancing, inspection, tasks
from lplmtl.compression import cost
from lplmtl.layers import mixture
from lplmtl.tabular import predictor, scores
from lplmtl.training import parallel, programs, steps
from tests import contracts

# Not in alphabetical order, as JAX sorts dicts; kinds take turns.
TASKS = (
  tasks.binary('pear'), tasks.multiclass('fig', 3), tasks.regression('plum'),
  tasks.multiclass('apple', 3), tasks.binary('lime'),
)  # fmt: skip
CHAIN = tuple(tasks.binary(name) for name in ('view', 'click', 'buy', 'again'))
# LLVM takes longer to optimise these programs than they take to run.
FAST = {'xla_backend_optimization_level': 0}
# Two of a kind that read the same, and two that are layers of logits only.
TOWERS = tuple(lplmtl.MLP(widths) for widths in ((4,), (), (4,), (), (4,)))
X = contracts.features()


def _models():
  encoder = contracts.encoder()
  unequal = {'num_specific': (1, 2, 1, 2, 3)}
  models = contracts.architectures(TASKS, encoder)
  models |= contracts.chains(encoder, CHAIN)
  for name in ('omoe', 'cgc', 'sple_identity', 'sple_shared', 'sple_concat'):
    del models[name]  # no functions but those of the models that stay
  for name in ('ple', 'adatt', 'stem'):
    models[name] = dataclasses.replace(models[name], **unequal)
  for name in ('ple', 'mmoe'):
    models[name] = dataclasses.replace(models[name], tower=TOWERS)
  deep = {'gate_body': lplmtl.MLP((5,))}
  for name in ('ple', 'stacked_mmoe'):
    models[name] = dataclasses.replace(models[name], **deep)
  return models


MODELS = _models()


def _outputs(model, params):
  outputs, aux = model.apply({'params': params}, X)
  return outputs, aux


def _gradient(model, params):
  """Of a sum that no two outputs share."""

  def total(params):
    outputs, aux = model.apply({'params': params}, X)
    rows = jnp.sin(jnp.arange(len(X['numeric'])))
    terms = [
      jnp.sum(rows * jnp.sin((i + 1) * outputs[task.name].sum(axis=1)))
      for i, task in enumerate(model.tasks)
    ]
    return sum(terms) + aux.get('penalty', 0)

  return jax.grad(total)(params)


@pytest.mark.parametrize(
  'name, of',
  [
    # A gradient tells outputs apart, too.
    *((name, _outputs) for name in MODELS if name not in ('mmoe', 'stem')),
    *((name, _gradient) for name in ('mmoe', 'stem')),
  ],
)
def test_what_runs_at_once_equals_one_after_another(name, of, monkeypatch):
  params = contracts.random_params(MODELS[name], X)
  found = []
  for few, dense in ((1, 0), (1000, 1000)):
    monkeypatch.setattr(_alike, 'FEW', few)
    monkeypatch.setattr(mixture, '_DENSE', dense)
    run = jax.jit(functools.partial(of, MODELS[name]), compiler_options=FAST)
    found.append(run(params))
  # STEM's two forms sum in another order.
  bound = 1e-5 if name == 'stem' else 1e-6
  contracts.assert_trees_close(*found, atol=bound, rtol=bound)


def _flops(model):
  x = np.zeros((1, 20), np.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), x)
  return cost.count_flops(lambda p: model.apply(p, x)[0], params)


def _sized(num_tasks, kind=lplmtl.PLE):
  todo = tuple(tasks.binary(f'task{i}') for i in range(num_tasks))
  return kind(todo, tower=lplmtl.MLP((4,)))


def test_gates_of_ple_compute_nothing_for_experts_that_they_do_not_mix():
  """The operations grow with T, and only the shared gate's with T^2."""
  assert _flops(_sized(40)) < 2.1 * _flops(_sized(20))


@pytest.mark.parametrize(
  ('balancer', 'optimizer', 'is_drawn'),
  (
    (
      balancing.uncertainty(),
      optax.chain(
        optax.clip_by_global_norm(0.5), optax.adamw(1e-2, weight_decay=0.1)
      ),
      True,
    ),
    (contracts.by_gramian(), optax.sgd(0.1), False),
    (balancing.moco(), optax.sgd(0.1), False),
  ),
  ids=('uncertainty', 'by_gramian', 'moco'),
)
def test_merged_steps_equal_plain_ones(
  balancer, optimizer, is_drawn, monkeypatch
):
  """Draws, clipped and decayed updates, losses, gradients and metrics."""
  todo = TASKS[1:4]
  model = lplmtl.MMoE(
    todo, expert=lplmtl.MLP((4,)), num_experts=2, tower=lplmtl.MLP((3,))
  )
  method = model, todo, optimizer, balancer
  rng = np.random.default_rng(0)
  x = rng.normal(size=(24, 5)).astype(np.float32)
  # NumPy's arrays: they are constants of the program.
  labels = {task.name: rng.integers(0, 2, 24) for task in todo}
  where = {'plum': jnp.asarray(rng.integers(0, 2, 24), bool)}
  data = lplmtl.Batch(jnp.asarray(x), labels, where)
  order = jnp.asarray(rng.permutation(24).reshape(3, 8))
  # Draws, which take long to compile, do not depend on the balancer.
  given = None if is_drawn else contracts.random_params(model, x)

  def run(key):
    state = steps.init_state(key, *method, data.features, given)
    step = steps.make_train_step(*method)
    return state.params, *steps.train_chunk(step, state, data, order)

  found = []
  for few in (1, 1000):
    monkeypatch.setattr(_alike, 'FEW', few)
    # A new function each time, or JAX would reuse the first trace.
    compiled = jax.jit(lambda key: run(key), compiler_options=FAST)
    drawn, state, metrics = compiled(jax.random.key(0))
    found.append((drawn, state.params, metrics))
  contracts.assert_trees_close(*found, atol=1e-5, rtol=1e-5)


def _step_operations(num_tasks):
  """Counts what a compiler is given to compute in a step, by operation."""
  model = _sized(num_tasks, lplmtl.MMoE)
  method = model, model.tasks, optax.adam(1e-3), balancing.equal()
  data = lplmtl.Batch(
    np.zeros((8, 3), np.float32),
    {task.name: np.zeros(8, np.int32) for task in model.tasks},
  )
  state = jax.eval_shape(
    lambda key: steps.init_state(key, *method, data.features),
    jax.random.key(0),
  )
  run = functools.partial(steps.train_chunk, steps.make_train_step(*method))
  rows = jnp.zeros((1, 8), jnp.int32)
  text = jax.jit(run).lower(state, data, rows).as_text()
  computed = 'dot_general|multiply|divide|exponential|sqrt'
  return collections.Counter(re.findall(rf'stablehlo\.({computed})', text))


def test_a_step_for_more_tasks_has_no_more_operations():
  """Only what cuts and joins the arrays of each task grows with T."""
  found = _step_operations(20)
  assert len(found) == 5 and found == _step_operations(33)


def _scoring_operations(num_each):
  """Counts what is compiled to score a model of tasks of several kinds."""
  todo = [
    make(f'{kind}{i}')
    for i in range(num_each)
    for kind, make in (
      ('yes', tasks.binary),
      ('number', tasks.regression),
      ('class', functools.partial(tasks.multiclass, num_classes=3)),
    )
  ]
  model = lplmtl.MMoE(tuple(todo), tower=lplmtl.MLP((4,)))
  x = np.zeros((8, 3), np.float32)
  params = jax.eval_shape(
    lambda key: model.init(key, x)['params'], jax.random.key(0)
  )
  params = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), params
  )
  rows = lplmtl.Batch(x, {task.name: np.zeros(8, np.float32) for task in todo})
  rows = rows._replace(
    labels={
      name: y.astype(np.int32) if 'class' in name else y
      for name, y in rows.labels.items()
    }
  )
  mesh = parallel.make_mesh(1, 1)
  evaluate = programs.make_evaluate(
    model, scoring.extend(todo), num_seeds=1, mesh=mesh
  )
  usage = jax.jit(
    jax.vmap(lambda params: inspection.usage(model, params, x, chunk_size=4))
  )
  computed = 'dot_general|multiply|divide|exponential|sort'
  return [
    collections.Counter(re.findall(rf'stablehlo\.({computed})', x.as_text()))
    for x in (
      evaluate.lower(params, None, rows),
      usage.lower(params),
      predictor._apply.lower(model, params, x),
    )
  ]


def test_scoring_more_tasks_has_no_more_operations():
  """Metrics, use of gates and predictions, of tasks of three kinds."""
  found = _scoring_operations(10)
  assert all(found) and found == _scoring_operations(12)


def test_metrics_of_a_kind_compile_once():
  rng = np.random.default_rng(0)
  y, where = rng.normal(size=9).astype(np.float32), np.arange(9) > 0
  before = scores._evaluate._cache_size()
  found = [
    scores.evaluate(tasks.huber(name), y[:, None] + shift, y, where)
    for shift, name in enumerate(('a', 'b', 'c'))
  ]
  assert scores._evaluate._cache_size() == before + 1
  np.testing.assert_allclose([x['mae'] for x in found], range(3), atol=1e-6)
