"""Numbers as piecewise-linear embeddings."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.types import Array


class PiecewiseLinear(nn.Module):
  """Embeds numbers by functions that are linear between quantiles.

  A dense layer on a standardised number learns sharp thresholds and narrow
  bumps only slowly, and one outlier can carry its output anywhere. Here, each
  number has functions of its own, which bend at the edges of its bins and are
  constant far outside. With the position u of a number among the edges, from 0
  to its number of pieces P (see `tables.Numeric.position`),

      z = relu(a + b (2 u / P - 1) + sum_p v_p clip(u - p, 0, 1))

  where p runs from 0 to P - 1, and a, b and v_p are vectors of embed_dim.

  Number of parameters: embed_dim for each piece, and 2 embed_dim per number.

  Attributes:
    num_pieces: P of each of the M numbers, such as `Tables.num_pieces`.
    embed_dim: width of an embedding.

  Differs from the paper in b, which learns a trend in one step.

  References:
    Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep
    Learning", section 3.2.

  Example:
    >>> import jax
    >>> encoder = PiecewiseLinear(num_pieces=(8, 2), embed_dim=4)
    >>> key, positions = jax.random.key(0), jnp.array([[7.5, 0.1]])
    >>> encoded, _ = jax.eval_shape(encoder.init_with_output, key, positions)
    >>> encoded.shape  # [B, 2 numbers * 4]
    (1, 8)
  """

  num_pieces: tuple[int, ...]
  embed_dim: int = 8

  @nn.compact
  def __call__(self, positions: Array, *, train: bool = False) -> Array:
    """Maps `[B, M]` positions to `[B, M embed_dim]`.

    Raises:
      ValueError: there are not M numbers, or a size is below 1.
    """
    num_numbers = len(self.num_pieces)
    if positions.ndim != 2 or positions.shape[1] != num_numbers:
      raise ValueError(
        f'expected positions of shape [B, {num_numbers}], found '
        f'{positions.shape}'
      )
    if not all(
      map(_checks.is_whole_number, (*self.num_pieces, self.embed_dim))
    ):
      raise ValueError(
        'num_pieces and embed_dim must be whole numbers of at least 1, found '
        f'{self.num_pieces} and {self.embed_dim!r}'
      )
    most = max(self.num_pieces)
    counts = np.array(self.num_pieces)[:, None]
    # The pieces of all numbers are stored one after the other. Here, a number
    # with fewer than the most is filled up by the next ones: of these, its
    # fraction is 0.
    starts = np.arange(most)
    rows = np.cumsum(counts)[:, None] - counts + starts
    total = int(counts.sum())
    # Small enough that a sum over all pieces, too, starts well below 1.
    scale = 0.3 / np.sqrt(most)
    shape = (num_numbers, self.embed_dim)
    pieces = self.param(
      'pieces', nn.initializers.normal(scale), (total, self.embed_dim)
    )
    slopes = self.param('slopes', nn.initializers.normal(0.1), shape)
    bias = self.param('bias', nn.initializers.normal(0.1), shape)
    u = jnp.clip(positions, 0, counts.T.astype(np.float32))[:, :, None]
    fractions = jnp.clip(u - starts[None, None], 0, 1)
    bends = jnp.einsum(
      'bmp,mpe->bme', fractions, pieces[np.minimum(rows, total - 1)]
    )
    trends = slopes[None] * (2 * u / counts[None].astype(np.float32) - 1)
    x = nn.relu(bias[None] + trends + bends)
    return x.reshape(positions.shape[0], -1)  # which may be symbolic
