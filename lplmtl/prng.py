"""Cheap random numbers: each is a hash of its position in the array."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as extended

from lplmtl.types import Array


def row_key(key: Array, start: Any = 0, step: int = 1) -> Array:
  """Returns a key whose random numbers are a hash of their position.

  They are good enough for dropout and for initialising parameters, but unfit
  for cryptography: the hash has two rounds of shift and multiplication, each
  after one of the key's two words has been added. JAX's default, Threefry, has
  20 rounds; on a CPU it takes a good part of a training step and is slow to
  compile. The numbers depend only on the key and the shape, not on the platform
  or on whether the call is mapped.

  The key, and every key derived from it, knows which rows of a larger array it
  is for: each row of a batch gets the same numbers, whichever microbatch or
  device processes it.

  Args:
    key: any random key.
    start: index of the first row (on the leading axis).
    step: distance between consecutive rows.

  Returns:
    A key that every function of `jax.random` accepts.
  """
  words = jax.random.bits(key, (2,), jnp.uint32)
  rows = jnp.stack([jnp.asarray(n).astype(jnp.uint32) for n in (start, step)])
  return jax.random.wrap_key_data(jnp.concatenate([words, rows]), impl=_IMPL)


# The multipliers 0x21F0AAAD and 0x735A2D97 and the shifts 16, 15, 15 are those
# of the 32-bit permutation with two multiplications that has the lowest bias
# known, 0.107, found by the "hash prospector" (C. Wellons and others,
# github.com/skeeto/hash-prospector, issue 19). 0x9E3779B9 is 2^32 divided by
# the golden ratio: it first spreads consecutive positions, as a Weyl sequence.
def _hash(first: Array, second: Array, number: Array) -> Array:
  bits = number * np.uint32(0x9E3779B9) + first
  bits = (bits ^ (bits >> 16)) * np.uint32(0x21F0AAAD)
  bits = (bits ^ (bits >> 15)) + second
  bits = (bits ^ (bits >> 15)) * np.uint32(0x735A2D97)
  return bits ^ (bits >> 15)


def _numbers(shape: tuple[int, ...], start: Any, step: Any) -> Array:
  """Returns each element's position, as fusible sums of iotas."""
  number, stride = jnp.zeros(shape, jnp.uint32), 1
  for axis in reversed(range(len(shape))):
    along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    if axis == 0:
      along = along * step + start
    number += along * np.uint32(stride % 2**32)
    stride *= shape[axis]
  return number


def _new_keys(words: Array, numbers: Array) -> Array:
  """Returns one key per number, for the same rows."""
  first = _hash(words[0], words[1], numbers)
  second = _hash(words[1], first, numbers)
  rows = jnp.broadcast_to(words[2:], (*numbers.shape, 2))
  return jnp.concatenate([first[..., None], second[..., None], rows], axis=-1)


def _seed(seed: Array) -> Array:
  words = jnp.array([0, 0, 0, 1], jnp.uint32)
  return _new_keys(words, jnp.asarray(seed, jnp.uint32))


def _split(words: Array, shape: tuple[int, ...]) -> Array:
  numbers = _numbers(shape, np.uint32(0), np.uint32(1))
  return _new_keys(words, numbers)


def _fold_in(words: Array, data: Any) -> Array:
  # Separates these keys from those of a split, which hash the same numbers. Any
  # constant would do; this one is the multiplier of MurmurHash2.
  other = words ^ np.array([0x5BD1E995, 0x5BD1E995, 0, 0], np.uint32)
  return _new_keys(other, jnp.asarray(data, jnp.uint32))


def _bits(words: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
  if bit_width == 64:
    halves = _bits(words, 32, (*shape, 2)).astype(jnp.uint64)
    return halves[..., 0] << 32 | halves[..., 1]
  bits = _hash(words[0], words[1], _numbers(shape, words[2], words[3]))
  return bits.astype({8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[bit_width])


_IMPL = extended.define_prng_impl(
  key_shape=(4,),
  seed=_seed,
  split=_split,
  random_bits=_bits,
  fold_in=_fold_in,
  name='rows',
  tag='rows',
)
