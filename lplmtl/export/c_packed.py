"""Packed models in C99: integers, hashes, and the bytes that `cost` counts.

What `compression.packing.pack` laid out, with code that scores a raw row from
it: no other constants, no mathematical library, no allocation. It has the bits
of `predict` where numbers have no logarithm and float is the float32 of IEEE
754, without excess precision.
"""

import pathlib
import re
import types
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from lplmtl import columns as raw
from lplmtl.compression import device_tables, reference
from lplmtl.compression.packing import Packed
from lplmtl.export import (
  c_files,
  c_packed_layers,
  c_packed_outputs,
  c_packed_rows,
  c_text,
  rows,
)
from lplmtl.export.meanings import Meaning
from lplmtl.export.reader import number_of
from lplmtl.storage import files

_MEANING = 'Probabilities, expected counts, or numbers in their own unit.'
_RAW = 'Logits, or numbers: in the units of the labels in training.'


def write(
  folder: pathlib.Path,
  packed: Packed,
  columns: Mapping[Any, Any],
  *,
  name: str = 'model',
  meanings: Mapping[str, Meaning] = types.MappingProxyType({}),
  notes: Mapping[str, str] = types.MappingProxyType({}),
) -> list[pathlib.Path]:
  """Writes `name.h`, `name.c` and a self-test, `name_test.c`.

  Args:
    folder: must exist.
    packed: a model that `compression.reference` scores, with its tables: what
      `packing.pack` returns for frozen parameters of a Quantized model, such as
      `compress(...).packed`, of one seed.
    columns: raw rows for the self-test, `{column: [N] values}`, at least one.
    name: of the files, and the beginning of all public names.
    meanings: `{task: meanings.describe(task, ...)}`, by which outputs become
      predictions; those of a task without one are logits.
    notes: `{task: what its outputs are}`, such as the names of the classes, for
      the header.

  Returns:
    The files.

  Raises:
    ValueError: `packed` is not packed or of another kind of model, `columns`
      are no rows or cannot be read, or `name` is not a C identifier.
    OSError: a file cannot be written.
  """
  c_files.check_name(name)
  if not isinstance(packed, Packed):
    raise ValueError(
      'packed must be what compression.packing.pack returns, of one seed, such '
      f'as compress(...).packed[0]; found {type(packed).__name__}'
    )
  if not hasattr(columns, 'keys'):
    raise ValueError(
      'columns must be raw rows for the self-test, such as '
      "{'city': ['Oslo'], 'age': [30]}; found " + type(columns).__name__
    )
  logits = reference.score(packed, columns)
  expected = c_packed_outputs.predict(logits, meanings)
  tables = device_tables.checked(packed.tables)
  members = c_packed_rows.members(tables)
  declared = [
    c_files.member(f'{kind}{member};', repr(column))
    for (kind, column), member in members.items()
  ]
  sizes = {task: x.shape[1] for task, x in expected.items()}
  sources = {
    f'{name}.h': c_files.header(
      name, declared, sizes, _MEANING if meanings else _RAW, notes
    ),
    f'{name}.c': _source(
      name, packed, {k: x.shape[1] for k, x in logits.items()}, meanings
    ),
    f'{name}_test.c': c_files.self_test(
      name, _literals(members, columns, tables.missing), expected, tolerance='0'
    ),
  }
  for file, text in sources.items():
    files.write(folder / file, text.encode())
  return [folder / file for file in sources]


def predict(
  packed: Packed,
  columns: Mapping[Any, Any],
  meanings: Mapping[str, Meaning] = types.MappingProxyType({}),
) -> dict[str, np.ndarray]:
  """Returns what the C does for raw rows: `{task: [N, K] float32}`.

  Args:
    packed: see `write`.
    columns: see `write`.
    meanings: see `write`.
  """
  return c_packed_outputs.predict(reference.score(packed, columns), meanings)


def _literals(
  members: Iterable[tuple[str, Any]],
  columns: Mapping[Any, Any],
  missing: Collection[str],
) -> list[list[str]]:
  """Returns the initialisers of raw rows."""
  found = []
  for kind, column in members:
    values = list(columns[column])
    if kind == c_packed_rows.TEXT:
      found.append([c_text.string(raw.text_of(value)) for value in values])
    else:
      numbers = np.array([number_of(v, missing) for v in values], np.float32)
      found.append([c_text.number(x, 'float32') for x in numbers.tolist()])
  return [list(row) for row in zip(*found, strict=True)]


def _source(
  name: str,
  packed: Packed,
  sizes: Mapping[str, int],
  meanings: Mapping[str, Meaning],
) -> str:
  tables = device_tables.checked(packed.tables)
  shapes = {key: x.shape[1] for key, x in rows.features(tables).items()}
  encode = c_packed_rows.source(name, packed, tables)
  layers = c_packed_layers.source(name, packed, sizes, shapes['numeric'])
  outputs = '\n'.join(c_packed_outputs.source(sizes, meanings))
  helpers = {
    **c_packed_rows.helpers(packed),
    **c_packed_layers.helpers(packed),
    **c_packed_outputs.helpers(meanings),
  }
  used = c_files.used(helpers, encode + layers + outputs)
  body = ''.join([*used, encode, layers])
  constants = [
    c_text.array('uint8_t', key, map(str, array.tobytes()))
    for key, array in packed.sections.items()
    if re.search(rf'\b{key}\b', body)
  ]
  include = '#include <math.h>\n' if 'log1pf' in encode else ''
  include += '#include <stddef.h>\n' if 'offsetof' in encode else ''
  width = c_packed_layers.width(packed)
  embedded = width * shapes['categories']
  numbers = f'x + {embedded}' if embedded else 'x'
  return f"""#include "{name}.h"
{include}
{c_files.NOT_FUSED}
{chr(10).join(constants)}
{''.join(used)}
{encode}

{layers}
int {name}_predict(const {name}_row *row, {name}_prediction *found) {{
  uint16_t ids[{max(shapes['categories'], 1)}];
  float x[{max(embedded + shapes['numeric'], 1)}];
  const int problem = encode(row, ids, {numbers});
  if (problem) return problem;
  run(ids, x, found);
{outputs}
  return 0;
}}
"""
