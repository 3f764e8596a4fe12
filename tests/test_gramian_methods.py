"""Gramian methods: values, independent solvers, degenerate cases, claims."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import balancing
from lplmtl.balancing import _keys, _solvers
from lplmtl.balancing.aligned_mtl import alignment
from lplmtl.balancing.moco import to_simplex
from tests import contracts, reference, slow_balancing

# Together a minute, and no matter of versions.
pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
SMALL = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
WIDE = np.random.default_rng(0).normal(size=(3, 10)).round(2) * [
  [1], [3], [0.3],
]  # fmt: skip
# Methods whose number is an argument of what is compiled share a program.
_CAGRAD = functools.partial(functools.partial, balancing.cagrad)
_FAIRGRAD = functools.partial(functools.partial, balancing.fairgrad)
# name: (balancer, weights on SMALL, the way to the same by other means). TorchJD
# publishes the directions for SMALL that test_published lists.
METHODS = {
  'mgda': (balancing.mgda(), [0.6, 0.4], slow_balancing.mgda),
  'upgrad': (balancing.upgrad(), [1.11111, 0.78947], slow_balancing.upgrad),
  'dualproj': (balancing.dualproj(), [0.61111, 0.5], slow_balancing.dualproj),
  'cagrad': (
    _CAGRAD(0.5),
    [0.70412, 0.5],
    lambda j: slow_balancing.cagrad(j, 0.5),
  ),
  'cagrad_09': (
    _CAGRAD(0.9),
    [1.10735, 0.73823],
    lambda j: slow_balancing.cagrad(j, 0.9),
  ),
  'imtl_g': (balancing.imtl_g(), [0.59233, 0.40767], slow_balancing.imtl_g),
  'config': (balancing.config(), [1.22648, 0.84412], slow_balancing.config),
  'nash_mtl': (
    balancing.nash_mtl(),
    [0.59146, 0.40707],
    lambda j: slow_balancing.fairgrad(j, 1.0),
  ),
  'fairgrad': (
    _FAIRGRAD(2.0),
    [0.47136, 0.31945],
    lambda j: slow_balancing.fairgrad(j, 2.0),
  ),
  'fairgrad_05': (
    _FAIRGRAD(0.5),
    [0.74283, 0.52539],
    lambda j: slow_balancing.fairgrad(j, 0.5),
  ),
  'aligned_min': (
    balancing.aligned_mtl('min'),
    [0.55907, 0.40826],
    lambda j: slow_balancing.aligned_mtl(j, 'min'),
  ),
  'aligned_median': (
    balancing.aligned_mtl('median'),
    [0.55907, 0.40826],
    lambda j: slow_balancing.aligned_mtl(j, 'median'),
  ),
  'aligned_rmse': (
    balancing.aligned_mtl('rmse'),
    [1.51087, 1.1033],
    lambda j: slow_balancing.aligned_mtl(j, 'rmse'),
  ),
  # In the first step, of the order that KEY draws.
  'pcgrad': (balancing.pcgrad(), [2.22222, 1.57895], None),
  'gradvac': (balancing.gradvac(), [2.22222, 1.57895], None),
  'gradnorm': (balancing.gradnorm(), [1.0, 1.0], None),
}
SOLVED = [name for name, row in METHODS.items() if row[2] is not None]


@functools.cache
def _update(method, num_axes):
  """Compiles once per shape: tests use the shapes of others where they can."""

  def update(gramian, losses, *numbers):
    balancer = method(*numbers) if numbers else method
    state = balancer.init(KEY, len(losses))
    return balancer.update(losses, state, gramian=gramian)

  for _ in range(num_axes):
    update = _over_gramians(update)
  is_jitted = num_axes == 0 and isinstance(method, lplmtl.Balancer)
  return update if is_jitted else jax.jit(update)


def _over_gramians(update):
  return lambda gramians, *rest: jax.vmap(lambda g: update(g, *rest))(gramians)


def _step(balancer, jacobian, dtype=jnp.float32, losses=None):
  """Weights and state after the first step, `[..., T]` for `[..., T, P]`."""
  jacobian = np.asarray(jacobian, np.float64)
  gramian = jnp.asarray(jacobian @ np.swapaxes(jacobian, -1, -2), dtype)
  return _step_of(balancer, gramian, losses)


def _step_of(balancer, gramian, losses=None):
  ones = jnp.ones(gramian.shape[-1], gramian.dtype)
  losses, num_axes = ones if losses is None else losses, gramian.ndim - 2
  if isinstance(balancer, functools.partial):
    return _update(balancer.func, num_axes)(gramian, losses, *balancer.args)
  return _update(balancer, num_axes)(gramian, losses)


def _weights(*args, **kwargs):
  return np.asarray(_step(*args, **kwargs)[0], np.float64)


@pytest.mark.parametrize('name', METHODS)
def test_values(name):
  balancer, expected, slow = METHODS[name]
  np.testing.assert_allclose(_weights(balancer, SMALL), expected, atol=1e-4)
  if slow is not None:
    np.testing.assert_allclose(slow(SMALL), expected, atol=1e-5)


@pytest.mark.parametrize(
  ('name', 'direction'),
  [
    ('aligned_min', [0.2133, 0.9673, 0.9673]),
    ('cagrad', [0.1835, 1.2041, 1.2041]),
    ('config', [0.1588, 2.0706, 2.0706]),
    ('imtl_g', [0.0767, 1.0000, 1.0000]),
    ('mgda', [0.0, 1.0, 1.0]),
    ('pcgrad', [0.5848, 3.8012, 3.8012]),
    # There with a ridge of 1e-4: [.5563, ...] and [.2929, 1.9004, ...].
    ('dualproj', [5 / 9, 10 / 9, 10 / 9]),
    ('upgrad', [0.2924, 1.9006, 1.9006]),
    # There of another length: [.0542, .7061, .7061].
    ('nash_mtl', np.sqrt(2) * np.array([0.0542, 0.7061, 0.7061])),
  ],
)
def test_published(name, direction):
  found = _weights(METHODS[name][0], SMALL) @ SMALL
  np.testing.assert_allclose(found, direction, atol=2e-4)


def _random_jacobians(size, number, largest_condition):
  """Task gradients whose Gramian has up to this condition number."""
  rng = np.random.default_rng(size)
  found = []
  for _ in range(number):
    condition = largest_condition ** rng.uniform()
    eigenvalues = condition ** -rng.uniform(size=size)
    eigenvalues[0], eigenvalues[-1] = 1, 1 / condition
    left = np.linalg.qr(rng.normal(size=(size, size)))[0]
    right = np.linalg.qr(rng.normal(size=(size + 7, size)))[0]
    unit = left * np.sqrt(eigenvalues) @ right.T
    found.append(unit * np.exp(2 * rng.normal()))
  return np.stack(found)


def _many(largest_condition):
  """Always of one shape, for which each method is compiled once."""
  return _random_jacobians(10, 200, largest_condition)


@pytest.mark.parametrize('name', SOLVED)
def test_against_independent_solvers(name):
  """Random Gramians of two and ten tasks, with conditions up to 1e6."""
  balancer, _, slow = METHODS[name]

  def check(jacobians, found):
    wanted = np.stack([slow(jacobian) for jacobian in jacobians])
    scale = np.maximum(np.abs(wanted).max(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(found / scale, wanted / scale, atol=1e-4)

  jacobians = _many(1e6)
  with contracts.double_precision():
    check(jacobians, _weights(balancer, jacobians, jnp.float64))
  # In float32 a Gramian itself knows so many digits as its condition leaves.
  jacobians = _many(1e2)
  check(jacobians, _weights(balancer, jacobians))
  # One by one, by the program of `test_values`.
  jacobians = _random_jacobians(2, 50, 1e2)
  check(jacobians, np.stack([_weights(balancer, x) for x in jacobians]))


G = np.array([1.0, 2.0, -1.0])
DEGENERATE = {
  'nothing': np.zeros((2, 3)),
  'one task': G[None],
  'parallel': np.stack([G, 2 * G]),
  'opposed': np.stack([G, -G]),
  'huge': 1e9 * SMALL,
  'tiny': 1e-12 * SMALL,
  'huge and tiny': np.array([[1e6, 0.0, 0.0], [0.0, 1e-6, 0.0]]),
}
# Of ten tasks: for the program of `_many`.
DEGENERATE_TEN = {
  # Of lengths 3, 6, ..., so that their sum is exactly 0 in floats, too.
  'rank one': np.outer([1, 2, 4, 8, 16, -16, -8, -4, -2, -1], [2, 1, 2]),
  'the same': np.stack([G] * 10),
  'some of them 0': np.concatenate([[G, 0 * G, [1, 0, 0]], np.zeros((7, 3))]),
}
# The weights that the methods' own definitions give there.
EXPECTED = {
  ('mgda', 'nothing'): [0.5, 0.5],
  ('mgda', 'one task'): [1.0],
  ('mgda', 'parallel'): [1.0, 0.0],
  ('mgda', 'opposed'): [0.5, 0.5],
  ('mgda', 'huge'): [0.6, 0.4],
  ('mgda', 'tiny'): [0.6, 0.4],
  ('mgda', 'huge and tiny'): [0.0, 1.0],
  ('mgda', 'some of them 0'): [0.0, 0.0, 1.0, *[0.0] * 7],
  ('upgrad', 'nothing'): [0.5, 0.5],
  ('upgrad', 'parallel'): [0.5, 0.5],
  ('upgrad', 'opposed'): [1.0, 1.0],
  ('upgrad', 'huge'): [10 / 9, 15 / 19],
  ('upgrad', 'huge and tiny'): [0.5, 0.5],
  ('upgrad', 'some of them 0'): [1 / 10] * 10,
  ('dualproj', 'parallel'): [0.5, 0.5],
  ('dualproj', 'opposed'): [0.5, 0.5],
  ('dualproj', 'tiny'): [0.61111, 0.5],
  ('cagrad', 'nothing'): [0.5, 0.5],
  ('cagrad', 'one task'): [1.5],
  ('cagrad', 'parallel'): [1.25, 0.5],
  ('cagrad', 'rank one'): [1 / 10] * 10,
  ('imtl_g', 'parallel'): [2 / 3, 1 / 3],
  ('imtl_g', 'opposed'): [0.5, 0.5],
  ('imtl_g', 'huge and tiny'): [0.0, 1.0],
  ('config', 'parallel'): [1.5, 0.75],
  ('config', 'one task'): [1.0],
  ('nash_mtl', 'one task'): [6**-0.5],
  ('nash_mtl', 'parallel'): [12**-0.5, 48**-0.5],
  ('nash_mtl', 'huge and tiny'): [1e-6, 1e6],
  ('nash_mtl', 'the same'): [60**-0.5] * 10,
  ('fairgrad', 'one task'): [6 ** (-2 / 3)],
  ('aligned_min', 'opposed'): [0.0, 0.0],
  ('aligned_min', 'one task'): [1.0],
  ('pcgrad', 'opposed'): [2.0, 2.0],
  ('pcgrad', 'parallel'): [1.0, 1.0],
  ('gradvac', 'opposed'): [2.0, 2.0],
}


@pytest.mark.parametrize('name', METHODS)
def test_degenerate_gradients(name):
  """Finite weights; where the gradients cancel, a direction of about 0."""
  balancer = METHODS[name][0]
  ten = np.stack(list(DEGENERATE_TEN.values()))
  weights = [_weights(balancer, x) for x in DEGENERATE.values()]
  weights += list(_weights(balancer, np.resize(ten, (200, 10, 3)))[: len(ten)])
  for (case, jacobian), found in zip(
    (DEGENERATE | DEGENERATE_TEN).items(), weights, strict=True
  ):
    assert np.isfinite(found).all(), case
    direction = np.linalg.norm(found @ jacobian)
    lengths = np.linalg.norm(jacobian, axis=1)
    bound = np.abs(found) @ lengths
    assert direction <= bound * (1 + 1e-5), case
    if case in ('opposed', 'rank one') and name != 'dualproj':
      assert direction <= 1e-4 * max(bound, lengths.max()), case
    if (name, case) in EXPECTED:
      np.testing.assert_allclose(
        found, EXPECTED[name, case], rtol=1e-4, atol=1e-4, err_msg=case
      )


@pytest.mark.parametrize('name', METHODS)
def test_cosines_beyond_one(name):
  """Parallel and opposed gradients, whose products are rounded away from 0."""
  cosine = 1 + 3e-6
  found = [
    _step_of(
      METHODS[name][0],
      jnp.asarray([[1, s * cosine * 2], [s * (cosine - 1e-6) * 2, 4]]),
    )
    for s in (1, -1)
  ]
  weights = np.stack([np.asarray(weights) for weights, _ in found])
  assert np.isfinite(weights).all()
  # Of lengths 1 and 2, along one line.
  assert weights[0] @ [1.0, 2.0] > 0
  # These are drawn to the mean, which is not 0.
  if not name.startswith(('aligned', 'cagrad', 'gradnorm')):
    opposed = weights[1] @ [1.0, -2.0]
    assert abs(opposed) <= 1e-3 * np.abs(weights[1]).max()
  residuals = [getattr(state, 'residual', 0.0) for _, state in found]
  assert residuals[0] < 1e-5
  if name in ('mgda', 'upgrad', 'dualproj'):
    assert residuals[1] < 1e-5
  if name == 'mgda':
    wanted = [[1, 0], [2 / 3, 1 / 3]]
    np.testing.assert_allclose(weights, wanted, atol=1e-4)


def test_config_of_gradients_that_depend_on_each_other():
  """By least squares, as the pseudo-inverse of its definition says."""
  rng = np.random.default_rng(0)
  two = rng.normal(size=(2, 9))
  many = rng.normal(size=(200, 10, 5))
  many[::2, :, 2:] = 0  # of rank 2, the others of rank 5
  for jacobian in (
    np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
    np.concatenate([two, two.sum(axis=0, keepdims=True)]),
    many,
  ):
    weights = _weights(METHODS['config'][0], jacobian)
    for each, found in zip(
      jacobian.reshape(-1, *jacobian.shape[-2:]),
      weights.reshape(-1, weights.shape[-1]),
      strict=True,
    ):
      wanted = slow_balancing.config(each) @ each
      np.testing.assert_allclose(
        found @ each, wanted, atol=1e-3 * np.linalg.norm(wanted)
      )


@pytest.mark.parametrize('name', ['mgda', 'upgrad', 'dualproj', 'nash_mtl',
                                  'fairgrad', 'fairgrad_05'])  # fmt: skip
def test_no_task_is_harmed(name):
  """The direction has no negative product with any task gradient."""
  jacobians = _many(1e4)
  found = _weights(METHODS[name][0], jacobians)
  direction = np.einsum('nt,ntp->np', found, jacobians)
  products = np.einsum('ntp,np->nt', jacobians, direction)
  lengths = np.linalg.norm(jacobians, axis=2)
  scale = lengths * np.einsum('nt,nt->n', np.abs(found), lengths)[:, None]
  assert (products >= -1e-5 * scale).all()


def test_mgda_goes_down_equally_for_all_that_count():
  jacobians = _many(1e3)
  found = _weights(METHODS['mgda'][0], jacobians)
  direction = np.einsum('nt,ntp->np', found, jacobians)
  products = np.einsum('ntp,np->nt', jacobians, direction)
  squares = np.sum(direction**2, axis=1, keepdims=True)
  largest = np.max(np.sum(jacobians**2, axis=2), axis=1, keepdims=True)
  assert (products >= squares - 1e-5 * largest).all()
  apart = np.where(found > 1e-3, np.abs(products - squares), 0)
  assert (apart <= 1e-5 * largest).all()
  np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_mgda_normalizations(monkeypatch):
  """Weights are found for normalised gradients, as if these were given.

  Of opposed gradients, whose shortest mixture is of both: the solver, which takes
  long to compile, is a quotient.
  """
  assert (SMALL[0] @ SMALL[1]) < 0
  plain = METHODS['mgda'][0]
  _weights(plain, SMALL)  # by the solver itself

  def solve(cosines, least):
    cosine = cosines[0, 1]
    found = (least - cosine * least[::-1]) / (1 - cosine**2)
    return found, jnp.zeros((), found.dtype)

  monkeypatch.setattr(_solvers, 'nonnegative', solve)
  losses = jnp.array([0.5, 2.0])
  lengths = np.linalg.norm(SMALL, axis=1)
  for normalization, factors in (
    ('l2', lengths), ('loss', losses), ('loss+', losses * lengths),
  ):  # fmt: skip
    found = _weights(balancing.mgda(normalization), SMALL, losses=losses)
    wanted = _weights(plain, SMALL / np.asarray(factors)[:, None])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
  with pytest.raises(ValueError, match="'loss\\+'\\), found 'l1'"):
    balancing.mgda('l1')


def test_cagrad_stays_near_the_mean():
  np.testing.assert_allclose(_weights(_CAGRAD(0.0), SMALL), 1 / 2)
  jacobians = _many(1e3)
  found = _weights(METHODS['cagrad'][0], jacobians)
  mean = jacobians.mean(axis=1)
  apart = np.einsum('nt,ntp->np', found - 0.1, jacobians)
  np.testing.assert_allclose(
    np.linalg.norm(apart, axis=1), 0.5 * np.linalg.norm(mean, axis=1), rtol=1e-3
  )
  with pytest.raises(
    ValueError,
    match='c must be .* at least 0 .* at most 1',
  ):
    balancing.cagrad(-1)


def test_equal_angles():
  """IMTL-G and ConFIG: one cosine with every task; ConFIG's length."""
  jacobians = _many(1e3)
  lengths = np.linalg.norm(jacobians, axis=2)
  for name in ('imtl_g', 'config'):
    found = _weights(METHODS[name][0], jacobians)
    direction = np.einsum('nt,ntp->np', found, jacobians)
    products = np.einsum('ntp,np->nt', jacobians, direction) / lengths
    spread = products.max(axis=1) - products.min(axis=1)
    bound = np.einsum('nt,nt->n', np.abs(found), lengths)
    assert (spread <= 1e-4 * bound).all()
  size = np.linalg.norm(direction, axis=1)
  along = np.einsum('ntp,np->n', jacobians, direction) / size
  np.testing.assert_allclose(size, along, rtol=1e-2)


