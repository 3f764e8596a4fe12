"""Parameters and features that do not fit the model which predicts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import tasks

MODEL = lplmtl.PLE((tasks.binary('click'),), encoder=nn.Dense(2))
FEATURES = np.ones((3, 8), np.float32)


@pytest.fixture(scope='module')
def params():
  shapes = jax.eval_shape(MODEL.init, jax.random.key(0), FEATURES)['params']
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


@pytest.mark.parametrize('width', [7, 9])
def test_features_of_another_width(width, params):
  for features in (np.ones((3, width)), np.ones((2000, width))):
    with pytest.raises(
      ValueError, match=f'of one seed, .* {width}\\), For par'
    ):
      lplmtl.predict(MODEL, params, features)


@pytest.mark.parametrize('what', [{}, None, {'encoder': {}}])
def test_no_parameters(what):
  with pytest.raises(ValueError, match='must be those of this model') as raised:
    lplmtl.make_predictor(MODEL, what)(FEATURES)
  assert 'http' not in str(raised.value)


def test_parameters_of_several_seeds(params):
  many = jax.tree.map(lambda x: jnp.stack([x] * 3), params)
  with pytest.raises(ValueError, match='of this model, of one seed'):
    lplmtl.predict(MODEL, many, FEATURES)
