"""Rows as the rivals of networks read them: one small integer per column.

The columns are categories, then binned numbers, then the 0/1 flags of missing
numbers. What a row's labels are, given or a teacher's, is always an expected
label: a probability, or a number.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.datasets.base import Data
from experiments.launcher import scoring
from lplmtl import losses
from lplmtl.compression import device_tables, links
from lplmtl.compression.links import Link
from lplmtl.tables import Tables
from lplmtl.types import Batch, Task

# Rows that a value's mean label is shrunk by towards the mean of all rows.
_PRIOR = 10.0


class Inputs(NamedTuple):
  """Encoded rows of all splits.

  Attributes:
    tables: that encoded them.
    sizes: `[F]` ints, the number of codes of each column.
    num_unordered: how many columns, the first ones, are categories.
    codes: `{split: [F, N]}` int32.
  """

  tables: Tables
  sizes: tuple[int, ...]
  num_unordered: int
  codes: dict[str, np.ndarray]


class Targets(NamedTuple):
  """What a task's rivals learn.

  Attributes:
    task: the task.
    link: what its outputs mean.
    means: `[N, K]` float64, expected labels of training rows.
    weights: `[N]` float64; 0 where a row has no label.
  """

  task: Task
  link: Link
  means: np.ndarray
  weights: np.ndarray


def encode(data: Data) -> Inputs:
  """Returns the inputs of rows that were encoded with bins.

  Raises:
    ValueError: the tables have dates, booleans, hashed columns or interpolated
      numbers, none of which a device can read.
  """
  tables = device_tables.checked(data.tables)
  flags = list(tables.flags.values())

  def codes(rows: Batch) -> np.ndarray:
    features: Any = rows.features  # a dict: see `Tables.encode`
    parts = [features['categories'], features['numeric'][:, flags] > 0]
    return np.concatenate(parts, axis=1).T.astype(np.int32)

  return Inputs(
    tables,
    tables.num_categories + (2,) * len(flags),
    len(tables.vocabularies),
    {
      split: np.ascontiguousarray(codes(getattr(data, split)))
      for split in ('train', 'validation', 'test')
    },
  )


def targets(
  data: Data, task: Task, teacher: Mapping[str, Any] | None
) -> Targets:
  """Returns what a task's rivals learn.

  Args:
    data: the rows.
    task: one of its tasks.
    teacher: `{task: [N, K]}`, outputs for the training rows, which then count
      whether labelled or not; None to learn the labels.

  Raises:
    ValueError: the teacher has no outputs for the task or they have another
      shape, or the task's loss is none of `lplmtl.losses`.
  """
  link = links.of(task)
  own = losses.row_weights(data.train, task.name)
  num_rows = len(data.train.features['numeric'])
  weights = np.ones(num_rows) if own is None else np.asarray(own, float)
  if teacher is not None:
    if task.name not in teacher:
      raise ValueError(f'the teacher has no outputs for {task.name}')
    given = np.asarray(teacher[task.name], np.float64)
    if given.shape != (num_rows, task.num_outputs):
      raise ValueError(
        f'the teacher of {task.name!r} must give [{num_rows}, '
        f'{task.num_outputs}] outputs, found {list(given.shape)}'
      )
    means = link.mean(given)
    return Targets(task, link, means, weights)
  where = scoring.labelled(data.train, task.name)
  labels = losses.mask_labels(data.train.labels[task.name], jnp.asarray(where))
  means = links.targets(task, np.asarray(labels))
  return Targets(task, link, means, weights * where)


def ranks(inputs: Inputs, todo: Targets) -> list[np.ndarray]:
  """Orders the values of each column, so that trees can split it in two.

  Categories are in the order of their mean label; with several outputs, of its
  first principal component. For one output, the best split in two is one of
  that order (Fisher 1958).

  Returns:
    For each column the `[size]` rank of each code.
  """
  centre = np.average(todo.means, axis=0, weights=todo.weights)
  found = []
  for column, size in enumerate(inputs.sizes):
    if column >= inputs.num_unordered:
      found.append(np.arange(size))
      continue
    codes = inputs.codes['train'][column]
    rows = np.bincount(codes, todo.weights, size)
    sums = [
      np.bincount(codes, todo.weights * (mean - c), size)
      for mean, c in zip(todo.means.T, centre, strict=True)
    ]
    shifts = np.stack(sums, axis=1) / (rows + _PRIOR)[:, None]  # [size, K]
    _, _, axes = np.linalg.svd(shifts * np.sqrt(rows)[:, None], False)
    axis = axes[0] * np.sign(axes[0][np.abs(axes[0]).argmax()])
    order = np.argsort(shifts @ axis, kind='stable')
    found.append(np.argsort(order, kind='stable'))
  return found


def distinct(todo: Targets, right: np.ndarray) -> tuple[Targets, np.ndarray]:
  """Joins rows that all splits of a pool send the same way.

  Sums over rows stay what they are: these have the mean of their expected
  labels, and the sum of their weights.

  Args:
    todo: what to learn.
    right: `[P, N]` bool, see `growing.sides`.

  Returns:
    The targets, and `[P, D]` of the distinct rows.
  """
  bits = np.ascontiguousarray(np.packbits(right, axis=0).T)
  keys = bits.view(np.dtype((np.void, bits.shape[1]))).ravel()
  _, first, groups = np.unique(keys, return_index=True, return_inverse=True)
  groups = groups.ravel()
  weights = np.bincount(groups, todo.weights)
  means = np.stack(
    [
      np.bincount(groups, todo.weights * mean) / np.maximum(weights, 1e-12)
      for mean in todo.means.T
    ],
    axis=1,
  )
  joined = todo._replace(means=means, weights=weights)
  return joined, np.ascontiguousarray(right[:, first])