@pytest.mark.parametrize('name', ['imtl_g', 'config', 'nash_mtl'])
def test_the_scale_of_a_task_does_not_turn_the_direction(name):
  jacobians = _many(1e2)
  factors = 10 ** np.random.default_rng(0).uniform(-2, 3, (200, 10, 1))

  def directions(jacobians):
    weights = _weights(METHODS[name][0], jacobians)
    found = np.einsum('nt,ntp->np', weights, jacobians)
    return found / np.linalg.norm(found, axis=1, keepdims=True)

  cosines = np.sum(
    directions(jacobians) * directions(factors * jacobians), axis=1
  )
  if name == 'imtl_g':  # which turns round where its weights sum to below 0
    cosines = np.abs(cosines)
  np.testing.assert_allclose(cosines, 1, atol=1e-5)


_alignment = jax.jit(alignment, static_argnums=1)


@pytest.mark.parametrize('scale', ['min', 'median', 'rmse'])
def test_aligned_gradients_are_orthogonal(scale):
  """The Gramian of the aligned gradients has condition number 1."""
  for jacobian in (SMALL, WIDE):
    gramian = jnp.asarray(jacobian @ jacobian.T, jnp.float32)
    matrix = np.asarray(_alignment(gramian, scale))
    aligned = matrix @ np.asarray(gramian) @ matrix.T
    np.testing.assert_allclose(
      aligned / aligned[0, 0], np.eye(len(jacobian)), atol=1e-4
    )
  with pytest.raises(ValueError, match="'rmse'\\), found 'max'"):
    balancing.aligned_mtl('max')


