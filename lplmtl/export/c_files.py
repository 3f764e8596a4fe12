"""What all programs in C99 share: a header, and a self-test."""

import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from lplmtl.export import c_text

_WIDTH = 80
NOT_FUSED = """\
#ifdef __clang__ /* a product must be rounded before it is added */
#pragma STDC FP_CONTRACT OFF
#endif
"""


def check_name(name: str) -> None:
  """Raises ValueError unless a name can begin those of a program in C."""
  if name != c_text.identifier(name):
    raise ValueError(
      'the name of the files must be an identifier of C, such as '
      f'{c_text.identifier(name)!r}; found {name!r}'
    )


def used(helpers: Mapping[str, str], body: str) -> list[str]:
  """Returns the functions that code needs, in their order.

  Args:
    helpers: `{name: text}`; later ones may call earlier ones.
    body: what calls them.
  """
  found: list[str] = []
  for name, text in reversed(list(helpers.items())):
    if re.search(rf'\b{name}\(', body + ''.join(found)):
      found.insert(0, text)
  return found


def member(declaration: str, note: str) -> str:
  """Returns a member of a struct, with a comment beside it, or above it."""
  note = _escaped(note)
  beside = f'  {declaration} /* {note} */'
  if len(beside) <= _WIDTH:
    return beside
  return f'{comment(note, "  ")}\n  {declaration}'


def _escaped(text: str) -> str:
  return text.replace('*/', '* /').replace('/*', '/ *')


def comment(text: str, indent: str = '') -> str:
  """Returns a comment that no text can end."""
  lines = textwrap.wrap(
    f'/* {_escaped(text)} */',
    _WIDTH,
    initial_indent=indent,
    subsequent_indent=f'{indent}   ',
    break_long_words=False,
    break_on_hyphens=False,
  )
  return '\n'.join(lines)


def header(
  name: str,
  row: Sequence[str],
  expected: Mapping[str, int],
  meaning: str,
  notes: Mapping[str, str],
) -> str:
  """Returns the header of a program.

  Args:
    name: the beginning of all public names.
    row: the members of a raw row.
    expected: `{task: K}`.
    meaning: of the outputs, a sentence.
    notes: `{task: what its outputs are}`, for those of which more is known.
  """
  outputs = c_text.identifiers(expected)
  found = [
    member(
      f'float {outputs[task]}[{size}];',
      f'{task!r}: {notes[task]}' if task in notes else repr(task),
    )
    for task, size in expected.items()
  ]
  return f"""#ifndef {name.upper()}_H
#define {name.upper()}_H

#include <stdint.h>

#define {name.upper()}_MISSING (-2147483647 - 1) /* a missing whole number */

#ifdef __cplusplus
extern "C" {{
#endif

/* A raw row. A missing text is 0, a missing number NAN. */
typedef struct {{
{chr(10).join(row)}
}} {name}_row;

{comment(meaning)}
typedef struct {{
{chr(10).join(found)}
}} {name}_prediction;

/* Returns 0; or n if the n-th member of the row, counted from 1, is a number
   that is infinite, far too large, or missing where training had none, or a
   text where a date belongs. */
int {name}_predict(const {name}_row *row, {name}_prediction *found);

#ifdef __cplusplus
}}
#endif

#endif
"""


def self_test(
  name: str,
  rows: Sequence[Sequence[str]],
  expected: Mapping[str, np.ndarray],
  tolerance: str,
) -> str:
  """Returns a program that compares predictions with those of a reference.

  Args:
    name: the beginning of all public names.
    rows: the initialisers of each row.
    expected: `{task: [N, K]}`.
    tolerance: the largest difference to accept, of a number of size 1.
  """
  outputs = c_text.identifiers(expected)
  joined = np.concatenate([*expected.values()], axis=1).astype(np.float32)
  lines = [
    f'    for (j = 0; j < {x.shape[1]}; j++)\n'
    f'      check(found.{outputs[task]}[j], *next++);'
    for task, x in expected.items()
  ]
  return f"""/* Compares predictions with those of the NumPy reference. */
#include <math.h>
#include <stdio.h>

#include "{name}.h"

#define MISSING {name.upper()}_MISSING

{c_text.array(f'{name}_row', 'rows', [f'{{{", ".join(row)}}}' for row in rows])}
{c_text.numbers('expected', joined)}
static double largest = 0;

static void check(double found, double value) {{
  const double difference = fabs(found - value) / (1 + fabs(value));
  if (!(difference <= largest)) largest = difference;
}}

int main(void) {{
  const float *next = expected;
  int i, j;
  for (i = 0; i < {len(rows)}; i++) {{
    {name}_prediction found;
    const int problem = {name}_predict(&rows[i], &found);
    if (problem) {{
      printf("row %d: cannot read member %d\\n", i, problem);
      return 1;
    }}
{chr(10).join(lines)}
  }}
  printf("{len(rows)} rows, largest difference %.1e\\n", largest);
  if (largest <= {tolerance}) return 0;
  printf("expected at most {tolerance}: compile with -std=c99 or "
         "-ffp-contract=off, and without -ffast-math\\n");
  return 1;
}}
"""
