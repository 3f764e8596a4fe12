"""The `numpy` form: one .npz file, and a reader that needs NumPy alone."""

import io
import json
import pathlib
from typing import Any

import numpy as np

from lplmtl.export import reader, rows
from lplmtl.export.program import Program
from lplmtl.storage import files
from lplmtl.tables import Tables

READER = 'reader.py'


def to_data(program: Program, tables: Tables | None = None) -> dict[str, Any]:
  """Returns what `reader.run` and `reader.predict` take.

  Values are numbered: the inputs, then the constants, then the operations.

  Args:
    program: what to run.
    tables: those that the model was trained with; None if it reads arrays.

  Raises:
    ValueError: the program does not read what the tables encode.
  """
  if tables is not None:
    rows.check(program.inputs, tables)
  inputs, constants = list(program.inputs.values()), program.constants
  operations = program.operations
  places = {
    id(node): i for i, node in enumerate([*inputs, *constants, *operations])
  }
  return {
    'encoding': None if tables is None else rows.to_data(tables),
    'inputs': {key: x.shape[1:] for key, x in program.inputs.items()},
    'ops': [
      [node.kind, [places[id(x)] for x in node.operands], dict(node.options)]
      for node in operations
    ],
    'outputs': {
      task: places[id(node)] for task, node in program.outputs.items()
    },
    'constants': [node.data for node in constants],
  }


def write(
  folder: pathlib.Path,
  program: Program,
  tables: Tables | None = None,
  *,
  name: str = 'model',
) -> list[pathlib.Path]:
  """Writes `name.npz` and `reader.py`, each completely or not at all.

  Args:
    folder: must exist.
    program: see `to_data`.
    tables: see `to_data`.
    name: of the file.

  Returns:
    The files.

  Raises:
    ValueError: as for `to_data`.
    OSError: a file cannot be written.
  """
  data = to_data(program, tables)
  constants = data['constants']
  data['constants'] = [(str(x.dtype), x.shape) for x in constants]
  # `int`, as JAX gives some sizes as NumPy integers.
  text = json.dumps(data, separators=(',', ':'), default=int).encode()
  # An array each would cost 200 bytes of headers.
  numbers: dict[str, Any] = {
    dtype: np.concatenate(
      [x.ravel() for x in constants if str(x.dtype) == dtype]
    )
    for dtype in sorted({str(x.dtype) for x in constants})
  }
  content = io.BytesIO()
  np.savez_compressed(content, model=np.frombuffer(text, np.uint8), **numbers)
  written = [folder / f'{name}.npz', folder / READER]
  files.write(written[0], content.getvalue())
  files.write(written[1], reader_source())
  return written


def reader_source() -> bytes:
  """Returns the text of `reader.py`."""
  return pathlib.Path(reader.__file__).read_bytes()