def test_pcgrad_and_gradvac_without_conflict_are_the_sum():
  jacobian = np.abs(SMALL)
  np.testing.assert_allclose(_weights(METHODS['pcgrad'][0], jacobian), 1)
  np.testing.assert_allclose(_weights(METHODS['gradvac'][0], jacobian), 1)


def test_gradvac_over_several_steps():
  """Against the loop over whole gradients, its averages carried along."""
  rng = np.random.default_rng(1)
  balancer = balancing.gradvac(beta=0.3)
  state = balancer.init(KEY, 4)
  wanted = np.zeros((4, 4))
  for _ in range(6):
    jacobian = rng.normal(size=(4, 5)) + 0.5
    _, order_key = jax.random.split(_keys.from_data(state.key))
    orders = np.argsort(jax.random.uniform(order_key, (4, 4)), axis=1)
    direction, wanted = slow_balancing.gradvac(jacobian, wanted, orders, 0.3)
    gramian = jnp.asarray(jacobian @ jacobian.T, jnp.float32)
    weights, state = balancer.update(jnp.ones(4), state, gramian=gramian)
    np.testing.assert_allclose(weights @ jacobian, direction, atol=1e-3)
    np.testing.assert_allclose(state.wanted, wanted, atol=1e-4)
  with pytest.raises(ValueError, match='beta .* at most 1, found 2'):
    balancing.gradvac(2.0)


