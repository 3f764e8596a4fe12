"""The self-test of a program in C99. NumPy only."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl.export import c_files, c_text, reader, vectors
from lplmtl.export.c_rows import Field

# The largest difference to the NumPy reference that the self-test accepts, of a
# number of size 1; sums are in another order.
_TOLERANCE = '1e-5'


def source(
  name: str,
  data: dict[str, Any],
  members: list[tuple[str, str, Any]],
  columns: Any,
) -> str:
  """Returns a program that compares predictions with the reference.

  Args:
    name: the beginning of all public names.
    data: from `numpy_form.to_data`.
    members: of a row: declaration, comment, and Field or name of an input.
    columns: raw rows, or None for those of `vectors`.
  """
  if columns is None:
    columns = _rows(data, members)
  expected = reader.predict(data, columns)
  rows = [
    [_literal(member, columns, i) for *_, member in members]
    for i in range(len(next(iter(expected.values()))))
  ]
  return c_files.self_test(name, rows, expected, _TOLERANCE)


def _rows(data: Mapping[str, Any], members: list[tuple[str, str, Any]]) -> Any:
  if data['encoding']:
    return vectors.of_encoding(data['encoding'])
  rng = np.random.default_rng(0)
  sizes = [int(re.findall(r'\[(\d+)\]', text)[0]) for text, *_ in members]
  drawn = {
    name: rng.normal(size=(64, size)).astype(np.float32)
    for (*_, name), size in zip(members, sizes, strict=True)
  }
  return drawn.get('', drawn)


def _literal(member: Any, columns: Any, row: int) -> str:
  if isinstance(member, Field):
    return member.literal(columns[member.column][row])
  values = columns[row] if member == '' else columns[member][row]
  number = functools.partial(c_text.number, dtype='float32')
  return '{' + ', '.join(map(number, np.ravel(values))) + '}'
