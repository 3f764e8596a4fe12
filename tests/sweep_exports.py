"""Exports models of every architecture, and compares all forms with JAX.

    python -m tests.sweep_exports
    python -m tests.sweep_exports --architecture=ple --architecture=mmoe

16 models of each: of 2 to 5 tasks, of every kind in turn, with and without
crosses, with and without bins, with and without composed embeddings, with random
weights of 8 or 4 bits. Over 1,000
rows, of which some are missing, unseen or extreme, NumPy, C and ONNX, of floats
and of codes, predict what JAX does to 1e-5, and C has the bits of its NumPy
reference, compiled without optimisation. One model of each architecture is
compiled by all compilers, with and without optimisation and sanitizers, and for
other processors. `test_export_sweep.py` checks one of the 16.
"""

import collections
import functools
import importlib.util
import itertools
import pathlib
import shutil
import tempfile
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np
from absl import app, flags

import lplmtl
from lplmtl import export, tables, tasks
from lplmtl.compression import quantization
from lplmtl.export import (
  c99,
  codes,
  exact,
  meanings,
  numpy_form,
  onnx_form,
  reader,
  rows,
  vectors,
)
from lplmtl.layers import composed
from tests import contracts, test_export_c99

NUM_ROWS = 1000
KINDS = (
  tasks.binary,
  lambda name: tasks.multiclass(name, 3),
  tasks.regression,
  lambda name: tasks.ordinal(name, 4),
  tasks.poisson,
  lambda name: tasks.multilabel(name, 2),
)
NUM_CASES = 16  # of an architecture
ARCHITECTURES = tuple(contracts.architectures() | contracts.chains())
_RAW = {
  'city': ['Oslo', 'Rome', None, 'Lima', 'Oslo', 'Bonn'],
  'age': [17.0, 35.0, None, 28.0, 44.0, 70.0],
  'gain': [0.0, 1.0, 5000.0, 12.0, 0.0, 99999.0],
}


class Case(NamedTuple):
  """A model to export.

  Attributes:
    architecture: of ARCHITECTURES.
    num_tasks: 2 to 5.
    first_kind: of the first task, among KINDS; the next follow.
    has_crosses: whether inputs are crossed.
    has_bins: whether numbers have bins.
    bits: of the codes.
    seed: of parameters and rows.
  """

  architecture: str
  num_tasks: int
  first_kind: int
  has_crosses: bool
  has_bins: bool
  bits: int
  seed: int


