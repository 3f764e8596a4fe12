"""Figures as JSON data: JSON has no NaN, so what is undefined is null.

A metric may be undefined, as an AUC is where all rows are of one class. In
memory it is NaN, which spreads through means and differences by itself.
"""

import math
from typing import Any

# Names of numbers in `scoring.over_seeds` and `lplmtl.statistics.Interval`.
_NUMBERS = ('mean', 'estimate', 'low', 'high', 'std_error')


def to_json(data: Any) -> Any:
  """Returns data with None for each float that is not finite.

  Example:
    >>> to_json({'mean': math.nan, 'per_seed': [math.nan, 0.5]})
    {'mean': None, 'per_seed': [None, 0.5]}
  """
  if isinstance(data, dict):
    return {name: to_json(value) for name, value in data.items()}
  if isinstance(data, (list, tuple)):
    return [to_json(value) for value in data]
  return None if isinstance(data, float) and not math.isfinite(data) else data


def from_json(data: Any) -> Any:
  """Returns what `to_json` got: None among numbers becomes NaN.

  A None that says that there is no such figure stays, such as the standard
  deviation of one seed.

  Example:
    >>> from_json({'mean': None, 'std': None, 'per_seed': [None]})
    {'mean': nan, 'std': None, 'per_seed': [nan]}
  """
  if isinstance(data, dict):
    return {
      name: math.nan if value is None and name in _NUMBERS else from_json(value)
      for name, value in data.items()
    }
  if isinstance(data, list):
    return [math.nan if value is None else from_json(value) for value in data]
  return data
