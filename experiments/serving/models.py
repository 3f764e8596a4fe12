"""A saved model, ready to predict: raw columns in, predictions by name out."""

import dataclasses
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments.launcher.errors import InputError
from experiments.serving import describing
from lplmtl import checkpoint
from lplmtl.compression import quantization
from lplmtl.export import meanings, rows
from lplmtl.storage import files, folders
from lplmtl.tables import Tables
from lplmtl.tabular import targets
from lplmtl.tabular.schema import Schema, Target, label_columns
from lplmtl.types import Array, PyTree, Task

# Rows per call of the compiled program. Always as many, as a program of another
# size rounds differently: a row gets the same bits alone and among others, and
# nothing is compiled after the start. On a CPU, a call for 16 rows takes at
# most twice as long as one for a single row, and a row in it twice as long as
# among 1,024.
BATCH = 16
# What `lplmtl.export.meanings` calls the outputs of a task, and the target that
# `targets.mean_outputs` reads alike.
_LIKE = {
  'decisions': Target('multilabel'),
  'classes': Target('multiclass'),
  'ordered classes': Target('ordinal'),
  'count': Target('count', mean=1.0),
  'number': Target('regression', mean=0.0, std=1.0),
}
_ROLES = ('weight', 'split', 'time', 'group')  # columns of a schema

Logits = Mapping[str, np.ndarray]
Predictions = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Served:
  """A model that predicts.

  Attributes:
    model: the module; of a Quantized model, the one inside.
    tables: encode raw columns.
    schema: of the table that it was trained on; None if there was none.
    num_seeds: S; predictions are means over them.
    version: the first digits of a checksum of its files.
    program: takes BATCH encoded rows, returns `{task: [S, BATCH, K]}`.
  """

  model: Any
  tables: Tables
  schema: Schema | None
  num_seeds: int
  version: str
  program: Callable[[Mapping[str, np.ndarray]], Mapping[str, Array]]

  @functools.cached_property
  def needed(self) -> frozenset[str]:
    """The columns that a row must have."""
    return frozenset(map(str, self.tables.columns))

  @functools.cached_property
  def known(self) -> frozenset[str]:
    """Those that it may have: all of the table, also targets and the like."""
    if self.schema is None:
      return self.needed
    labels = itertools.starmap(label_columns, self.schema.targets.items())
    roles = (getattr(self.schema, name) for name in _ROLES)
    others = (*itertools.chain(*labels), *self.schema.task_weights.values())
    names = (*self.schema.inputs, *others, *roles)
    return self.needed | frozenset(str(name) for name in names if name != '')

  @functools.cached_property
  def example(self) -> tuple[dict[str, Any], dict[str, Any]]:
    """An ordinary row, and its predictions.

    Raises:
      ValueError, KeyError: the model does not fit its tables or schema.
    """
    row = describing.example(self.tables)
    found = self.predict({name: [value] for name, value in row.items()})
    return {str(k): value for k, value in row.items()}, to_rows(found)[0]

  @property
  def kinds(self) -> dict[str, str]:
    """`{task: its kind}`, as a schema calls it."""
    if self.schema is not None:
      return {name: one.kind for name, one in self.schema.targets.items()}
    return {task.name: _kind(task) for task in self.model.tasks}

  def predict(self, columns: Mapping[Any, Any]) -> Predictions:
    """Predicts rows; each gets the same bits whatever arrives with it.

    Args:
      columns: `{column: [N] raw values}`, those of `tables.columns`.

    Returns:
      `{name: [N]}`: of a model of a table what `tabular.Predictor.predict`
      returns; else what an exported one returns, `{task: [N]}` of probabilities
      and numbers, `[N, K]` if there are K > 1.

    Raises:
      ValueError: as for `Tables.encode`.
    """
    return self.predict_encoded(self.tables.encode(columns))

  def predict_encoded(self, features: Mapping[str, np.ndarray]) -> Predictions:
    """Predicts what `Tables.encode` returned; see `predict`."""
    count = len(features['numeric'])
    padding = max(-count % BATCH, BATCH * (not count))
    padded = {k: _padded(x, padding) for k, x in features.items()}
    chunks = jax.device_get(
      [
        self.program({k: x[i : i + BATCH] for k, x in padded.items()})
        for i in range(0, count + padding, BATCH)
      ]
    )
    logits = {
      task: np.concatenate([chunk[task] for chunk in chunks], axis=1)
      for task in chunks[0]
    }
    return {k: x[:count] for k, x in self._decode(logits).items()}

  def _decode(self, logits: Logits) -> Predictions:
    if self.schema is not None:
      return targets.decode(self.schema, logits)
    found = {}
    for task in self.model.tasks:
      like = _LIKE[meanings.describe(task).kind]
      values = targets.mean_outputs(like, logits[task.name])
      found[task.name] = values[:, 0] if values.shape[1] == 1 else values
    return found


