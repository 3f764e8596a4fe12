"""Runs that start from given parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, losses, resume
from lplmtl.training import warm_start
from tests import contracts

# Without metrics, which take longer to compile than everything else.
TASKS = (
  lplmtl.Task('b', losses.binary_cross_entropy),
  lplmtl.Task('a', losses.half_squared_error),
)


def _data(num_rows):
  x = np.random.default_rng(0).normal(size=(num_rows, 3)).astype(np.float32)
  labels = {'b': (x[:, 0] > 0).astype(np.int32), 'a': x[:, 1] + 1}
  return lplmtl.Batch(x, labels)


def _fit(rate, **changes):
  """Two seeds; the rate is a setting, so that all calls share programs."""
  return lplmtl.fit(
    jax.random.split(jax.random.key(0), 2),
    lplmtl.SharedBottom(TASKS, bottom=lplmtl.MLP((4,))),
    lambda h: optax.sgd(h, momentum=0.9),
    balancing.uncertainty(),
    _data(48),
    hyperparams=jnp.full(2, rate, jnp.float32),
    validation=_data(16),
    batch_size=8,
    num_epochs=2,
    **changes,
  )


@pytest.fixture(scope='module')
def trained():
  return _fit(0.1)


@pytest.mark.slow
def test_a_run_starts_where_another_ended(trained):
  found = _fit(0.0, start=trained.params)
  contracts.assert_trees_equal(found.params, trained.params)
  assert found.state.step.tolist() == [12, 12]  # counted afresh
  best = trained.best_epoch - 1
  for task in TASKS:
    kept, reached = (
      [h['validation'][task.name]['loss'] for h in result.history]
      for result in (found, trained)
    )
    np.testing.assert_allclose(kept[0], np.array(reached)[best, range(2)])


@pytest.mark.slow
def test_all_seeds_may_start_from_one(trained):
  one = jax.tree.map(lambda x: x[1], trained.params)
  found = _fit(0.0, start=jax.device_get(one)).params
  expected = jax.tree.map(lambda x: jnp.stack([x, x]), one)
  contracts.assert_trees_equal(found, expected)


@pytest.mark.slow
def test_a_resumed_run_continues_where_it_was(trained, tmp_path):
  with resume.Checkpoints(tmp_path / 'run', every_steps=6) as keeper:
    first = _fit(0.1, keeper=keeper, start=trained.params)
  other = jax.tree.map(jnp.zeros_like, trained.params)
  with resume.Checkpoints(tmp_path / 'run', every_steps=6) as keeper:
    again = _fit(0.1, keeper=keeper, start=other)
  assert again.steps_taken == 0
  contracts.assert_trees_equal(again.params, first.params)


DRAWN = {'a': jnp.ones((2, 3)), 'b': {'c': jnp.ones((2, 1, 4))}}


@pytest.mark.parametrize(
  'start, complaint',
  [
    ({'a': np.ones(3, np.float32)}, 'lacks the parameter b/c.*the 2.* found 1'),
    ({**DRAWN, 'd': jnp.ones(2)}, 'a parameter that the model lacks, d'),
    (
      {'a': jnp.ones(3), 'b': {'c': jnp.ones(4)}},
      r'b/c must be float32 of shape \(1, 4\), found float32 of shape \(4,\)',
    ),
    (
      {'a': jnp.ones((3, 3)), 'b': {'c': jnp.ones((3, 1, 4))}},
      r'a must be float32 of shape \(2, 3\), found float32 of shape \(3, 3\)',
    ),
    ({**DRAWN, 'a': np.ones((2, 3))}, 'a must be float32.* found float64'),
    ({**DRAWN, 'a': 'text'}, 'a must be float32.* found str'),
    ({**DRAWN, 'a': DRAWN['a'] * jnp.nan}, 'a holds values that are not'),
    ({'params': DRAWN}, r"found \{'params'"),
    (lplmtl.Batch(None, {}), 'lacks the parameter a'),
  ],
)
def test_parameters_of_another_model(start, complaint):
  with pytest.raises(ValueError, match=complaint):
    warm_start.read(start, DRAWN, 2)


@pytest.mark.slow
def test_a_result_instead_of_its_parameters(trained):
  with pytest.raises(ValueError, match='found FitResult: use its .params'):
    warm_start.read(trained, DRAWN, 2)
