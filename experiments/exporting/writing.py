"""Reads a model, writes its forms, and reports their sizes."""

import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.exporting import forms, sizes, texts, timing
from experiments.launcher import files, run_folder
from experiments.launcher.errors import InputError
from lplmtl import checkpoint
from lplmtl.compression import encoders, quantization
from lplmtl.export import c_csv, c_files, web_module
from lplmtl.storage import pytrees
from lplmtl.tabular.schema import Schema

REPORT = 'report.json'
DIFFERENCE, FAR_ROWS = texts.DIFFERENCE, texts.FAR_ROWS


class Rows(NamedTuple):
  """Raw rows of a user, to compare with JAX.

  Attributes:
    file: where they are.
    read: returns their columns, and the format of the file, such as
      'comma-separated, utf-8'; takes the texts that mean "missing".
  """

  file: str
  read: Callable[[Sequence[str]], tuple[Mapping[Any, Any], str]]


def export_model(
  source: pathlib.Path,
  target: pathlib.Path,
  formats: Collection[str],
  *,
  name: str,
  seed: int,
  bits: int = 0,
  hash_bits: int = 8,
  test_rows: Rows | None = None,
) -> str:
  """Writes the forms of a model, and a report.

  Args:
    source: the folder of a run, or of a model.
    target: the folder to write.
    formats: of `experiments.export.FORMATS`; not both that write C.
    name: of the files.
    seed: of several, counted from 0.
    bits: to which a model is rounded that was trained without; 0 for none.
    hash_bits: of a packed model's categories, see `packing.pack`.
    test_rows: further rows to compare with JAX.

  Returns:
    The report, as text.

  Raises:
    InputError: the model cannot be read or exported, the rows not read, or the
      folder not written.
  """
  _check(name, target)
  found = read(source, seed, bits)
  given, written_as = _given(found, test_rows) if test_rows else (None, '')
  try:
    made = forms.prepare(found, formats, hash_bits)
    report = _compared(found, made, given)
    if test_rows:
      report['test_data'] |= {'file': test_rows.file, 'format': written_as}
    target.mkdir(parents=True, exist_ok=True)
    written = [p for one in made.values() for p in one.write(target, name=name)]
    if {'c99', 'packed'} & set(formats):
      line = list(given) if given else None
      written += c_csv.write(
        target, found.tables, line, name=name, is_packed='packed' in formats
      )
  except (ModuleNotFoundError, web_module.CompilerError) as error:
    raise InputError(f'--format: {error}') from error
  except ValueError as error:
    raise InputError(f'--model={source}: {error}') from error
  except FileExistsError as error:
    raise InputError(
      f'--to={target} is a file: name a folder, which may be new'
    ) from error
  except OSError as error:
    raise InputError(
      f'cannot write --to={target} ({error.strerror or error})'
    ) from error
  report['seed'] = {'index': seed, 'of': found.num_seeds}
  if bits:
    report['rounded_to_bits'] = bits
  report['bytes'] = {path.name: path.stat().st_size for path in written}
  if {'c99', 'packed'} & set(formats):
    entry = f'{name}_predict'
    report['compiled'] = sizes.of_source(target / f'{name}.c', entry)
    report['seconds_per_row'] = timing.seconds_per_row(target, name)
  files.write_json(target / REPORT, report)
  return texts.of(report, target)


def _check(name: str, target: pathlib.Path) -> None:
  try:
    c_files.check_name(name)
  except ValueError as error:
    raise InputError(f'--name: {error}') from error
  try:
    pytrees.check_outside(target)
  except ValueError as error:
    raise InputError(f'--to: {error}') from error


def _given(
  found: forms.Model, test_rows: Rows
) -> tuple[Mapping[Any, Any], str]:
  """Returns the rows of a user, and the format of their file.

  Raises:
    InputError: the model cannot read them.
  """
  columns, written_as = test_rows.read(found.tables.missing)
  try:
    found.tables.encode(columns)
  except ValueError as error:
    raise InputError(f'--test_data={test_rows.file}: {error}') from error
  return columns, written_as


def _compared(
  found: forms.Model,
  made: Mapping[str, forms.Form],
  given: Mapping[Any, Any] | None,
) -> dict[str, Any]:
  """Returns facts about forms, and how far each is from JAX."""
  columns = forms.made_up_rows(found)
  sets = [columns] if given is None else [columns, given]
  made_up, *others = map(_summary, forms.compare(found, made, sets))
  report: dict[str, Any] = {
    'columns': len(columns),
    'multiply_adds': forms.multiply_adds(found),
    'forms': {
      name: {**form.facts, DIFFERENCE: made_up[DIFFERENCE].get(name)}
      for name, form in made.items()
    },
  }
  if 'packed' in made:
    report['forms']['packed'][FAR_ROWS] = made_up[FAR_ROWS]['packed']
  if given is not None:
    num_rows = len(next(iter(given.values())))
    report['test_data'] = {'rows': num_rows, **others[0]}
  return report


def _summary(differences: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Returns the largest differences, and of packed models how many are far."""
  found: dict[str, Any] = {
    DIFFERENCE: {name: float(x.max()) for name, x in differences.items()}
  }
  if 'packed' in differences:
    is_near = differences['packed'] <= texts.FAR
    found[FAR_ROWS] = {'packed': int((~is_near).sum())}
  return found


def read(source: pathlib.Path, seed: int, bits: int = 0) -> forms.Model:
  """Returns a model to export.

  Args:
    source: the folder of a run, or of a model.
    seed: of several, counted from 0.
    bits: to which it is rounded; 0 for none.

  Raises:
    InputError: there is no such model, or it was trained with few bits and is
      to be rounded.
  """
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
    schema = checkpoint.load_extra(folder).get('schema')
    parsed = None if schema is None else Schema.from_json(schema)
    if bits:
      model, params = _quantized(model, params, bits)
    frozen = None
    if isinstance(model, quantization.Quantized):
      frozen = quantization.freeze(model, params)
      model, params = model.model, quantization.thaw(frozen)
  except InputError:
    raise
  except ValueError as error:
    raise InputError(f'--model: {error}') from error
  if tables is None:
    raise InputError(
      f'the model in {folder} was saved without tables, so that the shape of '
      'its features is not known: use lplmtl.export.trace'
    )
  count = max(num_seeds, 1)
  return forms.Model(model, params, tables, parsed, frozen, count)


def _quantized(
  model: Any, params: Any, bits: int
) -> tuple[quantization.Quantized, Any]:
  if isinstance(model, quantization.Quantized):
    raise InputError(
      f'--bits={bits}: the model was trained with few bits already; leave the '
      'flag out'
    )
  # Sums of rounded steps would be no codes.
  model, params = encoders.fold_steps(model, params)
  return quantization.Quantized(
    model, quantization.Scheme(bits=bits, vector_bits=16)
  ), params
