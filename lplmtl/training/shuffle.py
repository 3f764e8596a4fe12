"""The order of the rows in each epoch."""

from collections.abc import Callable

import jax
import numpy as np

from lplmtl.types import Array


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
