"""A batch in microbatches on each device, and spread over devices.

Every mean is taken over the whole batch and dropout depends on a row's place in
it, so neither changes a step except by rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp

from lplmtl import _checks, prng
from lplmtl.types import Array, Batch, PyTree


class Rows(NamedTuple):
  """The rows of a step, and how they are divided.

  Attributes:
    batch: B rows, or this device's share of them.
    key: the dropout key of the step.
    num_microbatches: a divisor of B; the microbatches run one after another.
    axis_name: the mapped axis (`jax.shard_map`) over which the rows of the
      batch are spread, in order; None if they are all on this device.
  """

  batch: Batch
  key: Array
  num_microbatches: int = 1
  axis_name: str | None = None

  @property
  def num_devices(self) -> Any:
    """The number of devices over which the rows are spread."""
    return 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)

  def total(self, tree: PyTree) -> PyTree:
    """Sums over devices.

    The leaves travel as one vector: on host devices every exchange is a
    rendezvous of threads, whose cost hardly depends on the size.
    """
    if self.axis_name is None:
      return tree
    flat, unflatten = jax.flatten_util.ravel_pytree(tree)
    return unflatten(jax.lax.psum(flat, self.axis_name))

  def sum_over_microbatches(
    self, fn: Callable[[Batch, Array], PyTree]
  ) -> PyTree:
    """Sums `fn(rows, dropout_key)` over microbatches and over devices."""
    if self.num_microbatches == 1:
      return self.total(fn(self.batch, self.dropout_key()))
    # Microbatch i takes the rows i, i + num_microbatches, ...
    microbatches = jax.tree.map(
      lambda x: x.reshape(-1, self.num_microbatches, *x.shape[1:]).swapaxes(
        0, 1
      ),
      self.batch,
    )

    def one(numbered: tuple[Array, Batch]) -> PyTree:
      number, rows = numbered
      return fn(rows, self.dropout_key(number, self.num_microbatches))

    numbered = (jnp.arange(self.num_microbatches), microbatches)
    shapes = jax.eval_shape(one, jax.tree.map(lambda x: x[0], numbered))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    sums = jax.lax.scan(
      lambda sums, rows: (jax.tree.map(jnp.add, sums, one(rows)), None),
      zeros,
      numbered,
    )[0]
    return self.total(sums)

  def dropout_key(self, number: Any = 0, num_microbatches: int = 1) -> Array:
    """Returns the dropout key of a microbatch; by default of all rows here.

    Args:
      number: which microbatch.
      num_microbatches: how many there are, the distance between its rows.
    """
    start = number
    if self.axis_name is not None:
      num_rows = _checks.num_rows(self.batch.features)
      start = start + jax.lax.axis_index(self.axis_name) * num_rows
    return prng.row_key(self.key, start, num_microbatches)


def count_microbatches(batch_size: int, limit: int | None) -> int:
  """Returns how many microbatches to divide a batch into.

  This is the smallest number of equal parts of at most `limit` rows each,
  unless they would have fewer than half of `limit` (as with a prime number of
  rows): products over few rows are slower than a batch that does not fit in the
  cache.

  Args:
    batch_size: B.
    limit: see `parallel.rows_at_a_time`.
  """
  if limit is None:
    return 1
  count = next(
    n for n in range(1, batch_size + 1)
    if batch_size % n == 0 and batch_size // n <= limit
  )  # fmt: skip
  return count if 2 * batch_size // count >= limit else 1
