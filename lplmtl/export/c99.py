"""The `c99` form: one header and one source file without dependencies."""

import math
import pathlib
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl.export import (
  c_arithmetic,
  c_constants,
  c_encoder,
  c_files,
  c_loops,
  c_memory,
  c_program,
  c_rows,
  c_test,
  c_text,
  exact,
  numpy_form,
)
from lplmtl.export.nodes import Node
from lplmtl.export.program import Program
from lplmtl.storage import files
from lplmtl.tables import Tables

# What math.h declares, of what code here uses.
_MATH = re.compile(
  r'\b(NAN|INFINITY|(isfinite|isnan|fabsf?|log1p|floorf|ceilf|sqrtf|powf|sinf|'
  r'cosf|erff)\()'
)


def write(
  folder: pathlib.Path,
  program: Program,
  tables: Tables | None = None,
  *,
  name: str = 'model',
  columns: Any = None,
  notes: Mapping[str, str] = types.MappingProxyType({}),
) -> list[pathlib.Path]:
  """Writes `name.h`, `name.c` and a self-test, `name_test.c`.

  Args:
    folder: must exist.
    program: what to run.
    tables: those that the model was trained with; None if it reads arrays.
    name: of the files, and the beginning of all public names.
    columns: raw rows for the self-test, as for `reader.predict`; None for those
      of `vectors`.
    notes: `{task: what its outputs are}`, such as the names of the classes, for
      the header.

  Returns:
    The files.

  Raises:
    ValueError: the program does not read what the tables encode, `name` is not
      a C identifier, or a row of `columns` cannot be read.
    OSError: a file cannot be written.
  """
  c_files.check_name(name)
  data = numpy_form.to_data(program, tables)
  encoding = data['encoding']
  members = (
    c_rows.fields(encoding) if encoding else c_rows.arrays(program.inputs)
  )
  sources = {
    f'{name}.h': c_files.header(
      name,
      [c_files.member(one.declaration, one.note) for one in members],
      {task: x.shape[1] for task, x in program.outputs.items()},
      _meaning(program),
      notes,
    ),
    f'{name}.c': _source(name, program, encoding, members),
    f'{name}_test.c': c_test.source(
      name, data, members, columns, exact.is_exact(program)
    ),
  }
  for file, text in sources.items():
    files.write(folder / file, text.encode())
  return [folder / file for file in sources]


def _meaning(program: Program) -> str:
  what = 'Probabilities, expected counts, or numbers (or logits, if asked for);'
  called = {node.kind for node in program.operations} & exact.FROM_LIBRARY
  if called:
    functions = ', '.join(sorted(called))
    return f'{what} in the last digits by {functions} of the C library.'
  return (
    f'{what} to the bit if no product is fused with a sum '
    '(-ffp-contract=off, which -std=c99 implies in gcc).'
  )


def _source(
  name: str,
  program: Program,
  encoding: Mapping[str, Any] | None,
  members: Sequence[Any],
) -> str:
  memory = c_memory.plan(program)
  names = {id(c): f'constant_{i}' for i, c in enumerate(program.constants)}
  inputs = {n: x for n, x in program.inputs.items() if math.prod(x.shape)}
  for i, x in enumerate(inputs.values()):
    names[id(x)] = f'input_{i}'
  values = c_loops.Values(
    memory, names, c_constants.float16s(program), c_constants.runs(program)
  )
  run = _run(name, program, values, inputs)
  constants = [
    _constant(c, values)
    for c in program.constants
    if re.search(rf'\b{names[id(c)]}\b', run)  # others are part of expressions
  ]
  helpers = dict(c_arithmetic.HELPERS)
  rows = ''
  if encoding:
    is_small = any(c.dtype == 'int8' for c in program.constants)
    code = c_encoder.encoder(encoding, name, is_small=is_small)
    helpers = code.helpers | helpers
    rows = f'{code.constants}\n{code.function}'
  call = _call(name, program, inputs, encoding, members)
  body = '\n'.join([*constants, rows, run, call])
  used = c_files.used(helpers, body)
  text = ''.join([*used, '\n', body])
  needed = {'math.h': _MATH.search(text), 'stddef.h': 'offsetof' in text}
  lines = [
    f'#include "{name}.h"',
    *_block(f'#include <{file}>' for file, one in needed.items() if one),
    *_block([f'#define MISSING {name.upper()}_MISSING'] * ('MISSING' in body)),
  ]
  return '\n'.join([*lines, f'\n{c_files.NOT_FUSED}{text}'])


def _block(lines: Iterable[str]) -> list[str]:
  """Returns lines after an empty one, if there are any."""
  found = list(lines)
  return ['', *found] if found else []


def _constant(constant: Node, values: c_loops.Values) -> str:
  """Returns the definition of the array of a constant."""
  name, data = values.names[id(constant)], c_constants.stored(constant)
  if id(constant) in values.float16s:
    data = data.astype(np.float16).view(np.uint16)
  ends = values.runs.get(id(constant))
  if ends is None:
    return c_text.numbers(name, data)
  return c_text.numbers(f'{name}_ends', ends) + c_text.numbers(
    name, data[ends.astype(int) - 1]
  )


def _run(
  name: str,
  program: Program,
  values: c_loops.Values,
  inputs: Mapping[str, Any],
) -> str:
  """Returns the function from encoded features to predictions."""
  lines = c_program.statements(program, values)
  outputs = c_text.identifiers(program.outputs)
  for task, x in program.outputs.items():
    target = f'found->{outputs[task]}'
    lines += c_program.copied_to(target, x, values)
  sizes = values.memory.sizes
  arguments = [
    f'const {c_text.TYPES[x.dtype]} *{values.names[id(x)]}'
    for x in inputs.values()
  ]
  declared = [
    *(f'float floats[{n}];' for n in [sizes['floats']] if n),
    *(f'int32_t integers[{n}];' for n in [sizes['integers']] if n),
  ]
  unused = [
    f'(void){values.names[id(x)]};'
    for x in inputs.values()
    if not re.search(rf'\b{values.names[id(x)]}\b', '\n'.join(lines))
  ]
  body = '\n'.join(f'  {line}' for line in [*declared, *unused, *lines])
  parameters = ', '.join([*arguments, f'{name}_prediction *found'])
  return f'static void run({parameters}) {{\n{body}\n}}\n'


def _call(
  name: str,
  program: Program,
  inputs: Mapping[str, Any],
  encoding: Mapping[str, Any] | None,
  members: Sequence[Any],
) -> str:
  if encoding:
    sizes = {n: math.prod(x.shape) for n, x in program.inputs.items()}
    arrays = [
      f'  {c_text.TYPES[x.dtype]} {n}[{max(sizes[n], 1)}];'
      for n, x in program.inputs.items()
    ]
    order = [n for n in ('categories', 'numeric', 'hashed') if n in sizes]
    lines = [
      *arrays,
      f'  const int problem = encode(row, {", ".join(order)});',
      '  if (problem) return problem;',
    ]
    arguments = list(inputs)
  else:
    lines = []
    arguments = [f'row->{x.member}' for x in members if x.column in inputs]
  text = '\n'.join(
    [*lines, f'  run({", ".join([*arguments, "found"])});', '  return 0;']
  )
  head = f'int {name}_predict(const {name}_row *row, {name}_prediction *found)'
  return f'{head} {{\n{text}\n}}\n'
