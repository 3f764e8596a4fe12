"""A trained model of a table: a frame in, predictions by name out."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from lplmtl import blueprint, checkpoint, inspection
from lplmtl.storage import folders
from lplmtl.storage.errors import CheckpointError
from lplmtl.tables import Tables
from lplmtl.tabular import checks, scores, targets
from lplmtl.tabular.schema import USED, Schema
from lplmtl.training import evaluation, progress
from lplmtl.types import Array, PyTree

# Rows per call of the model. Always as many: the same program gives a row the
# same bits, whatever rows arrive with it, and compiles once. On a CPU, larger
# chunks are no faster.
CHUNK = 1024


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Predictor:
  """A trained model, with all that raw rows need to pass through it.

  Attributes:
    schema: what the columns are.
    tables: encode them.
    model: the Linen module.
    params: its parameters, with a leading S axis: predictions are the means of
      S seeds, probabilities for classes, rates for counts.
    history: a record per epoch; see `lplmtl.fit`. Empty if it was not saved.
  """

  schema: Schema
  tables: Tables
  model: nn.Module
  params: PyTree
  history: Sequence[Mapping[str, Any]] = ()

  def __repr__(self) -> str:
    """What it reads, predicts and is, in one line, without the parameters."""
    kinds = [one.kind for one in self.schema.inputs.values()]
    inputs = [f'{kinds.count(k)} {k}' for k in USED if k in kinds]
    found = [f'{name}: {t.kind}' for name, t in self.schema.targets.items()]
    size = sum(x.size for x in jax.tree.leaves(self.params)) // self.num_seeds
    return (
      f'Predictor(targets=[{", ".join(found)}], '
      f'inputs=[{", ".join(inputs)}], model={type(self.model).__name__}, '
      f'num_parameters={size:,}, num_seeds={self.num_seeds}, '
      f'num_epochs={len(self.history)})'
    )

  @property
  def num_seeds(self) -> int:
    """S, the number of models that are averaged."""
    return len(jax.tree.leaves(self.params)[0])

  def predict(self, frame: Any) -> Any:
    """Predicts every target of every row, in order.

    A row gets the same bits in whatever batch or column order it arrives.

    Args:
      frame: a DataFrame or `{name: column}` with at least the columns that the
        model reads; it needs no targets.

    Returns:
      A DataFrame with the index of `frame`, or `{name: [N]}` for a mapping. A
      target `churn` of two classes becomes `churn`, the likelier class, and
      `churn_probability`, that of the positive one; a target `segment` of more
      classes `segment` and `segment_probability_<class>` for each of them; a
      regression `value`, in its own unit.

    Raises:
      ValueError: a column is missing, or holds what cannot be encoded.
    """
    return self.decode(frame, self.encode(frame))

  def decode(self, frame: Any, features: Mapping[str, np.ndarray]) -> Any:
    """Predicts rows that are encoded already; see `predict`.

    Args:
      frame: a DataFrame, which gives the index, or a mapping.
      features: what `encode` returned for it.
    """
    logits = apply(self.model, self.params, features)
    predictions = targets.decode(self.schema, logits)
    if not hasattr(frame, 'iloc'):
      return predictions
    # The class of the frame itself, so that the library needs no pandas.
    return type(frame)(predictions, index=frame.index)

  def logits(self, frame: Any) -> dict[str, np.ndarray]:
    """Returns what the model computes, `{target: [S, N, K]}` float32."""
    return apply(self.model, self.params, self.encode(frame))

  def probabilities(self, frame: Any, target: str) -> np.ndarray:
    """Returns `[N, K]`, of a target with K classes.

    They are in the order of `targets.ordered_classes`.
    """
    values = targets.mean_outputs(
      self.schema.targets[target], self.logits(frame)[target]
    )
    if self.schema.targets[target].kind != 'binary':
      return values
    return np.concatenate([1 - values, values], axis=1)

  def encode(self, frame: Any) -> dict[str, np.ndarray]:
    """Returns the arrays that the model reads."""
    columns = checks.columns_of(frame)
    checks.check_columns(self.schema, columns)
    return self.tables.encode(columns)

  def unseen(self, frame: Any) -> dict[Any, int]:
    """Counts the rows whose values are new to the model: `{column: rows}`.

    These are categories that training did not hold, such as 4115 where it had
    04115, and numbers and dates that are missing where it had none. A hashed
    column has no new values.

    Args:
      frame: as for `predict`.
    """
    features = self.encode(frame)
    return self.tables.unseen(features, checks.columns_of(frame))

  def score(self, frame: Any) -> dict[str, dict[str, float]]:
    """Computes each target's metrics over the rows that have its label.

    Args:
      frame: rows with inputs and targets.

    Returns:
      `{target: {metric: value}}`, the primary metric first; `rmse` and `mae` of
      a number are in its own unit. NaN where the rows do not define a metric,
      such as the AUC of a single class. Row weights do not count.
    """
    return scores.score(self.schema, self.logits(frame), frame)

  def gates(self, frame: Any) -> list[dict[str, dict[str, np.ndarray]]]:
    """Returns how much each target's gates use each expert, over the rows.

    Returns:
      See `lplmtl.inspection.usage`; the mean over the S seeds.
    """
    usage = _usage(self.model, self.params, self.encode(frame))
    return jax.tree.map(lambda weights: np.asarray(weights).mean(0), usage)

  def __reduce__(self) -> Any:
    """Copies and sends the model as data: its activations allow neither."""
    names = blueprint.known_names(())
    model = blueprint.to_data(self.model, names)
    state = self.schema, self.tables, model, self.params, self.history
    return _restored, state

  def save(
    self,
    directory: str | pathlib.Path,
    *,
    modules: tuple[ModuleType, ...] = (),
  ) -> None:
    """Writes a model folder, replacing an older model at the same path.

    Args:
      directory: see `lplmtl.checkpoint.save`, as for `modules`.
      modules: your own Python modules that define parts of the model.
    """
    extra = {
      'schema': self.schema.to_json(),
      'history': [progress.to_json(record) for record in self.history],
    }
    checkpoint.save(
      directory,
      self.model,
      self.params,
      self.tables,
      num_seeds=self.num_seeds,
      extra=extra,
      modules=modules,
    )


def load(
  directory: str | pathlib.Path, *, modules: tuple[ModuleType, ...] = ()
) -> Predictor:
  """Reads a model folder that `Predictor.save` or a command wrote.

  Args:
    directory: the folder, or that of a run, which has the model in `model`.
    modules: as for `Predictor.save`.

  Raises:
    CheckpointError: the folder is not a model, is damaged, or holds a model
      without a schema: `lplmtl.checkpoint.load` reads that one.
  """
  inner = pathlib.Path(directory).expanduser() / 'model'
  if inner.is_dir() and not (inner.parent / folders.CHECKSUMS).exists():
    directory = inner
  model, params, tables = checkpoint.load(directory, modules=modules)
  extra = checkpoint.load_extra(directory)
  if tables is None or 'schema' not in extra:
    raise CheckpointError(
      f'the model in {directory} was saved without the schema of a table: read '
      'it with lplmtl.checkpoint.load'
    )
  schema = Schema.from_json(extra['schema'])
  history = tuple(map(progress.from_json, extra.get('history', ())))
  return Predictor(schema, tables, model, params, history)


def _restored(
  schema: Schema, tables: Tables, model: Any, params: PyTree, history: Any
) -> Predictor:
  module = blueprint.from_data(model, blueprint.known_names(()))
  return Predictor(schema, tables, module, params, history)


@functools.partial(jax.jit, static_argnums=0)
def _usage(model: nn.Module, params: PyTree, features: PyTree) -> list[Any]:
  """Returns `inspection.usage` with a leading S axis."""
  return jax.vmap(lambda one: list(inspection.usage(model, one, features)))(
    params
  )


@functools.partial(jax.jit, static_argnums=0)
def _apply(model: nn.Module, params: PyTree, chunk: PyTree) -> dict[str, Array]:
  """Computes `{task: [S, CHUNK, K]}`; equal models share one program."""
  return jax.vmap(
    lambda one: evaluation.predict_rows(model, one, chunk, CHUNK)
  )(params)


def apply(
  model: nn.Module, params: PyTree, features: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Applies S models to encoded rows, in chunks of one size.

  Args:
    model: the Linen module.
    params: leaves `[S, ...]`.
    features: `{name: [N, ...]}`, N may be 0.

  Returns:
    `{task: [S, N, K]}` float32.
  """
  count = len(features['numeric'])
  chunks = []
  for first in range(0, max(count, 1), CHUNK):
    rows = {k: x[first : first + CHUNK] for k, x in features.items()}
    chunks.append(_apply(model, params, {k: _fill(x) for k, x in rows.items()}))
  chunks = jax.device_get(chunks)
  return {
    task: np.concatenate([chunk[task] for chunk in chunks], 1)[:, :count]
    for task in chunks[0]
  }


def _fill(rows: np.ndarray) -> np.ndarray:
  """Appends zeros up to the size of a chunk: the id 0 is in every table."""
  missing = CHUNK - len(rows)
  if not missing:
    return rows
  return np.concatenate(
    [rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)]
  )
