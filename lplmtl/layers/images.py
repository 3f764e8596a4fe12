"""Images as features: an encoder of strided convolutions."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lplmtl import _checks
from lplmtl.types import Array

_SIZE = 3  # of a kernel, on each side


class ImageEncoder(nn.Module):
  """Convolutions of 3x3 pixels with stride 2, each followed by a relu.

  Strides take the place of pooling (Springenberg et al. 2015), so that a layer
  does a quarter of the work. Each is one product of patches with a matrix,
  which several seeds side by side turn into one batched product; a convolution
  would become a grouped one, which CPUs run slowly.

  Number of parameters: (9 C_in + 1) C_out per layer.

  Attributes:
    channels: C_out of each layer.

  Example:
    >>> import jax
    >>> encoder = ImageEncoder(channels=(8, 16))
    >>> key, images = jax.random.key(0), jnp.ones((2, 24, 24))
    >>> encoded, _ = jax.eval_shape(encoder.init_with_output, key, images)
    >>> encoded.shape  # [B, 6 * 6 * 16]
    (2, 576)

  References:
    Springenberg et al. 2015, "Striving for Simplicity: The All Convolutional
    Net".
  """

  channels: tuple[int, ...] = (8, 16)

  @nn.compact
  def __call__(
    self, features: Array | Mapping[str, Array], *, train: bool = False
  ) -> Array:
    """Maps images to `[B, D]`.

    Args:
      features: `[B, height, width]`, `[B, height, width, C]`, or what
        `lplmtl.tables` makes of a table whose numbers, `numeric` `[B, N]`, are
        the pixels of square images, row by row.
      train: unused.

    Raises:
      ValueError: the features are no images, or `channels` is no tuple of whole
        numbers of at least 1.
    """
    if not self.channels or not all(
      map(_checks.is_whole_number, self.channels)
    ):
      raise ValueError(
        f'channels must be whole numbers of at least 1, found {self.channels!r}'
      )
    x = _images(features)
    for i, channels in enumerate(self.channels):
      layer = nn.Dense(
        channels, kernel_init=nn.initializers.he_normal(), name=f'layer_{i}'
      )
      x = nn.relu(layer(_patches(x)))
    return x.reshape(len(x), -1)


def _images(features: Any) -> Array:
  """Returns `[B, height, width, C]`."""
  x = features['numeric'] if isinstance(features, Mapping) else features
  if isinstance(features, Mapping):
    side = math.isqrt(x.shape[-1])
    if x.ndim == 2 and side and side**2 == x.shape[-1]:
      return x.reshape(-1, side, side, 1)
  elif x.ndim in (3, 4):
    return x if x.ndim == 4 else x[..., None]
  raise ValueError(
    'expected images [B, height, width] or [B, height, width, C], or as many '
    f'numbers as a square has pixels; found shape {x.shape}'
  )


def _patches(x: Array) -> Array:
  """Returns `[B, ceil(height / 2), ceil(width / 2), 9 C]`.

  A patch has its pixels row by row, with zeros outside the image.
  """
  height, width = x.shape[1:3]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return jnp.concatenate(
    [
      padded[:, i : i + height : 2, j : j + width : 2]
      for i in range(_SIZE)
      for j in range(_SIZE)
    ],
    axis=-1,
  )
