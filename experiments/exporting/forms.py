"""The forms of a model: what each is, and how far it is from JAX."""

import functools
import importlib
import importlib.util
import itertools
import pathlib
from collections.abc import (
  Callable,
  Collection,
  Iterator,
  Mapping,
  Sequence,
)
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

from experiments.exporting import notes, packable
from lplmtl import export
from lplmtl.compression import cost, packing
from lplmtl.export import (
  c99,
  c_packed,
  exact,
  meanings,
  numpy_form,
  onnx_form,
  reader,
  rows,
  stablehlo_form,
  tracing,
  vectors,
  web_form,
  web_module,
)
from lplmtl.tables import Tables
from lplmtl.tabular import targets
from lplmtl.tabular.schema import Schema

NUM_ROWS = 1000  # to compare with JAX
_NUM_TESTED = 64  # of the self-test
_GRAPHS = ('c99', 'numpy', 'onnx')

Writer = Callable[..., list[pathlib.Path]]
Columns = Mapping[Any, Any]


class Model(NamedTuple):
  """A model of one seed.

  Attributes:
    model: see `lplmtl.types.Model`; of a Quantized model, the one inside.
    params: of one seed, and rounded for good if they are.
    tables: of its encoder.
    schema: of the table that it was trained on; None if there was none.
    frozen: what `quantization.freeze` returned for a Quantized model, or None.
    num_seeds: of those that were trained.
  """

  model: Any
  params: Any
  tables: Tables
  schema: Schema | None
  frozen: Any
  num_seeds: int = 1

  @property
  def scales(self) -> dict[str, tuple[float, float]]:
    """The mean and standard deviation of each target with a unit."""
    known = self.schema.targets if self.schema else {}
    return {
      name: targets.scale(one)
      for name, one in known.items()
      if one.kind in ('regression', 'count')
    }

  @property
  def meanings(self) -> dict[str, meanings.Meaning]:
    """What the outputs of each task mean."""
    return {
      task.name: meanings.describe(task, *self.scales.get(task.name, ()))
      for task in self.model.tasks
    }


class Form(NamedTuple):
  """A form of a model.

  Attributes:
    write: takes a folder and the name of the files.
    predict: takes raw columns; None if what runs the form is not installed.
    facts: for the report.
  """

  write: Writer
  predict: Callable[[Columns], Mapping[str, Any]] | None
  facts: dict[str, Any]


def prepare(
  found: Model, formats: Collection[str], hash_bits: int
) -> dict[str, Form]:
  """Returns the forms of a model, by format.

  Args:
    found: the model.
    formats: see `writing.export_model`.
    hash_bits: see there.

  Raises:
    ModuleNotFoundError: a form needs a package that is not installed.
    CompilerError: the web page needs a compiler.
    ValueError: the model has no such form.
  """
  made = {}
  has_page = 'web' in formats
  if has_page:
    web_module.check_tools()
  if 'packed' in formats:
    packed = packable.pack(found.model, found.frozen, found.tables, hash_bits)
    made['packed'] = _packed(found, packed)
    if has_page:
      made['web'] = _page(found, packed, made['packed'].predict)
      has_page = False
  if 'stablehlo' in formats:
    made['stablehlo'] = _stablehlo(found)
  graphs = [one for one in formats if one in _GRAPHS]
  if graphs or has_page:
    program = export.trace(
      found.model,
      found.params,
      rows.features(found.tables),
      scales=found.scales,
    )
    program = export.with_codes(program, found.frozen)
    made |= {one: _graph(found, program, one) for one in graphs}
    if has_page:
      data = numpy_form.to_data(program, found.tables)
      made['web'] = _page(
        found, program, functools.partial(exact.predict, data)
      )
  return made


def compare(
  found: Model, made: Mapping[str, Form], sets: Sequence[Columns]
) -> list[dict[str, np.ndarray]]:
  """Returns `{format: [N] differences to JAX}` for each set of raw rows.

  C and WebAssembly do what the NumPy code of their form does, which is what is
  compared.

  Args:
    found: the model.
    made: its forms.
    sets: the raw rows, `{column: [N] values}`, which may differ in N.

  Raises:
    ValueError: the rows cannot be read.
  """
  every = zip(sets, _by_jax(found, sets), strict=True)
  return [
    {
      name: _differences(form.predict(columns), expected, found.scales)
      for name, form in made.items()
      if form.predict
    }
    for columns, expected in every
  ]


def multiply_adds(found: Model) -> int:
  """Returns the multiply-adds of scoring one row."""
  return cost.multiply_adds(
    lambda params, x: found.model.apply({'params': params}, x)[0],
    found.params,
    rows.features(found.tables),
  )


