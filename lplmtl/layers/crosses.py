"""Feature crosses on top of an encoder."""

from typing import Any

import flax.linen as nn

from lplmtl import _checks
from lplmtl.layers import modules
from lplmtl.types import Array


class CrossNetwork(nn.Module):
  """Low-rank feature crosses on top of another encoder (DCN-V2).

  Each layer multiplies every input by a combination of all features, so that L
  layers reach products of L + 1 features:

      x_{l+1} = x_0 * (U_l V_l x_l + b_l) + x_l

  where x_0 are the encoded features, V_l is `[D, R]` and U_l is `[R, D]`.

  Number of parameters: 2 D R + D per layer, and the encoder.

  Attributes:
    encoder: template of a module that maps the features to `[B, D]`.
    rank: R >= 1.
    num_layers: L >= 1.

  References:
    Wang et al. 2021, "DCN V2: Improved Deep & Cross Network and Practical
    Lessons for Web-scale Learning to Rank Systems".
  """

  encoder: nn.Module
  rank: int = 32
  num_layers: int = 2

  @nn.compact
  def __call__(self, features: Any, *, train: bool = False) -> Array:
    """Maps the features to `[B, D]`.

    Raises:
      ValueError: the rank or the number of layers is below 1.
    """
    if not _checks.is_whole_number(self.rank) or not _checks.is_whole_number(
      self.num_layers
    ):
      raise ValueError(
        'rank and num_layers must be whole numbers of at least 1, found '
        f'{self.rank!r} and {self.num_layers!r}'
      )
    encoded = modules.map_rows(self.encoder, features, train=train)
    x = encoded
    for i in range(self.num_layers):
      projected = nn.Dense(self.rank, use_bias=False, name=f'down_{i}')(x)
      x = encoded * nn.Dense(encoded.shape[-1], name=f'up_{i}')(projected) + x
    return x
