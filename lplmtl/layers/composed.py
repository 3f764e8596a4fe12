"""Embeddings of columns with many values, each composed of two rows."""

from collections.abc import Sequence
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lplmtl.layers import bins, lookup
from lplmtl.types import Array

Operation = Literal['multiply', 'add', 'concat']
OPERATIONS = get_args(Operation)


class Composed(nn.Module):
  """Embeds V values by a table of V / c rows and one of c rows.

  The embedding of value i combines a row that it shares with c - 1 other values
  and a row that it shares with V / c others, so that no two values share both
  (the quotient-remainder trick, with m = ceil(V / c)):

      x_i = remainders[i mod m] o quotients[i div m]

  where o multiplies, adds or concatenates the two.

  Number of parameters: embed_dim (m + ceil(V / m)) per column, half of it with
  concat.

  Attributes:
    sizes: V of each of the C columns.
    embed_dim: width of an embedding; even with concat.
    collisions: c >= 1, how many values share a row of the larger table.
    operation: `multiply`, `add` or `concat`; in the paper, multiplying is the
      best of the three in most comparisons.
    multiple_of: see `TabularEncoder`.

  Differs from the paper: concatenated rows have half the width each, so that
  all three operations give embeddings of the same width.

  References:
    Shi et al. 2020, "Compositional Embeddings Using Complementary Partitions
    for Memory-Efficient Recommendation Systems", section 3.1 and equation 5.
  """

  sizes: tuple[int, ...]
  embed_dim: int
  collisions: int = 4
  operation: Operation = 'multiply'
  multiple_of: int = 1

  @nn.compact
  def __call__(self, ids: Array) -> Array:
    """Maps `[B, C]` int ids, each column from 0, to `[B, C embed_dim]`.

    Raises:
      ValueError: the operation is unknown, collisions is below 1, or embed_dim
        is odd with concat.
    """
    self._check()
    width = self.embed_dim // (2 if self.operation == 'concat' else 1)
    remainders, quotients = counts(self.sizes, self.collisions)
    divisors = jnp.broadcast_to(jnp.array([remainders], ids.dtype), ids.shape)
    found = []
    for name, sizes, split in (
      ('remainders', remainders, jax.lax.rem),
      ('quotients', quotients, jax.lax.div),
    ):
      shape = bins.rounded(sum(sizes), self.multiple_of), width
      table = self.param(name, self._initialiser(name), shape, jnp.float32)
      first = np.cumsum((0, *sizes[:-1]), dtype=np.int32)
      rows = split(ids, divisors) + first[None]
      found.append(lookup.take(self, name, table, rows))
    return self._combined(*found).reshape(ids.shape[0], -1)

  def _combined(self, first: Array, second: Array) -> Array:
    if self.operation == 'multiply':
      return first * second
    if self.operation == 'add':
      return first + second
    return jnp.concatenate([first, second], axis=-1)

  def _initialiser(self, name: str) -> nn.initializers.Initializer:
    """Gives embeddings the standard deviation of a TabularEncoder's, 0.05."""
    if self.operation == 'concat':
      return nn.initializers.normal(0.05)
    if self.operation == 'add' or name == 'remainders':
      return nn.initializers.normal(0.035)  # 0.05 over the root of 2

    # Far from 1, so that values which share a remainder differ from the start:
    # they take long to part otherwise.
    def around_one(key: Array, shape: tuple[int, ...], dtype: type) -> Array:
      return 1 + jax.random.normal(key, shape, dtype)

    return around_one

  def _check(self) -> None:
    if self.operation not in OPERATIONS:
      raise ValueError(
        f'the operation must be one of {", ".join(OPERATIONS)}, found '
        f'{self.operation!r}'
      )
    if self.collisions < 1 or min(self.sizes) < 1:
      raise ValueError(
        'collisions and every size must be at least 1, found '
        f'{self.collisions} and {self.sizes}'
      )
    if self.operation == 'concat' and self.embed_dim % 2:
      raise ValueError(
        'embed_dim must be even, to concatenate two halves, found '
        f'{self.embed_dim}'
      )


def counts(
  sizes: Sequence[int], collisions: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Returns the rows of remainders and of quotients, for each column.

  Args:
    sizes: V of each column.
    collisions: how many values share a remainder.
  """
  remainders = tuple(-(-size // collisions) for size in sizes)
  quotients = tuple(
    -(-size // rows) for size, rows in zip(sizes, remainders, strict=True)
  )
  return remainders, quotients
