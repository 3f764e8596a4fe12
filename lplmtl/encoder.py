"""Category ids and numeric columns to one vector a row."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from lplmtl.types import Array


class TabularEncoder(nn.Module):
  """Embeds every category column and appends the numeric ones.

  Features come from `lplmtl.tables.Tables.encode`, which also turns numeric
  columns into quantile bins (more category columns) when asked to.
  One table holds all columns' embeddings, so that a batch is one gather.

  Attributes:
    num_categories: vocabulary size of each of the C category columns, the
      reserved id 0 (never seen in training) included.
    embed_dim: width of an embedding.
  """

  num_categories: tuple[int, ...]
  embed_dim: int = 4

  @nn.compact
  def __call__(
    self, features: Mapping[str, Array], *, train: bool = False
  ) -> Array:
    """Maps the features to `[B, D]`, D = C embed_dim + N.

    Args:
      features: `categories`, `[B, C]` int ids (an id outside of its column's
        vocabulary is not noticed inside jit: encode with `Tables`), and
        `numeric`, `[B, N]` float.
      train: not used.

    Returns:
      `[B, D]` float.

    Raises:
      ValueError: not C category columns, or a size below 1.
    """
    categories, numeric = features['categories'], features['numeric']
    num_columns = len(self.num_categories)
    if categories.ndim != 2 or categories.shape[1] != num_columns:
      raise ValueError(
        f'the encoder expects categories of shape [B, {num_columns}], found '
        f'{categories.shape}'
      )
    if self.embed_dim < 1 or any(n < 1 for n in self.num_categories):
      raise ValueError(
        'embed_dim and every vocabulary size must be at least 1, found '
        f'{self.embed_dim} and {self.num_categories}'
      )
    if not num_columns:
      return numeric
    table = self.param(
      'embedding',
      # Small: rare values then start near their column's mean. On census66k
      # 0.5 cost 0.003 of validation AUC against 0.05.
      nn.initializers.normal(0.05),
      (sum(self.num_categories), self.embed_dim),
    )
    offsets = np.cumsum((0, *self.num_categories[:-1]), dtype=np.int32)
    embedded = jnp.take(table, categories + offsets[None], axis=0, mode='clip')
    flat = embedded.reshape(categories.shape[0], -1)
    return jnp.concatenate([flat, numeric.astype(flat.dtype)], axis=1)
