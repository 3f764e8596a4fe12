"""Takes the rows of a step out of all rows."""

from collections.abc import Sequence

import jax.numpy as jnp

from lplmtl.training import packed
from lplmtl.types import Array, Batch


class Reader:
  """Gathers rows of all columns, those of equal shapes at once.

  They are copied into one array for that: make a reader outside of the loop
  over steps.

  Attributes:
    packing: how the columns of a batch are stacked.
  """

  def __init__(self, data: Batch, task_names: Sequence[str]):
    self.packing = packed.Packing(data, task_names)
    # Next to each other in a row, so that a gather reads them in one go.
    self._columns = [
      jnp.asarray(x) if len(group) == 1 else jnp.moveaxis(x, 0, 1)
      for group, x in zip(
        self.packing.groups, self.packing.pack(data), strict=True
      )
    ]

  def packed(self, rows: Array) -> list[Array]:
    """Returns a packed batch of the rows with these numbers, `[B]`."""
    return [
      x[rows] if len(group) == 1 else jnp.moveaxis(x[rows], 1, 0)
      for group, x in zip(self.packing.groups, self._columns, strict=True)
    ]

  def take(self, rows: Array) -> Batch:
    """Returns a batch of the rows with these numbers, `[B]`."""
    return self.packing.unpack(self.packed(rows))
