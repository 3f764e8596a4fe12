"""What can be said of a trained model: metrics, sizes, gates, calibration.

Parameters lead with S, as training leaves them.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from lplmtl import gates, metrics, parallel, programs, steps
from lplmtl.compression import cost
from lplmtl.types import Batch, PyTree, Task


def costs(model: nn.Module, params: PyTree, features: PyTree) -> dict[str, int]:
  """Parameters of one seed, and FLOPs of scoring one row."""
  one_seed = jax.eval_shape(lambda p: jax.tree.map(lambda x: x[0], p), params)
  one_row = jax.tree.map(lambda x: x[:1], features)
  return {
    'parameters': cost.count_parameters(one_seed),
    'flops_per_example': cost.count_flops(
      lambda params, x: model.apply({'params': params}, x)[0], one_seed, one_row
    ),
  }


def score(
  model: nn.Module, tasks: Sequence[Task], params: PyTree, batch: Batch
) -> dict[str, dict[str, Any]]:
  """Every task's metrics of every seed: `{task: {metric: {mean, ...}}}`."""
  num_seeds = len(jax.tree.leaves(params)[0])
  mesh = parallel.make_mesh(num_seeds, len(jax.local_devices()))
  # By way of the host: training may have left them on other devices.
  params = parallel.fill(jax.device_get(params), mesh)
  padded = len(jax.tree.leaves(params)[0])
  evaluate = programs.make_evaluate(model, tasks, num_seeds=padded, mesh=mesh)
  found = evaluate(params, None, parallel.replicate(batch, mesh))
  found = jax.tree.map(lambda x: x[:num_seeds], jax.device_get(found))
  return {
    task.name: {
      metric: over_seeds(np.asarray(found[task.name][metric], np.float64))
      for metric in (*task.metric_fns, 'loss')
    }
    for task in tasks
  }


def calibration(
  model: nn.Module, tasks: Sequence[Task], params: PyTree, batch: Batch
) -> dict[str, dict[str, Any]]:
  """Reliability diagrams of the binary tasks: `{task: {part: [S][bins]}}`.

  The parts are those of `lplmtl.metrics.Calibration`; None in empty bins.
  """
  names = [
    task.name
    for task in tasks
    if task.num_outputs == 1 and not task.is_regression
  ]

  def one(params: PyTree) -> Any:
    found = steps.predict(model, params, batch.features)
    return {
      name: metrics.calibration_curve(found[name], batch.labels[name])._asdict()
      for name in names
    }

  # By way of the host: training may have left them on other devices.
  run = jax.jit(lambda params: jax.lax.map(one, params))
  found = jax.device_get(run(jax.device_get(params)))
  return jax.tree.map(
    lambda x: [
      [None if np.isnan(v) else round(float(v), 6) for v in seed] for seed in x
    ],
    found,
  )


def gate_use(
  model: nn.Module, params: PyTree, features: PyTree
) -> list[dict[str, Any]]:
  """A dict a level: mean gate weights of every seed, and experts unused.

  Returns:
    `usage`, `{selector: {pool: [S][E_p]}}`, and `collapsed`, the share of
    experts that no gate gives 1 % (mean, std and per seed).
  """
  run = jax.jit(
    lambda params, features: jax.lax.map(
      lambda own: gates.usage(model, own, features), params
    )
  )
  # By way of the host: training may have left them on other devices.
  levels = jax.device_get(run(jax.device_get(params), features))
  num_seeds = len(jax.tree.leaves(params)[0])
  return [
    {
      'collapsed': over_seeds(
        np.array(
          [
            gates.collapsed(jax.tree.map(lambda w, s=s: w[s], level))
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


def over_seeds(values: np.ndarray) -> dict[str, Any]:
  """Mean and (sample) standard deviation of `[S]` values, and the values."""
  std = float(values.std(ddof=1)) if len(values) > 1 else None
  return {'mean': float(values.mean()), 'std': std, 'per_seed': values.tolist()}
