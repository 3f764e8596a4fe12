"""The inputs of trees: each value in the form that LightGBM handles best.

Category ids are categories; of a hashed column, each pair of buckets is one.
Numbers are numbers, and NaN where a value is missing: in place of the fill
value and the flag that networks read.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from lplmtl.tables import Tables
from lplmtl.types import Batch


def make_encoder(
  train: Batch, tables: Tables
) -> tuple[Callable[[Batch], np.ndarray], int]:
  """Returns a function from rows to inputs, and the number of categories.

  Args:
    train: the rows whose values trees can know, encoded without bins.
    tables: which encoded them.

  Returns:
    `(encode, C)`: `encode` returns `[N, C + M]` float64, the categories first.
  """
  known = [np.unique(ids) for ids in _hashed(train).T]

  def encode(rows: Batch) -> np.ndarray:
    features: Any = rows.features  # a dict: see `Tables.encode`
    hashed = [
      _positions(values, ids)
      for values, ids in zip(known, _hashed(rows).T, strict=True)
    ]
    parts = [features['categories'], *(x[:, None] for x in hashed)]
    return np.concatenate(
      [*(x.astype(np.float64) for x in parts), _numbers(features, tables)],
      axis=1,
    )

  features: Any = train.features
  return encode, features['categories'].shape[1] + len(known)


def _numbers(features: Any, tables: Tables) -> np.ndarray:
  """Returns `[N, M]` float64, NaN where a flag says that one is missing."""
  names = list(tables.numerics)
  numeric = features['numeric']
  numbers = numeric[:, : len(names)].astype(np.float64)
  for name, flag in tables.flags.items():
    numbers[numeric[:, flag] > 0, names.index(name)] = np.nan
  return numbers


def _hashed(rows: Batch) -> np.ndarray:
  """Returns `[N, H]`, one number per pair of buckets."""
  features: Any = rows.features
  if 'hashed' not in features:
    return np.zeros((len(features['numeric']), 0), np.int64)
  pairs = features['hashed'].astype(np.int64)  # [N, H, 2]
  return pairs[..., 0] << 32 | pairs[..., 1]


def _positions(known: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Returns places among known values; -1, which is missing, if unknown."""
  places = np.searchsorted(known, values).clip(max=len(known) - 1)
  return np.where(known[places] == values, places, -1)
