"""Gradient sign dropout (Chen et al. 2020)."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, _keys, coordinates
from lplmtl.types import Aggregator, Array, PyTree


def graddrop(
  leak: Sequence[float] | None = None,
  scope: Literal['all', 'shared'] = 'shared',
) -> Aggregator:
  """GradDrop: each coordinate follows the tasks of one sign, drawn at random.

      P = (1 + sum_k g_k / sum_k |g_k|) / 2           (sign purity)
      M_k = 1[P > U] 1[g_k > 0] + 1[P < U] 1[g_k < 0],  U uniform in [0, 1]
      d = sum_k (l_k + (1 - l_k) M_k) g_k

  for each coordinate (Algorithm 1). Where all signs agree, d is the plain sum.

  Args:
    leak: `[T]` l_k in [0, 1], the fraction that always passes; None for 0 each.
    scope: see `Aggregator`.

  Returns:
    An Aggregator whose state is a random key, `[2]` uint32; one forward and T
    backward passes per step. The weights that it reports are the fractions of
    the squared gradients that passed; their sum is not fixed.

  Raises:
    ValueError: `leak` is out of range; or, in `init`, the number of tasks does
      not match.

  Differs from the paper: acts on the gradients of shared parameters, not of
  activations, and uses only the sign of the gradient.

  References:
    Chen et al. 2020, "Just Pick a Sign: Optimizing Deep Multitask Models with
    Gradient Sign Dropout".
  """
  _arguments.check_each('leak', leak, least=0, most=1)

  def init(key: Array, params: PyTree, num_tasks: int) -> Array:
    del params
    _arguments.check_length('leak', leak, num_tasks)
    return _keys.to_data(key)

  def update(
    gradients: PyTree, losses: Array, state: Array, present: Any
  ) -> tuple[PyTree, Array, Array]:
    del present
    leaves, structure = jax.tree.flatten(gradients)
    key, *leaf_keys = jax.random.split(_keys.from_data(state), len(leaves) + 1)
    passing = jnp.zeros_like(losses)
    if leak is not None:
      passing = jnp.asarray(leak, losses.dtype)

    def drop(key: Array, leaf: Array) -> Array:
      size = jnp.abs(leaf).sum(axis=0)
      mean = leaf.sum(axis=0) / jnp.where(size > 0, size, 1)
      positive = (1 + mean) / 2 > jax.random.uniform(
        key, leaf.shape[1:], jnp.float32
      )
      kept = jnp.where(positive[None], leaf > 0, leaf < 0)
      share = coordinates.along(passing, leaf)
      return (share + (1 - share) * kept.astype(leaf.dtype)) * leaf

    passed = [drop(*pair) for pair in zip(leaf_keys, leaves, strict=True)]
    squares = coordinates.inner(leaves, leaves)
    weights = coordinates.inner(passed, leaves)
    weights = weights / jnp.where(squares > 0, squares, 1)
    total = [leaf.sum(axis=0) for leaf in passed]
    return jax.tree.unflatten(structure, total), weights, _keys.to_data(key)

  return _contract.aggregator(init, update, scope)
