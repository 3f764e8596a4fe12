"""The order of the rows in each epoch, or in each chunk of it."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from lplmtl.types import Array, Source


def make_shuffle(
  keys: Array, num_rows: int, batch_size: int
) -> Callable[[int], np.ndarray]:
  """Returns a function from an epoch to its row numbers, `[S, N, B]` int32.

  It depends on nothing but the keys and the epoch, so that a resumed run sees
  the same batches. Rows are shuffled on the host: on the device a random
  permutation is a sort, which takes 10 % of an epoch on a CPU.

  Args:
    keys: `[S]` random keys.
    num_rows: rows of the training data.
    batch_size: B; N = num_rows // B, and the rows left over differ from epoch
      to epoch.
  """
  seeds = np.asarray(jax.random.key_data(keys)).tolist()
  num_steps = num_rows // batch_size

  def shuffle(epoch: int) -> np.ndarray:
    rows = [
      np.random.default_rng([*seed, epoch]).permutation(num_rows)
      for seed in seeds
    ]
    kept = np.stack(rows)[:, : num_steps * batch_size].astype(np.int32)
    return kept.reshape(len(seeds), num_steps, batch_size)

  return shuffle


def make_chunk_shuffle(
  keys: Array, source: Source, batch_size: int, num_devices: int
) -> Callable[[int, int, Sequence[int]], np.ndarray]:
  """Returns a function from (epoch, chunk, shards) to row numbers.

  They are `[S, n, b]` int32, where n are the steps of a chunk and b the rows of
  a batch that these shards provide, shard by shard. A row's number counts from
  the first row of its device. The order within a shard depends on nothing but
  the keys, the epoch, the chunk and the shard: neither the number of devices
  nor that of processes changes a batch.

  Args:
    keys: `[S]` random keys.
    source: its sizes are read.
    batch_size: B, a multiple of the shards.
    num_devices: over which the shards of a chunk are spread evenly, in order;
      1 if each device holds all of them.
  """
  seeds = np.asarray(jax.random.key_data(keys)).tolist()
  size = source.chunk_rows // source.num_shards
  of_device = source.num_shards // num_devices
  share = batch_size // source.num_shards
  num_steps = size // share

  def order(place: Sequence[int], shard: int) -> np.ndarray:
    rows = np.random.default_rng([*place, shard]).permutation(size)
    kept = rows[: num_steps * share].astype(np.int32)
    return shard % of_device * size + kept.reshape(num_steps, share)

  def shuffle(epoch: int, number: int, shards: Sequence[int]) -> np.ndarray:
    return np.stack(
      [
        np.concatenate(
          [order((*seed, epoch, number), shard) for shard in shards], axis=1
        )
        for seed in seeds
      ]
    )

  return shuffle
