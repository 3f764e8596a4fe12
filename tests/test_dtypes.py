"""Dtypes: every architecture in 64-bit mode, with strict promotion, on bfloat16."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import lplmtl
from tests import contracts

_ENCODER = lplmtl.CrossNetwork(contracts.encoder(), rank=2)
MODELS = contracts.architectures(encoder=_ENCODER)
MODELS |= contracts.chains(encoder=_ENCODER)
MODELS['deep_gates'] = dataclasses.replace(
  MODELS['ple'], gate_body=contracts.SMALL
)
BINS = lplmtl.TabularEncoder(contracts.NUM_CATEGORIES, 2, num_ordered=1)
MODELS['bins'] = dataclasses.replace(MODELS['mmoe'], encoder=BINS)
MODELS['dropout'] = dataclasses.replace(
  MODELS['cgc'], expert=lplmtl.MLP((6,), dropout_rate=0.5)
)


def _traced(model, x):
  """Dtypes of parameters, outputs, and the gradient; nothing is compiled."""
  params = jax.eval_shape(model.init, jax.random.key(0), x)['params']

  def total(params, x):
    predictions, aux = model.apply(
      {'params': params}, x, train=True, rngs={'dropout': jax.random.key(1)}
    )
    losses = sum(p.sum() for p in predictions.values())
    return losses + aux.get('penalty', 0.0), (predictions, aux)

  (loss, outputs), gradient = jax.eval_shape(
    jax.value_and_grad(total, has_aux=True), params, x
  )
  return params, loss, outputs, gradient


def _assert_float32(tree):
  for path, leaf in jax.tree.leaves_with_path(tree):
    assert leaf.dtype == jnp.float32, jax.tree_util.keystr(path)


@pytest.mark.parametrize('name', MODELS)
def test_parameters_and_outputs_are_float32_in_64_bits(name):
  x = contracts.features()
  with contracts.double_precision():
    x = {
      'categories': x['categories'].astype('int64'),
      'numeric': x['numeric'].astype('float64'),
    }
    _assert_float32(_traced(MODELS[name], x))


@pytest.mark.parametrize('name', MODELS)
def test_strict_promotion(name):
  with jax.numpy_dtype_promotion('strict'):
    _assert_float32(_traced(MODELS[name], contracts.features()))


@pytest.mark.parametrize('name', MODELS)
def test_bfloat16_features(name):
  """Without an encoder, so that trunks, experts and gates read them."""
  bare = dataclasses.replace(MODELS[name], encoder=None)
  _assert_float32(_traced(bare, jnp.ones((7, 3), jnp.bfloat16)))
