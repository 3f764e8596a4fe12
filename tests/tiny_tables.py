"""A table of numbers and one target, and settings that train on it at once.

Tests that share rows, names and sizes share one program per process.
"""

import numpy as np
import pandas as pd

import lplmtl

OPTIONS = {
  'architecture': lplmtl.SharedBottom, 'widths': (4,), 'tower_widths': (),
  'embed_dim': 2, 'num_bins': 4, 'num_crosses': 0, 'dropout': 0.0,
  'batch_size': 16, 'num_epochs': 4, 'learning_rate': 0.02,
  'validation_share': 0,  # evaluation is a program of its own
  'schedule': 'constant', 'num_seeds': 1,
}  # fmt: skip
NUM_ROWS = 48
# A fifth of 60 rows leaves 48 to train on.
VALIDATED = OPTIONS | {'validation_share': 0.2}
NUM_VALIDATED = 60


def table(num_rows: int = NUM_ROWS, seed: int = 0) -> pd.DataFrame:
  """Rows are late if `a` is above `b`."""
  x = np.random.default_rng(seed).normal(size=(num_rows, 2)).round(3)
  late = (x[:, 0] > x[:, 1]).astype(int)
  return pd.DataFrame({'a': x[:, 0], 'b': x[:, 1], 'late': late})
