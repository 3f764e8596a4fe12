"""Reads a model, writes its forms, and reports their sizes."""

import functools
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.exporting import sizes
from experiments.launcher import files, run_folder
from experiments.launcher.errors import InputError
from lplmtl import checkpoint, export
from lplmtl.compression import packing, quantization, reference
from lplmtl.export import (
  c99,
  c_files,
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
_DIFFERENCE = 'largest_difference_to_jax'
_ROWS = 1000  # to compare with JAX
_GRAPHS = {'c99': c99.write, 'numpy': numpy_form.write}


class _Model(NamedTuple):
  """A model of one seed, and the scales of its numbers."""

  model: Any
  params: Any
  tables: Tables
  scales: dict[str, tuple[float, float]]


def export_model(
  source: pathlib.Path,
  target: pathlib.Path,
  formats: Collection[str],
  *,
  name: str,
  seed: int,
  hash_bits: int = 8,
) -> str:
  """Writes the forms of a model, and a report.

  Args:
    source: the folder of a run, or of a model.
    target: the folder to write.
    formats: `c99`, `numpy`, `packed`; not both that write C.
    name: of the files.
    seed: of several, counted from 0.
    hash_bits: of a packed model's categories, see `packing.pack`.

  Returns:
    The report, as text.

  Raises:
    InputError: the model cannot be read or exported, or the folder not written.
  """
  try:
    c_files.check_name(name)
  except ValueError as error:
    raise InputError(f'--name: {error}') from error
  found = _read(source, seed)
  try:
    report, writers = _forms(found, formats, hash_bits)
    target.mkdir(parents=True, exist_ok=True)
    written = [path for one in writers for path in one(target, name=name)]
  except ValueError as error:
    raise InputError(f'--model={source}: {error}') from error
  except OSError as error:
    raise InputError(
      f'cannot write --to={target} ({error.strerror or error})'
    ) from error
  report['bytes'] = {path.name: path.stat().st_size for path in written}
  if {'c99', 'packed'} & set(formats):
    report['compiled'] = sizes.of_source(target / f'{name}.c')
  files.write_json(target / REPORT, report)
  return _text(report, target)


def _forms(
  found: _Model, formats: Collection[str], hash_bits: int
) -> tuple[dict[str, Any], list[Callable[..., list[pathlib.Path]]]]:
  """Returns facts about the forms, and what writes them."""
  encoding = rows.to_data(found.tables)
  columns = vectors.of_encoding(encoding, _ROWS)
  logits = _logits(found, columns)
  report: dict[str, Any] = {'columns': len(encoding['columns'])}
  writers: list[Callable[..., list[pathlib.Path]]] = []
  if 'packed' in formats:
    packed = _packed(found, hash_bits)
    report['packed'] = {
      'constants': packed.num_bytes,
      _DIFFERENCE: _difference(reference.score(packed, columns), logits),
    }
    tested = vectors.of_encoding(encoding)
    writers.append(
      functools.partial(c_packed.write, packed=packed, columns=tested)
    )
  graphs = [_GRAPHS[one] for one in formats if one in _GRAPHS]
  if graphs:
    program = export.trace(
      found.model,
      found.params,
      rows.features(found.tables),
      scales=found.scales,
    )
    data = numpy_form.to_data(program, found.tables)
    links = {
      task.name: meanings.of(task, *found.scales.get(task.name, ()))
      for task in found.model.tasks
    }
    expected = {name: link(logits[name]) for name, link in links.items()}
    report |= {
      'constants': sum(c.nbytes for c in data['constants']),
      _DIFFERENCE: _difference(reader.predict(data, columns), expected),
    }
    writers += [
      functools.partial(write, program=program, tables=found.tables)
      for write in graphs
    ]
  return report, writers


def _packed(found: _Model, hash_bits: int) -> packing.Packed:
  if not isinstance(found.model, quantization.Quantized):
    raise ValueError(
      'only a model that was trained with few bits can be packed, a '
      'compression.Quantized such as compression.compress returns; found '
      f'{type(found.model).__name__}'
    )
  frozen = quantization.freeze(found.model, found.params)
  return packing.pack(frozen, found.tables, hash_bits=hash_bits)


def _read(source: pathlib.Path, seed: int) -> _Model:
  folder = run_folder.model_of(source)
  try:
    num_seeds = checkpoint.num_seeds(folder)
    if seed >= max(num_seeds, 1):
      raise InputError(
        f'--seed_index={seed}: the model in {folder} has {max(num_seeds, 1)} '
        'of them, counted from 0'
      )
    model, params, tables = checkpoint.load(
      folder, seed=seed if num_seeds else None
    )
    scales = _scales(checkpoint.load_extra(folder))
  except InputError:
    raise
  except ValueError as error:
    raise InputError(f'--model: {error}') from error
  if tables is None:
    raise InputError(
      f'the model in {folder} was saved without tables, so that the shape of '
      'its features is not known: use lplmtl.export.trace'
    )
  return _Model(model, params, tables, scales)


def _scales(extra: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
  """Returns the mean and standard deviation of each target with a unit."""
  if 'schema' not in extra:
    return {}
  schema = Schema.from_json(extra['schema'])
  return {
    name: targets.scale(one)
    for name, one in schema.targets.items()
    if one.kind in ('regression', 'count')
  }


def _logits(found: _Model, columns: Mapping[Any, Any]) -> dict[str, Any]:
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


def _text(report: Mapping[str, Any], target: pathlib.Path) -> str:
  lines = [
    f'{count:>12,} bytes  {target / name}'
    for name, count in report['bytes'].items()
  ]
  for compiler, parts in report.get('compiled', {}).items():
    listed = ', '.join(f'{n} {size:,}' for n, size in parts.items())
    lines.append(f'{sum(parts.values()):>12,} bytes  by {compiler}: {listed}')
  rows_like = f'over {_ROWS:,} rows with missing, unseen and extreme values'
  if 'packed' in report:
    facts = report['packed']
    lines += [
      f'{facts["constants"]:>12,} bytes  of constants, packed',
      f'Largest difference of packed logits to JAX {rows_like}: '
      f'{facts[_DIFFERENCE]:.1e} (an unseen text may have the hash of a known '
      'one, a number in float32 another bin)',
    ]
  if _DIFFERENCE in report:
    lines += [
      f'{report["constants"]:>12,} bytes  of constants, unpacked',
      f'Largest difference to JAX {rows_like}: {report[_DIFFERENCE]:.1e}',
    ]
  return '\n'.join(lines)
