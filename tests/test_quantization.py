"""Rounded parameters: against NumPy, in training, saved, and mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, checkpoint
from lplmtl.compression import leaves, quantization
from lplmtl.compression.integers import Integers
from lplmtl.compression.quantization import Quantized, Scheme
from lplmtl.training import gradients
from tests import contracts

ENCODER = lplmtl.CrossNetwork(
  lplmtl.TabularEncoder(contracts.NUM_CATEGORIES, embed_dim=2, num_ordered=1),
  rank=2,
  num_layers=1,
)
MODELS = contracts.architectures(encoder=ENCODER)
SCHEMES = (
  Scheme(vector_bits=4),
  Scheme(bits=2, embedding_bits=8, scale_bits=8, vector_bits=8, least=1),
  Scheme(bits=3, scale_bits=32, vector_bits=16, least=100),
)


def _params(model, seed=0):
  return contracts.random_params(model, contracts.features(), seed)


def _slow(name, x, scheme):
  """Rounds an array as the docstrings say, group by group."""
  is_table = name.endswith(('embedding', 'steps'))
  bits = scheme.embedding_bits or scheme.bits if is_table else scheme.bits
  if not leaves.is_matrix(name, jnp.asarray(x)):
    bits = scheme.vector_bits
    if bits > 8:
      return x.astype(np.float16 if bits == 16 else np.float32)
    groups = [np.s_[...]]
  elif is_table:
    sizes = contracts.NUM_CATEGORIES
    if name.endswith('steps'):
      sizes = sizes[-1:]
    ends = np.cumsum(sizes)
    groups = [np.s_[end - n : end] for n, end in zip(sizes, ends, strict=True)]
  elif x.shape[-2] < scheme.least:
    groups = list(np.ndindex(x.shape[:-2]))
  else:
    groups = [
      (*i, slice(None), j)
      for i in np.ndindex(x.shape[:-2])
      for j in range(x.shape[-1])
    ]
  found, most = np.empty_like(x), np.float32(2 ** (bits - 1) - 1)
  for group in groups:
    found[group] = min(
      (
        _with_scale(x[group], np.float32(fraction / most), most, scheme)
        for fraction in ((1, 0.8, 0.6, 0.4) if bits == 2 else (1,))
      ),
      key=lambda rounded, group=group: ((x[group] - rounded) ** 2).sum(),
    )
  return found


def _with_scale(x, fraction, most, scheme):
  scale = np.abs(x).max() * fraction
  if scheme.scale_bits < 32:
    # Halfway cases do not occur in random numbers.
    mantissa, exponent = np.frexp(scale)
    steps = 2 ** {8: 4, 16: 11}[scheme.scale_bits]
    scale = np.float32(np.ldexp(np.round(mantissa * steps) / steps, exponent))
  return np.clip(np.round(x / scale), -most, most) * scale


@pytest.mark.parametrize('scheme', SCHEMES, ids=lambda s: f'{s.bits}bits')
def test_rounding_is_what_the_docstrings_say(scheme):
  model = Quantized(MODELS['omoe'], scheme)
  params = _params(model.model)
  frozen = quantization.freeze(model, params)
  thawed = leaves.names(quantization.thaw(frozen))
  used = leaves.names(jax.jit(model.weights)(params))
  for name, x in leaves.names(params).items():
    expected = _slow(name, np.asarray(x), scheme)
    np.testing.assert_array_equal(thawed[name], expected, err_msg=name)
    assert thawed[name].dtype == np.float32
    # What training computes with is what is stored, to the last bit.
    np.testing.assert_array_equal(used[name], thawed[name], err_msg=name)


@pytest.mark.parametrize(
  'scheme',
  [*SCHEMES, Scheme(bits=8, scale_bits=8, vector_bits=8)],
  ids=str,
)
def test_settled_parameters_are_far_from_a_tie(scheme):
  """They have the same integers, which a small change leaves as they are."""
  rng = np.random.default_rng(0)
  model = Quantized(MODELS['omoe'], scheme)
  params = _params(model, seed=3)
  first = _leaves(quantization.freeze(model, params))
  # To half-way between codes, but for one number in three and the largest ones.
  tied = [
    np.where(rng.random(x.shape) < 0.6, _tied(x, one), x)
    for x, one in zip(jax.tree.leaves(params), first, strict=True)
  ]
  params = jax.tree.unflatten(jax.tree.structure(params), tied)
  expected = _leaves(quantization.freeze(model, params))
  settled = quantization.settle(model, params)
  for near in (0, 1e-6):
    moved = jax.tree.map(
      lambda x, near=near: np.float32(x * (1 - near * rng.random(x.shape))),
      settled,
    )
    found = _leaves(quantization.freeze(model, moved))
    for a, b in zip(found, expected, strict=True):
      if isinstance(a, Integers):
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_allclose(a.scale, b.scale, rtol=2 * near)
      else:
        np.testing.assert_allclose(a, b, rtol=1e-3 if near else 0)


def _tied(x, frozen):
  """Returns numbers half-way to the code above, away from the largest codes."""
  if not isinstance(frozen, Integers):
    return x
  most = 2 ** (frozen.bits - 1) - 1
  step = frozen.values() / np.where(frozen.codes == 0, 1, frozen.codes)
  is_far = (abs(frozen.codes) < 0.8 * most) & (frozen.codes != 0)
  return np.where(is_far, step * (frozen.codes + 0.5), x).astype(np.float32)


def _leaves(frozen):
  return jax.tree.leaves(frozen, is_leaf=lambda x: isinstance(x, Integers))


def test_seeds_share_their_program(num_compiled):
  model = MODELS['shared_bottom']
  seeds = [_params(model, seed) for seed in range(2)]

  def freeze(seed):
    quantization.freeze(Quantized(model.clone(), Scheme(bits=8)), seeds[seed])

  assert num_compiled(freeze, 0) > 0
  assert num_compiled(freeze, 1) == 0


@pytest.mark.slow
def test_integers_stay_within_their_bits():
  model = Quantized(MODELS['omoe'], SCHEMES[1])
  frozen = quantization.freeze(model, _params(model.model))
  codes = {n: x for n, x in leaves.names(frozen).items() if hasattr(x, 'codes')}
  assert len(codes) == len(leaves.names(frozen))
  for name, x in codes.items():
    most = {2: 1, 8: 127}[x.bits]
    assert x.codes.dtype == np.int8 and np.abs(x.codes).max() <= most
    assert x.scale.dtype == np.float32
    is_matrix = 'kernel' in name or 'gate' in name
    assert (x.bits == 2) == is_matrix, name
  embedding = codes['encoder/encoder/embedding']
  assert embedding.scale.shape == (2, 1)
  assert embedding.sizes == contracts.NUM_CATEGORIES


@pytest.mark.slow
def test_gradients_pass_straight_through():
  """The gradient at the rounded parameters, for the unrounded ones."""
  model = Quantized(MODELS['shared_bottom'], Scheme(bits=2, vector_bits=8))
  params, rows = _params(model.model), contracts.batch()

  def loss(model, params):
    return gradients.forward(model, model.tasks, params, rows, key=None)[
      0
    ].sum()

  got = jax.jit(jax.grad(lambda p: loss(model, p)))(params)
  rounded = quantization.thaw(quantization.freeze(model, params))
  expected = jax.jit(jax.grad(lambda p: loss(model.model, p)))(rounded)
  contracts.assert_trees_equal(got, expected)


@pytest.mark.slow
def test_trains_saves_and_scores_like_any_model(tmp_path):
  model = Quantized(MODELS['shared_bottom'], Scheme())
  rows = contracts.batch(40)
  result = lplmtl.fit(
    jax.random.split(jax.random.key(0), 2), model, optax.adam(1e-2),
    balancing.equal(), rows, batch_size=20, num_epochs=4,
  )  # fmt: skip
  losses = [record['losses'].sum(axis=1) for record in result.history]
  assert (losses[-1] < losses[0]).all()
  checkpoint.save(tmp_path / 'm', model, result.params, num_seeds=2)
  loaded, params, _ = checkpoint.load(tmp_path / 'm', seed=1)
  assert loaded == model and hash(loaded) == hash(model)
  frozen = quantization.thaw(quantization.freeze(loaded, params))
  contracts.assert_trees_close(
    lplmtl.predict(loaded.model, frozen, rows.features),
    lplmtl.predict(loaded, params, rows.features),
    atol=1e-6,
  )
  contracts.assert_trees_equal(
    gradients.shared_leaves(model, params),
    gradients.shared_leaves(model.model, params),
  )


def test_encoder_checks_its_features():
  rows = contracts.batch(4)
  wrong = {**rows.features, 'categories': rows.features['categories'] + 9}
  model = Quantized(MODELS['shared_bottom'])
  with pytest.raises(
    ValueError, match=r"data.features\['categories'\] must be"
  ):
    lplmtl.fit(
      jax.random.key(0), model, optax.sgd(1.0), balancing.equal(),
      rows._replace(features=wrong), batch_size=2,
    )  # fmt: skip


def test_small_floats():
  params = {'a': {'kernel': np.array([[1.0, 1 + 2**-9, 1e-3]], np.float32)}}
  half = quantization.as_float16(params)['a']['kernel']
  assert half.dtype == np.float16 and half[0, 1] == 1 + 2**-9
  short = quantization.as_bfloat16(params)['a']['kernel']
  assert short.dtype == jnp.bfloat16 and short[0, 1] == 1
  whole = quantization.thaw({'a': half})['a']
  assert whole.dtype == np.float32
  params['a']['kernel'][0, 0] = 1e6
  with pytest.raises(ValueError, match='a/kernel has numbers that float16'):
    quantization.as_float16(params)
  assert np.isfinite(quantization.as_bfloat16(params)['a']['kernel'][0, 0])


def test_zeros_have_a_scale():
  """A column that training never touches, or a tower that died."""
  model = Quantized(lplmtl.SharedBottom(contracts.TASKS))
  params = {'bottom': {'layer_0': {'kernel': jnp.zeros((9, 3))}}}
  rounded = quantization.thaw(quantization.freeze(model, params))
  contracts.assert_trees_equal(rounded, params)
  slopes = jax.grad(lambda p: jax.tree.leaves(model.weights(p))[0].sum())(
    params
  )
  contracts.assert_trees_equal(slopes, jax.tree.map(jnp.ones_like, params))


def test_parts_can_be_kept():
  scheme = Scheme(keep=('encoder', 'head'), vector_bits=8)
  model = Quantized(MODELS['shared_bottom'], scheme)
  params = _params(model.model)
  frozen = leaves.names(quantization.freeze(model, params))
  for name, x in frozen.items():
    kept = 'encoder' in name or 'head' in name
    assert isinstance(x, np.ndarray) == kept, name
    if kept:
      np.testing.assert_array_equal(x, leaves.names(params)[name])


@pytest.mark.parametrize(
  'change, message',
  [
    ({'bits': 5}, 'bits must be one of 2, 3, 4, 8; found 5'),
    ({'bits': None}, 'bits must be one of 2, 3, 4, 8; found None'),
    ({'embedding_bits': 1}, 'embedding_bits must be one of None, 2, 3, 4, 8'),
    ({'scale_bits': 4}, 'scale_bits must be one of 8, 16, 32; found 4'),
    (
      {'vector_bits': True},
      'vector_bits must be one of 4, 8, 16, 32; found True',
    ),
    ({'least': 0}, 'least must be a whole number of at least 1, found 0'),
    ({'keep': 'head'}, "keep must be a tuple of names, such as .* 'head'"),
  ],
)
def test_wrong_schemes(change, message):
  with pytest.raises(ValueError, match=message):
    Scheme(**change)


def test_wrong_models_and_parameters():
  model = Quantized(MODELS['shared_bottom'])
  params = _params(model.model)
  with pytest.raises(ValueError, match='model to quantise.*found SharedBottom'):
    Quantized(lplmtl.SharedBottom)
  with pytest.raises(ValueError, match='scheme must be a Scheme.*found 4'):
    Quantized(MODELS['ple'], 4)
  with pytest.raises(ValueError, match='how to round it.*found SharedBottom'):
    quantization.freeze(model.model, params)
  with pytest.raises(ValueError, match=r"variables\['params'\]"):
    quantization.freeze(model, {'params': params})
  with pytest.raises(ValueError, match='SharedBottom has no matrices to quant'):
    quantization.freeze(model, {'bias': jnp.ones(3)})
  kept = Quantized(model.model, Scheme(keep=tuple(params)))
  with pytest.raises(ValueError, match='no matrices .* besides those to keep'):
    kept.apply({'params': params}, contracts.features())
  typo = Quantized(model.model, Scheme(keep=('haed',)))
  with pytest.raises(ValueError, match=r"keep must name .*; found \['haed'\]"):
    quantization.freeze(typo, params)
  other = Quantized(
    lplmtl.SharedBottom(contracts.TASKS, lplmtl.TabularEncoder((2,)))
  )
  with pytest.raises(ValueError, match='embedding must have 2 rows.* found 8'):
    quantization.freeze(other, params)
  params = jax.tree.map(lambda x: x * jnp.nan, params)
  with pytest.raises(ValueError, match='not finite: bottom/layer_0/bias'):
    quantization.freeze(model, params)
