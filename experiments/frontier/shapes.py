"""Numbers binary trees by shape: those of n splits from 0 to Catalan(n) - 1.

A tree is the list of its nodes in the order root, left, right; here a node is
whether it is a split.
"""

import math
from collections.abc import Sequence


def count(num_splits: int) -> int:
  """Returns how many shapes have so many splits.

  Example:
    >>> [count(n) for n in range(5)]
    [1, 1, 2, 5, 14]
  """
  return math.comb(2 * num_splits, num_splits) // (num_splits + 1)


def rank(nodes: Sequence[bool]) -> int:
  """Returns the number of a shape; the inverse of `unrank`.

  Example:
    >>> rank([True, True, False, False, False])
    1
  """
  rest = list(nodes)
  return _rank(rest)[0]


def _rank(rest: list[bool]) -> tuple[int, int]:
  """Returns the number of the tree that begins the list, and its splits."""
  if not rest.pop(0):
    return 0, 0
  low, left = _rank(rest)
  high, right = _rank(rest)
  splits = left + right + 1
  before = sum(count(n) * count(splits - 1 - n) for n in range(left))
  return before + low * count(right) + high, splits


def unrank(number: int, num_splits: int) -> list[bool]:
  """Returns the shape of a number.

  Example:
    >>> unrank(1, 2)
    [True, True, False, False, False]
  """
  if not num_splits:
    return [False]
  for left in range(num_splits):
    right = num_splits - 1 - left
    here = count(left) * count(right)
    if number < here:
      low, high = divmod(number, count(right))
      return [True, *unrank(low, left), *unrank(high, right)]
    number -= here
  raise ValueError(f'there is no shape {number} of {num_splits} splits')
