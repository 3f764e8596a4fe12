"""Gauss-Newton matrices of the embeddings of values."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks, losses
from lplmtl.compression import leaves, programs
from lplmtl.types import Array, Batch, PyTree, Task

_ROWS = 256  # at a time
_CELLS = 1 << 24  # 64 MB: numbers in the Jacobian of some rows, V wide


class Columns(NamedTuple):
  """Where a model reads values.

  Attributes:
    embeddings: names of the tables of embeddings, `[V, E]` each.
    ids: `[B, C]`, the rows of these that each row of the batch reads.
    places: `[C]`, the column of `numeric` that belongs to a column of bins; -1
      for none.
  """

  embeddings: Sequence[str]
  ids: np.ndarray
  places: np.ndarray


def gauss_newton(
  model: Any, params: PyTree, batch: Batch, columns: Columns
) -> dict[str, np.ndarray]:
  """Returns `{task: G [V, D, D]}`; see `sensitivity`.

  Args:
    model: its T tasks.
    params: without steps of bins.
    batch: B rows, with at least one label per task.
    columns: D is the sum of the widths of its embeddings, plus 1 if a column
      has a number.
  """
  named = leaves.names(params)
  shapes = [named[name].shape for name in columns.embeddings]
  has_numbers = bool((columns.places >= 0).any())
  num_values = shapes[0][0]
  width = sum(size for _, size in shapes) + has_numbers
  count = len(columns.ids)
  rows = (
    batch.features,
    _labels(model.tasks, batch),
    _weights(model.tasks, batch),
    columns.ids,
  )

  add = programs.of(
    _add, model, tuple(columns.embeddings), tuple(columns.places.tolist())
  )
  outputs = sum(task.num_outputs for task in model.tasks)
  size = min(_ROWS, max(1, _CELLS // (num_values * width * outputs)))
  sums = {
    task.name: jnp.zeros((num_values, width, width)) for task in model.tasks
  }
  for start in range(0, count, size):
    # The last rows are filled up with weights of 0.
    some = np.arange(start, start + size)
    take = np.minimum(some, count - 1)
    part = jax.tree.map(lambda x, take=take: np.asarray(x)[take], rows)
    weights = {name: w * (some < count) for name, w in part[2].items()}
    sums = add(params, sums, (*part[:2], weights, part[3]))
  return {name: np.asarray(total, np.float64) for name, total in sums.items()}


def _add(
  model: Any,
  embeddings: Sequence[str],
  places: Sequence[int],
  params: PyTree,
  sums: Mapping[str, Array],
  rows: Any,
) -> dict[str, Array]:
  """Adds what some rows contribute; the first three arguments are fixed."""
  named = leaves.names(params)
  tables = {name: named[name] for name in embeddings}

  def of_row(*row: Any) -> dict[str, Array]:
    return _of_row(model, params, tables, np.array(places), *row)

  found = jax.vmap(of_row)(*rows)
  ids = rows[-1]
  return {name: sums[name].at[ids].add(found[name]) for name in sums}


def _labels(tasks: Sequence[Task], batch: Batch) -> dict[str, Any]:
  """Returns the labels of each task, zeros where there are none."""
  masks = batch.where or {}
  return {
    task.name: losses.mask_labels(batch.labels[task.name], masks.get(task.name))
    for task in tasks
  }


def _weights(tasks: Sequence[Task], batch: Batch) -> dict[str, np.ndarray]:
  """Returns `{task: [B]}`, which sum to 1."""
  count = _checks.num_rows(batch.features)
  found = {}
  for task in tasks:
    weights = losses.row_weights(batch, task.name)
    weights = np.ones(count) if weights is None else np.asarray(weights)
    where = (batch.where or {}).get(task.name)
    weights = weights if where is None else np.where(where, weights, 0)
    found[task.name] = (weights / weights.sum()).astype(np.float32)
  return found


def _of_row(
  model: Any,
  params: PyTree,
  tables: Mapping[str, Array],
  places: np.ndarray,
  features: Any,
  labels: Mapping[str, Any],
  weights: Mapping[str, Array],
  ids: Array,
) -> dict[str, Array]:
  """Returns `{task: w J' H J [C, D, D]}` of one row."""

  def outputs(tables: Mapping[str, Array], numeric: Array) -> dict[str, Array]:
    changed = leaves.map_named(lambda name, x: tables.get(name, x), params)
    row = jax.tree.map(lambda x: x[None], {**features, 'numeric': numeric})
    found, _ = _checks.model_outputs(
      model.apply({'params': changed}, row, train=False)
    )
    return {task.name: found[task.name][0] for task in model.tasks}

  numeric = features['numeric']
  logits = outputs(tables, numeric)
  jacobians = jax.jacrev(outputs, (0, 1))(tables, numeric)
  found = {}
  for task in model.tasks:
    by_table, by_number = jacobians[task.name]
    z = logits[task.name]
    parts = [_flat(x, z)[:, ids] for x in by_table.values()]  # [K, C, E]
    if (places >= 0).any():
      of_column = jnp.where(places >= 0, _flat(by_number, z)[:, places], 0)
      parts.append(of_column[..., None])
    root = _root(task, z, labels[task.name])
    scaled = jnp.einsum('jk,kcd->jcd', root, jnp.concatenate(parts, axis=-1))
    product = jnp.einsum('jcd,jce->cde', scaled, scaled)
    found[task.name] = weights[task.name] * product
  return found


def _flat(jacobian: Array, outputs: Array) -> Array:
  """Returns a Jacobian with one axis for all outputs."""
  return jacobian.reshape(outputs.size, *jacobian.shape[outputs.ndim :])


def _root(task: Task, outputs: Array, labels: Any) -> Array:
  """Returns R with `R' R = H`, the loss's Hessian in the outputs, `[K, K]`."""

  def loss(flat: Array) -> Array:
    row = jax.tree.map(lambda x: jnp.asarray(x)[None], labels)
    return task.loss_fn(flat.reshape(1, *outputs.shape), row)[0]

  hessian = jax.hessian(loss)(outputs.ravel())
  if outputs.size == 1:
    return jnp.sqrt(jnp.maximum(hessian, 0))
  values, vectors = jnp.linalg.eigh(hessian)
  return jnp.sqrt(jnp.maximum(values, 0))[:, None] * vectors.T
