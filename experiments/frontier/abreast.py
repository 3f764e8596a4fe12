"""Roads side by side: each against an SPLE drawn at the same bytes.

Of each form and budget, the road `BASELINE` is what the others differ from.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.comparison import intervals
from experiments.comparison import tables as comparison
from experiments.comparison.rows import Finished
from experiments.datasets.base import Data
from experiments.frontier.roads import FORMS, ROADS
from experiments.launcher import display

BASELINE = 'sple from scratch'


def differences(
  finished: Sequence[Finished], data: Data
) -> dict[str, dict[str, dict[str, float]]]:
  """Returns `{row: {task: interval}}`, JSON data.

  Args:
    finished: rows, of which roads count; those whose baseline is missing do
      not.
    data: whose test rows were scored.
  """
  by_name = {row.name: row for row in finished}
  evidence: dict[str, dict[str, intervals.Evidence]] = {}

  def gathered(row: Finished) -> dict[str, intervals.Evidence]:
    if row.name not in evidence:
      evidence[row.name] = {
        task.name: intervals.gather(task, row.scores[task.name], data.test)
        for task in data.tasks
      }
    return evidence[row.name]

  found = {}
  for row in finished:
    road = row.facts['family']
    other = by_name.get(BASELINE + row.name.removeprefix(road))
    if road not in ROADS or other is None or other is row:
      continue
    own, baseline = gathered(row), gathered(other)
    found[row.name] = {
      task: intervals.interval(own[task], baseline[task])._asdict()
      for task in own
    }
  return found


def table(results: Mapping[str, Any]) -> display.TextTable:
  """Returns a line for each form and road, and columns for each budget."""
  tasks, budgets = results['tasks'], results['budgets']
  metric = comparison.primary_metrics(results)
  scale = 1 if comparison.is_table(results) else 1e4
  unit = '' if scale == 1 else ', in units of .0001'
  rows = {row['name']: row for row in results['rows']}
  lines = []
  for form in FORMS:
    for road in ROADS:
      named = [f'{road} {budget} {form}' for budget in budgets]
      if not any(name in rows for name in named):
        continue
      cells = [
        _cell(rows.get(name), results['abreast'].get(name), task, metric, scale)
        for name in named
        for task in tasks
      ]
      lines.append([str(form), road, *cells])
  return display.TextTable(
    f'Roads at equal bytes ({results["title"]}; {BASELINE}: test '
    f'{comparison.primary_names(results, tasks)}, mean ± std over '
    f'{results["num_seeds"]} seeds; others: difference from it with its 95 % '
    f'interval{unit})',
    ['form', 'road', *(f'{task}, {n:,}' for n in budgets for task in tasks)],
    lines,
    left=('form', 'road'),
  )


def _cell(
  row: Mapping[str, Any] | None,
  difference: Mapping[str, Any] | None,
  task: str,
  metric: Mapping[str, str],
  scale: float,
) -> str:
  if row is None:
    return ''
  if difference is None:
    return display.plus_minus(row['test'][task][metric[task]])
  return comparison.difference_text({'difference': difference}, task, scale)
