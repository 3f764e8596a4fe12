"""Training, validation and test rows: at random, in time, by group or given."""

import numpy as np

from lplmtl.tabular import checks
from lplmtl.tabular.schema import Schema

SHARE = 0.1  # of the rows, for validation and for test


def split(
  frame: object,
  schema: Schema,
  seed: int = 0,
  *,
  test: bool = False,
  share: float = SHARE,
) -> dict[str, np.ndarray]:
  """Splits rows into training, validation and test rows.

  Args:
    frame: the table.
    schema: of which `split`, `time`, `group` and `missing` are used.
    seed: of a random split.
    test: whether to set test rows aside.
    share: of the rows, for each of validation and test.

  Returns:
    `{'train', 'validation', 'test'}`, each with increasing `[n]` row numbers.
  """
  columns = checks.columns_of(frame)
  n = checks.num_rows(columns)
  order = np.random.default_rng(seed).permutation(n)
  size = round(share * n)
  num_test = size if test else 0
  return {
    'train': np.sort(order[size + num_test :]),
    'validation': np.sort(order[num_test : size + num_test]),
    'test': np.sort(order[:num_test]),
  }
