"""Describes a trained model: metrics, sizes, gates, calibration.

Parameters have a leading axis of S seeds, as training leaves them.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from lplmtl import inspection, losses, metrics, training
from lplmtl.compression import cost
from lplmtl.training import parallel, programs, scanning
from lplmtl.types import Batch, PyTree, Source, Task

_SOME_ROWS = 20_000  # of a source, whose gates are looked at


def costs(model: nn.Module, params: PyTree, features: PyTree) -> dict[str, int]:
  """Returns the parameters of one seed, and the FLOPs of scoring one row."""
  one_seed = jax.eval_shape(lambda p: jax.tree.map(lambda x: x[0], p), params)
  one_row = jax.tree.map(lambda x: x[:1], features)
  return {
    'parameters': cost.count_parameters(one_seed),
    'flops_per_example': cost.count_flops(
      lambda params, x: model.apply({'params': params}, x)[0], one_seed, one_row
    ),
  }


class Scores(NamedTuple):
  """A model's predictions for some rows; JSON data except for the logits.

  Attributes:
    metrics: `{task: {metric: {mean, std, per_seed}}}`.
    calibration: reliability diagrams of the binary tasks, `{task: {part:
      [S][bins]}}`, with the parts of `lplmtl.metrics.Calibration`; None in
      empty bins.
    logits: `{task: [S, N, ..., K]}` float32 arrays.
    rows: labels and masks of the N rows.
    gates: which experts the gates use for these rows (see `_of_levels`); of a
      source, for its first 20,000.
  """

  metrics: dict[str, dict[str, Any]]
  calibration: dict[str, dict[str, Any]]
  logits: dict[str, np.ndarray]
  rows: Batch
  gates: list[dict[str, Any]]


def score(
  model: nn.Module, tasks: Sequence[Task], params: PyTree, rows: Batch | Source
) -> Scores:
  """Scores rows with the parameters of every seed."""
  num_seeds = len(jax.tree.leaves(params)[0])
  mesh = parallel.make_mesh(num_seeds, len(jax.local_devices()))
  # Through the host: training may have left them on other devices.
  params = parallel.fill(jax.device_get(params), mesh)
  padded = len(jax.tree.leaves(params)[0])
  extended = extend(tasks)
  if isinstance(rows, Batch):
    batch = rows
    num_rows = len(jax.tree.leaves(batch.features)[0])
    evaluate = programs.make_scores(
      model, extended, num_rows=num_rows, num_seeds=padded, mesh=mesh
    )
    values, usage = evaluate(params, parallel.replicate(batch, mesh))
    gates = _of_levels(usage, num_seeds)
  else:
    scan = programs.make_scan(model, extended, num_seeds=padded, mesh=mesh)
    table = scanning.read(rows, tasks, 'rows')
    predictions, batch = scan.collect(params, None, table)
    values = scan.score(predictions, batch)
    gates = _of_levels(_usage(model, params, _some_features(rows)), num_seeds)
  values = jax.tree.map(lambda x: x[:num_seeds], jax.device_get(values))
  diagrams = {
    name: of_task.pop('calibration')._asdict()
    for name, of_task in values.items()
    if 'calibration' in of_task
  }
  return Scores(
    {
      task.name: {
        metric: over_seeds(np.asarray(values[task.name][metric], np.float64))
        for metric in (*task.metric_fns, 'loss')
      }
      for task in tasks
    },
    {
      name: {part: _without_nan(array) for part, array in parts.items()}
      for name, parts in diagrams.items()
    },
    {name: of_task['logits'] for name, of_task in values.items()},
    batch,
    gates,
  )


def of_history(
  tasks: Sequence[Task], fitted: training.FitResult
) -> dict[str, dict[str, Any]]:
  """Returns the validation metrics of the selected parameters of every seed.

  Training has computed them; to do so again would compile another program.

  Args:
    tasks: of the model.
    fitted: of S seeds, with validation rows.

  Returns:
    `{task: {metric: {mean, std, per_seed}}}`, as in `Scores`.
  """
  best = [fitted.history[i - 1]['validation'] for i in fitted.best_epoch]
  return {
    task.name: {
      metric: over_seeds(
        np.array(
          [record[task.name][metric][s] for s, record in enumerate(best)],
          np.float64,
        )
      )
      for metric in (*task.metric_fns, 'loss')
    }
    for task in tasks
  }


def extend(tasks: Sequence[Task]) -> list[Task]:
  """Returns tasks whose metrics include their logits and diagrams.

  As two more metrics, these come out of the same program.
  """
  extended = []
  for task in tasks:
    more: Any = {'logits': _logits}
    if task.num_outputs == 1 and task.label_range == (0, 1):
      more['calibration'] = metrics.calibration_curve
    extended.append(
      dataclasses.replace(task, metric_fns={**task.metric_fns, **more})
    )
  return extended


def _logits(logits: Any, labels: Any, where: Any) -> Any:
  # One function for all tasks: many tasks with equal metrics are compiled as
  # one, a function made for each task would set them apart.
  return logits


def _some_features(rows: Source) -> PyTree:
  """Returns the features of the first 20,000 rows."""
  found, count = [], 0
  for piece in rows.scan(range(rows.num_shards)):
    found.append(piece.features)
    count += len(jax.tree.leaves(piece.features)[0])
    if count >= _SOME_ROWS:
      break
  return jax.tree.map(lambda *x: np.concatenate(x), *found)


def mean_loss(task: Task) -> Callable[[Any, Any, Any], Any]:
  """Returns a task's loss as a metric, for tasks without one of their own."""
  return lambda outputs, labels, where: losses.masked_mean(
    task.loss_fn(outputs, labels), where
  )[0]


