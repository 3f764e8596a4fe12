"""The self-test of a program in C99."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lplmtl.export import c_files, exact, vectors
from lplmtl.export.c_rows import Array, Field

# The largest difference to the NumPy reference that the self-test accepts, of a
# number of size 1, where functions of the C library are called.
_TOLERANCE = '1e-5'


def source(
  name: str,
  data: dict[str, Any],
  members: Sequence[Field | Array],
  columns: Any,
  is_exact: bool,
) -> str:
  """Returns a program that compares predictions with the reference.

  Args:
    name: the beginning of all public names.
    data: from `numpy_form.to_data`.
    members: of a row.
    columns: raw rows, or None for those of `vectors`.
    is_exact: whether to accept no difference, see `exact.is_exact`.
  """
  if columns is None:
    columns = _rows(data, members)
  if not data['encoding'] and not isinstance(columns, dict):
    columns = {'': columns}
  expected = exact.predict(data, columns)
  rows = [
    [one.literal(columns[one.column][i]) for one in members]
    for i in range(len(next(iter(expected.values()))))
  ]
  return c_files.self_test(
    name, rows, expected, '0' if is_exact else _TOLERANCE
  )


def _rows(data: dict[str, Any], members: Sequence[Any]) -> dict[Any, Any]:
  if data['encoding']:
    return vectors.of_encoding(data['encoding'])
  rng = np.random.default_rng(0)
  # Ids are small; those that are none are replaced by the nearest.
  draw: dict[str, Any] = {
    'float32': rng.normal,
    'int32': lambda size: rng.integers(-1, 9, size),
    'bool': lambda size: rng.integers(0, 2, size),
  }
  return {
    one.column: draw[one.dtype](size=(64, *one.shape)).astype(one.dtype)
    for one in members
  }
