"""Whether the numbers of a pytree are finite."""

import jax
import jax.numpy as jnp

from lplmtl import _alike
from lplmtl.types import Array, PyTree

# The most numbers of a leaf that `joined` copies: copies of larger ones would
# take memory.
_SMALL = 2**16


def is_finite(tree: PyTree, before: PyTree = None) -> Array:
  """Returns whether all numbers in a pytree are finite, a scalar bool.

  Args:
    tree: pytree of arrays.
    before: the same tree one step earlier. Numbers that were not finite then
      are ignored, such as an optimiser's best loss so far, which starts at
      infinity.
  """
  leaves = _floats(tree)
  finite = [
    jnp.isfinite(x) if old is None else jnp.isfinite(x) | ~jnp.isfinite(old)
    for x, old in zip(
      leaves,
      [None] * len(leaves) if before is None else _floats(before),
      strict=True,
    )
  ]
  return jnp.stack([x.all() for x in finite]).all()


def joined(tree: PyTree) -> list[Array]:
  """Returns the floats of a pytree, the small leaves of each dtype as one.

  For what is done once a chunk and must compile fast: XLA makes four operations
  of a reduction, and those of 75 leaves were a fifth of a chunk's program. In a
  step the copies would take longer than they save.
  """
  # Behind a barrier, or XLA would compute each leaf once more to join it.
  leaves = jax.lax.optimization_barrier(_floats(tree))
  small = [x for x in leaves if x.size <= _SMALL]
  return [x for x in leaves if x.size > _SMALL] + [
    jnp.concatenate([jnp.ravel(small[i]) for i in positions])
    for positions in _alike.groups([x.dtype for x in small])
  ]


def _floats(tree: PyTree) -> list[Array]:
  return [
    x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)
  ]
