"""How to go on after a comparison on a table: the command for the best row."""

import csv
import io
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.comparison.plan import Plan
from experiments.launcher import fields, provenance, quality
from experiments.launcher.options import Config

_FIRST = ('data', 'targets', 'architecture')
_LEFT_OUT = ('out_dir', 'overwrite')  # those of the comparison


def line(plan: Plan, results: Mapping[str, Any]) -> str:
  """Returns a line with the command that trains and saves the best network.

  The best row is that with the highest mean of the primary validation metrics;
  empty if all rows are trees or taught by trees, which no command saves.

  Args:
    plan: of the comparison.
    results: its figures.
  """
  networks = [
    row
    for row in results['rows']
    if plan.rows[row['name']] and row['name'] not in plan.taught
  ]
  if not networks:
    return ''
  best = max(networks, key=mean_quality)
  note = ''
  if any(mean_quality(row) > mean_quality(best) for row in results['rows']):
    note = ' (trees do better, but no command saves them)'
  program = pathlib.Path(results['command'][0]).with_name('tabular.py')
  command = [str(program), *_flags(plan, best)]
  return (
    f'best network by validation metrics: {best["name"]}{note}; to train it '
    f'and predict new rows with it:\n{provenance.command_line(command)}'
  )


def _flags(plan: Plan, row: Mapping[str, Any]) -> list[str]:
  """Returns what was asked for: for all rows, by the setting, by the row."""
  setting = next(iter(row['setting'].values()))
  config = plan.final_config(row['name'], setting)
  asked = {
    *plan.given,
    *plan.settings.get(setting, ()),
    *(plan.rows[row['name']] or ()),
  }
  known = fields.of(Config)
  names = [*_FIRST, *(name for name in known if name not in _FIRST)]
  return [
    f'--{name}={_text(known[name].show(value))}'
    for name in names
    if name in asked and name not in _LEFT_OUT
    # `final_config` has moved the first seed behind those of tuning.
    for value in [getattr(plan.base if name == 'seed' else config, name)]
  ]


def _text(shown: Any) -> str:
  """Returns what to write for a flag; lists as CSV."""
  if not isinstance(shown, (list, tuple)):
    return str(shown)
  line = io.StringIO()
  csv.writer(line, lineterminator='').writerow(shown)
  return line.getvalue()


def mean_quality(row: Mapping[str, Any]) -> float:
  """Returns the mean of the primary validation metrics over the tasks.

  Larger is better. What the validation rows do not define is left out.
  """
  values = []
  for metrics in row['validation'].values():
    metric = quality.primary(metrics)
    mean = metrics[metric]['mean']
    values.append(-mean if quality.is_loss(metric) else mean)
  known = [value for value in values if np.isfinite(value)]
  return float(np.mean(known)) if known else -np.inf
