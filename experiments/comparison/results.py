"""The figures of a comparison: intervals, differences, verdicts.

`make` returns JSON data; `tables` shows it.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.comparison.plan import Plan
from experiments.comparison.rows import Finished
from experiments.datasets.base import Data
from experiments.launcher import provenance, quality
from lplmtl import metrics, statistics
from lplmtl.types import Task

# Bootstrap samples of the rows, for metrics whose variance has no formula. The
# standard error of either end of a 95 % interval is then a twentieth of its
# width.
SAMPLES = 200


def make(
  plan: Plan, data: Data, finished: Sequence[Finished]
) -> dict[str, Any]:
  """Returns all figures of the finished rows, as JSON data.

  Args:
    plan: of the comparison.
    data: whose test rows were scored.
    finished: rows, among them the plan's baseline.
  """
  tasks = [task.name for task in data.tasks]
  by_name = {row.name: row for row in finished}
  baseline, single = by_name[plan.baseline], by_name.get(plan.single)
  return {
    'title': f'{", ".join(tasks)}; {data.facts["dataset"]}',
    'tasks': tasks,
    'baseline': plan.baseline,
    'single': plan.single,
    'margin': plan.margin,
    'num_seeds': plan.base.num_seeds,
    'tuning_seeds': plan.tuning_seeds,
    'settings': list(plan.settings),
    'tree_settings': list(plan.tree_settings),
    'config': plan.base.to_json(),
    'rows': [
      _row(row, data, baseline, single, plan.margin) for row in finished
    ],
    'data': data.facts,
    'command': sys.argv,
    **provenance.environment(),
  }


def _row(
  row: Finished,
  data: Data,
  baseline: Finished,
  single: Finished | None,
  margin: float,
) -> dict[str, Any]:
  def intervals(other: Finished | None) -> dict[str, statistics.Interval]:
    return {
      task.name: interval(
        task,
        row.scores[task.name],
        data.test.labels[task.name],
        other.scores[task.name] if other else None,
      )
      for task in data.tasks
    }

  differences, gain = {}, None
  if row is not baseline:
    differences = intervals(baseline)
  if single is not None and row is not single:
    gain = _gain(row.facts['test'], single.facts['test'])
  return {
    'name': row.name,
    'setting': row.chosen,
    'fits': row.num_fits,
    'difference': _as_dicts(differences) or None,
    'verdict': verdict(differences, margin) if differences else 'baseline',
    'mtl_gain': gain,
    **row.facts,
    'fitted': row.environment,
    'interval': _as_dicts(intervals(None)),
  }


def interval(
  task: Task, scores: np.ndarray, labels: Any, baseline: Any = None
) -> statistics.Interval:
  """Returns the interval of a task's primary metric, or of a difference in it.

  For AUCs of labels that are 0 or 1, it combines DeLong's variance with that of
  the seeds. For other metrics, and for soft labels, the test rows are
  resampled, which leaves out the variance of the seeds.

  Args:
    task: its first metric is the primary one.
    scores: `[S, N, ...]` logits.
    labels: `[N]`.
    baseline: `[S', N, ...]` logits to compare with; None for the metric itself.
  """
  metric = next(iter(task.metric_fns.values()))
  labels = np.asarray(labels)
  is_soft = bool(((labels > 0) & (labels < 1)).any())
  if metric is metrics.roc_auc and not is_soft:
    if baseline is None:
      return statistics.auc_interval(scores, labels)
    return statistics.auc_difference(scores, baseline, labels)
  return _resampled(metric, scores, labels, baseline)


def _resampled(
  metric: Any, scores: np.ndarray, labels: np.ndarray, baseline: Any
) -> statistics.Interval:
  """Returns an interval by the paired bootstrap over test rows.

  The bootstrap takes one number per row, but logits may be vectors. It is
  therefore given row numbers instead of scores: number i of seed s, counted
  through all seeds of both methods, is s N + i. Without a baseline, one more
  seed stands for a metric that is always 0.
  """
  seeds = [*scores, *(() if baseline is None else baseline)]
  size = len(labels)

  def score(numbers: np.ndarray, labels: np.ndarray) -> Any:
    seed, rows = int(numbers[0]) // size, numbers.astype(int) % size
    if seed == len(seeds):
      return 0.0
    arguments = seeds[seed][rows], labels, rows >= 0
    return metric(*map(jnp.asarray, arguments))

  count = len(seeds) + (baseline is None)
  numbers = np.arange(float(count * size)).reshape(count, size)
  ours, theirs = numbers[: len(scores)], numbers[len(scores) :]
  return statistics.paired_bootstrap(
    score, ours, theirs, labels, num_samples=SAMPLES
  )


def verdict(
  differences: Mapping[str, statistics.Interval], margin: float
) -> str:
  """Returns what the intervals of the differences allow one to conclude.

  Args:
    differences: `{task: interval}`.
    margin: smaller differences, on either side of 0, count as none.
  """
  if all(d.within(margin) for d in differences.values()):
    return 'equivalent'
  parts = [
    f'{word} on {", ".join(names)}'
    for word, names in (
      ('better', [t for t, d in differences.items() if d.low > 0]),
      ('worse', [t for t, d in differences.items() if d.high < 0]),
    )
    if names
  ]
  return '; '.join(parts) or 'undecided'


def _as_dicts(
  intervals: Mapping[str, statistics.Interval],
) -> dict[str, dict[str, float]]:
  return {task: ends._asdict() for task, ends in intervals.items()}


def _gain(test: Mapping[str, Any], single: Mapping[str, Any]) -> float | None:
  """Returns the MTL gain in percent; None unless metrics permit one."""
  ours, others = (
    [values[quality.primary(values)]['mean'] for values in by_task.values()]
    for by_task in (test, single)
  )
  if not (np.isfinite(ours).all() and np.min(others) > 0):
    return None
  return statistics.mtl_gain(ours, others)
