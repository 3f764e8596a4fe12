"""A generated table for tasks in a chain, as no public one is small enough."""

import numpy as np

from lplmtl.types import Batch


def clicks(num_rows: int, seed: int = 0, *, num_features: int = 8) -> Batch:
  """Views of offers: which are clicked, and which of these end in a purchase.

  A click depends on one half of what is shown, a purchase after it on the other
  half and, partly, on the same. Without a click there is no purchase, so that
  rows with one are few (about a third are clicked, and an eighth bought), and
  who learns purchases from clicked rows alone learns from a biased choice.

  Args:
    num_rows: N >= 1.
    seed: of the generator; the same seed gives the same rows.
    num_features: D >= 2.

  Returns:
    A Batch of NumPy arrays: features `[N, D]` float32, and the labels `click`
    and `buy`, `[N]` int32, with buy <= click.

  Raises:
    ValueError: sizes that make no table.

  Example:
    >>> rows = clicks(1000)
    >>> rows.features.shape, sorted(rows.labels)
    ((1000, 8), ['buy', 'click'])
  """
  if num_rows < 1 or num_features < 2:
    raise ValueError(
      'expected at least 1 row and 2 features, found '
      f'{num_rows} and {num_features}'
    )
  rng = np.random.default_rng(seed)
  # The same for all seeds: other rows of one world.
  world = np.random.default_rng(117)
  half = num_features // 2
  of_click = world.normal(size=num_features) / np.sqrt(half)
  of_click[half:] *= 0.2
  of_buy = world.normal(size=num_features) / np.sqrt(half)
  of_buy[:half] = 0.5 * of_click[:half]
  x = rng.normal(size=(num_rows, num_features))

  def happens(logits: np.ndarray) -> np.ndarray:
    return rng.random(num_rows) < 1 / (1 + np.exp(-logits))

  click = happens(2 * np.sin(x @ of_click) - 1)
  buy = click & happens(2 * np.tanh(x @ of_buy) - 0.6)
  labels = {'click': click.astype(np.int32), 'buy': buy.astype(np.int32)}
  return Batch(x.astype(np.float32), labels)
