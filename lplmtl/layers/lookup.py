"""Look-ups in tables of embeddings, of which a step may see only some rows.

The gradient of a look-up is dense in JAX: an array of the table's shape. For a
row-sparse optimiser (see `lplmtl.sparse`), training first asks a model which
rows a batch reads, and then applies it to these rows alone.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl.types import Array

# Collections of variables, beside `params` and under the same names: the
# numbers of the rows that were read, and what stands for the tables.
READS, STANDS = 'reads', 'stands'


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
  """Some rows that stand for a table.

  Attributes:
    ids: `[U]` int in increasing order, the numbers of the rows; look-ups find
      the first of equal ones.
    values: `[U, ...]`, the rows.
  """

  ids: Array
  values: Array

  def take(self, ids: Array) -> Array:
    """Returns the rows with these numbers, `[*ids.shape, ...]`."""
    place = jnp.searchsorted(self.ids, ids, method='scan_unrolled')
    return jnp.take(self.values, place, axis=0, mode='clip')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Part:
  """The part of a table that this device holds.

  Attributes:
    values: `[V / D, ...]`, its rows, in order of the devices.
    axis_name: the mapped axis of the D devices.
  """

  values: Array
  axis_name: str = dataclasses.field(metadata={'static': True})

  def take(self, ids: Array) -> Array:
    """Returns the rows with these numbers, `[*ids.shape, ...]`.

    Every device looks up what all of them ask for, and gets its own rows back.

    Args:
      ids: `[b, ...]`, as many on each device.
    """
    every = jax.lax.all_gather(ids, self.axis_name, tiled=True)
    return jax.lax.psum_scatter(self.own(every), self.axis_name, tiled=True)

  def own(self, ids: Array) -> Array:
    """Returns the rows that this device holds, and zeros for all others."""
    place = ids - self.first
    is_own = (place >= 0) & (place < len(self.values))
    rows = jnp.take(self.values, place, axis=0, mode='clip')
    is_own = is_own.reshape(*ids.shape, *(1,) * (rows.ndim - ids.ndim))
    return jnp.where(is_own, rows, jnp.zeros((), rows.dtype))

  @property
  def first(self) -> Array:
    """The number of the first row that this device holds."""
    return jax.lax.axis_index(self.axis_name) * len(self.values)


def take(module: nn.Module, name: str, table: Array, ids: Array) -> Array:
  """Returns rows of a table; a module of your own may call it, too.

      table = self.param('items', init, (num_items, 16))
      embedded = lookup.take(self, 'items', table, ids)

  The parameter must not be used in any other way if it is to be trained by a
  row-sparse optimiser, which refuses other uses.

  Args:
    module: bound; the module that has the table.
    name: of the table among the module's parameters.
    table: `[V, ...]`, the parameter or what is computed from it, row by row.
    ids: int, any shape; those out of range read the first or the last row.

  Returns:
    `[*ids.shape, ...]`.
  """
  if is_asked(module):
    module.sow(READS, name, jnp.clip(ids, 0, table.shape[0] - 1))
    return jnp.zeros((*ids.shape, *table.shape[1:]), table.dtype)
  if not module.has_variable(STANDS, name):
    return jnp.take(table, ids, axis=0, mode='clip')
  return module.get_variable(STANDS, name).take(ids)


def is_table(module: nn.Module, name: str) -> bool:
  """Returns whether a parameter is there as a whole, to compute with."""
  return not (is_asked(module) or module.has_variable(STANDS, name))


def is_asked(module: nn.Module) -> bool:
  """Returns whether a module is only asked which rows it reads."""
  return module.is_mutable_collection(READS) and not module.is_initializing()


def absent(shape: tuple[int, ...], dtype: Any) -> Any:
  """Returns what takes a table's place among the parameters.

  It is no array, so that any use but a look-up fails.
  """
  return jax.ShapeDtypeStruct(shape, dtype)
