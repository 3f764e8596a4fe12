"""Sums over the coordinates of task gradients, leaf by leaf.

Task gradients come in two layouts: stacked, one pytree whose leaves have a
leading T axis, which is what `jax.jacrev` returns and what methods and your own
loops use; and separate, a sequence of T pytrees, which training keeps so that
two gradients are never copied into one array.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lplmtl import _alike
from lplmtl.balancing import _arguments
from lplmtl.types import Array, PyTree

# Leaves of at most this many numbers are joined before their products are
# taken. With 20 leaves of 64 to 512 numbers, this halves the time on a CPU
# core; from several thousand numbers on, the copy costs more than starting a
# product for each leaf.
SMALL_LEAF = 8192


def inner(first: PyTree, second: PyTree) -> Array:
  """Returns `[T]` inner products of T gradients with T others, both stacked."""
  products = jax.tree.map(
    lambda a, b: jnp.sum((a * b).reshape(len(a), -1), axis=1), first, second
  )
  return jnp.sum(jnp.stack(jax.tree.leaves(products)), axis=0)


def gramian(gradients: PyTree, shared: PyTree = None) -> Array:
  """Returns the inner products that Gramian methods need, for your own loop.

  If each device holds its own rows, average the gradients over the devices
  first: the mean of the devices' Gramians is not the Gramian of the mean
  gradients.

      def step(params, rows):  # in jax.shard_map over the axis 'data'
        gradients = jax.jacrev(losses)(params, rows)
        gradients = jax.lax.pmean(gradients, 'data')
        gramian = balancing.gramian(gradients)

  Args:
    gradients: pytree of the task gradients, each leaf with a leading T axis, as
      `lplmtl.task_gradients` and `jax.jacrev` return them; not a list or tuple.
    shared: pytree of bools with the same structure, True for the leaves to
      include, as `lplmtl.shared_leaves` returns it; None for all.

  Returns:
    `[T, T]` inner products of the gradients, float32 or wider.

  Raises:
    ValueError: `gradients` is a list or tuple, which could mean T gradients or
      the parts of one parameter set; its leaves do not all have a leading axis
      of the same size T; or `shared` does not fit.

  Example:
    >>> gradients = {'w': jnp.array([[1.0, 0.0], [1.0, 2.0]])}  # T leads
    >>> gramian(gradients).tolist()
    [[1.0, 1.0], [1.0, 5.0]]
  """
  _arguments.check_no_list(gradients)
  _arguments.check_stacked(gradients)
  _arguments.check_shared(shared, gradients)
  return products(chosen(gradients, shared))


def products(gradients: PyTree) -> Array:
  """Returns `[T, T]` inner products of stacked gradients."""
  flat = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(gradients)]
  squares = [_product(_as_float(leaf), _as_float(leaf).T) for leaf in flat]
  return jnp.sum(jnp.stack(squares), axis=0)


def products_of(each: Sequence[PyTree], shared: PyTree = None) -> Array:
  """Returns `[T, T]` inner products of separate gradients; see `gramian`."""
  rows = [_join_small(jax.tree.leaves(chosen(tree, shared))) for tree in each]
  if len(rows) > 2:  # one product per leaf runs and compiles faster then
    return products([jnp.stack(leaves) for leaves in zip(*rows, strict=True)])
  size = len(rows)
  entries: dict[tuple[int, int], Any] = {}
  for i, j in itertools.product(range(size), repeat=2):
    entries[i, j] = entries.get((j, i))
    if entries[i, j] is None:
      entries[i, j] = sum(map(_product, rows[i], rows[j]))
  return jnp.stack(list(entries.values())).reshape(size, size)


def _join_small(leaves: Sequence[Array]) -> list[Array]:
  """Returns flat leaves, with the small ones joined into one."""
  flat = [_as_float(leaf).ravel() for leaf in leaves]
  small = [leaf for leaf in flat if leaf.size <= SMALL_LEAF]
  large = [leaf for leaf in flat if leaf.size > SMALL_LEAF]
  return [*large, jnp.concatenate(small)] if small else large


def _as_float(leaf: Array) -> Array:
  """Casts to float32 or wider: sums of bfloat16 squares lose most digits."""
  return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def _product(a: Array, b: Array) -> Array:
  """Multiplies in full precision: accelerators use less by default."""
  return jnp.matmul(a, b, precision='highest')


def combine(weights: Array, gradients: PyTree, shared: PyTree = None) -> PyTree:
  """Returns `sum_k w_k g_k`, for your own loop.

  Args:
    weights: `[T]`, as a balancer returns them.
    gradients: pytree of the task gradients, each leaf with a leading T axis.
    shared: pytree of bools with the same structure, True where the weights act;
      the other leaves get the plain sum. None for all.

  Returns:
    A gradient, a pytree like the parameters.

  Raises:
    ValueError: the leading axis of a leaf differs from the length of `weights`;
      or `shared` does not fit.
  """
  weights = jnp.asarray(weights)
  _arguments.check_stacked(gradients, len(weights))
  _arguments.check_shared(shared, gradients)
  if shared is None:
    shared = jax.tree.map(lambda _: True, gradients)
  return jax.tree.map(
    lambda acts, leaf: _mixture(weights, acts, leaf), shared, gradients
  )


def combine_each(
  weights: Array, each: Sequence[PyTree], shared: PyTree = None
) -> PyTree:
  """Does what `combine` does, for separate gradients."""
  if shared is None:
    shared = jax.tree.map(lambda _: True, each[0])
  return jax.tree.map(
    lambda acts, *leaves: _mixture(weights, acts, leaves), shared, *each
  )


def _mixture(
  weights: Array, acts: bool, leaves: Sequence[Array] | Array
) -> Any:
  """Returns a weighted or plain sum of T leaves, number by number.

  It is not a contraction: accelerators compute these in reduced precision.
  """
  factors = weights if acts else jnp.ones_like(weights)
  if len(factors) > _alike.FEW:
    stacked = jnp.asarray(leaves)
    return jnp.sum(along(factors, stacked) * stacked, axis=0)
  return sum(
    factor.astype(leaf.dtype) * leaf
    for factor, leaf in zip(factors, leaves, strict=True)
  )


def chosen(tree: PyTree, shared: PyTree) -> PyTree:
  """Returns `tree` with None where `shared` is False; None keeps all leaves."""
  if shared is None:
    return tree
  return jax.tree.map(lambda ok, x: x if ok else None, shared, tree)


def zeros(params: PyTree, num_tasks: int) -> PyTree:
  """Returns zeros shaped like T stacked gradients."""
  return jax.tree.map(
    lambda leaf: jnp.zeros((num_tasks, *leaf.shape), leaf.dtype), params
  )


def present_tasks(losses: Array, present: Array | None) -> Array:
  """Returns `[T]` float32, 1 for the tasks with a label in the batch."""
  ones = jnp.ones(losses.shape, jnp.float32)
  return ones if present is None else present.astype(jnp.float32)


def along(numbers: Array, leaf: Array) -> Array:
  """Reshapes and casts `[T]` numbers so that they multiply a stacked leaf."""
  return numbers.reshape(-1, *(1,) * (leaf.ndim - 1)).astype(leaf.dtype)


def share_out(values: Array, before: Array, mask: Array) -> Array:
  """Returns `[T]` weights that sum to T, in proportion to `values`.

  Tasks whose `mask` is 0 keep the weight they had before.
  """
  kept = jnp.sum((1 - mask) * before)
  total = jnp.sum(mask * values)
  factor = (len(values) - kept) / jnp.where(total > 0, total, 1)
  return jnp.where(mask > 0, values * factor, before)
