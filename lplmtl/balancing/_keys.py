"""Random keys in states, as plain numbers that every file format can hold."""

import jax
import jax.numpy as jnp

from lplmtl.types import Array


def to_data(key: Array) -> Array:
  """Returns a random key as `[2]` uint32.

  Raises:
    ValueError: `key` is not a random key.
  """
  is_array = isinstance(key, jax.Array)
  if is_array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    data = jax.random.key_data(key)
    # Keys of generators other than threefry have four numbers or more: two
    # numbers are drawn from them.
    is_short = data.shape[-1] == 2
    return data if is_short else jax.random.bits(key, (2,), jnp.uint32)
  if is_array and key.dtype == jnp.uint32 and key.shape == (2,):
    return key
  raise ValueError(
    f'key must be a random key, jax.random.key(seed); found {key!r}'
  )


def from_data(data: Array) -> Array:
  """Returns the random key for the output of `to_data`."""
  return jax.random.wrap_key_data(jnp.asarray(data), impl='threefry2x32')


def orders(key: Array, num_tasks: int) -> Array:
  """Returns `[T, T]` int; each row is a random order of the tasks."""
  drawn = jax.random.uniform(key, (num_tasks,) * 2, jnp.float32)
  return jnp.argsort(drawn, axis=1)
