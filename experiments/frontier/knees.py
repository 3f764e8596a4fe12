"""Where a line of the frontier bends: more bytes bring little from there on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.comparison import winner


def find(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
  """Returns `{family: name of the row}` at the knee of each family.

  The knee is the point farthest above the straight line from the smallest to
  the largest, of the mean primary validation metric against the logarithm of
  the bytes (Satopää et al. 2011, "Finding a 'Kneedle' in a Haystack"). Families
  without budgets, of fewer than three points, or none above that line, have
  none.

  Args:
    rows: of a frontier, with `family`, `budget`, `num_bytes` and `validation`.
  """
  found = {}
  small = sorted(
    (row for row in rows if row.get('budget')),
    key=lambda row: row['num_bytes'],
  )
  for family in dict.fromkeys(row['family'] for row in small):
    line = [row for row in small if row['family'] == family]
    x = np.log([row['num_bytes'] for row in line])
    y = np.array([winner.mean_quality(row) for row in line])
    if len(line) < 3 or x[0] == x[-1]:
      continue
    above = y - np.interp(x, x[[0, -1]], y[[0, -1]])
    best = int(above.argmax())
    if above[best] > 0:
      found[family] = line[best]['name']
  return found


def smallest_equivalent(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
  """Returns `{family: name of its smallest row equivalent to the baseline}`.

  Families without one are left out.
  """
  found: dict[str, str] = {}
  for row in sorted(rows, key=lambda row: row['num_bytes']):
    if row['verdict'] == 'equivalent':
      found.setdefault(row['family'], row['name'])
  return found
