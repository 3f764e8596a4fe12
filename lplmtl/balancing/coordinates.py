"""Sums over the coordinates of stacked gradients, leaf by leaf."""

import jax
import jax.numpy as jnp

from lplmtl.balancing import arguments
from lplmtl.types import Array, PyTree


def inner(first: PyTree, second: PyTree) -> Array:
  """`[T]` inner products of T gradients with T others (leading T axes)."""
  products = jax.tree.map(
    lambda a, b: jnp.sum((a * b).reshape(len(a), -1), axis=1), first, second
  )
  return jnp.sum(jnp.stack(jax.tree.leaves(products)), axis=0)


def gramian(gradients: PyTree) -> Array:
  """What Gramian methods ask for, in a training loop of your own.

  Args:
    gradients: pytree of the task gradients, each leaf with a leading T, such as
      `lplmtl.task_gradients` returns.

  Returns:
    `[T, T]` inner products of the gradients.
  """
  flat = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(gradients)]
  return jnp.sum(jnp.stack([_square(leaf) for leaf in flat]), axis=0)


def combine(weights: Array, gradients: PyTree) -> PyTree:
  """`sum_k w_k g_k`."""
  return jax.tree.map(
    lambda leaf: jnp.tensordot(weights.astype(leaf.dtype), leaf, 1), gradients
  )


def zeros(params: PyTree, num_tasks: int) -> PyTree:
  """A zero for each coordinate of T gradients."""
  return jax.tree.map(
    lambda leaf: jnp.zeros((num_tasks, *leaf.shape), leaf.dtype), params
  )


def present_tasks(losses: Array, present: Array | None) -> Array:
  """`[T]` float32, 1 for the tasks with a label in the batch."""
  ones = jnp.ones_like(arguments.as_losses(losses))
  return ones if present is None else jnp.asarray(present) * ones


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
