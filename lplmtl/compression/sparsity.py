"""Matrices of which some entries are 0."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.compression import leaves
from lplmtl.types import Array, PyTree


def matrices(
  params: PyTree, chosen: leaves.Choice = lambda name: True
) -> dict[str, Any]:
  """Returns the matrices that are chosen, by name.

  Raises:
    ValueError: there are none.
  """
  _checks.check_params(params)
  named = leaves.names(params)
  found = {k: x for k, x in named.items() if leaves.is_matrix(k, x)}
  if not any(map(chosen, found)):
    raise ValueError(
      'no matrix to prune is chosen: `chosen` takes a name, such as '
      f'{list(found or named)!s:.200}'
    )
  return {k: x for k, x in found.items() if chosen(k)}


def mask(tree: PyTree, masks: Mapping[str, Any]) -> PyTree:
  """Sets entries to 0.

  Args:
    tree: parameters, or gradients of them.
    masks: `{matrix: bool of its shape}`, False for what becomes 0.
  """
  return leaves.map_named(
    lambda name, x: (
      jnp.where(masks[name], x, jnp.zeros_like(x)) if name in masks else x
    ),
    tree,
  )


def largest(scores: Array, share: Any) -> Array:
  """Returns which scores are not among the share of the smallest ones."""
  count = jnp.rint(share * scores.size).astype(jnp.int32)
  order = jnp.argsort(scores.reshape(-1), stable=True)
  ranks = jnp.arange(scores.size, dtype=jnp.int32)
  stay = jnp.zeros(scores.size, bool).at[order].set(ranks >= count)
  return stay.reshape(scores.shape)


def check_share(
  share: Any, of: str = 'zeros', *, least_is_out: bool = False
) -> None:
  """Raises ValueError unless a share is in [0, 1), or in (0, 1)."""
  is_number = isinstance(share, int | float | np.number)
  is_number = is_number and not isinstance(share, bool)
  if not is_number or not 0 <= share < 1 or (least_is_out and share == 0):
    range_ = 'above 0 and below 1' if least_is_out else 'from 0 to below 1'
    raise ValueError(
      f'share must be a number {range_}, the share of {of} (1 would prune '
      f'everything); found {share!r}'
    )
