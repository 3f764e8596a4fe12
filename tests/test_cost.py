"""Parameters and FLOPs against counts by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import lplmtl
from lplmtl import compression
from lplmtl.compression import count_flops, count_parameters
from tests import contracts


def test_contractions():
  a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
  assert count_flops(jnp.dot, a, b) == 2 * 3 * 4 * 5
  stacked = lambda x, k: jnp.einsum('bd,edh->beh', x, k)  # noqa: E731
  assert (
    count_flops(stacked, jnp.ones((2, 7)), jnp.ones((3, 7, 5)))
    == 2 * 2 * 3 * 7 * 5
  )
  batched = lambda x, k: jnp.einsum('bed,edh->beh', x, k)  # noqa: E731
  assert (
    count_flops(batched, jnp.ones((2, 3, 7)), jnp.ones((3, 7, 5)))
    == 2 * 2 * 3 * 7 * 5
  )


def test_convolution():
  conv = nn.Conv(5, (3, 3), use_bias=False, padding='SAME')
  x = jnp.ones((1, 8, 8, 4))
  params = {'params': {'kernel': jnp.ones((3, 3, 4, 5))}}
  assert count_flops(conv.apply, params, x) == 2 * 8 * 8 * 5 * 3 * 3 * 4
  grouped = nn.Conv(4, (3, 3), use_bias=False, feature_group_count=4)
  params = {'params': {'kernel': jnp.ones((3, 3, 1, 4))}}
  assert count_flops(grouped.apply, params, x) == 2 * 8 * 8 * 4 * 3 * 3


def test_elementwise_reductions_and_control_flow():
  x = jnp.ones((3, 4))
  assert count_flops(lambda x: jnp.sum(jnp.exp(x) + 1), x) == 12 + 12 + 11
  assert count_flops(lambda x: x.reshape(4, 3).T[0], x) == 0
  scan = lambda x: jax.lax.scan(lambda c, r: (c * r, None), x[0], x)[0]  # noqa: E731
  assert count_flops(scan, x) == 3 * 4
  branch = lambda x: jax.lax.cond(True, lambda x: x * x * x, lambda x: x, x)  # noqa: E731
  assert count_flops(branch, x) == 2 * 12
  assert count_flops(jax.jit(lambda x: x + 1), x) == 12
  assert count_flops(jax.checkpoint(lambda x: x + 1), x) == 12
  assert count_flops(jax.nn.relu, x) == 12
  loop = lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x * 2, x)  # noqa: E731
  with pytest.raises(NotImplementedError, match='iterations'):
    count_flops(loop, x)
  with pytest.raises(NotImplementedError, match='cholesky'):
    count_flops(jax.lax.linalg.cholesky, jnp.eye(3))


def _flops(model, params, x):
  return count_flops(lambda p, x: model.apply({'params': p}, x)[0], params, x)


def _dense(inputs, outputs, bias=True):
  return 2 * inputs * outputs + (outputs if bias else 0)


def _softmax(size):
  """Maximum, subtraction, exp, sum, division, and the guard of the maximum."""
  return (size - 1) + size + size + (size - 1) + size


def test_shared_bottom_and_mmoe_by_hand():
  models = contracts.architectures()
  x = jnp.ones((1, 7))
  tower = sum(
    _dense(6, 4) + 4 + _dense(4, task.num_outputs) for task in contracts.TASKS
  )
  tower_params = sum(
    6 * 4 + 4 + 4 * t.num_outputs + t.num_outputs for t in contracts.TASKS
  )
  bottom = models['shared_bottom']
  params = contracts.random_params(bottom, x)
  assert count_parameters(params) == 7 * 6 + 6 + tower_params
  assert _flops(bottom, params, x) == _dense(7, 6) + 6 + tower
  # Two rows cost twice as much.
  assert _flops(bottom, params, jnp.ones((2, 7))) == 2 * _flops(
    bottom, params, x
  )

  mmoe = models['mmoe']
  params = contracts.random_params(mmoe, x)
  assert count_parameters(params) == 4 * (7 * 6 + 6) + 3 * 7 * 4 + tower_params
  experts = 4 * (_dense(7, 6) + 6)
  gates = 3 * (_dense(7, 4, bias=False) + _softmax(4))
  mixing = 3 * 2 * 4 * 6
  counted = _flops(mmoe, params, x)
  # The guard of the softmax's maximum (one operation a gate, in some releases
  # of JAX) is all that may differ.
  assert 0 <= counted - (experts + gates + mixing + tower) <= 3


def test_sple_is_smaller_than_ple():
  sizes = {}
  x = jnp.ones((1, 100))
  for cls in (lplmtl.PLE, lplmtl.SPLE):
    model = cls(contracts.TASKS)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)['params']
    sizes[cls] = count_parameters(shapes), _flops(model, shapes, x)
  assert sizes[lplmtl.SPLE][0] < sizes[lplmtl.PLE][0]
  assert sizes[lplmtl.SPLE][1] < sizes[lplmtl.PLE][1]


def test_encoder_costs_no_flops():
  """An embedding is a gather: memory traffic, no arithmetic on floats."""
  encoder = contracts.encoder()
  x = contracts.features(rows=1)
  params = encoder.init(jax.random.key(0), x)
  # The offsets of the columns are integer additions, and bounds are clipped.
  assert count_flops(encoder.apply, params, x) <= 12 * 2


def test_what_no_result_needs_costs_nothing():
  def fn(a, b):
    unused = a @ b.T
    del unused
    return jax.jit(lambda a: (a @ a, a + 1))(a)[1]

  # Of a call that is needed, everything counts.
  assert count_flops(fn, jnp.ones((3, 3)), jnp.ones((3, 3))) == 2 * 27 + 9
  assert count_flops(lambda a: (a @ a, a)[1], jnp.ones((3, 3))) == 0


def test_matrix_products():
  """Plain ones alone, also inside of other programs and transposed."""

  def fn(x, w, many):
    x = jax.jit(lambda x: x @ w)(x)
    x = jax.lax.dot_general(x, w, (((1,), (1,)), ((), ())))
    return x, jnp.einsum('abc,acd->abd', many, many)

  x, w, many = jnp.ones((5, 2)), jnp.ones((2, 3)), jnp.ones((4, 3, 3))
  assert compression.matrix_products(fn, x, w, many) == [(5, 2, 3), (5, 3, 2)]
