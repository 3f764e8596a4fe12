"""The `stablehlo` form: a program for any device that JAX knows, in one file.

It needs JAX, but neither lplmtl nor Flax. StableHLO has no texts: the file
takes encoded rows, and the encoding lies beside it.
"""

import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.export  # jax 0.7 does not import it by itself

from lplmtl.export import numpy_form, rows, tracing
from lplmtl.storage import files
from lplmtl.tables import Tables
from lplmtl.types import PyTree

PLATFORMS = ('cpu', 'cuda', 'tpu')


def serialize(
  model: Any,
  params: PyTree,
  features: PyTree,
  *,
  scales: Mapping[str, tuple[float, float]] | None = None,
  logits: bool = False,
  platforms: Sequence[str] = PLATFORMS,
) -> bytes:
  """Returns what `jax.export.deserialize` reads.

  That maps encoded rows, `[N, ...]` with any N, to predictions,
  `{task: [N, K]}`; see `meanings.of`. It is made by JAX, not from the graph of
  `trace`, so that any operation can be exported.

  Args:
    model: see `export.trace`.
    params: its parameters, of one seed, which become constants.
    features: rows to read shapes from, `[N, ...]`, an array or a dict of
      arrays.
    scales: `{task: (mean, std)}` of labels that were standardised.
    logits: see `export.trace`.
    platforms: where it shall run, by the names of `jax.export.export`.

  Raises:
    ModuleNotFoundError: FlatBuffers is not installed.
    UnsupportedError: JAX has no such operation on one of the platforms, or none
      for any number of rows.
    ValueError: the arguments are no model, parameters and features.
  """
  if importlib.util.find_spec('flatbuffers') is None:
    raise ModuleNotFoundError(
      "the stablehlo form needs FlatBuffers: pip install 'lplmtl[stablehlo]'"
    )
  names, predict, row = tracing.inference(
    model, params, features, scales, logits=logits
  )

  def run(features: Any) -> dict[str, Any]:
    parts = [features] if names == [''] else [features[name] for name in names]
    found = predict(*parts)
    return {task: x.reshape(x.shape[0], -1) for task, x in found.items()}

  (num_rows,) = jax.export.symbolic_shape('N')
  shapes = [
    jax.ShapeDtypeStruct(
      (num_rows, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype)
    )
    for x in row
  ]
  inputs = shapes[0] if names == [''] else dict(zip(names, shapes, strict=True))
  try:
    exported = jax.export.export(jax.jit(run), platforms=platforms)(inputs)
  except Exception as error:  # modules and lowerings may raise any
    reason = str(error).strip().splitlines()[0]
    raise tracing.UnsupportedError(
      f'JAX cannot export the model for {", ".join(platforms)} and any number '
      f'of rows: {reason}'
    ) from error
  return bytes(exported.serialize())


def write(
  folder: pathlib.Path,
  content: bytes,
  tables: Tables | None = None,
  *,
  name: str = 'model',
) -> list[pathlib.Path]:
  """Writes `name.stablehlo`, and `name_encoding.json` and `reader.py`.

  Each is written completely or not at all.

  Args:
    folder: must exist.
    content: from `serialize`.
    tables: those that the model was trained with; None if it reads arrays,
      which need no encoding.
    name: of the files.

  Returns:
    The files.

  Raises:
    ValueError: `tables` are something else.
    OSError: a file cannot be written.
  """
  contents = {f'{name}.stablehlo': content}
  if tables is not None:
    encoding = json.dumps(rows.to_data(tables), default=int)
    contents[f'{name}_encoding.json'] = encoding.encode()
    contents[numpy_form.READER] = numpy_form.reader_source()
  for file, data in contents.items():
    files.write(folder / file, data)
  return [folder / file for file in contents]
