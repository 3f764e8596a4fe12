"""Dropout."""

from typing import Any

import jax
import jax.numpy as jnp

from lplmtl import prng
from lplmtl.types import Array


def dropout(key: Array, x: Array, rate: Any) -> Array:
  """Zeroes random units and scales up the others, which preserves the mean.

  Args:
    key: random key; a `prng.row_key` if x holds some rows of a larger batch.
    x: `[B, ...]`, fewer than 2^32 units.
    rate: fraction of units to drop, in [0, 1); may be traced.

  Raises:
    ValueError: the rate is out of range (a traced rate is not checked).
  """
  if not isinstance(rate, jax.Array) and not 0 <= rate < 1:
    raise ValueError(f'a dropout rate must be in [0, 1), found {rate}')
  if str(key.dtype) != 'key<rows>':  # JAX's own keys know nothing of rows
    key = prng.row_key(key)
  kept = 1 - jnp.asarray(rate, jnp.float32)
  bits = jax.random.bits(key, x.shape, jnp.uint32)
  # The upper 24 bits as a number in [0, 1): float32 holds them exactly.
  uniform = (bits >> 8).astype(jnp.float32) * 2.0**-24
  return jnp.where(uniform < kept, x * (1 / kept).astype(x.dtype), 0)


def is_zero(rate: Any) -> bool:
  """Returns whether a rate is known to be 0, which a traced one is not."""
  return not isinstance(rate, jax.Array) and rate == 0