def to_rows(found: Predictions) -> list[dict[str, Any]]:
  """Returns predictions as JSON data, a dict for each row."""
  columns = [values.tolist() for values in found.values()]
  return [
    dict(zip(found, row, strict=True)) for row in zip(*columns, strict=True)
  ]


def load(folder: pathlib.Path) -> Served:
  """Reads and compiles a model, and has it predict a row.

  Args:
    folder: of the model, see `run_folder.model_of`.

  Raises:
    InputError: it is no model, damaged, or cannot predict raw rows.
  """
  version = _version(folder)
  try:
    has_seeds = checkpoint.num_seeds(folder) > 0
    model, params, tables = checkpoint.load(folder)
    found = checkpoint.load_extra(folder).get('schema')
    schema = None if found is None else Schema.from_json(found)
    if not has_seeds:
      params = jax.tree.map(lambda x: x[None], params)
    if isinstance(model, quantization.Quantized):
      model, params = model.model, _rounded(model, params)
  except ValueError as error:
    raise InputError(str(error)) from error
  if tables is None:
    raise InputError(
      f'the model in {folder} was saved without tables, so that it cannot read '
      'raw rows: save it with checkpoint.save(..., tables)'
    )
  if _version(folder) != version:
    raise InputError(f'the model in {folder} was replaced while it was read')
  num_seeds = len(jax.tree.leaves(params)[0])
  program = _compiled(model, params, tables)
  served = Served(model, tables, schema, num_seeds, version, program)
  _check(served, folder)
  return served


def _version(folder: pathlib.Path) -> str:
  """Returns 12 digits of a checksum of all files of a model, '' without one."""
  try:
    content = files.read(folder / folders.CHECKSUMS)
  except OSError:
    return ''
  return hashlib.sha256(content).hexdigest()[:12]


def _rounded(model: quantization.Quantized, params: PyTree) -> PyTree:
  """Returns parameters that are rounded for good, as an exported model has."""
  seeds = range(len(jax.tree.leaves(params)[0]))
  ones = [jax.tree.map(lambda x, s=s: x[s], params) for s in seeds]
  thawed = [quantization.thaw(quantization.freeze(model, one)) for one in ones]
  return jax.tree.map(lambda *x: np.stack(x), *thawed)


def _compiled(model: Any, params: PyTree, tables: Tables) -> Any:
  # As constants, which takes half the time of parameters that are given in each
  # call: JAX computes what depends on nothing else while compiling.
  constants = jax.device_get(params)

  def logits(features: PyTree) -> PyTree:
    return jax.vmap(lambda one: model.apply({'params': one}, features)[0])(
      constants
    )

  zeros = {
    name: np.zeros((BATCH, *x.shape[1:]), x.dtype)
    for name, x in rows.features(tables).items()
  }
  return jax.jit(logits).lower(zeros).compile()


def _check(served: Served, folder: pathlib.Path) -> None:
  """Raises InputError unless a model predicts finite numbers."""
  try:
    predictions = served.example[1].values()
  except (ValueError, KeyError) as error:
    raise InputError(
      f'the model in {folder} does not fit its tables or its schema: {error}'
    ) from error
  numbers = [x for x in predictions if isinstance(x, float | list)]
  if not all(np.isfinite(x).all() for x in numbers):
    raise InputError(
      f'the model in {folder} predicts numbers that are not finite: train it '
      'again'
    )


def _padded(x: np.ndarray, count: int) -> np.ndarray:
  """Appends rows of zeros: the id 0 is in every table."""
  return np.concatenate([x, np.zeros((count, *x.shape[1:]), x.dtype)])


def _kind(task: Task) -> str:
  kind = _LIKE[meanings.describe(task).kind].kind
  is_single = kind == 'multilabel' and task.num_outputs == 1
  return 'binary' if is_single else kind
