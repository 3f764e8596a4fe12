"""Dropout."""

from typing import Any

import jax
import jax.numpy as jnp

from lplmtl import prng
from lplmtl.types import Array


def dropout(key: Array, x: Array, rate: Any) -> Array:
  """Drops units and scales the others up, so that the mean stays.

  Args:
    key: random key; a `prng.row_key` for some rows of a larger batch.
    x: `[B, ...]`, less than 2^32 units.
    rate: share of units to drop, in [0, 1); may be traced.

  Raises:
    ValueError: a rate out of range, where it is not traced.
  """
  if not isinstance(rate, jax.Array) and not 0 <= rate < 1:
    raise ValueError(f'a dropout rate must be in [0, 1), found {rate}')
  if str(key.dtype) != 'key<rows>':  # then it does not know of rows
    key = prng.row_key(key)
  kept = 1 - jnp.asarray(rate, jnp.float32)
  bits = jax.random.bits(key, x.shape, jnp.uint32)
  share = (bits >> 8).astype(jnp.float32) * 2.0**-24  # exact in float32
  return jnp.where(share < kept, x * (1 / kept).astype(x.dtype), 0)


def is_zero(rate: Any) -> bool:
  """Whether a rate is known to be 0; a traced one is not known."""
  return not isinstance(rate, jax.Array) and rate == 0