def test_gradnorm():
  """One step by hand; then gradients of one length; a task without labels."""
  balancer = balancing.gradnorm(alpha=1.0, learning_rate=0.1)
  gramian = jnp.diag(jnp.array([4.0, 1.0, 0.25]))
  state = balancer.init(KEY, 3)
  weights, state = balancer.update(
    jnp.array([1.0, 2.0, 4.0]), state, gramian=gramian
  )
  np.testing.assert_array_equal(weights, 1)
  np.testing.assert_array_equal(state.first, [1.0, 2.0, 4.0])
  # Lengths 2, 1, .5 against a mean of 7/6: the first falls, the others rise,
  # by Adam's whole step, and all are scaled back to 3.
  np.testing.assert_allclose(
    state.weights, 3 * np.array([0.9, 1.1, 1.1]) / 3.1, rtol=1e-5
  )
  update = balancer.update  # jitted already
  even = balancing.gradnorm(alpha=0.0, learning_rate=0.01)
  state = even.init(KEY, 3)

  def step(state, _):
    return even.update(jnp.ones(3), state, gramian=gramian)[1], None

  state, _ = jax.lax.scan(step, state, None, length=2000)
  lengths = state.weights * np.array([2.0, 1.0, 0.5])
  np.testing.assert_allclose(lengths / lengths.mean(), 1, atol=0.1)
  # A task that lags behind its first loss gets the longer gradient.
  state = balancer.init(KEY, 3)
  _, state = update(jnp.ones(3), state, gramian=jnp.eye(3))
  for _ in range(20):
    _, state = update(jnp.array([1.0, 0.5, 0.5]), state, gramian=jnp.eye(3))
  assert state.weights[0] > 1.2 and state.weights[1] < 1
  here = jnp.array([True, False, True])
  _, new = update(
    jnp.array([1.0, 0.0, 9.0]), state, gramian=jnp.eye(3), present=here
  )
  assert new.first[1] == state.first[1]
  np.testing.assert_allclose(new.weights[1], state.weights[1])
  np.testing.assert_allclose(new.weights.sum(), 3, rtol=1e-6)
  # A task that is first seen later starts from that loss.
  late = balancer.init(KEY, 2)
  _, late = balancer.update(
    jnp.array([1.0, 0.0]), late, gramian=jnp.eye(2),
    present=jnp.array([True, False]),
  )  # fmt: skip
  assert late.first.tolist() == [1.0, 0.0]
  with pytest.raises(ValueError, match='alpha .* at least 0'):
    balancing.gradnorm(-1)


