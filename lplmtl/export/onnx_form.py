"""The `onnx` form: one .onnx file for any runtime of ONNX."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl.export import onnx_ops, onnx_rows, rows
from lplmtl.export.onnx_graph import TYPES, Call, Graph
from lplmtl.export.program import Program
from lplmtl.storage import files
from lplmtl.tables import Tables

# The oldest that has all operators in their present form (ReduceMax with axes
# as an input), and the version of the file that came with it: runtimes since
# 2023 read both.
OPSET = 18
_ML_OPSET = 3
_IR_VERSION = 8


def feed(tables: Tables, columns: Mapping[Any, Any]) -> dict[str, np.ndarray]:
  """Returns raw columns as the inputs of a model with tables.

  Args:
    tables: those that the model was exported with.
    columns: `{column: [N] values}`, as for `tables.encode`.

  Returns:
    `{input: [N, 1]}`, texts or float64; a number that cannot be read is
    infinite.

  Raises:
    ValueError: as for `to_model`.
  """
  return onnx_rows.feed(rows.to_data(tables), columns)


def to_model(program: Program, tables: Tables | None = None) -> Any:
  """Returns a program as an `onnx.ModelProto`.

  Inputs are raw columns, `[N, 1]`: texts, or float64. Without tables they are
  the arrays that the model was trained on, `[N, ...]`; one without a name is
  called `x`. Outputs are `{task: [N, K]}`, all NaN for a row that cannot be
  read: a number is missing where training had none, infinite, or more than a
  billion standard deviations away. N is free.

  Args:
    program: what to write.
    tables: those that the model was trained with; None if it reads arrays.

  Raises:
    ModuleNotFoundError: the package `onnx` is not installed.
    ValueError: the program does not read what the tables encode, there are
      hashed columns, or an input and a task have one name.
  """
  onnx = _package()
  encoding = None
  if tables is not None:
    rows.check(program.inputs, tables)
    encoding = rows.to_data(tables)
  inputs = _inputs(program, encoding)
  outputs = {task: ['N', x.shape[1]] for task, x in program.outputs.items()}
  twice = [task for task in outputs if task in inputs]
  if twice:
    raise ValueError(
      f'an input and a task must not have one name, found {twice}: rename the '
      'task'
    )
  graph = Graph({*inputs, *outputs})
  _fill(graph, program, encoding)
  calls = graph.live(outputs)
  used = {name for call in calls for name in call.operands}
  helper, number = onnx.helper, TYPES['float32']
  content = helper.make_graph(
    [_node(helper, call) for call in calls],
    'lplmtl',
    [helper.make_tensor_value_info(k, *v) for k, v in inputs.items()],
    [helper.make_tensor_value_info(k, number, v) for k, v in outputs.items()],
    [
      onnx.numpy_helper.from_array(array, name)
      for name, array in graph.constants.items()
      if name in used
    ],
  )
  opsets = {'': OPSET} | ({'ai.onnx.ml': _ML_OPSET} if encoding else {})
  return helper.make_model(
    content,
    producer_name='lplmtl',
    ir_version=_IR_VERSION,
    opset_imports=[helper.make_opsetid(*item) for item in opsets.items()],
  )


def _node(helper: Any, call: Call) -> Any:
  return helper.make_node(
    call.kind,
    call.operands,
    call.results,
    name=call.results[0],  # onnxruntime 1.20 fuses nodes by name
    domain=call.domain,
    **call.options,
  )


def write(
  folder: pathlib.Path,
  program: Program,
  tables: Tables | None = None,
  *,
  name: str = 'model',
) -> list[pathlib.Path]:
  """Writes `name.onnx`, completely or not at all; see `to_model`.

  Args:
    folder: must exist.
    program: see `to_model`.
    tables: see `to_model`.
    name: of the file.

  Returns:
    The file, in a list.

  Raises:
    ModuleNotFoundError, ValueError: as for `to_model`.
    OSError: the file cannot be written.
  """
  return save(folder, to_model(program, tables), name=name)


def save(
  folder: pathlib.Path, model: Any, *, name: str = 'model'
) -> list[pathlib.Path]:
  """Writes what `to_model` returned, as `write` does.

  Args:
    folder: must exist.
    model: an `onnx.ModelProto`.
    name: of the file.

  Returns:
    The file, in a list.

  Raises:
    OSError: the file cannot be written.
  """
  content = model.SerializeToString(deterministic=True)
  path = folder / f'{name}.onnx'
  files.write(path, content)
  return [path]


def _package() -> Any:
  """Returns the package `onnx`.

  Raises:
    ModuleNotFoundError: it is not installed.
  """
  try:
    import onnx
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      "the onnx form needs onnx: pip install 'lplmtl[onnx]'"
    ) from error
  return onnx


def _inputs(
  program: Program, encoding: Mapping[str, Any] | None
) -> dict[str, tuple[int, list[Any]]]:
  """Returns `{name: (type, shape)}`."""
  if encoding is None:
    return {
      name or 'x': (TYPES[x.dtype], ['N', *x.shape[1:]])
      for name, x in program.inputs.items()
    }
  return {
    one.name: (TYPES['text' if one.kind == 'category' else 'float64'], ['N', 1])
    for one in onnx_rows.inputs(encoding)
  }


def _fill(
  graph: Graph,
  program: Program,
  encoding: Mapping[str, Any] | None,
) -> None:
  """Adds all nodes."""
  values, readable = {name: name or 'x' for name in program.inputs}, ''
  if encoding is not None:
    values, readable = onnx_rows.encode(graph, encoding)
  found = onnx_ops.outputs(graph, program, values)
  for task, value in found.items():
    axis = graph.constant([1])
    if readable:
      nan = graph.constant(np.nan, np.float32)
      value = graph.add('Squeeze', value, axis)
      graph.add('Where', readable, value, nan, result=task)
    else:
      graph.add('Squeeze', value, axis, result=task)
