"""The figures of a study: regret of each method at each value."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.comparison.rows import Finished
from experiments.launcher import provenance, quality
from experiments.studies.methods import Method
from experiments.studies.plan import Plan
from lplmtl import statistics


def make(
  plan: Plan, finished: Sequence[tuple[Method, Finished]]
) -> dict[str, Any]:
  """Returns all figures as JSON data.

  The regret of a draw is the best possible primary test metric less the
  model's, the mean over tasks. Intervals are Student's over the draws;
  differences from the baseline are paired, as both had the same draws.

  Args:
    plan: of the study.
    finished: methods and their figures; those of a value without its baseline
      are left out.
  """
  compared = plan.compared
  regrets = {
    (method.value, method.method): regret(done.facts, plan.regret_of)
    for method, done in finished
  }
  rows = []
  for method, done in finished:
    base = regrets.get((method.value, compared.baseline))
    if base is None:
      continue
    own = regrets[method.value, method.method]
    is_baseline = method.method == compared.baseline
    rows.append(
      {
        'name': method.method,
        'value': method.value,
        # Of settings that a row overrides, the first would be named.
        'setting': done.chosen['all'] if done.num_settings > 1 else '',
        'num_settings': done.num_settings,
        'fits': done.num_fits,
        'regret': _interval(own),
        'difference': None if is_baseline else _interval(own - base),
        'per_draw': own.tolist(),
        **done.facts,
        'fitted': done.environment,
      }
    )
  first = finished[0][1].facts['test'] if finished else {}
  metrics = dict.fromkeys(quality.primary(m) for m in first.values())
  return {
    'problem': plan.problem,
    'factor': plan.factor,
    'values': [
      value
      for value in plan.setups
      if any(row['value'] == value for row in rows)
    ],
    'regret_of': list(plan.regret_of),
    'metrics': list(metrics),
    'baseline': compared.baseline,
    'methods': list(compared.rows),
    'num_draws': compared.base.num_seeds,
    'tuning_draws': compared.tuning_seeds,
    'settings': list(compared.settings),
    'config': plan.config(),
    'rows': rows,
    'command': sys.argv,
    **provenance.environment(),
  }


def regret(facts: Mapping[str, Any], of: Sequence[str]) -> np.ndarray:
  """Returns `[S]`, the mean regret over tasks on each draw.

  Args:
    facts: of a finished method.
    of: the tasks that count; empty for all.
  """
  of_task = []
  for task in of or facts['test']:
    metrics = facts['test'][task]
    found = np.array(metrics[quality.primary(metrics)]['per_seed'])
    of_task.append(np.array(facts['optimum'][task]) - found)
  return np.mean(of_task, axis=0)


def _interval(values: np.ndarray) -> dict[str, float]:
  return statistics.mean_interval(values)._asdict()
