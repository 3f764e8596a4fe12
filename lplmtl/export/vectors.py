"""Rows to test an exported model with: ordinary, missing, unseen, extreme."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl.export.reader import canonical

_FAR = 20  # standard deviations
_MAX_LOG = 80  # exp(80) is 5e34: packed models hold raw numbers as float32


def of_encoding(
  encoding: Mapping[str, Any], num_rows: int = 64, seed: int = 0
) -> dict[Any, list[Any]]:
  """Returns raw columns that take every turn of the encoding.

  Args:
    encoding: from `rows.to_data`.
    num_rows: N.
    seed: of the draws.

  Returns:
    `{column: [N] values}`: texts of the vocabulary, with and without blanks
    around them, of none, and missing; numbers on both sides of edges and on
    them, far away, and missing where that is allowed.
  """
  rng = np.random.default_rng(seed)
  columns: dict[Any, list[Any]] = {}
  for category in [*encoding['categories'], *encoding['hashed']]:
    texts = sorted(category.get('ids', ['a', 'b', 'c']))
    lost = ('nan', *encoding['missing'])
    is_whole = all(t.lstrip('-').isdigit() for t in texts if t not in lost)
    unseen = ['-77', '987654'] if is_whole else ['never seen', 'x?"\\', 'Ø']
    padded = [f' {text} ' for text in texts if canonical(text) == text]
    some = [*texts, *texts, *padded, *unseen, None]
    columns[category['name']] = [
      some[i] for i in rng.integers(0, len(some), num_rows)
    ]
  for column in encoding['numbers']:
    mean, std = column['mean'], column['std']
    some = mean + std * rng.normal(size=num_rows) * 2
    # Further out, rounding of scores moves probabilities by more than 1e-5.
    some[3:5] = mean + std * _FAR * np.array([-1, 1])[: len(some[3:5])]
    if column['log']:
      some = np.sign(some) * np.expm1(np.minimum(np.abs(some), _MAX_LOG))
    values: list[Any] = some.tolist()
    for i, edge in enumerate(column['edges'][: num_rows // 4]):
      below = float(np.nextafter(edge, -np.inf))
      values[3 * i] = (edge, below, edge + 1e-9)[i % 3]
    values[1 % num_rows] = 0.0
    if column['fill'] is not None:
      values[2 % num_rows] = None
    columns[column['name']] = values
  return columns
