"""Arrow's arrays as the columns that `lplmtl.tables` encodes.

Typed, for whoever computes with them. `experiments` reads the same files as the
texts that a CSV file would hold; tables encode both to the same arrays.
"""

from typing import Any

import numpy as np

from lplmtl.columns import Column, Factor

# More rows a value than this, and whole numbers are encoded value by value.
_SHARED = 8
_EXACT = 2**53  # float64 holds every whole number up to here
_UNITS = 'timestamp[us]'


def of_array(name: str, array: Any, pyarrow: Any) -> Column:
  """Returns a column.

  Texts, booleans, times of a day and whole numbers that repeat become Factors,
  so that each value is looked up once; dates and timestamps become datetime64
  in UTC. Null is a missing value.

  Args:
    name: of the column, for messages.
    array: a pyarrow.Array.
    pyarrow: the module, which is an extra.

  Raises:
    ValueError: it holds something other than texts, numbers, times or booleans.
  """
  types = pyarrow.types
  kind = array.type
  if types.is_dictionary(kind):
    if array.null_count or array.dictionary.null_count:
      array, kind = array.cast(kind.value_type), kind.value_type
    else:
      return _factor(array)
  if types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
    return array.cast('float64').to_numpy(zero_copy_only=False)
  if types.is_timestamp(kind) or types.is_date(kind):
    return array.cast(_UNITS, safe=False).to_numpy(zero_copy_only=False)
  if types.is_nested(kind) or not (
    types.is_integer(kind)
    or types.is_boolean(kind)
    or types.is_time(kind)
    or types.is_string(kind)
    or types.is_large_string(kind)
    or types.is_string_view(kind)
  ):
    raise ValueError(
      f'column {name!r} holds {kind}: expected texts, numbers, times or '
      'booleans; leave it out of columns'
    )
  factor = _factor(array.dictionary_encode(null_encoding='encode'))
  if types.is_integer(kind) and _SHARED * len(factor.values) > len(array):
    return _numbers(array, factor)
  return factor


def _factor(array: Any) -> Factor:
  values = array.dictionary
  codes = array.indices.to_numpy(zero_copy_only=False)
  is_time = str(values.type).startswith('time')  # NumPy has no times of a day
  if values.null_count or is_time:
    return Factor(codes, np.array(values.to_pylist(), object))
  return Factor(codes, values.to_numpy(zero_copy_only=False))


def _numbers(array: Any, factor: Factor) -> Column:
  """Returns whole numbers of which few repeat."""
  if not array.null_count:
    return array.to_numpy(zero_copy_only=False)
  known = factor.values[factor.values != np.array(None)]
  if len(known) and np.abs(known.astype(float)).max() >= _EXACT:
    return factor  # as floats, different ones would be the same
  return array.cast('float64').to_numpy(zero_copy_only=False)
