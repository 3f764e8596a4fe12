"""The encoder of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import checkpoint, tasks


def test_layers_are_strided_convolutions():
  """As XLA's own convolution, on images of odd sides with two channels."""
  encoder = lplmtl.ImageEncoder((3, 4))
  x = np.random.default_rng(0).normal(size=(2, 7, 5, 2)).astype(np.float32)
  params = encoder.init(jax.random.key(0), x)['params']
  params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # biases of 0, too
  expected = jnp.asarray(x)
  for i, channels in enumerate((3, 4)):
    layer = params[f'layer_{i}']
    kernel = layer['kernel'].reshape(3, 3, -1, channels)
    expected = jax.lax.conv_general_dilated(
      expected, kernel, (2, 2), ((1, 1), (1, 1)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip
    expected = jax.nn.relu(expected + layer['bias'][None, None, None])
  found = encoder.apply({'params': params}, x)
  assert found.shape == (2, 2 * 2 * 4)
  np.testing.assert_allclose(found, expected.reshape(2, -1), atol=1e-5)


def test_columns_are_pixels_row_by_row():
  encoder = lplmtl.ImageEncoder((2,))
  images = np.random.default_rng(1).normal(size=(3, 4, 4)).astype(np.float32)
  table = {
    'categories': np.zeros((3, 0), int),
    'numeric': images.reshape(3, 16),
  }
  params = encoder.init(jax.random.key(0), images)
  np.testing.assert_array_equal(
    encoder.apply(params, images), encoder.apply(params, table)
  )


@pytest.mark.parametrize(
  ('channels', 'features', 'message'),
  [
    ((2,), np.zeros((3, 16)), r'expected images .* found shape \(3, 16\)'),
    ((2,), {'numeric': np.zeros((3, 15))}, r'found shape \(3, 15\)'),
    ((2,), {'numeric': np.zeros((3, 0))}, r'found shape \(3, 0\)'),
    ((), np.zeros((3, 4, 4)), r'at least 1, found \(\)'),
    ((0,), np.zeros((3, 4, 4)), r'at least 1, found \(0,\)'),
  ],
)
def test_what_is_no_image_is_refused(channels, features, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
      lplmtl.ImageEncoder(channels).init, jax.random.key(0), features
    )


def test_models_of_images_can_be_saved(tmp_path):
  todo = (tasks.multiclass('left', 3),)
  model = lplmtl.SharedBottom(
    todo, encoder=lplmtl.ImageEncoder((2,)), bottom=lplmtl.MLP((4,))
  )
  x = np.ones((1, 4, 4), np.float32)
  params = jax.jit(model.init)(jax.random.key(0), x)['params']
  checkpoint.save(tmp_path / 'model', model, params)
  again, loaded, _ = checkpoint.load(tmp_path / 'model')
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, loaded, jax.device_get(params))
