"""Reads a model, writes its forms, and reports their sizes."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.exporting import sizes
from experiments.launcher import files, run_folder
from experiments.launcher.errors import InputError
from lplmtl import checkpoint, export
from lplmtl.compression import packing, quantization
from lplmtl.export import (
  c99,
  c_packed,
  meanings,
  numpy_form,
  reader,
  rows,
  vectors,
)
from lplmtl.tables import Tables
from lplmtl.tabular import targets
from lplmtl.tabular.schema import Schema

REPORT = 'report.json'
_ROWS = 1000  # to compare with JAX


class _Model(NamedTuple):
  """A model of one seed, and the scales of its numbers."""

  model: Any
  params: Any
  tables: Tables
  scales: dict[str, tuple[float, float]]


def export_model(
  source: pathlib.Path,
  target: pathlib.Path,
  formats: tuple[str, ...],
  *,
  name: str,
  seed: int,
) -> str:
  """Writes the forms of a model, and a report.

  Args:
    source: the folder of a run, or of a model.
    target: the folder to write.
    formats: `c99`, `numpy`.
    name: of the files.
    seed: of several, counted from 0.

  Returns:
    The report, as text.

  Raises:
    InputError: the model cannot be read or exported, or the folder not written.
  """
  found = _read(source, seed)
  try:
    program = export.trace(
      found.model,
      found.params,
      rows.features(found.tables),
      scales=found.scales,
    )
    data = numpy_form.to_data(program, found.tables)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    if 'numpy' in formats:
      written += numpy_form.write(target, program, found.tables, name=name)
    if 'c99' in formats:
      written += c99.write(target, program, found.tables, name=name)
    if 'packed' in formats:
      written += _write_packed(found, target, name, data)
  except ValueError as error:
    raise InputError(f'--model={source}: {error}') from error
  except OSError as error:
    raise InputError(
      f'cannot write --to={target} ({error.strerror or error})'
    ) from error
  report = {
    'bytes': {path.name: path.stat().st_size for path in written},
    'constants': sum(c.nbytes for c in data['constants']),
    'largest_difference_to_jax': _difference(found, data),
    'columns': len(data['encoding']['columns']),
  }
  if {'c99', 'packed'} & set(formats):
    report['compiled'] = sizes.of_source(target / f'{name}.c')
  files.write_json(target / REPORT, report)
  return _text(report, target)


def _write_packed(
  found: _Model, target: pathlib.Path, name: str, data: dict[str, Any]
) -> list[pathlib.Path]:
  if not isinstance(found.model, quantization.Quantized):
    raise ValueError(
      'only a model that was trained with few bits can be packed, a '
      f'compression.Quantized; found {type(found.model).__name__}'
    )
  frozen = quantization.freeze(found.model, found.params)
  packed = packing.pack(frozen, found.tables)
  columns = vectors.of_encoding(data['encoding'])
  return c_packed.write(target, packed, columns, name=name)


def _read(source: pathlib.Path, seed: int) -> _Model:
  folder = run_folder.model_of(source)
  try:
    num_seeds = checkpoint.num_seeds(folder)
    if seed >= max(num_seeds, 1):
      raise InputError(
        f'--seed={seed}: the model in {folder} has {max(num_seeds, 1)} of '
        'them, counted from 0'
      )
    model, params, tables = checkpoint.load(
      folder, seed=seed if num_seeds else None
    )
    extra = checkpoint.load_extra(folder)
  except InputError:
    raise
  except ValueError as error:
    raise InputError(f'--model: {error}') from error
  if tables is None:
    raise InputError(
      f'the model in {folder} was saved without tables, so that the shape of '
      'its features is not known: use lplmtl.export.trace'
    )
  scales = {}
  if 'schema' in extra:
    schema = Schema.from_json(extra['schema'])
    scales = {
      name: targets.scale(one)
      for name, one in schema.targets.items()
      if one.kind in ('regression', 'count')
    }
  return _Model(model, params, tables, scales)


def _difference(found: _Model, data: dict[str, Any]) -> float:
  """Returns the largest difference to JAX, relative to numbers above 1."""
  columns = vectors.of_encoding(data['encoding'], _ROWS)
  predicted = reader.predict(data, columns)
  apply = jax.jit(lambda p, x: found.model.apply({'params': p}, x)[0])
  logits = apply(found.params, found.tables.encode(columns))
  largest = 0.0
  for task in found.model.tasks:
    link = meanings.of(task, *found.scales.get(task.name, ()))
    expected = np.asarray(link(logits[task.name])).reshape(_ROWS, -1)
    difference = np.abs(predicted[task.name] - expected)
    largest = max(largest, (difference / np.maximum(np.abs(expected), 1)).max())
  return float(largest)


def _text(report: Mapping[str, Any], target: pathlib.Path) -> str:
  lines = [
    f'{count:>12,} bytes  {target / name}'
    for name, count in report['bytes'].items()
  ]
  lines.append(f'{report["constants"]:>12,} bytes  of constants, unpacked')
  for compiler, parts in report.get('compiled', {}).items():
    listed = ', '.join(f'{n} {size:,}' for n, size in parts.items())
    lines.append(f'{sum(parts.values()):>12,} bytes  by {compiler}: {listed}')
  difference = report['largest_difference_to_jax']
  lines.append(
    f'Largest difference to JAX over {_ROWS:,} rows with missing, unseen and '
    f'extreme values: {difference:.1e}'
  )
  return '\n'.join(lines)
