"""Scores the rows of a source with a trained model."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from lplmtl import _checks
from lplmtl.training import checks, parallel, programs, scanning
from lplmtl.types import Batch, Model, PyTree, Source, Task


def evaluate_source(
  model: Model,
  params: PyTree,
  rows: Source,
  tasks: Sequence[Task] | None = None,
) -> dict[str, dict[str, float]]:
  """Returns the metrics of all rows of a source; see `make_eval_step`.

  Features are in memory for two blocks of 65,536 rows at a time, predictions
  and labels for all rows.

  Args:
    model: see `lplmtl.types.Model`.
    params: its parameters.
    rows: see `lplmtl.types.Source`.
    tasks: T tasks of the model, or some of them; None for all.

  Returns:
    `{task: {metric: float}}`, with `loss`.

  Raises:
    ValueError: an argument is not a model, its parameters or a source.

  Example:
    >>> import lplmtl
    >>> from lplmtl import data
    >>> from lplmtl import tasks as kinds
    >>> model = lplmtl.SharedBottom((kinds.binary('click'),))
    >>> rows = data.Sharded(data.clicks(100))
    >>> x = rows.example.features
    >>> params = jax.jit(model.init)(jax.random.key(0), x)['params']
    >>> sorted(evaluate_source(model, params, rows)['click'])[:2]
    ['auc', 'average_precision']
  """
  tasks = tuple(model.tasks if tasks is None else tasks)
  scan, table = _scan(model, params, rows, tasks)
  found = jax.device_get(scan(_with_axis(params), None, table))
  return {
    task.name: {
      metric: float(np.asarray(found[task.name][metric])[0])
      for metric in (*task.metric_fns, 'loss')
    }
    for task in tasks
  }


def predict_source(
  model: Model, params: PyTree, rows: Source
) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
  """Yields all rows of a source in blocks, with their predictions.

  The next block is read meanwhile.

  Args:
    model: see `lplmtl.types.Model`.
    params: its parameters.
    rows: see `lplmtl.types.Source`.

  Yields:
    `(batch, {task: [n, ..., K]})`, on the host.

  Raises:
    ValueError: an argument is not a model, its parameters or a source.
  """
  scan, table = _scan(model, params, rows, tuple(model.tasks))
  for batch, found in scan.each(_with_axis(params), None, table):
    yield batch, jax.tree.map(lambda x: x[0], found)


def _scan(
  model: Model, params: PyTree, rows: Source, tasks: Sequence[Task]
) -> tuple[scanning.Scan, scanning.Scanned]:
  _checks.check_call(model, params)
  table = scanning.read(checks.as_source(rows, 'rows'), tasks, 'rows')
  mesh = parallel.make_mesh(1, len(jax.local_devices()))
  scan = programs.make_scan(model, tasks, num_seeds=1, mesh=mesh)
  return scan.compiled(_with_axis(params), None, table, mesh), table


def _with_axis(params: PyTree) -> PyTree:
  return jax.tree.map(lambda x: x[None], params)