def test_pcgrad_follows_its_definition():
  orders = np.argsort(
    jax.random.uniform(jax.random.split(KEY)[1], (3, 3)), axis=1
  )
  np.testing.assert_allclose(
    _weights(METHODS['pcgrad'][0], WIDE) @ WIDE,
    reference.pcgrad(WIDE, orders), atol=1e-4,
  )  # fmt: skip


def test_solvers_report_how_far_they_came():
  state = _solvers.unsolved(KEY, 2)
  for name in ('mgda', 'upgrad', 'dualproj', 'cagrad', 'nash_mtl', 'fairgrad'):
    _, found = _step(METHODS[name][0], SMALL)
    contracts.assert_same_structure(found, state)
    assert 0 <= found.residual < 1e-4
  # Opposed gradients have no bargain: the equations stay unsolved.
  _, found = _step(METHODS['fairgrad'][0], [[1.0], [-1.0]])
  assert found.residual > 1e-2


def test_the_nearest_point_of_the_simplex():
  rng = np.random.default_rng(0)
  for _ in range(20):
    values = rng.normal(size=4)
    found = np.asarray(
      to_simplex(jnp.asarray(values, jnp.float32), jnp.ones(4, bool))
    )
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)
    assert (found >= 0).all()
    # No other point is nearer: (v - p) . (q - p) <= 0 for every corner q.
    assert ((values - found) @ (np.eye(4) - found).T <= 1e-5).all()