def made_up_rows(
  found: Model, num_rows: int = NUM_ROWS
) -> dict[Any, list[Any]]:
  """Returns raw rows: ordinary, missing, unseen and extreme."""
  return vectors.of_encoding(rows.to_data(found.tables), num_rows)


def _graph(found: Model, program: tracing.Program, name: str) -> Form:
  data = numpy_form.to_data(program, found.tables)
  facts = {'constants': sum(c.nbytes for c in data['constants'])}
  if name == 'onnx':
    model = onnx_form.to_model(program, found.tables)
    write = functools.partial(onnx_form.save, model=model)
    return Form(write, _by_onnx(model, found), facts)
  options: dict[str, Any] = {'program': program, 'tables': found.tables}
  if name == 'numpy':
    write = functools.partial(numpy_form.write, **options)
    return Form(write, functools.partial(reader.predict, data), facts)
  write = functools.partial(c99.write, **options, notes=notes.of(found.schema))
  return Form(write, functools.partial(exact.predict, data), facts)


def _by_onnx(
  model: Any, found: Model
) -> Callable[[Columns], dict[str, Any]] | None:
  """Returns what predicts; None if onnxruntime is not installed."""
  if importlib.util.find_spec('onnxruntime') is None:
    return None
  runtime = importlib.import_module('onnxruntime')
  session = runtime.InferenceSession(
    model.SerializeToString(), providers=['CPUExecutionProvider']
  )
  names = [output.name for output in session.get_outputs()]

  def predict(columns: Columns) -> dict[str, Any]:
    predicted = session.run(names, onnx_form.feed(found.tables, columns))
    return dict(zip(names, predicted, strict=True))

  return predict


def _stablehlo(found: Model) -> Form:
  content = stablehlo_form.serialize(
    found.model, found.params, rows.features(found.tables), scales=found.scales
  )
  program = jax.export.deserialize(bytearray(content))
  return Form(
    functools.partial(
      stablehlo_form.write, content=content, tables=found.tables
    ),
    lambda columns: program.call(found.tables.encode(columns)),
    {},
  )


def _packed(found: Model, packed: packing.Packed) -> Form:
  return Form(
    functools.partial(
      c_packed.write,
      packed=packed,
      columns=made_up_rows(found, _NUM_TESTED),
      meanings=found.meanings,
      notes=notes.of(found.schema),
    ),
    functools.partial(c_packed.predict, packed, meanings=found.meanings),
    {'constants': packed.num_bytes},
  )


def _page(
  found: Model, what: tracing.Program | packing.Packed, predict: Any
) -> Form:
  outputs = notes.outputs(found.schema, found.meanings)
  names = notes.order(found.schema, found.tables)
  if isinstance(what, packing.Packed):
    made_up = made_up_rows(found, 1)
    page = web_form.of_packed(what, made_up, outputs, found.meanings, names)
  else:
    page = web_form.of_program(what, found.tables, outputs, names)
  facts = {'webassembly': page.num_module_bytes}
  return Form(functools.partial(web_form.write, page=page), predict, facts)


def _by_jax(
  found: Model, sets: Sequence[Columns]
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the predictions of JAX for each set of rows; compiles once."""
  links = {
    task.name: meanings.of(task, *found.scales.get(task.name, ()))
    for task in found.model.tasks
  }
  encoded = [found.tables.encode(columns) for columns in sets]
  joined = jax.tree.map(lambda *parts: np.concatenate(parts), *encoded)
  apply = jax.jit(lambda p, x: found.model.apply({'params': p}, x)[0])
  logits = apply(found.params, joined)
  every = {name: np.asarray(link(logits[name])) for name, link in links.items()}
  ends = np.cumsum([len(one['numeric']) for one in encoded])
  for start, end in itertools.pairwise([0, *ends]):
    yield {name: values[start:end] for name, values in every.items()}


def _differences(
  predicted: Mapping[str, Any],
  by_jax: Mapping[str, Any],
  scales: Mapping[str, tuple[float, float]],
) -> np.ndarray:
  """Returns the largest difference to JAX of each row, `[N]`.

  It is relative for numbers above 1, or above the standard deviation of their
  labels, in units of which they were computed.
  """
  every = []
  for name, found in predicted.items():
    expected = np.asarray(by_jax[name]).reshape(found.shape)
    _, unit = scales.get(name, (0.0, 1.0))
    size = np.maximum(np.abs(expected), max(unit, 1.0))
    far = np.abs(found - expected) / size
    every.append(far.reshape(len(far), -1).max(axis=1))
  return np.max(every, axis=0)  # NaN if one is