def case(architecture, number):
  """Returns one of NUM_CASES of an architecture, counted from 0."""
  place = ARCHITECTURES.index(architecture)
  num_tasks, crosses, bins = np.unravel_index(number, (4, 2, 2))
  return Case(
    architecture,
    2 + int(num_tasks),
    (place + 5 * number) % len(KINDS),
    bool(crosses),
    bool(bins),
    (8, 4)[(place + number // 4) % 2],
    NUM_CASES * place + number,
  )


@functools.cache
def _tables(has_bins):
  return tables.fit(
    {'city': _RAW['city']},
    {name: _RAW[name] for name in ('age', 'gain')},
    log=['gain'],
    num_bins=4 if has_bins else 0,
    rules=tables.Rules(fill_missing=True),
  )


def model_of(one):
  """Returns the model of a case, and its tables."""
  fitted = _tables(one.has_bins)
  # Every other model composes the embeddings of cities, in one of three ways.
  by = composed.OPERATIONS[one.seed % 3] if one.seed % 2 else None
  encoder = lplmtl.TabularEncoder(
    fitted.num_categories, 2, fitted.num_ordered,
    compose_by=by, compose_above=5, collisions=2,
  )  # fmt: skip
  if one.has_crosses:
    encoder = lplmtl.CrossNetwork(encoder, rank=2, num_layers=1)
  names = [f'task {i}' for i in range(one.num_tasks)]
  kinds = itertools.islice(itertools.cycle(KINDS), one.first_kind, None)
  given = tuple(kind(name) for kind, name in zip(kinds, names, strict=False))
  chain = tuple(map(tasks.binary, names))
  found = contracts.architectures(given, encoder)
  return (found | contracts.chains(encoder, chain))[one.architecture], fitted


class Forms(NamedTuple):
  """What the forms of one model predict.

  Attributes:
    programs: `{floats or codes: program}`.
    tables: of the model.
    columns: raw rows.
    differences: `{form: largest difference}` to JAX, and to the floats of codes.
  """

  programs: dict
  tables: object
  columns: dict
  differences: dict


def forms(one, has_logits=False):
  """Returns the forms of a case, compared with JAX.

  Args:
    one: the case.
    has_logits: whether logits are compared as well.
  """
  model, fitted = model_of(one)
  features = rows.features(fitted)
  quantized = quantization.Quantized(model, quantization.Scheme(bits=one.bits))
  params = contracts.random_params(quantized, features, one.seed)
  frozen = quantization.freeze(quantized, params)
  params = quantization.thaw(frozen)
  floats = export.trace(model, params, features)
  with mock.patch.object(codes, 'FEW', 1):  # models are small
    programs = {'floats': floats, 'codes': export.with_codes(floats, frozen)}
  columns = vectors.of_encoding(rows.to_data(fitted), NUM_ROWS, one.seed)
  encoded = fitted.encode(columns)
  apply = jax.jit(lambda p, x: model.apply({'params': p}, x)[0])
  logits = apply(params, encoded)
  expected = {t.name: meanings.of(t)(logits[t.name]) for t in model.tasks}
  counts = [t.name for t in model.tasks if meanings.describe(t).kind == 'count']
  found = {}
  for name, program in programs.items():
    data = numpy_form.to_data(program, fitted)
    found[f'NumPy, {name}'] = reader.predict(data, columns)
    found[f'C, {name}'] = exact.predict(data, columns)
    if importlib.util.find_spec('onnxruntime'):
      found[f'ONNX, {name}'] = _by_onnx(program, fitted, columns)
  differences = {
    form: _difference(predicted, expected, counts)
    for form, predicted in found.items()
  }
  if has_logits:
    program = export.trace(model, params, features, logits=True)
    data = numpy_form.to_data(program, fitted)
    by_reader, by_c = (
      reader.predict(data, columns),
      exact.predict(data, columns),
    )
    differences['logits, NumPy'] = _of_norm(by_reader, logits)
    differences['logits, C'] = _of_norm(by_c, logits)
  return Forms(programs, fitted, columns, differences)


def _by_onnx(program, fitted, columns):
  runtime = importlib.import_module('onnxruntime')
  model = onnx_form.to_model(program, fitted)
  importlib.import_module('onnx').checker.check_model(model, full_check=True)
  session = runtime.InferenceSession(model.SerializeToString())
  names = list(program.outputs)
  found = session.run(names, onnx_form.feed(fitted, columns))
  return dict(zip(names, found, strict=True))


def _difference(found, expected, counts):
  """Returns the largest difference.

  It is relative for numbers above 1; of counts, which are e^logit, by the logit
  as well, in which they are relative.
  """
  largest = 0.0
  for name, values in expected.items():
    by_jax = np.asarray(values, np.float64)
    size = np.maximum(np.abs(by_jax), 1)
    if name in counts:
      size *= np.maximum(np.log(size), 1)
    largest = np.maximum(largest, (np.abs(found[name] - by_jax) / size).max())
  return float(largest)  # NaN if one is


def _of_norm(found, expected):
  """Returns the largest difference of a task's logits, by their norm."""
  largest = 0.0
  for name, values in expected.items():
    by_jax = np.asarray(values, np.float64)
    distance = np.linalg.norm(found[name] - by_jax)
    largest = np.maximum(largest, distance / np.linalg.norm(by_jax))
  return float(largest)


def check(one, made):
  """Raises AssertionError if a form is not close to JAX.

  Codes are added before they are scaled, and so rounded at other places. Where
  scores of gates are in the hundreds, as those of crossed extreme rows are,
  gates have fewer digits: logits may differ by more than 1e-6 of their norm.
  """
  far = {
    form: value
    for form, value in made.differences.items()
    if not value <= (2e-5 if 'codes' in form else 1e-5)
  }
  assert not far, f'{one}: {far}'
  # Steps of bins are added beforehand, and factors of a tensor multiplied.
  floats = {
    'matmul': one.architecture == 'tensor_factorization',
    'gather': one.has_bins,
  }
  for kind, place in ('matmul', 1), ('gather', 0):
    weights = [
      x.operands[place]
      for x in made.programs['codes'].operations
      if x.kind == kind and x.operands[place].data is not None
    ]
    found = {x.dtype for x in weights if x.data.ndim > 1}
    assert found == {'int8', *['float32'] * floats[kind]}, (one, kind)


def compile_c(made, folder, ways):
  """Compiles the C of floats and of codes, and runs their self-tests.

  Args:
    made: the forms.
    folder: to write to.
    ways: `(compiler, options, runner)` of each run.
  """
  for program in made.programs.values():
    c99.write(folder, program, made.tables, columns=made.columns)
    for compiler, options, runner in ways:
      found = test_export_c99.check(
        folder, *options, compiler=compiler, runner=runner
      )
      assert f'{NUM_ROWS} rows, largest difference 0.0e+00' in found, found


def ways():
  """How to compile and run: `(compiler, options, runner)` of each way."""
  levels = ('-O0',), ('-O3',), ('-O1', *test_export_c99.SANITIZERS)
  every = itertools.product(test_export_c99.COMPILERS, levels)
  others = [
    (compiler, options, runner)
    for compiler, options, runner in test_export_c99.TARGETS.values()
    if all(map(shutil.which, (compiler, *runner)))
  ]
  return [*((compiler, options, ()) for compiler, options in every), *others]


def main(_):
  """Prints the largest difference of each form."""
  largest = collections.Counter()
  asked = ONLY.value or ARCHITECTURES
  for architecture, number in itertools.product(asked, range(NUM_CASES)):
    one = case(architecture, number)
    made = forms(one, has_logits=True)
    print(one, made.differences, flush=True)
    check(one, made)
    # Another one of each architecture.
    is_whole = number == ARCHITECTURES.index(architecture) % NUM_CASES
    with tempfile.TemporaryDirectory() as folder:
      compile_c(made, pathlib.Path(folder), ways() if is_whole else ways()[:1])
    largest |= collections.Counter(made.differences)
  print(f'{len(asked) * NUM_CASES} models, largest differences to JAX:')
  for form, value in largest.items():
    print(f'  {value:.1e}  {form}')


if __name__ == '__main__':
  ONLY = flags.DEFINE_multi_enum(
    'architecture', [], ARCHITECTURES, 'One of them, or several; else all.'
  )
  app.run(main)