def test_what_is_no_gramian():
  for name in ('nash_mtl', 'pcgrad', 'gradnorm'):
    balancer = getattr(balancing, name)()
    state = balancer.init(KEY, 2)
    for losses, gramian, found in (
      (jnp.ones(2), None, 'no Gramian'),
      (jnp.ones(2), jnp.eye(3), r'Gramian of shape \(3, 3\)'),
      (jnp.ones((2, 2)), jnp.eye(2), r'losses must .* found \(2, 2\)'),
    ):
      with pytest.raises(ValueError, match=found):
        balancer.update(losses, state, gramian=gramian)


def test_gramians_and_losses_of_other_types():
  gramian = jnp.asarray(SMALL @ SMALL.T, jnp.bfloat16)
  balancer = METHODS['mgda'][0]
  state = balancer.init(KEY, 2)
  found, _ = balancer.update(jnp.ones(2, int), state, gramian=gramian)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, [0.6, 0.4], atol=0.02)


def test_what_underflows_is_no_conflict():
  found = _weights(METHODS['pcgrad'][0], [[1.0, 0.0], [-1e-23, 0.0]])
  np.testing.assert_array_equal(found, [1.0, 1.0])


def test_numbers_that_are_settings_of_a_population():
  """May be traced, as cagrad's c and fairgrad's alpha are in tests above."""

  @jax.jit
  @jax.vmap
  def run(rate):
    balancer = balancing.gradnorm(learning_rate=rate)
    _, state = balancer.update(
      jnp.ones(2),
      balancer.init(KEY, 2),
      gramian=jnp.diag(jnp.array([1.0, 2.0])),
    )
    return state.weights

  found = run(jnp.array([0.1, 0.2]))
  assert np.isfinite(found).all() and (found[0] != found[1]).any()
  # Where alpha is 1, too.
  gramian = jnp.asarray(SMALL @ SMALL.T, jnp.float32)
  traced, _ = _step_of(_FAIRGRAD(1.0), gramian)
  np.testing.assert_allclose(traced, METHODS['nash_mtl'][1], atol=1e-4)


def test_arguments_that_are_no_numbers():
  for make, complaint in (
    (lambda: balancing.cagrad('shared'), "c must be .* found 'shared'"),
    (lambda: balancing.famo(lowest=0.1), 'lowest .* found 0.1'),
    (lambda: balancing.famo(lowest=(np.nan, 0)), r'lowest\[0\] must'),
    (lambda: balancing.gradnorm(learning_rate=-1), 'learning_rate must'),
    (lambda: balancing.uncertainty(np.nan), 'learning_rate must be'),
    (lambda: balancing.fairgrad(0.1), 'alpha must be .* at least 0.5'),
  ):
    with pytest.raises(ValueError, match=complaint):
      make()


def test_how_far_fairgrad_goes():
  """To alpha = 6 the equation holds; beyond that the residual tells."""
  jacobians = _many(1e2)
  for alpha in (6.0, 50.0):
    weights, state = _step(_FAIRGRAD(alpha), jacobians)
    assert np.isfinite(weights).all() and np.isfinite(state.residual).all()
    assert (state.residual.max() < 1e-3) == (alpha < 10)
