"""The Estimator's defaults against one LightGBM model per target.

Both have the same training rows, choose by the same validation rows (the tenth
that the Estimator holds out), and are scored on the same fifth of all rows. The
trees take the best of three numbers of leaves for each target.
"""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd

from experiments.comparison import boosting
from experiments.datasets import base
from lplmtl import statistics, tabular
from lplmtl.tabular import preparation, scores, splits
from lplmtl.types import Batch, Task

_TEST_SHARE = 0.2
_LEAVES = (15, 31, 63)  # LightGBM's default is 31
_RATE = 0.05  # half of its default, as validation rows end the training
_SAMPLES = 1000


def compare(
  name: str,
  frame: pd.DataFrame,
  targets: Mapping[str, str],
  options: Mapping[str, Any],
  test: pd.DataFrame | None = None,
) -> dict[str, Any]:
  """Returns the figures of one table, as JSON data.

  Args:
    name: of the table.
    frame: its rows.
    targets: `{column: kind}`.
    options: further arguments of the Estimator.
    test: the test rows; None takes a fifth of the rows.
  """
  model = tabular.Estimator(dict(targets), **options)
  given = model.get_params()
  roles = {name: given[name] for name in ('time', 'group')}
  rough = tabular.Schema({}, {}, **roles)
  if test is None:
    frame, test = _hold_out(frame, rough)
  fields = dataclasses.fields(tabular.Settings)
  settings = tabular.Settings(**{f.name: given[f.name] for f in fields})
  train, validation, _ = preparation.separate(frame, rough, settings)
  start = time.perf_counter()
  model.fit(train, validation=validation)
  seconds = time.perf_counter() - start
  schema = model.predictor_.schema
  unbinned = dataclasses.replace(settings, num_bins=0)
  rows = preparation.encode(train, schema, unbinned, validation)
  start = time.perf_counter()
  forests = {task.name: _best_trees(rows, test, task) for task in rows.tasks}
  tree_seconds = time.perf_counter() - start
  with tempfile.TemporaryDirectory() as folder:
    model.save(f'{folder}/model')
    size = sum(
      p.stat().st_size for p in pathlib.Path(folder).rglob('*') if p.is_file()
    )
  return {
    'table': name,
    'rows': {'train': len(rows.train.features['numeric']), 'test': len(test)},
    'targets': _differences(model.predictor_, test, forests),
    'bytes': {
      'estimator': size,
      'trees': sum(forest.size for forest in forests.values()),
    },
    'seconds': {'estimator': seconds, 'trees': tree_seconds},
  }


def _hold_out(
  frame: pd.DataFrame, schema: tabular.Schema
) -> tuple[pd.DataFrame, pd.DataFrame]:
  """Splits test rows off, and with a group column whole groups."""
  parts = splits.split(frame, schema, test=True, share=_TEST_SHARE)
  known = np.concatenate([parts['train'], parts['validation']])
  return frame.iloc[np.sort(known)], frame.iloc[parts['test']]


def _best_trees(
  rows: preparation.Rows, test: pd.DataFrame, task: Task
) -> boosting.Forest:
  """Returns the forest with the best primary metric on validation rows."""
  labels: Any = tabular.encode_labels(rows.schema, test)
  held_out: Any = rows.validation  # never None here
  columns: Any = test  # a frame is a mapping of columns
  data = base.Data(
    tasks=rows.tasks,
    train=rows.train,
    validation=held_out,
    test=Batch(rows.tables.encode(columns), *labels),
    tables=rows.tables,
    facts={},
    optimum={},
  )
  tried = [
    boosting.fit({'num_leaves': n, 'learning_rate': _RATE}, task, data, seed=0)
    for n in _LEAVES
  ]
  return max(tried, key=lambda forest: forest.validation)


def _differences(
  predictor: tabular.Predictor,
  test: pd.DataFrame,
  forests: Mapping[str, boosting.Forest],
) -> dict[str, Any]:
  """Returns each target's metric of both, and the interval of the difference.

  The Estimator's score is that of the mean prediction of its seeds.
  """
  schema = predictor.schema
  labels, where, _ = tabular.encode_labels(schema, test)
  logits = predictor.logits(test)
  found = {}
  for task in tabular.make_tasks(schema):
    name = task.name
    metric, fn = next(iter(task.metric_fns.items()))
    compiled = jax.jit(fn)
    known = where[name]

    def measure(outputs: Any, truth: Any, fn: Any = compiled) -> Any:
      return fn(outputs, truth, np.ones(len(truth), bool))

    ours = scores.mean_logits(schema.targets[name], logits[name])
    both = [
      statistics.bootstrap(
        measure, x[known][None], labels[name][known], num_samples=_SAMPLES
      )
      for x in (ours, forests[name].scores)
    ]
    differences = both[0].samples - both[1].samples
    found[name] = {
      'metric': metric,
      'estimator': float(both[0].values[0]),
      'trees': float(both[1].values[0]),
      'interval': np.nanquantile(differences, [0.025, 0.975]).tolist(),
    }
  return found


def to_markdown(results: list[dict[str, Any]]) -> str:
  """Returns the figures as a table."""
  lines = [
    '| table | target | metric | Estimator | LightGBM | difference | bytes |',
    '|---|---|---|---:|---:|---:|---:|',
  ]
  for result in results:
    ours, theirs = result['bytes'].values()
    share = f'{ours / 1000:,.0f} : {theirs / 1000:,.0f} kB'
    for i, (name, found) in enumerate(result['targets'].items()):
      low, high = found['interval']
      lines.append(
        f'| {"" if i else result["table"]} | {name} | {found["metric"]} '
        f'| {found["estimator"]:.4f} | {found["trees"]:.4f} '
        f'| {found["estimator"] - found["trees"]:+.4f} [{low:+.4f}, '
        f'{high:+.4f}] | {"" if i else share} |'
      )
  return '\n'.join(lines)
