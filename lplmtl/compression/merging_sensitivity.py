"""How much the losses depend on the embedding of each value."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from lplmtl import _checks
from lplmtl.compression import calibration, encoders, leaves, programs
from lplmtl.compression.merging_curvature import Columns, gauss_newton
from lplmtl.tables import Tables
from lplmtl.types import Batch, PyTree


class Sensitivity(NamedTuple):
  """What `sensitivity` returns; V values of all columns.

  Attributes:
    vectors: `[V, D]` float64, what each value puts into the model.
    curvature: `{task: [V, D, D]}` float64, the matrices G_v.
    losses: `{task: float}`, the mean losses of the calibration rows.
    counts: `[V]` float64, how many of these rows hold each value.
  """

  vectors: np.ndarray
  curvature: Mapping[str, np.ndarray]
  losses: Mapping[str, float]
  counts: np.ndarray

  def total(self) -> np.ndarray:
    """Returns `[V, D, D]`, the sum over tasks, each over its mean loss."""
    tiny = np.finfo(np.float64).tiny  # a loss of 0 has no curvature either
    matrices = [
      matrix / max(self.losses[name], tiny)
      for name, matrix in self.curvature.items()
    ]
    return np.sum(matrices, axis=0)


def sensitivity(
  tables: Tables, model: Any, params: PyTree, batch: Batch
) -> Sensitivity:
  """Measures what it costs each task to move the embedding of a value.

  To second order, moving the vector e_v of a value by d adds `d' G_v d / 2` to
  the mean loss of a task, with the Gauss-Newton matrix

      G_v = 1/N  sum_{rows b that hold v}  w_b J_b' H_b J_b

  J_b `[K, D]` is the Jacobian of the task's outputs in the vector, H_b `[K, K]`
  the Hessian of its loss in the outputs: p (1 - p) for a binary task, diag(p) -
  p p' for classes, 1 for half a squared error, the rate for a count. Negative
  eigenvalues, which only losses like `Focal` have, count as 0. N is the sum of
  the weights w_b of the rows that have a label.

  The vector of a value is its embedding, with steps of bins added (see
  `fold_steps`) and those of several encoders side by side. Where the model also
  reads the scaled number of a binned column, the vector has one more entry: the
  mean number in the bin, or 0 for other columns. So the bins also stand for the
  number, and can replace it (`Numeric.only_bins`).

  A model that is certain of every label has next to no curvature, and its
  sensitivity says nothing: take one that does not fit the rows by heart.

  Args:
    tables: which encoded the rows.
    model: a trained model that reads them by a TabularEncoder.
    params: its parameters, of one seed.
    batch: calibration rows; a few thousand of the training rows will do.

  Raises:
    ValueError: there are no rows, a task has no label among them, or the model
      does not fit the tables.

  References:
    Schraudolph 2002, "Fast Curvature Matrix-Vector Products for Second-Order
    Gradient Descent"; Hassibi & Stork 1993, "Second Order Derivatives for
    Network Pruning: Optimal Brain Surgeon".
  """
  _checks.check_call(model, params)
  _check_rows(tables, model, batch)
  batch = jax.tree.map(np.asarray, batch)  # columns of pandas
  model, params = encoders.fold_steps(model, params)
  names = _embeddings(tables, params)
  calibration.check_params(model, params, batch.features)
  sizes = tables.num_categories
  offsets = np.cumsum((0, *sizes[:-1]), dtype=np.int32)
  ids = np.asarray(batch.features['categories']) + offsets[None]
  columns = Columns(names, ids, _number_places(tables))
  named = leaves.names(params)
  vectors = [np.asarray(named[name], np.float64) for name in names]
  if (columns.places >= 0).any():
    numeric = np.asarray(batch.features['numeric'], np.float64)
    vectors.append(_mean_numbers(numeric, columns, sum(sizes))[:, None])
  return Sensitivity(
    np.concatenate(vectors, axis=1),
    gauss_newton(model, params, batch, columns),
    _mean_losses(model, params, batch),
    np.bincount(ids.ravel(), minlength=sum(sizes)).astype(np.float64),
  )


def _check_rows(tables: Tables, model: Any, batch: Batch) -> None:
  """Raises ValueError for what `sensitivity` refuses."""
  encoder = encoders.check_tables(tables, model)
  calibration.check_rows(batch)
  if not tables.num_categories:
    raise ValueError(
      'the tables have neither categories nor bins: fit them with num_bins'
    )
  encoder.check_features(batch.features, 'batch.features')
  calibration.check_labels(model.tasks, batch)


def _embeddings(tables: Tables, params: PyTree) -> list[str]:
  """Returns the names of the tables of embeddings.

  Raises:
    ValueError: there are none, or they do not fit the columns.
  """
  rows = sum(tables.num_categories)
  named = leaves.names(params)
  found = [name for name in named if name.split('/')[-1] == 'embedding']
  shapes = sorted({named[name].shape for name in found})
  if not found or any(len(s) != 2 or s[0] != rows for s in shapes):
    raise ValueError(
      f'expected parameters of one seed with embeddings [{rows}, embed_dim], a '
      f'row for each id of the tables; found {shapes or "none"}'
    )
  return found


def _number_places(tables: Tables) -> np.ndarray:
  """Returns `[C]`, see Columns."""
  numbers = list(tables.numbers)
  places = [numbers.index(n) if n in numbers else -1 for n in tables.binned]
  return np.array([*[-1] * len(tables.vocabularies), *places], np.int32)


def _mean_numbers(
  numeric: np.ndarray, columns: Columns, num_values: int
) -> np.ndarray:
  """Returns `[V]`, the mean scaled number of the rows in a bin, or 0."""
  sums, counts = np.zeros((2, num_values))
  for ids, place in zip(columns.ids.T, columns.places, strict=True):
    if place >= 0:
      sums += np.bincount(ids, numeric[:, place], num_values)
      counts += np.bincount(ids, minlength=num_values)
  return sums / np.maximum(counts, 1)


def _mean_losses(model: Any, params: PyTree, batch: Batch) -> dict[str, float]:
  compute = programs.of(calibration.losses_of, model)
  means = np.asarray(compute(params, batch)).tolist()
  return dict(zip([t.name for t in model.tasks], means, strict=True))
