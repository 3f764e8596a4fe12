"""Parameters and FLOPs against counts by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import compression, tables
from lplmtl.compression import (
  Quantized,
  Scheme,
  count_bytes,
  count_flops,
  count_parameters,
  multiply_adds,
  packing,
  peak_activations,
  quantization,
)
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
  models = {
    name: contracts.architectures()[name].clone(tower=lplmtl.MLP((4,)))
    for name in ('shared_bottom', 'mmoe')
  }
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


# 3 + 1 and 5 + 1 ids of categories, 4 bins of one number.
COLUMNS = {
  'city': ['Oslo', 'Rome', 'Paris', 'Oslo'],
  'job': ['a', 'b', 'c', 'd'],
  'age': [20, 30, 40, 50],
}
TABLES = tables.fit(
  {name: COLUMNS[name] for name in ('city', 'job')},
  {'age': COLUMNS['age']},
  num_bins=4,
)
# Counts, seeds and hashes of 2 columns; the kind, the number and the format of
# 3 edges of a byte each; mean and deviation.
TABLES_PARTS = {
  'descriptors': 2 + 2 + 3, 'hashes': 3 + 4, 'edges': 3, 'numbers': 8,
}  # fmt: skip


def _parts(model, scheme=None, bound=TABLES):
  """The bytes by part, counted ahead, which are those of the packed arrays."""
  x = TABLES.encode(COLUMNS)
  params = contracts.random_params(model, x)
  frozen = params
  if scheme:
    model = Quantized(model, scheme)
    frozen = quantization.freeze(model, params)
  shapes = jax.eval_shape(lambda: params)
  counted = count_bytes(model, shapes, bound)
  packed = packing.pack(frozen, bound)
  assert counted == packed.parts and sum(counted.values()) == packed.num_bytes
  return counted


def test_bytes_of_a_shared_bottom_by_hand():
  """D = 3 columns x 2 + 1 number = 7 inputs, 14 embeddings of 2."""
  todo = contracts.TASKS[:2]  # 1 and 3 outputs
  encoder = lplmtl.TabularEncoder(TABLES.num_categories, embed_dim=2)
  model = lplmtl.SharedBottom(
    todo, encoder, bottom=lplmtl.MLP((6,)), tower=lplmtl.MLP(())
  )
  # Kernels 7 x 6 (one scale per matrix: fewer than 8 inputs), 6 x 1 and 6 x 3.
  assert sum(TABLES.num_categories) == 4 + 5 + 4
  assert _parts(model, Scheme(bits=4)) == {
    'embeddings': 13 * 2 / 2,
    'weights': (7 * 6 + 6 * 1 + 6 * 3) / 2,
    'scales': 2 * (3 + 1 + 1 + 1),
    'biases': 4 * (6 + 1 + 3),
    **TABLES_PARTS,
  }
  # Without quantisation, and without tables.
  assert _parts(model, bound=None) == {
    'embeddings': 4 * 26, 'weights': 4 * 66, 'biases': 4 * 10,
  }  # fmt: skip


def test_bytes_of_crosses_by_hand():
  """D = 3 x 4 + 1 = 13; ternary weights, 3-bit embeddings, 4-bit biases."""
  encoder = lplmtl.CrossNetwork(
    lplmtl.TabularEncoder(TABLES.num_categories, embed_dim=4), rank=2,
    num_layers=1,
  )  # fmt: skip
  model = lplmtl.SharedBottom(
    contracts.TASKS[:1], encoder, bottom=lplmtl.MLP((8,)), tower=lplmtl.MLP(())
  )
  scheme = Scheme(bits=2, embedding_bits=3, scale_bits=8, vector_bits=4)
  weights = 13 * 2 + 2 * 13 + 13 * 8 + 8 * 1
  assert _parts(model, scheme) == {
    'embeddings': np.ceil(13 * 4 * 3 / 8),
    'weights': np.ceil(weights / 5),
    # 3 columns; outputs of down (2), up (2 inputs: 1), bottom (8) and head (1);
    # the biases of up, bottom and head.
    'scales': 3 + 2 + 1 + 8 + 1 + 3,
    'biases': (13 + 8 + 1) / 2,
    **TABLES_PARTS,
  }


def test_bytes_of_experts_by_hand():
  """Experts 7 x 6 and gates 7 x 4: each expert has its scales."""
  encoder = lplmtl.TabularEncoder(TABLES.num_categories, embed_dim=2)
  model = lplmtl.MMoE(
    contracts.TASKS[:2], encoder, expert=contracts.SMALL, num_experts=4,
    tower=lplmtl.MLP(()),
  )  # fmt: skip
  scheme = Scheme(bits=8, scale_bits=32, vector_bits=16, least=7)
  assert _parts(model, scheme) == {
    'embeddings': 26,
    'weights': 4 * 7 * 6 + 2 * 7 * 4 + 6 * 1 + 6 * 3,
    # Heads have 6 inputs, below 7: one scale each.
    'scales': 4 * (3 + 4 * 6 + 2 * 4 + 1 + 1),
    'biases': 2 * (4 * 6 + 1 + 3),
    **TABLES_PARTS,
  }


def test_bytes_of_wrong_parameters():
  model = lplmtl.SharedBottom(contracts.TASKS, contracts.encoder())
  params = contracts.random_params(model, contracts.features())
  with pytest.raises(ValueError, match='embedding must have 13 rows'):
    count_bytes(model, params, TABLES)
  whole = jax.tree.map(lambda x: jnp.int32(x), params)
  with pytest.raises(ValueError, match='must be float32, float16 or Integers'):
    count_bytes(model, whole)
  half = quantization.as_float16(params)
  assert sum(count_bytes(model, half).values()) == 2 * count_parameters(half)


def test_multiply_adds_are_those_of_products():
  model = contracts.architectures()['shared_bottom']
  model = model.clone(tower=lplmtl.MLP((4,)))
  x = jnp.ones((1, 7))
  params = contracts.random_params(model, x)
  counted = multiply_adds(lambda x: model.apply({'params': params}, x)[0], x)
  outputs = sum(task.num_outputs for task in contracts.TASKS)
  assert counted == 7 * 6 + 3 * 6 * 4 + 4 * outputs

  def repeated(x, w):
    return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=5)[0]

  assert multiply_adds(repeated, jnp.ones((1, 3)), jnp.ones((3, 3))) == 5 * 9
  conv = nn.Conv(5, (3, 3), use_bias=False, padding='SAME')
  image = jnp.ones((1, 8, 8, 4))
  kernel = {'params': {'kernel': jnp.ones((3, 3, 4, 5))}}
  assert multiply_adds(conv.apply, kernel, image) == 8 * 8 * 5 * 3 * 3 * 4


def test_peak_activations_by_hand():
  w, v = jnp.ones((10, 6)), jnp.ones((6, 20))
  x = jnp.ones((1, 10))

  # 10 + 6, then 6 + 6 (in another array), then 6 + 20.
  assert peak_activations(lambda x: jnp.tanh(x @ w) @ v, x) == 4 * 26
  # x is needed to the end: 10 + 6 + 6, 10 + 6 + 20, 10 + 20, 10 + 20 + 30.
  fn = lambda x: jnp.concatenate([x, (jnp.tanh(x @ w) @ v)], axis=1)  # noqa: E731
  assert peak_activations(fn, x) == 4 * 60
  # What depends on constants only is a constant; a reshape is a view.
  fn = lambda x: (x @ (w + 1)).reshape(3, 2)  # noqa: E731
  assert peak_activations(fn, x) == 4 * 16
  # A call counts what it holds inside, beside what is alive around it.
  fn = lambda x: x @ w + jax.jit(lambda y: (y @ w) @ v)(x)[:, :6]  # noqa: E731
  assert peak_activations(fn, x) == 4 * (6 + 6 + 20)
  again = lambda x: fn(x) + x[:, :6]  # noqa: E731
  assert peak_activations(again, x) == 4 * (10 + 6 + 6 + 20)
  # Each turn of a loop needs its own, beside what the loop returns.
  loop = lambda x: jax.lax.scan(lambda c, _: ((c @ w) @ w.T, c), x, length=3)  # noqa: E731
  assert peak_activations(loop, x) == 4 * (10 + 10 + 30 + 6 + 10)


def test_peak_activations_of_models():
  """Wider layers need more, parameters and rows of parameters nothing."""
  x = jnp.ones((1, 7))
  peaks = []
  for width in (8, 64):
    model = lplmtl.SharedBottom(contracts.TASKS, bottom=lplmtl.MLP((width,)))
    params = contracts.random_params(model, x)
    quantized = Quantized(model, Scheme())
    for one in (model, quantized):
      fn = lambda x, one=one: one.apply({'params': params}, x)[0]  # noqa: B023, E731
      peaks.append(peak_activations(fn, x))
  assert peaks[0] == peaks[1] < peaks[2] == peaks[3]
