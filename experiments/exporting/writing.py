"""Reads a model, writes its forms, and reports their sizes."""

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from experiments.exporting import forms, sizes
from experiments.launcher import files, run_folder
from experiments.launcher.errors import InputError
from lplmtl import checkpoint
from lplmtl.export import c_files
from lplmtl.tabular import targets
from lplmtl.tabular.schema import Schema

REPORT = 'report.json'


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
    formats: of `experiments.export.FORMATS`; not both that write C.
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
    report, writers = forms.prepare(found, formats, hash_bits)
    target.mkdir(parents=True, exist_ok=True)
    written = [path for one in writers for path in one(target, name=name)]
  except ModuleNotFoundError as error:
    raise InputError(f'--format: {error}') from error
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


def _read(source: pathlib.Path, seed: int) -> forms.Model:
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
  return forms.Model(model, params, tables, scales)


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


def _text(report: Mapping[str, Any], target: pathlib.Path) -> str:
  lines = [
    f'{count:>12,} bytes  {target / name}'
    for name, count in report['bytes'].items()
  ]
  for compiler, parts in report.get('compiled', {}).items():
    listed = ', '.join(f'{n} {size:,}' for n, size in parts.items())
    lines.append(f'{sum(parts.values()):>12,} bytes  by {compiler}: {listed}')
  rows_like = (
    f'over {forms.NUM_ROWS:,} rows with missing, unseen and extreme values'
  )
  if 'packed' in report:
    facts = report['packed']
    lines += [
      f'{facts["constants"]:>12,} bytes  of constants, packed',
      f'Largest difference of packed logits to JAX {rows_like}: '
      f'{facts[forms.DIFFERENCE]:.1e} (an unseen text may have the hash of a '
      'known one, a number in float32 another bin)',
    ]
  if 'constants' in report:
    count = report['constants']
    lines.append(f'{count:>12,} bytes  of constants, unpacked')
  forms_of = {'NumPy': report, 'ONNX': report.get('onnx', {})}
  forms_of['StableHLO'] = report.get('stablehlo', {})
  differences = [
    f'{title} {facts[forms.DIFFERENCE]:.1e}'
    for title, facts in forms_of.items()
    if forms.DIFFERENCE in facts
  ]
  if differences:
    lines.append(
      f'Largest difference to JAX {rows_like}: {", ".join(differences)}'
    )
  if 'onnx' in report and not report['onnx']:
    lines.append('ONNX was not compared, as onnxruntime is not installed')
  return '\n'.join(lines)
