"""Synthetic rows for tasks in a chain; no public data set is small enough."""

import numpy as np

from lplmtl.types import Batch


def clicks(num_rows: int, seed: int = 0, *, num_features: int = 8) -> Batch:
  """Draws views of offers, some of which are clicked and then bought.

  A click depends mostly on the first half of the features; a purchase after a
  click depends on the second half and, in part, on the first. Only a clicked
  offer can be bought, so purchases are rare (about a third of the rows are
  clicked and an eighth bought), and a model of purchases that is trained on
  clicked rows only sees a biased sample.

  Args:
    num_rows: N >= 1.
    seed: seed of the generator; the same seed gives the same rows.
    num_features: D >= 2.

  Returns:
    A Batch of NumPy arrays: features `[N, D]` float32, and the labels `click`
    and `buy`, `[N]` int32, with buy <= click.

  Raises:
    ValueError: `num_rows` or `num_features` is too small.

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
  # Fixed, so that all seeds draw rows from one distribution.
  truth = np.random.default_rng(117)
  half = num_features // 2
  # 1 / sqrt(half) keeps the products with x of order 1 for any num_features;
  # 0.2 lets clicks depend a little on the second half of the features, 0.5 lets
  # purchases depend in part on the first.
  click_weights = truth.normal(size=num_features) / np.sqrt(half)
  click_weights[half:] *= 0.2
  buy_weights = truth.normal(size=num_features) / np.sqrt(half)
  buy_weights[:half] = 0.5 * click_weights[:half]
  x = rng.normal(size=(num_rows, num_features))

  def draw(logits: np.ndarray) -> np.ndarray:
    return rng.random(num_rows) < 1 / (1 + np.exp(-logits))

  # Not linear, so that hidden layers help; the offsets set the rates above.
  click = draw(2 * np.sin(x @ click_weights) - 1)
  buy = click & draw(2 * np.tanh(x @ buy_weights) - 0.6)
  labels = {'click': click.astype(np.int32), 'buy': buy.astype(np.int32)}
  return Batch(x.astype(np.float32), labels)
