"""Metrics of predictions by name, in the units of the table."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lplmtl.tabular import targets
from lplmtl.tabular.schema import Schema, Target
from lplmtl.types import Array, MetricFn, Task

Metrics = dict[str, float]
# Metrics compile for each number of rows, so rows are filled up to a power of
# two, from this many on: 20 sizes cover all tables.
_FEWEST = 1024
# The probability 0 or 1 has no finite logit; float32 tells 1 - 1e-7 from 1.
_LEAST = 1e-7


def score(
  schema: Schema, logits: Mapping[str, np.ndarray], frame: Any
) -> dict[str, Metrics]:
  """Returns `{target: {metric: value}}`, the primary metric of a target first.

  Args:
    schema: the schema.
    logits: `{target: [S, N, K]}`.
    frame: N rows, with the columns of the targets.
  """
  labels, where, _ = targets.encode_labels(schema, frame, weighted=False)
  found = {}
  for task in targets.make_tasks(schema):
    name, target = task.name, schema.targets[task.name]
    found[name] = evaluate(
      task, mean_logits(target, logits[name]), labels[name], where[name]
    )
    if target.kind in ('regression', 'count'):
      found[name] |= _distances(target, logits[name], labels[name], where[name])
  return found


def primary(
  schema: Schema,
  logits: Mapping[str, np.ndarray],
  labels: Mapping[str, np.ndarray],
  where: Mapping[str, np.ndarray],
) -> np.ndarray:
  """Returns `[T]` float64, each target's primary metric.

  Args:
    schema: the schema.
    logits: `{target: [S, N, K]}`.
    labels: `{target: [N, ...]}`.
    where: `{target: [N] bool}`.
  """
  values: list[float] = []
  for task in targets.make_tasks(schema):
    name = task.name
    only = dict(list(task.metric_fns.items())[:1])
    outputs = mean_logits(schema.targets[name], logits[name])
    values += evaluate(
      dataclasses.replace(task, metric_fns=only),
      outputs, labels[name], where[name],
    ).values()  # fmt: skip
  return np.asarray(values, np.float64)


def mean_logits(target: Target, logits: np.ndarray) -> np.ndarray:
  """Returns `[N, K]` logits of the mean prediction of S seeds.

  Args:
    target: which says what is averaged: probabilities, rates or numbers.
    logits: `[S, N, K]`.
  """
  if len(logits) == 1:
    return logits[0]
  means = targets.mean_outputs(target, logits)
  if target.kind in ('regression', 'count'):
    mean, std = targets.scale(target)
    means = (means - mean) / std
  if target.kind in ('multiclass', 'count'):
    means = np.log(np.maximum(means, _LEAST))
  elif target.kind != 'regression':
    if target.kind == 'ordinal':  # to the probabilities of being above a class
      means = 1 - means.cumsum(axis=-1)[:, :-1]
    means = np.clip(means, _LEAST, 1 - _LEAST)
    means = np.log(means) - np.log1p(-means)
  return means.astype(np.float32)


def evaluate(
  task: Task, outputs: np.ndarray, labels: np.ndarray, where: np.ndarray
) -> Metrics:
  """Computes a task's metrics over the rows that have a label.

  Args:
    task: T = 1.
    outputs: `[N, K]` logits.
    labels: `[N, ...]`.
    where: `[N]` bool.
  """
  size = max(_FEWEST, 1 << (len(where) - 1).bit_length())

  def fill(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])

  values = jax.device_get(
    _evaluate(
      tuple(task.metric_fns.values()), fill(outputs), fill(labels), fill(where)
    )
  )
  return dict(zip(task.metric_fns, map(float, values), strict=True))


# Of the metrics, not of the task: tasks of a kind share one program.
@functools.partial(jax.jit, static_argnums=0)
def _evaluate(
  metric_fns: tuple[MetricFn, ...], outputs: Array, labels: Array, where: Array
) -> list[Array]:
  return [metric_fn(outputs, labels, where) for metric_fn in metric_fns]


def _distances(
  target: Target, logits: np.ndarray, labels: np.ndarray, where: np.ndarray
) -> Metrics:
  """Returns the distances from the labels in the target's own unit."""
  predicted = targets.mean_outputs(target, logits)[:, 0]
  mean, std = targets.scale(target)
  actual = labels.astype(np.float64) * std + mean
  errors = (predicted - actual)[where]
  if not len(errors):
    return {'rmse': float('nan'), 'mae': float('nan')}
  return {
    'rmse': float(np.sqrt(np.mean(errors**2))),
    'mae': float(np.mean(np.abs(errors))),
  }
