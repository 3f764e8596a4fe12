"""Random keys of states, as plain numbers that every file format can hold."""

import jax
import jax.numpy as jnp

from lplmtl.types import Array


def to_data(key: Array) -> Array:
  """`[2]` uint32 of a random key.

  Raises:
    ValueError: no key.
  """
  is_array = isinstance(key, jax.Array)
  if is_array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    data = jax.random.key_data(key)
    # Keys of other generators are longer.
    is_short = data.shape[-1] == 2
    return data if is_short else jax.random.bits(key, (2,), jnp.uint32)
  if is_array and key.dtype == jnp.uint32 and key.shape == (2,):
    return key
  raise ValueError(
    f'key must be a random key, jax.random.key(seed); found {key!r}'
  )


def from_data(data: Array) -> Array:
  """The random key of `to_data`."""
  return jax.random.wrap_key_data(jnp.asarray(data), impl='threefry2x32')


def orders(key: Array, num_tasks: int) -> Array:
  """`[T, T]` int, a random order of the tasks in each row."""
  drawn = jax.random.uniform(key, (num_tasks,) * 2, jnp.float32)
  return jnp.argsort(drawn, axis=1)
