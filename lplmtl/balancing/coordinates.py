"""Sums over the coordinates of stacked gradients, leaf by leaf."""

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments
from lplmtl.types import Array, PyTree


def inner(first: PyTree, second: PyTree) -> Array:
  """`[T]` inner products of T gradients with T others (leading T axes)."""
  products = jax.tree.map(
    lambda a, b: jnp.sum((a * b).reshape(len(a), -1), axis=1), first, second
  )
  return jnp.sum(jnp.stack(jax.tree.leaves(products)), axis=0)


def gramian(gradients: PyTree, shared: PyTree = None) -> Array:
  """What Gramian methods ask for, in a training loop of your own.

  Where each device has rows of its own, gradients are to be averaged over the
  devices before: the mean of the devices' Gramians is not the Gramian of the
  mean gradients.

      def step(params, rows):  # in jax.shard_map over the axis 'data'
        gradients = jax.jacrev(losses)(params, rows)
        gradients = jax.lax.pmean(gradients, 'data')
        gramian = balancing.gramian(gradients)

  Args:
    gradients: pytree of the task gradients, each leaf with a leading T, such as
      `lplmtl.task_gradients` or `jax.jacrev` returns; but no list or tuple.
    shared: pytree of bools of the same structure, which leaves count, such as
      `lplmtl.shared_leaves` returns; None for all.

  Returns:
    `[T, T]` inner products of the gradients.

  Raises:
    ValueError: a list or tuple, which may be meant as T gradients or as the
      parts of one set of parameters; leaves that do not lead with one T.
  """
  _arguments.check_no_list(gradients)
  _arguments.check_stacked(gradients)
  return products(chosen(gradients, shared))


def products(gradients: PyTree) -> Array:
  """`[T, T]` inner products of gradients stacked in any pytree."""
  flat = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(gradients)]
  return jnp.sum(jnp.stack([_square(leaf) for leaf in flat]), axis=0)


def chosen(tree: PyTree, shared: PyTree) -> PyTree:
  """None in the place of what is not shared; a `shared` of None takes all."""
  if shared is None:
    return tree
  _arguments.check_shared(shared, tree)
  return jax.tree.map(lambda x, ok: x if ok else None, tree, shared)


def combine(weights: Array, gradients: PyTree, shared: PyTree = None) -> PyTree:
  """`sum_k w_k g_k`, in a training loop of your own.

  Args:
    weights: `[T]`, as a balancer gives them.
    gradients: pytree of the task gradients, each leaf with a leading T.
    shared: pytree of bools of the same structure, where the weights act; the
      others get the plain sum. None for all.

  Returns:
    A gradient, a pytree like the parameters.

  Raises:
    ValueError: leaves that do not lead with as many T as there are weights; a
      `shared` that does not fit.
  """
  weights = jnp.asarray(weights)
  _arguments.check_stacked(gradients, len(weights))
  ones = jnp.ones_like(weights)
  if shared is None:
    shared = jax.tree.map(lambda _: True, gradients)
  _arguments.check_shared(shared, gradients)
  return jax.tree.map(
    lambda leaf, acts: jnp.tensordot(
      (weights if acts else ones).astype(leaf.dtype), leaf, 1
    ),
    gradients,
    shared,
  )


def zeros(params: PyTree, num_tasks: int) -> PyTree:
  """A zero for each coordinate of T gradients."""
  return jax.tree.map(
    lambda leaf: jnp.zeros((num_tasks, *leaf.shape), leaf.dtype), params
  )


def present_tasks(losses: Array, present: Array | None) -> Array:
  """`[T]` float32, 1 for the tasks with a label in the batch."""
  ones = jnp.ones(losses.shape, jnp.float32)
  return ones if present is None else present.astype(jnp.float32)


def along(mask: Array, leaf: Array) -> Array:
  """`[T]` numbers, to multiply a leaf with a leading T."""
  return mask.reshape(-1, *(1,) * (leaf.ndim - 1)).astype(leaf.dtype)


def share_out(values: Array, before: Array, here: Array) -> Array:
  """`[T]` weights that sum to T, in proportion to values.

  Tasks that are not here keep the weight they had before.
  """
  kept = jnp.sum((1 - here) * before)
  total = jnp.sum(here * values)
  factor = (len(values) - kept) / jnp.where(total > 0, total, 1)
  return jnp.where(here > 0, values * factor, before)


def _square(leaf: Array) -> Array:
  """In float32 or better, where an accelerator would take less by default."""
  leaf = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
  return jnp.matmul(leaf, leaf.T, precision='highest')
