"""The figures of a comparison: intervals, differences, verdicts.

`make` returns JSON data; `tables` shows it.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.comparison import intervals
from experiments.comparison.intervals import Evidence
from experiments.comparison.plan import Plan
from experiments.comparison.rows import Finished
from experiments.datasets.base import Data
from experiments.launcher import provenance, quality
from lplmtl import statistics

# An interval inside this is 0 to the last digit that tables show, on both
# sides: two forms of one network, which differ by rounding.
_ALIKE = 5e-6


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
  evidence = {
    row.name: {
      task.name: intervals.gather(task, row.scores[task.name], data.test)
      for task in data.tasks
    }
    for row in finished
  }
  margins = {
    task.name: quality.margin(next(iter(task.metric_fns), 'loss'))
    if plan.margin is None
    else plan.margin
    for task in data.tasks
  }
  return {
    'title': f'{", ".join(tasks)}; {data.facts["dataset"]}',
    'tasks': tasks,
    'baseline': plan.baseline,
    'single': plan.single,
    'margin': margins,
    'num_seeds': plan.base.num_seeds,
    'tuning_seeds': plan.tuning_seeds,
    'settings': list(plan.settings),
    'tree_settings': list(plan.tree_settings),
    'config': plan.base.to_json(),
    'rows': [
      _row(
        row,
        evidence[row.name],
        evidence[plan.baseline],
        by_name.get(plan.single),
        margins,
      )
      for row in finished
    ],
    'data': data.facts,
    'command': sys.argv,
    **provenance.environment(),
  }


def _row(
  row: Finished,
  evidence: Mapping[str, Evidence],
  baseline: Mapping[str, Evidence],
  single: Finished | None,
  margins: Mapping[str, float],
) -> dict[str, Any]:
  differences, gain = {}, None
  if evidence is not baseline:
    differences = {
      task: intervals.interval(own, baseline[task])
      for task, own in evidence.items()
    }
  if single is not None and row is not single:
    gain = _gain(row.facts['test'], single.facts['test'])
  said = 'baseline'
  if differences:
    primary = {t: quality.primary(m) for t, m in row.facts['test'].items()}
    said = verdict(differences, margins, primary)
  return {
    'name': row.name,
    'setting': row.chosen,
    'fits': row.num_fits,
    'num_settings': row.num_settings,
    'difference': _as_dicts(differences) or None,
    'verdict': said,
    'mtl_gain': gain,
    **row.facts,
    'fitted': row.environment,
    'interval': _as_dicts(
      {task: intervals.interval(own) for task, own in evidence.items()}
    ),
  }


def verdict(
  differences: Mapping[str, statistics.Interval],
  margins: Mapping[str, float],
  primary: Mapping[str, str],
) -> str:
  """Returns what the intervals of the differences allow one to conclude.

  Args:
    differences: `{task: interval}`.
    margins: `{task: margin}`: smaller differences, on either side of 0, count
      as none; so do those that tables show as 0.
    primary: `{task: metric}`; of losses, smaller ones are better.
  """
  if all(d.within(max(margins[t], _ALIKE)) for t, d in differences.items()):
    return 'equivalent'
  apart = {t: d for t, d in differences.items() if not d.within(_ALIKE)}
  above = [task for task, d in apart.items() if d.low > 0]
  below = [task for task, d in apart.items() if d.high < 0]
  is_better = {
    **{task: not quality.is_loss(primary[task]) for task in above},
    **{task: quality.is_loss(primary[task]) for task in below},
  }
  parts = [
    f'{word} on {", ".join(names)}'
    for word, names in (
      ('better', [task for task in differences if is_better.get(task, False)]),
      (
        'worse',
        [task for task in differences if not is_better.get(task, True)],
      ),
    )
    if names
  ]
  return '; '.join(parts) or 'undecided'


def _as_dicts(
  intervals: Mapping[str, statistics.Interval],
) -> dict[str, dict[str, float]]:
  return {task: ends._asdict() for task, ends in intervals.items()}


def _gain(test: Mapping[str, Any], single: Mapping[str, Any]) -> float | None:
  """Returns the MTL gain in percent; None unless metrics permit one.

  That of a loss, of which less is better, has the opposite sign (Maninis et al.
  2019).
  """
  ours, others = [], []
  for task, values in test.items():
    metric = quality.primary(values)
    own, other = (x[task][metric]['mean'] for x in (test, single))
    ours.append(2 * other - own if quality.is_loss(metric) else own)
    others.append(other)
  if not (np.isfinite(ours).all() and np.min(others) > 0):
    return None
  return statistics.mtl_gain(ours, others)
