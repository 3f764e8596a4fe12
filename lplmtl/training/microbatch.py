"""A batch in parts: on several devices, or one after the other."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp

from lplmtl import _checks, prng
from lplmtl.types import Array, Batch, PyTree


class Rows(NamedTuple):
  """The rows of a step, and how they are worked through.

  Attributes:
    batch: B rows, or as many as this device holds.
    key: of the dropout.
    num_parts: a divisor of B, how many parts they are worked through in.
    axis_name: of the mapped axis (`jax.shard_map`) over which the rows of the
      batch are spread, in order; None where they are all here.
  """

  batch: Batch
  key: Array
  num_parts: int = 1
  axis_name: str | None = None

  @property
  def num_devices(self) -> Any:
    """Over how many devices the rows are spread."""
    return 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)

  def total(self, tree: PyTree) -> PyTree:
    """The sum over devices, in one exchange: on a CPU each costs its time."""
    if self.axis_name is None:
      return tree
    flat, unflatten = jax.flatten_util.ravel_pytree(tree)
    return unflatten(jax.lax.psum(flat, self.axis_name))

  def sum_in_parts(self, fn: Callable[[Batch, Array], PyTree]) -> PyTree:
    """The sum of a function over parts of the rows, and over devices."""
    if self.num_parts == 1:
      return self.total(fn(self.batch, self.place()))
    # Every num_parts-th row, so that a part is a strided view.
    parts = jax.tree.map(
      lambda x: x.reshape(-1, self.num_parts, *x.shape[1:]).swapaxes(0, 1),
      self.batch,
    )

    def one(part: tuple[Array, Batch]) -> PyTree:
      number, rows = part
      return fn(rows, self.place(number, self.num_parts))

    numbered = (jnp.arange(self.num_parts), parts)
    shapes = jax.eval_shape(one, jax.tree.map(lambda x: x[0], numbered))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    found = jax.lax.scan(
      lambda sums, part: (jax.tree.map(jnp.add, sums, one(part)), None),
      zeros,
      numbered,
    )[0]
    return self.total(found)

  def place(self, part: Any = 0, num_parts: int = 1) -> Array:
    """The key of a part of this device's rows; of all of them, by default."""
    start = part
    if self.axis_name is not None:
      num_rows = _checks.num_rows(self.batch.features)
      start = start + jax.lax.axis_index(self.axis_name) * num_rows
    return prng.row_key(self.key, start, num_parts)


def number_of_parts(batch_size: int, limit: int | None) -> int:
  """How many equal parts of a batch have at most `limit` rows, but not few."""
  if limit is None:
    return 1
  count = next(
    n for n in range(1, batch_size + 1)
    if batch_size % n == 0 and batch_size // n <= limit
  )  # fmt: skip
  return count if 2 * batch_size // count >= limit else 1
