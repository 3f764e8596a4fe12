"""Dropout, and random numbers that cost next to nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as extended

from lplmtl.types import Array


def dropout(key: Array, x: Array, rate: Any) -> Array:
  """Drops units and scales the others up, so that the mean stays.

  Args:
    key: random key.
    x: any array of less than 2^32 units.
    rate: share of units to drop, in [0, 1); may be traced.
  """
  kept = 1 - jnp.asarray(rate, jnp.float32)
  bits = jax.random.bits(cheap_key(key), x.shape, jnp.uint32)
  share = (bits >> 8).astype(jnp.float32) * 2.0**-24  # exact in float32
  return jnp.where(share < kept, x * (1 / kept).astype(x.dtype), 0)


def is_zero(rate: Any) -> bool:
  """Whether a rate is known to be 0; a traced one is not known."""
  return not isinstance(rate, jax.Array) and rate == 0


def cheap_key(key: Array) -> Array:
  """A key whose random numbers are a hash of their position.

  Numbers to drop units by or to start parameters from, not to hide anything
  with: two rounds of multiplication and shift, each after one of the key's two
  words is added. JAX's Threefry takes 20 rounds. On one CPU core a PLE with
  dropout trains 1.5 times as fast, and its initialisation compiles in half the
  time. The numbers depend on the key and the shape alone, not on the platform
  nor on what is mapped over.

  Args:
    key: any random key.

  Returns:
    A key for everything in `jax.random`.
  """
  words = jax.random.bits(key, (2,), jnp.uint32)
  return jax.random.wrap_key_data(words, impl=_IMPL)


def _hash(first: Array, second: Array, number: Array) -> Array:
  bits = number * np.uint32(0x9E3779B9) + first
  bits = (bits ^ (bits >> 16)) * np.uint32(0x21F0AAAD)
  bits = (bits ^ (bits >> 15)) + second
  bits = (bits ^ (bits >> 15)) * np.uint32(0x735A2D97)
  return bits ^ (bits >> 15)


def _numbers(shape: tuple[int, ...]) -> Array:
  """0, 1, 2, ... in that shape: sums of iotas, so that no copy is made."""
  number, stride = jnp.zeros(shape, jnp.uint32), 1
  for axis in reversed(range(len(shape))):
    along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    number += along * np.uint32(stride % 2**32)
    stride *= shape[axis]
  return number


def _new_keys(words: Array, numbers: Array) -> Array:
  first = _hash(words[0], words[1], numbers)
  return jnp.stack([first, _hash(words[1], first, numbers)], axis=-1)


def _seed(seed: Array) -> Array:
  return _new_keys(jnp.zeros(2, jnp.uint32), jnp.asarray(seed, jnp.uint32))


def _bits(words: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
  if bit_width == 64:
    halves = _bits(words, 32, (*shape, 2)).astype(jnp.uint64)
    return halves[..., 0] << 32 | halves[..., 1]
  bits = _hash(words[0], words[1], _numbers(shape))
  return bits.astype({8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[bit_width])


_IMPL = extended.define_prng_impl(
  key_shape=(2,),
  seed=_seed,
  split=lambda words, shape: _new_keys(words, _numbers(shape)),
  random_bits=_bits,
  # Apart from the keys of a split.
  fold_in=lambda words, data: _new_keys(
    words ^ np.uint32(0x5BD1E995), jnp.asarray(data, jnp.uint32)
  ),
  name='hash',
  tag='hash',
)
