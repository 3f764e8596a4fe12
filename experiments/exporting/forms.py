"""The forms of a model: what each is, and how far it is from JAX."""

import functools
import importlib
import importlib.util
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

from lplmtl import export
from lplmtl.compression import packing, quantization, reference
from lplmtl.export import (
  c99,
  c_packed,
  meanings,
  numpy_form,
  onnx_form,
  reader,
  rows,
  stablehlo_form,
  vectors,
)
from lplmtl.tables import Tables

DIFFERENCE = 'largest_difference_to_jax'
NUM_ROWS = 1000  # to compare with JAX
_GRAPHS = {
  'c99': c99.write,
  'numpy': numpy_form.write,
  'onnx': onnx_form.write,
}

Writer = Callable[..., list[pathlib.Path]]
Columns = Mapping[Any, Any]


class Model(NamedTuple):
  """A model of one seed, and the scales of its numbers."""

  model: Any
  params: Any
  tables: Tables
  scales: dict[str, tuple[float, float]]


def prepare(
  found: Model, formats: Collection[str], hash_bits: int
) -> tuple[dict[str, Any], list[Writer]]:
  """Returns facts about the forms, and what writes them.

  Args:
    found: the model.
    formats: see `writing.export_model`.
    hash_bits: see there.

  Returns:
    `(report, writers)`: a writer takes a folder and the name of the files.

  Raises:
    ModuleNotFoundError: a form needs a package that is not installed.
    ValueError: the model has no such form.
  """
  encoding = rows.to_data(found.tables)
  columns = vectors.of_encoding(encoding, NUM_ROWS)
  logits = _logits(found, columns)
  links = {
    task.name: meanings.of(task, *found.scales.get(task.name, ()))
    for task in found.model.tasks
  }
  expected = {name: link(logits[name]) for name, link in links.items()}
  report: dict[str, Any] = {'columns': len(encoding['columns'])}
  writers: list[Writer] = []
  if 'packed' in formats:
    packed = _packed(found, hash_bits)
    report['packed'] = {
      'constants': packed.num_bytes,
      DIFFERENCE: _difference(reference.score(packed, columns), logits),
    }
    tested = vectors.of_encoding(encoding)
    writers.append(
      functools.partial(c_packed.write, packed=packed, columns=tested)
    )
  if 'stablehlo' in formats:
    content = stablehlo_form.serialize(
      found.model,
      found.params,
      rows.features(found.tables),
      scales=found.scales,
    )
    report['stablehlo'] = {
      DIFFERENCE: _difference(_by_stablehlo(content, found, columns), expected)
    }
    writers.append(
      functools.partial(
        stablehlo_form.write, content=content, tables=found.tables
      )
    )
  graphs = [one for one in formats if one in _GRAPHS]
  if graphs:
    facts, more = _of_graphs(found, graphs, columns, expected)
    report |= facts
    writers += more
  return report, writers


def _of_graphs(
  found: Model,
  formats: Collection[str],
  columns: Columns,
  expected: Mapping[str, Any],
) -> tuple[dict[str, Any], list[Writer]]:
  """Returns facts about the forms made of one graph, and what writes them."""
  encoded = rows.features(found.tables)
  program = export.trace(
    found.model, found.params, encoded, scales=found.scales
  )
  data = numpy_form.to_data(program, found.tables)
  report: dict[str, Any] = {
    'constants': sum(c.nbytes for c in data['constants']),
    DIFFERENCE: _difference(reader.predict(data, columns), expected),
  }
  writers = {
    name: functools.partial(write, program=program, tables=found.tables)
    for name, write in _GRAPHS.items()
  }
  if 'onnx' in formats:
    frozen = (
      quantization.freeze(found.model, found.params)
      if isinstance(found.model, quantization.Quantized)
      else None
    )
    writers['onnx'] = functools.partial(writers['onnx'], frozen=frozen)
    model = onnx_form.to_model(program, found.tables, frozen=frozen)
    predicted = _by_onnx(model, found, columns)
    report['onnx'] = {}
    if predicted is not None:
      report['onnx'][DIFFERENCE] = _difference(predicted, expected)
  return report, [writers[name] for name in formats]


def _by_onnx(model: Any, found: Model, columns: Columns) -> Any:
  """Returns predictions; None if onnxruntime is not installed."""
  if importlib.util.find_spec('onnxruntime') is None:
    return None
  runtime = importlib.import_module('onnxruntime')
  session = runtime.InferenceSession(
    model.SerializeToString(), providers=['CPUExecutionProvider']
  )
  names = [output.name for output in session.get_outputs()]
  predicted = session.run(names, onnx_form.feed(found.tables, columns))
  return dict(zip(names, predicted, strict=True))


def _by_stablehlo(content: bytes, found: Model, columns: Columns) -> Any:
  program = jax.export.deserialize(bytearray(content))
  return program.call(found.tables.encode(columns))


def _packed(found: Model, hash_bits: int) -> packing.Packed:
  if not isinstance(found.model, quantization.Quantized):
    raise ValueError(
      'only a model that was trained with few bits can be packed, a '
      'compression.Quantized such as compression.compress returns; found '
      f'{type(found.model).__name__}'
    )
  frozen = quantization.freeze(found.model, found.params)
  return packing.pack(frozen, found.tables, hash_bits=hash_bits)


def _logits(found: Model, columns: Mapping[Any, Any]) -> dict[str, Any]:
  apply = jax.jit(lambda p, x: found.model.apply({'params': p}, x)[0])
  logits = apply(found.params, found.tables.encode(columns))
  return {task.name: logits[task.name] for task in found.model.tasks}


def _difference(
  predicted: Mapping[str, Any], by_jax: Mapping[str, Any]
) -> float:
  """Returns the largest difference to JAX, relative to numbers above 1."""
  largest = [0.0]
  for name, found in predicted.items():
    expected = np.asarray(by_jax[name]).reshape(found.shape)
    difference = np.abs(found - expected)
    largest.append((difference / np.maximum(np.abs(expected), 1)).max())
  return float(np.max(largest))  # NaN if one is
