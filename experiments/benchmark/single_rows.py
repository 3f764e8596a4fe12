"""What scores single rows: a network in all its forms, and trees as good.

Each contestant takes the same rows in turn.
"""

import importlib
import importlib.util
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmark import compiled, tree_onnx
from experiments.benchmark.equal_trees import Trees
from experiments.exporting import forms
from experiments.launcher.errors import InputError
from lplmtl import export
from lplmtl.export import c99, numpy_form, onnx_form, reader, rows
from lplmtl.export.program import Program
from lplmtl.training import evaluation

LEVELS = ('-O2', '-O3')
NUM_ROWS = 256  # taken in turn: too many for caches to hold what one row needs
ENCODED, RAW = 'encoded', 'raw'
FLOAT = 'float'


class Contestant(NamedTuple):
  """What scores rows.

  Attributes:
    name: in tables.
    reads: ENCODED or RAW rows.
    run: scores `count` rows from the `first` on, and begins again after the
      last.
  """

  name: str
  reads: str
  run: Callable[[int, int], Any]


def check() -> None:
  """Raises InputError if a compiler, onnx or onnxruntime is missing."""
  compiled.check()
  for name, fix in (
    ('onnx', "pip install 'lplmtl[onnx]'"),
    ('onnxruntime', 'pip install onnxruntime'),
  ):
    if importlib.util.find_spec(name) is None:
      raise InputError(f'onnxruntime is a contestant, and needs {name}: {fix}')


def network(
  models: Mapping[str, forms.Model], features: Any, folder: pathlib.Path
) -> Iterator[Contestant]:
  """Yields the contestants of a network.

  Args:
    models: by their kind of weights; the first are FLOAT.
    features: encoded rows, `{feature: [N, ...]}`. Raw rows are made up from the
      tables: ordinary, missing and unseen values, as in the export's report.
    folder: for files.
  """
  singles = _singles(features)
  raw = forms.made_up_rows(models[FLOAT], NUM_ROWS)
  predict = evaluation.make_predictor(models[FLOAT].model, models[FLOAT].params)
  yield _calls(
    'JAX, make_predictor',
    ENCODED,
    lambda row: jax.tree.map(np.asarray, predict(row)),
    singles,
  )
  for weights, found in models.items():
    program = _program(found)
    for reads, tables, columns in (
      (ENCODED, None, features),
      (RAW, found.tables, raw),
    ):
      name = f'{reads}_{weights.replace(" ", "_")}'
      c99.write(folder, program, tables, name=name, columns=columns)
      for level in LEVELS:
        loop = compiled.model(folder, name, level)
        yield Contestant(f'C {level}, {weights}', reads, loop)
        if reads == ENCODED and level == LEVELS[-1]:
          called = f'C {level}, {weights}, called from Python'
          yield Contestant(called, reads, _one_by_one(loop))
    yield from _interpreted(found, program, weights, singles, _singles(raw))


def trees(
  grown: Mapping[str, Trees], folder: pathlib.Path
) -> Iterator[Contestant]:
  """Yields the contestants of trees; a row is scored for all tasks.

  Args:
    grown: by task.
    folder: for files.
  """
  boosters = {name: one.booster for name, one in grown.items()}
  inputs = next(iter(grown.values())).inputs[:NUM_ROWS]
  singles = [inputs[i : i + 1] for i in range(len(inputs))]
  yield _calls(
    'trees, LightGBM, predict',
    ENCODED,
    lambda row: [one.predict(row, num_threads=1) for one in boosters.values()],
    singles,
  )
  loop = compiled.trees(folder, list(boosters.values()), inputs)
  yield Contestant('trees, LightGBM, C', ENCODED, loop)
  called = 'trees, LightGBM, C, called from Python'
  yield Contestant(called, ENCODED, _one_by_one(loop))
  session = _session(tree_onnx.to_model(boosters, inputs.shape[1]))
  yield _calls(
    'trees, onnxruntime',
    ENCODED,
    lambda row: session.run(None, row),
    [{'x': row} for row in singles],
  )


def _program(found: forms.Model) -> Program:
  program = export.trace(
    found.model, found.params, rows.features(found.tables), scales=found.scales
  )
  return export.with_codes(program, found.frozen)


def _interpreted(
  found: forms.Model,
  program: Program,
  weights: str,
  encoded: Sequence[Any],
  raw: Sequence[Any],
) -> Iterator[Contestant]:
  """Yields NumPy and onnxruntime, for encoded rows and for raw ones."""
  for reads, tables, some in (
    (ENCODED, None, encoded),
    (RAW, found.tables, raw),
  ):
    data = numpy_form.to_data(program, tables)
    yield _calls(f'NumPy, {weights}', reads, _by_reader(data), some)
    session = _session(onnx_form.to_model(program, tables))
    names = [one.name for one in session.get_inputs()]
    feeds = [
      onnx_form.feed(tables, row)
      if tables
      else {name: row[name] for name in names}
      for row in some
    ]
    yield _calls(f'onnxruntime, {weights}', reads, _by_session(session), feeds)


def _by_reader(data: dict[str, Any]) -> Callable[[Any], Any]:
  return lambda row: reader.predict(data, row)


def _by_session(session: Any) -> Callable[[Any], Any]:
  return lambda feed: session.run(None, feed)


def _session(model: Any) -> Any:
  """Returns a session of one thread, which makes floats of codes at once."""
  runtime = importlib.import_module('onnxruntime')
  options = runtime.SessionOptions()
  options.intra_op_num_threads = 1
  options.add_session_config_entry('session.disable_quant_qdq', '1')
  return runtime.InferenceSession(
    model.SerializeToString(), options, providers=['CPUExecutionProvider']
  )


def _singles(columns: Mapping[Any, Any]) -> list[dict[Any, Any]]:
  """Returns rows, each with an axis of one row."""
  count = min(NUM_ROWS, len(next(iter(columns.values()))))
  return [
    {name: values[i : i + 1] for name, values in columns.items()}
    for i in range(count)
  ]


def _calls(
  name: str, reads: str, call: Callable[[Any], Any], singles: Sequence[Any]
) -> Contestant:
  """Returns what is called from Python, row by row."""

  def run(first: int, count: int) -> None:
    for i in range(first, first + count):
      call(singles[i % len(singles)])

  return Contestant(name, reads, run)


def _one_by_one(loop: compiled.Loop) -> compiled.Loop:
  """Returns a loop in Python, with a call for each row."""

  def run(first: int, count: int) -> int:
    problems = 0
    for i in range(first, first + count):
      problems |= loop(i, 1)
    return problems

  return run