def labelled(rows: Batch, task: str) -> np.ndarray:
  """Returns `[N]` bool, which rows have a label for a task."""
  if rows.where is not None and task in rows.where:
    return np.asarray(rows.where[task])
  return np.ones(len(jax.tree.leaves(rows.labels[task])[0]), bool)


def _without_nan(values: np.ndarray) -> list[list[float | None]]:
  """Returns JSON data: NaN becomes None; six digits keep the files short."""
  return [
    [None if np.isnan(x) else round(float(x), 6) for x in seed]
    for seed in values
  ]


def _usage(model: nn.Module, params: PyTree, features: PyTree) -> Any:
  """Returns `inspection.usage` of every seed."""
  run = jax.jit(
    lambda params, features: jax.lax.map(
      lambda one_seed: inspection.usage(model, one_seed, features), params
    )
  )
  return run(params, features)


def _of_levels(usage: Any, num_seeds: int) -> list[dict[str, Any]]:
  """Returns the mean gate weights of every seed, and the unused experts.

  Args:
    usage: from `inspection.usage`, with a leading axis of padded seeds.
    num_seeds: S.

  Returns:
    One dict per level: `usage`, `{gate: {pool: [S][E_p]}}`, and `collapsed`,
    the share of experts that get less than 1 % from every gate (mean, standard
    deviation, and per seed).
  """
  levels = jax.tree.map(lambda x: x[:num_seeds], jax.device_get(usage))
  return [
    {
      'collapsed': over_seeds(
        np.array(
          [
            inspection.collapsed(jax.tree.map(lambda w, s=s: w[s], level))
            for s in range(num_seeds)
          ]
        )
      ),
      'usage': jax.tree.map(
        lambda w: np.round(w.astype(np.float64), 6).tolist(), level
      ),
    }
    for level in levels
  ]


def latency(
  call: Callable[..., Any], *arguments: Any, num_calls: int = 300, **more: Any
) -> float:
  """Returns the median seconds of a call, including transfers to the host.

  A first call, which may compile, is not counted.
  """
  spent = []
  for _ in range(num_calls + 1):
    start = time.perf_counter()
    jax.device_get(call(*arguments, **more))
    spent.append(time.perf_counter() - start)
  return float(np.median(spent[1:]))


def over_seeds(values: np.ndarray) -> dict[str, Any]:
  """Returns mean, sample standard deviation and the `[S]` values themselves."""
  std = float(values.std(ddof=1)) if len(values) > 1 else None
  return {'mean': float(values.mean()), 'std': std, 'per_seed': values.tolist()}
