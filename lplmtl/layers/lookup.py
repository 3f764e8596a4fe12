"""Look-ups in tables of embeddings, of which a step may see only some rows.

The gradient of a look-up is dense in JAX: an array of the table's shape. For a
row-sparse optimiser (see `lplmtl.sparse`), training first asks a model which
rows a batch reads, and then applies it to these rows alone.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lplmtl.types import Array

# Collections of variables, beside `params` and under the same names: the
# numbers of the rows that were read, and the rows that stand for the table.
READS, ROWS = 'reads', 'rows'


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
  if module.is_mutable_collection(READS) and not module.is_initializing():
    module.sow(READS, name, jnp.clip(ids, 0, len(table) - 1))
  if not has_rows(module, name):
    return jnp.take(table, ids, axis=0, mode='clip')
  known = rows_of(module, name)
  # The ids are in order, and the first of equal ones is found.
  place = jnp.searchsorted(known['ids'], ids, method='scan_unrolled')
  return jnp.take(known['values'], place, axis=0, mode='clip')


def has_rows(module: nn.Module, name: str) -> bool:
  """Returns whether some rows stand for the table, which is then no array."""
  return module.has_variable(ROWS, name)


def rows_of(module: nn.Module, name: str) -> Any:
  """Returns the rows that stand for a table.

  Returns:
    A dict of `ids`, `[U]` int in increasing order, and `values`, `[U, ...]`.
  """
  return module.get_variable(ROWS, name)
