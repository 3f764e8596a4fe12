"""Random numbers that cost next to nothing: a hash of their position."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as extended

from lplmtl.types import Array


def row_key(key: Array, start: Any = 0, step: int = 1) -> Array:
  """A key whose random numbers are a hash of their position.

  Numbers to drop units by or to start parameters from, not to hide anything
  with: two rounds of multiplication and shift, each after one of the key's two
  words is added. JAX's Threefry takes 20 rounds, a good part of a training step
  on a CPU, and compiles as slowly. The numbers depend on the key and the shape
  alone, not on the platform nor on what is mapped over.

  The key, and every key made of it, knows which rows of a larger array are
  asked for: each row of a batch gets the same numbers wherever it is worked on.

  Args:
    key: any random key.
    start: number of the first row (of the leading axis).
    step: from one row to the next.

  Returns:
    A key for everything in `jax.random`.
  """
  words = jax.random.bits(key, (2,), jnp.uint32)
  rows = jnp.stack([jnp.asarray(n).astype(jnp.uint32) for n in (start, step)])
  return jax.random.wrap_key_data(jnp.concatenate([words, rows]), impl=_IMPL)


# The multipliers and shifts are the two-round permutation of 32 bits with the
# lowest bias known, .107, of the "hash prospector" search (C. Wellons and
# others, github.com/skeeto/hash-prospector, issue 19). 2^32 over the golden
# ratio spreads consecutive positions first, as in a Weyl sequence.
def _hash(first: Array, second: Array, number: Array) -> Array:
  bits = number * np.uint32(0x9E3779B9) + first
  bits = (bits ^ (bits >> 16)) * np.uint32(0x21F0AAAD)
  bits = (bits ^ (bits >> 15)) + second
  bits = (bits ^ (bits >> 15)) * np.uint32(0x735A2D97)
  return bits ^ (bits >> 15)


def _numbers(shape: tuple[int, ...], start: Any, step: Any) -> Array:
  """The position of each unit: sums of iotas, so that nothing is copied."""
  number, stride = jnp.zeros(shape, jnp.uint32), 1
  for axis in reversed(range(len(shape))):
    along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    if axis == 0:
      along = along * step + start
    number += along * np.uint32(stride % 2**32)
    stride *= shape[axis]
  return number


def _new_keys(words: Array, numbers: Array) -> Array:
  """A key for each number, of the same rows."""
  first = _hash(words[0], words[1], numbers)
  new = jnp.stack([first, _hash(words[1], first, numbers)], axis=-1)
  rows = jnp.broadcast_to(words[2:], (*numbers.shape, 2))
  return jnp.concatenate([new, rows], axis=-1)


def _seed(seed: Array) -> Array:
  words = jnp.array([0, 0, 0, 1], jnp.uint32)
  return _new_keys(words, jnp.asarray(seed, jnp.uint32))


def _split(words: Array, shape: tuple[int, ...]) -> Array:
  numbers = _numbers(shape, np.uint32(0), np.uint32(1))
  return _new_keys(words, numbers)


def _fold_in(words: Array, data: Any) -> Array:
  # Any constant will do that sets these keys apart from those of a split, which
  # hash the same numbers; this one is the multiplier of MurmurHash2.
  other = words.at[:2].set(words[:2] ^ np.uint32(0x5BD1E995))
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
