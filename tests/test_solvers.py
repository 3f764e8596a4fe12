"""The solvers where rounding or dependent gradients make a Gramian singular."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lplmtl import balancing
from lplmtl.balancing import _solvers
from tests import slow_balancing
from tests.test_balancing import BALANCERS

KEY = jax.random.key(0)


def _weigh(name):
  balancer = BALANCERS[name]()

  def run(gramian):
    size = len(gramian)
    state = balancer.init(KEY, size)
    return balancer.update(jnp.ones(size), state, gramian=gramian)

  return run


def test_normalized_gramians_are_symmetric_and_at_most_one():
  cosines, norms = jax.jit(_solvers.normalize)(
    jnp.array([[4.0, 2.0001, 0.0], [1.9999, 1.0, 0.0], [0.0, 0.0, 0.0]])
  )
  np.testing.assert_array_equal(cosines, cosines.T)
  np.testing.assert_allclose(cosines, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
  assert abs(cosines).max() <= 1
  np.testing.assert_array_equal(norms, [2, 1, 0])


def test_a_matrix_that_rounding_made_indefinite():
  """Cholesky's factor would be NaN with a ridge of rounding's size."""
  matrix = np.full((3, 3), 0.9)
  matrix[0, 1] = matrix[1, 0] = -0.9
  np.fill_diagonal(matrix, 1)
  assert np.linalg.eigvalsh(matrix)[0] < -0.5
  matrix = jnp.asarray(matrix, jnp.float32)
  x = _solvers.solve_on(matrix, jnp.ones(3), jnp.ones(3, bool))
  assert np.isfinite(x).all()
  spoiled = jnp.full((2, 2), jnp.nan)
  nothing = _solvers.solve_on(spoiled, jnp.ones(2), jnp.ones(2, bool))
  assert np.isnan(nothing).all()  # and it ends


@pytest.mark.parametrize(
  ('name', 'size', 'dimensions'),
  [
    ('upgrad', 50, 20),
    ('dualproj', 3, 2),
    pytest.param('upgrad', 3, 2, marks=pytest.mark.slow),
    pytest.param('dualproj', 50, 20, marks=pytest.mark.slow),
  ],
)
def test_more_tasks_than_directions(name, size, dimensions):
  rng = np.random.default_rng(0)
  jacobian = rng.normal(size=(size, dimensions)).astype(np.float32)
  gramian = jnp.asarray(jacobian @ jacobian.T)
  weights, state = jax.jit(_weigh(name))(gramian)
  assert state.residual < 1e-4
  direction = np.asarray(weights) @ jacobian
  wanted = getattr(slow_balancing, name)(jacobian) @ jacobian
  terms = np.abs(weights) @ np.linalg.norm(jacobian, axis=1)
  np.testing.assert_allclose(direction, wanted, atol=1e-4 * terms)


def test_one_by_one_where_block_pivoting_goes_in_circles():
  """Against the conditions themselves, on matrices of every rank."""
  rng = np.random.default_rng(0)
  jacobians = [rng.normal(size=(8, rank)) for rank in range(1, 11)]
  matrices = []
  for jacobian in jacobians:
    units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
    matrices.append(units @ units.T)
  matrices = jnp.asarray(np.stack(matrices), jnp.float32)
  rhs = -jnp.einsum('nij,j->ni', matrices, jnp.asarray(rng.uniform(size=8)))
  rhs = rhs.astype(jnp.float32)

  def alone(matrix, rhs):
    x = _solvers.one_by_one(matrix, rhs, jnp.full(8, jnp.nan), jnp.array(True))
    return x, jnp.abs(jnp.minimum(x, matrix @ x - rhs)).max()

  x, missed = jax.jit(jax.vmap(alone))(matrices, rhs)
  assert (x >= 0).all()
  assert (missed < 1e-4 * (1 + jnp.abs(x).sum(axis=1))).all()
  kept = _solvers.one_by_one(matrices[0], rhs[0], x[0], jnp.array(False))
  np.testing.assert_array_equal(kept, x[0])


@pytest.mark.parametrize('power', [0.5, 1.0, 2.0])
def test_utility_of_powers_that_are_traced(power):
  """Newton's steps need its slope; the line search compares its values."""
  x = jnp.array([0.5, 2.0])
  slope = jax.grad(lambda x, power: _solvers._utility(x, power).sum())
  for found in (jax.jit(slope)(x, power), slope(x, power)):
    np.testing.assert_allclose(found, np.asarray(x) ** -power, rtol=1e-6)


def test_gradnorm_hands_adam_the_slopes_themselves():
  """Adam's memory weighs a step by the size that its gradients had."""
  balancer = balancing.gradnorm(alpha=0.0, learning_rate=0.1)
  state = balancer.init(KEY, 2)
  for size in (100.0, 1.0):
    products = jnp.diag(jnp.array([4.0, 1.0]) * size**2)
    _, state = balancer.update(jnp.ones(2), state, gramian=products)
  first = state.opt_state[0].mu
  # Slopes: +length of what is too long, -length of what is too short.
  np.testing.assert_allclose(
    first, [0.9 * 0.1 * 200 + 0.1 * 2, -0.9 * 0.1 * 100 - 0.1 * 1], rtol=1e-5
  )


def test_moco_waits_for_a_first_label():
  aggregator = balancing.moco(gamma=0.5)
  params = jnp.zeros(4)
  state = aggregator.init(KEY, params, 3)
  rng = np.random.default_rng(0)
  update = jax.jit(aggregator.update)
  for step in range(40):
    here = jnp.array([True, True, step >= 30])
    gradients = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    gradients = jnp.where(here[:, None], gradients, 0)
    found, weights, state = update(
      gradients, jnp.ones(3) * here, state, present=here
    )
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
    if step < 30:
      assert weights[2] == 0 and weights[:2].sum() > 0.99
      np.testing.assert_allclose(state.weights[2], 1 / 3)
    elif step == 30:
      assert 0 < weights[2] < 0.5
    assert np.isfinite(found).all()
  # Nobody has had one.
  _, weights, _ = update(
    jnp.zeros((3, 4)), jnp.zeros(3), aggregator.init(KEY, params, 3),
    present=jnp.zeros(3, bool),
  )  # fmt: skip
  np.testing.assert_allclose(weights, 1 / 3, rtol=1e-6)
