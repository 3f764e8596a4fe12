"""Category ids and numeric columns to one vector a row, and its crosses."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.layers import modules
from lplmtl.types import Array


class TabularEncoder(nn.Module):
  """Embeds every category column and appends the numeric ones.

  Features come from `lplmtl.tables.Tables.encode`, which also turns numeric
  columns into quantile bins (more category columns) when asked to.
  One table holds all columns' embeddings, so that a batch is one gather.

  A bin's embedding is its own vector plus the sum of steps from the lowest bin
  up to it, `v_b + 0.3 (s_1 + ... + s_b)`: neighbours share what they learn, and
  a single bin can still stand out.

  Parameters: embed_dim for each value of each column, and as many again for
  each bin.

  Attributes:
    num_categories: vocabulary size of each of the C category columns, the
      reserved id 0 (never seen in training) included.
    embed_dim: width of an embedding.
    num_ordered: how many of the columns, the last ones, are bins of numbers in
      their order.

  Example:
    >>> import jax
    >>> x = {'categories': jnp.array([[1, 2]]), 'numeric': jnp.ones((1, 3))}
    >>> encoder = TabularEncoder(num_categories=(4, 5), embed_dim=2)
    >>> key = jax.random.key(0)
    >>> encoded, _ = jax.eval_shape(encoder.init_with_output, key, x)
    >>> encoded.shape  # [B, 2 columns * 2 + 3 numbers]
    (1, 7)
  """

  num_categories: tuple[int, ...]
  embed_dim: int = 4
  num_ordered: int = 0

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
      ValueError: no such features, not C category columns, or a size below 1.
    """
    self._check_names(features, 'features')
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
    if not 0 <= self.num_ordered <= num_columns:
      raise ValueError(
        f'num_ordered must be from 0 to the {num_columns} columns, found '
        f'{self.num_ordered}'
      )
    table = self.param(
      'embedding',
      # Small: rare values then start near their column's mean. On census66k
      # 0.5 cost 0.003 of validation AUC against 0.05.
      nn.initializers.normal(0.05),
      (sum(self.num_categories), self.embed_dim),
      jnp.float32,
    )
    if self.num_ordered:
      sizes = self.num_categories[-self.num_ordered :]
      steps = self.param(
        'steps',
        nn.initializers.normal(0.01),
        (sum(sizes), self.embed_dim),
        jnp.float32,
      )
      columns = jnp.split(steps, np.cumsum(sizes)[:-1])
      sums = [jnp.cumsum(x, axis=0) for x in columns]
      apart = jnp.zeros((len(table) - len(steps), self.embed_dim), table.dtype)
      table = table + 0.3 * jnp.concatenate([apart, *sums])
    offsets = np.cumsum((0, *self.num_categories[:-1]), dtype=np.int32)
    embedded = jnp.take(table, categories + offsets[None], axis=0, mode='clip')
    flat = embedded.reshape(categories.shape[0], -1)
    return jnp.concatenate([flat, numeric.astype(flat.dtype)], axis=1)

  def check_features(self, features: Any, name: str) -> None:
    """Refuses ids outside of a column's vocabulary; `fit` asks.

    Inside jit such an id would be taken for one of another column.

    Args:
      features: arrays, not traced.
      name: what to call them.

    Raises:
      ValueError: no such features, or an id that is none.
    """
    self._check_names(features, name)
    categories = np.asarray(features['categories'])
    if categories.ndim != 2 or not categories.size:
      return  # refused when the model is traced, if need be
    lowest, highest = categories.min(axis=0), categories.max(axis=0)
    columns = zip(self.num_categories, lowest, highest, strict=False)
    for i, (size, low, high) in enumerate(columns):
      if low < 0 or high >= size:
        raise ValueError(
          f"{name}['categories'] must be from 0 to {size - 1} in column {i}, "
          f'found {low} to {high}'
        )

  def _check_names(self, features: Any, name: str) -> None:
    wanted = ('categories', 'numeric')
    if isinstance(features, Mapping) and all(x in features for x in wanted):
      return
    found = list(features) if isinstance(features, Mapping) else 'an array'
    raise ValueError(
      f"{name} must be a dict of 'categories', [B, C] ids, and 'numeric', "
      f'[B, N], for a TabularEncoder; found {found}'
    )


class CrossNetwork(nn.Module):
  """Feature crosses of low rank on top of another encoder (DCN-V2).

  Each layer multiplies every input with a combination of all features, so that
  L layers reach products of L + 1 of them:

      x_{l+1} = x_0 * (U_l V_l x_l + b_l) + x_l

  with x_0 the encoded features, V_l `[D, R]` and U_l `[R, D]`. Parameters, a
  layer: 2 D R + D.

  Attributes:
    encoder: template of a module from features to `[B, D]`.
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
      ValueError: a rank or a number of layers below 1.
    """
    if not _checks.is_whole_number(self.rank) or not _checks.is_whole_number(
      self.num_layers
    ):
      raise ValueError(
        'rank and num_layers must be whole numbers of at least 1, found '
        f'{self.rank!r} and {self.num_layers!r}'
      )
    start = modules.map_rows(self.encoder, features, train=train)
    x = start
    for i in range(self.num_layers):
      small = nn.Dense(self.rank, use_bias=False, name=f'down_{i}')(x)
      x = start * nn.Dense(start.shape[-1], name=f'up_{i}')(small) + x
    return x
