"""Towers: the layers that belong to one task only."""

import flax.linen as nn
import jax.numpy as jnp

from lplmtl.layers import modules
from lplmtl.types import Array


class Tower(nn.Module):
  """A body of the user's choice and a linear head.

  Attributes:
    body: any Linen module, as a template.
    num_outputs: K.
  """

  body: nn.Module
  num_outputs: int

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Array:
    """Maps `[B, H]` to `[B, K]` float32."""
    x = modules.map_rows(self.body, x, train=train)
    x = nn.Dense(self.num_outputs, name='head')(x)
    return x.astype(jnp.float32)
