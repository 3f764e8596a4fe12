"""Many tasks: what is alike runs at once, and equals one task after another."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import _alike, tasks
from lplmtl.compression import cost
from lplmtl.layers import mixture
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
    *((name, _outputs) for name in MODELS),
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
  contracts.assert_trees_close(*found, atol=1e-6, rtol=1e-6)


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
