"""Numbers as piecewise-linear embeddings."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.types import Array


class PiecewiseLinear(nn.Module):
  """Embeds numbers by functions that are linear between knots.

  A dense layer on a standardised number learns sharp thresholds and narrow
  bumps only slowly, and one outlier can carry its output anywhere. Here, each
  column has functions of its own, which bend at its knots (quantiles, say) and
  are constant beyond the outer ones:

      z = relu(a + b x + sum_p v_p clip((x - k_p) / (k_{p+1} - k_p), 0, 1))

  where x is a number, clamped to the outer knots k_0 and k_P, and a, b and v_p
  are vectors of embed_dim. The clamped numbers follow the embeddings.

  Number of parameters: embed_dim for each piece, and 2 embed_dim per column.

  Attributes:
    knots: of each of the N columns, in increasing order; `()` leaves a column
      as it is, such as one of flags.
    embed_dim: width of an embedding.

  References:
    Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep
    Learning", section 3.2, whose functions have no b x and no outer clamp.

  Example:
    >>> import jax
    >>> encoder = PiecewiseLinear(knots=((-1.0, 0.0, 2.0), ()), embed_dim=4)
    >>> key, x = jax.random.key(0), jnp.array([[0.5, 1.0], [9.0, 0.0]])
    >>> encoded, _ = encoder.init_with_output(key, x)
    >>> encoded.shape  # [B, 1 column * 4 + 2 numbers]
    (2, 6)
    >>> encoded[:, 4:].tolist()
    [[0.5, 1.0], [2.0, 0.0]]
  """

  knots: tuple[tuple[float, ...], ...]
  embed_dim: int = 8

  @nn.compact
  def __call__(self, numeric: Array, *, train: bool = False) -> Array:
    """Maps `[B, N]` to `[B, M embed_dim + N]`, M the columns with knots.

    Raises:
      ValueError: there are not N columns, a column has one knot or its knots do
        not increase, or embed_dim is below 1.
    """
    self._check(numeric)
    bent = [i for i, knots in enumerate(self.knots) if knots]
    if not bent:
      return numeric
    starts, widths, rows = _pieces([self.knots[i] for i in bent])
    free = (-np.inf, np.inf)
    ends = [(k[0], k[-1]) if k else free for k in self.knots]
    low, high = np.array(ends, np.float32).T
    clamped = jnp.clip(numeric, low[None], high[None])
    x = clamped[:, np.array(bent)]  # [B, M]
    # A piece that only fills up the array has an infinite width: fraction 0.
    fractions = jnp.clip((x[:, :, None] - starts[None]) / widths[None], 0, 1)
    shape = (len(bent), self.embed_dim)
    # Small enough that a sum over all pieces, too, starts well below 1.
    scale = 0.3 / np.sqrt(rows.shape[1])
    pieces = self.param(
      'pieces', nn.initializers.normal(scale), (rows.max() + 1, shape[1])
    )
    slopes = self.param('slopes', nn.initializers.normal(0.1), shape)
    bias = self.param('bias', nn.initializers.normal(0.1), shape)
    bends = jnp.einsum('bmp,mpe->bme', fractions, pieces[rows])
    embedded = nn.relu(bends + slopes[None] * x[:, :, None] + bias[None])
    return jnp.concatenate([embedded.reshape(len(x), -1), clamped], axis=1)

  def _check(self, numeric: Array) -> None:
    if numeric.ndim != 2 or numeric.shape[1] != len(self.knots):
      raise ValueError(
        f'expected numbers of shape [B, {len(self.knots)}], a column for each '
        f'entry of knots, found {numeric.shape}'
      )
    if not _checks.is_whole_number(self.embed_dim):
      raise ValueError(
        'embed_dim must be a whole number of at least 1, found '
        f'{self.embed_dim!r}'
      )
    for knots in self.knots:
      if len(knots) == 1 or not (np.diff(np.asarray(knots, float)) > 0).all():
        raise ValueError(
          'the knots of a column must be none, or two or more in increasing '
          f'order; found {knots}'
        )


def _pieces(
  knots: list[tuple[float, ...]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Lays the pieces of M columns out in arrays, `[M, P]` each.

  P is that of the column with most pieces; the others are filled up.

  Returns:
    (starts, widths, rows): where a piece starts, how wide it is, and its row
    among the pieces of all columns.
  """
  counts = [len(column) - 1 for column in knots]
  shape = len(knots), max(counts)
  starts = np.zeros(shape, np.float32)
  widths = np.full(shape, np.inf, np.float32)
  rows = np.zeros(shape, np.int32)
  first = 0
  for m, (column, count) in enumerate(zip(knots, counts, strict=True)):
    starts[m, :count] = column[:-1]
    widths[m, :count] = np.diff(column)
    rows[m, :count] = np.arange(first, first + count)
    first += count
  return starts, widths, rows
