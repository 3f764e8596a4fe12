"""The encoder: category ids and numbers to one vector per row."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from lplmtl.layers import (
  bins,
  composed,
  encoder_checks,
  lookup,
  piecewise,
)
from lplmtl.types import Array, PyTree


class TabularEncoder(nn.Module):
  """Embeds the category columns and appends the numeric ones.

  The features come from `lplmtl.tables.Tables.encode`, which can also turn
  numeric columns into quantile bins (additional category columns). One table
  holds the embeddings of all columns, so that a batch needs a single gather.

  The embedding of a bin is its own vector plus the sum of the steps from the
  lowest bin up to it, `v_b + 0.3 (s_1 + ... + s_b)`: neighbouring bins share
  what they learn, while a single bin can still differ.

  In place of bins, the last of the numeric columns may be positions among
  their edges, which piecewise-linear functions embed (see
  `lplmtl.layers.piecewise`): better where thresholds are sharp. The other
  numbers are then clipped to 5, as a standardised outlier may be far larger.

  A hashed value, whose column has too many for a vocabulary, has two buckets;
  its embedding is the sum of theirs. A column of many values may also be
  composed of two small tables (see `lplmtl.layers.composed`); its embeddings
  come behind those of the other categories.

  Number of parameters: embed_dim for each value of each column and each bucket,
  and another embed_dim for each bin; for composed columns see `Composed`, for
  positions `PiecewiseLinear`.

  Attributes:
    num_categories: vocabulary size of each of the C category columns, including
      the reserved id 0 (unseen in training).
    embed_dim: width of an embedding.
    num_ordered: number of columns, the last ones, that are ordered bins of
      numbers.
    num_buckets: number of buckets of each of the H hashed columns.
    num_pieces: number of pieces of each numeric column, the last ones, that
      is a position; see `Tables.num_pieces`.
    compose_by: how to compose columns of many values, one of
      `composed.OPERATIONS`; None for a row for each value of all columns.
    compose_above: columns with more values than this are composed.
    collisions: see `Composed`.
    multiple_of: tables get a multiple of this many rows, of which the last ones
      are never read, so that devices can hold equal parts of them.

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
  num_buckets: tuple[int, ...] = ()
  num_pieces: tuple[int, ...] = ()
  compose_by: composed.Operation | None = None
  compose_above: int = 10_000
  collisions: int = 4
  multiple_of: int = 1

  @nn.compact
  def __call__(
    self, features: Mapping[str, Array], *, train: bool = False
  ) -> Array:
    """Maps the features to `[B, D]`, D = (C + H) embed_dim + N.

    A position adds embed_dim instead of 1.

    Args:
      features: `categories`, `[B, C]` int ids, and `numeric`, `[B, N]` float;
        with hashed columns also `hashed`, `[B, H, 2]` int. Encode them with
        `Tables`: under jit, an id outside its column's vocabulary goes
        unnoticed.
      train: unused.

    Returns:
      `[B, D]` float.

    Raises:
      ValueError: the features have another form, there are not C category
        columns and H hashed ones, or they hold anything else; a field is out of
        range, or a table has more rows than `bins.MOST_ROWS`.
    """
    encoder_checks.check_settings(self)
    encoder_checks.check_names(self, features, 'features')
    encoder_checks.check_shapes(self, features)
    categories, numeric = features['categories'], features['numeric']
    num_columns = len(self.num_categories)
    parts = self._embed_all(categories) if num_columns else []
    if self.num_buckets:
      parts.append(self._embed_hashed(features['hashed']))
    if self.num_pieces:
      first = numeric.shape[1] - len(self.num_pieces)
      numeric, positions = jnp.split(numeric, [first], axis=1)
      numeric = jnp.clip(numeric, -5, 5)
      parts.append(
        piecewise.PiecewiseLinear(
          self.num_pieces, self.embed_dim, name='numbers'
        )(positions)
      )
    if not parts:
      return numeric
    numeric = numeric.astype(parts[0].dtype)
    return jnp.concatenate([*parts, numeric], axis=1)

  def _embed_all(self, categories: Array) -> list[Array]:
    """Returns the embeddings of `[B, C]` ids: a row each, then composed."""
    large = self.composed_columns
    if not large:
      return [self._embed(categories, self.num_categories)]
    if large[-1] >= len(self.num_categories) - self.num_ordered:
      raise ValueError(
        'compose_above must be at least the number of bins of each ordered '
        f'column, found {self.compose_above} and sizes {self.num_categories}'
      )
    small = [i for i in range(len(self.num_categories)) if i not in large]
    sizes = [tuple(self.num_categories[i] for i in x) for x in (small, large)]
    columns = [categories[:, np.array(x, int)] for x in (small, large)]
    module = composed.Composed(
      sizes[1], self.embed_dim, self.collisions, self.compose_by or 'multiply',
      self.multiple_of, name='composed',
    )  # fmt: skip
    found = [self._embed(columns[0], sizes[0])] if small else []
    return [*found, module(columns[1])]

  @property
  def composed_columns(self) -> tuple[int, ...]:
    """The numbers of the columns that are composed of two tables."""
    if self.compose_by is None:
      return ()
    sizes = enumerate(self.num_categories)
    return tuple(i for i, size in sizes if size > self.compose_above)

  @property
  def table_sizes(self) -> dict[str, tuple[int, ...]]:
    """`{name of a table: its rows, column by column}`, with empty ones.

    The rows that `multiple_of` adds count as another column.
    """
    sizes, large = self.num_categories, self.composed_columns
    remainders, quotients = composed.counts(
      [sizes[i] for i in large], self.collisions
    )
    found = {
      'embedding': tuple(n for i, n in enumerate(sizes) if i not in large),
      'buckets': self.num_buckets,
      'remainders': remainders,
      'quotients': quotients,
    }
    for name, rows in found.items():
      more = bins.rounded(sum(rows), self.multiple_of) - sum(rows)
      found[name] = (*rows, more) if more else rows
    return {**found, 'steps': sizes[len(sizes) - self.num_ordered :]}

  def _embed(self, categories: Array, sizes: tuple[int, ...]) -> Array:
    """Returns the embeddings of `[B, C]` ids as `[B, C embed_dim]`."""
    table = self.param(
      'embedding',
      # Small, so that rare values start near their column's mean: on census66k
      # a standard deviation of 0.5 costs 0.003 of validation AUC.
      nn.initializers.normal(0.05),
      (bins.rounded(sum(sizes), self.multiple_of), self.embed_dim),
      jnp.float32,
    )
    added = None
    if self.num_ordered:
      ordered = sizes[-self.num_ordered :]
      steps = self.param(
        'steps',
        # Summed and scaled, 32 of these have a standard deviation of 0.017,
        # below the 0.05 of a bin's own vector.
        nn.initializers.normal(0.01),
        (sum(ordered), self.embed_dim),
        jnp.float32,
      )
      if lookup.is_table(self, 'embedding'):
        table = bins.add(table, steps, ordered, sum(sizes) - sum(ordered))
      else:
        added = bins.to_rows(steps, categories, ordered)
    rows = _look_up(self, 'embedding', table, categories, sizes)
    return rows if added is None else rows + added

  def _embed_hashed(self, hashed: Array) -> Array:
    """Returns the embeddings of `[B, H, 2]` buckets as `[B, H embed_dim]`."""
    table = self.param(
      'buckets',
      # The sum of two has a category's standard deviation of 0.05.
      nn.initializers.normal(0.035),
      (bins.rounded(sum(self.num_buckets), self.multiple_of), self.embed_dim),
      jnp.float32,
    )
    first, second = (
      _look_up(self, 'buckets', table, hashed[..., i], self.num_buckets)
      for i in (0, 1)
    )
    return first + second

  def fold_steps(self, params: PyTree) -> tuple['TabularEncoder', PyTree]:
    """Adds the steps of bins to their embeddings: the same function, smaller.

    Args:
      params: parameters of this encoder, with any leading axes of seeds.

    Returns:
      (encoder, params), without ordered columns and without steps.
    """
    if 'steps' not in params:
      return self, params
    sizes = self.num_categories[-self.num_ordered :]
    large = (self.num_categories[i] for i in self.composed_columns)
    first = sum(self.num_categories) - sum(large) - sum(sizes)
    table = bins.add(params['embedding'], params['steps'], sizes, first)
    kept = {name: leaf for name, leaf in params.items() if name != 'steps'}
    return self.clone(num_ordered=0), {**kept, 'embedding': table}

  def check_features(self, features: Any, name: str) -> None:
    """Checks that ids are within their column's vocabulary; `fit` calls this.

    Under jit, an id out of range would silently read another column's rows.

    Args:
      features: arrays, not traced.
      name: what to call them in the message.

    Raises:
      ValueError: the features have another form, an id is out of range, or a
        field is.
    """
    encoder_checks.check_settings(self)
    encoder_checks.check_names(self, features, name)
    encoder_checks.check_ids(self, features, name)


def _look_up(
  module: nn.Module, name: str, table: Array, ids: Array, sizes: tuple[int, ...]
) -> Array:
  """Returns the rows of `[B, C]` ids, side by side: `[B, C embed_dim]`.

  Args:
    module: has the table.
    name: of the table.
    table: `[sum(sizes), embed_dim]`.
    ids: `[B, C]`, each column counted from 0.
    sizes: of the C columns.
  """
  offsets = np.cumsum((0, *sizes[:-1]), dtype=np.int32)
  rows = lookup.take(module, name, table, ids + offsets[None])
  return rows.reshape(ids.shape[0], -1)
