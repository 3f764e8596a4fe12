"""The self-test of a program in C99. NumPy only."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl.export import c_text, reader, vectors
from lplmtl.export.c_rows import Field

# The largest difference to the NumPy reference that the self-test accepts, of a
# number of size 1; sums are in another order.
_TOLERANCE = '1e-5'


def source(
  name: str,
  data: dict[str, Any],
  members: list[tuple[str, str, Any]],
  outputs: Mapping[str, str],
  columns: Any,
) -> str:
  """Returns a program that compares predictions with the reference."""
  if columns is None:
    columns = _rows(data, members)
  expected = reader.predict(data, columns)
  count = len(next(iter(expected.values())))
  rows = [
    '{'
    + ', '.join(_literal(member, columns, i) for *_, member in members)
    + '}'
    for i in range(count)
  ]
  joined = np.concatenate([*expected.values()], axis=1).astype(np.float32)
  sizes = {task: values.shape[1] for task, values in expected.items()}
  lines = [
    f'    for (j = 0; j < {size}; j++)\n'
    f'      check(found.{outputs[task]}[j], *next++);'
    for task, size in sizes.items()
  ]
  return f"""/* Compares predictions with those of the NumPy reference. */
#include <math.h>
#include <stdio.h>

#include "{name}.h"

#define MISSING {name.upper()}_MISSING

{c_text.array(f'{name}_row', 'rows', rows)}
{c_text.numbers('expected', joined)}
static double largest = 0;

static void check(double found, double value) {{
  const double difference = fabs(found - value) / (1 + fabs(value));
  if (!(difference <= largest)) largest = difference;
}}

int main(void) {{
  const float *next = expected;
  int i, j;
  for (i = 0; i < {count}; i++) {{
    {name}_prediction found;
    const int problem = {name}_predict(&rows[i], &found);
    if (problem) {{
      printf("row %d: cannot read member %d\\n", i, problem);
      return 1;
    }}
{chr(10).join(lines)}
  }}
  printf("{count} rows, largest difference %.1e\\n", largest);
  return !(largest <= {_TOLERANCE});
}}
"""


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
