"""A study as tables and files: Markdown, CSV, JSON and a picture.

All functions take the JSON data of study.json.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.comparison import publish
from experiments.comparison import tables as comparison
from experiments.launcher import display, drawing, files, quality, run_folder
from experiments.studies import picture

JSON, MARKDOWN, CSV = run_folder.STUDY, 'study.md', 'study.csv'
PICTURE = 'regret.png'
# The files of a study, the one with all figures first.
NAMES = (JSON, MARKDOWN, CSV, PICTURE)

Results = Mapping[str, Any]


def write(directory: pathlib.Path, results: Results) -> None:
  """Writes the tables, the picture and, last, study.json."""
  text = comparison.page(tables(results), notes(results), results['command'])
  files.write_text(directory / MARKDOWN, text)
  files.write_text(directory / CSV, csv(results))
  (directory / PICTURE).unlink(missing_ok=True)  # of an older table
  if drawing.is_available():
    picture.draw(directory / PICTURE, results)
  files.write_json(directory / JSON, results)


def tables(results: Results) -> list[display.TextTable]:
  """Returns regrets, their differences, and the settings chosen."""
  return [
    regret_table(results),
    *([difference_table(results)] if len(results['methods']) > 1 else []),
    *([settings_table(results)] if len(results['settings']) > 1 else []),
  ]


def regret_table(results: Results) -> display.TextTable:
  """Returns a method per row, and the regret at each value per column."""
  return _table(
    results,
    f'Regret: what the test {_metric(results)} lacks to the best possible one '
    f'(mean over {results["num_draws"]} draws ± half of its 95 % interval)',
    lambda row: _plus_minus(row['regret']),
  )


def difference_table(results: Results) -> display.TextTable:
  """Returns differences in regret from the baseline."""
  return _table(
    results,
    f'Regret above that of {results["baseline"]} (paired; mean ± half of its '
    '95 % interval; less is better)',
    lambda row: (
      _plus_minus(row['difference'], '+') if row['difference'] else ''
    ),
  )


def settings_table(results: Results) -> display.TextTable:
  """Returns the setting that was chosen, and the parameters it takes."""

  def cell(row: Mapping[str, Any]) -> str:
    return f'{row["setting"] or "its own"} ({row["parameters"]:,})'

  title = f'Setting chosen on {results["tuning_draws"]} other draws'
  return _table(results, f'{title} (parameters)', cell, left=True)


def _table(
  results: Results, title: str, cell: Any, *, left: bool = False
) -> display.TextTable:
  by_place = {(row['name'], row['value']): row for row in results['rows']}
  lines = []
  for name in results['methods']:
    places = [(name, value) for value in results['values']]
    texts = [cell(by_place[p]) if p in by_place else '' for p in places]
    if any(texts):
      lines.append([name, *texts])
  heads = [*results['values']]
  factor = f'method \\ {results["factor"]}'
  return display.TextTable(
    title, [factor, *heads], lines, left=(factor, *(heads if left else ()))
  )


def notes(results: Results) -> str:
  """Returns a paragraph on how to read the tables."""
  of = ', '.join(results['regret_of']) or 'all tasks'
  count = len(results['settings'])
  tuning = (
    f'Each method tries the same {count} settings at each value on '
    f'{results["tuning_draws"]} other draws, and the validation rows decide.'
    if count > 1
    else 'Nothing is tuned.'
  )
  return (
    f'Problem: {results["problem"]}. Each draw is another problem, with rows '
    'and initial parameters of its own; all methods get the same draws. Regret '
    f'is the mean over {of}. {tuning} Intervals cover draws, and no correction '
    'is made for their number.'
  )


def csv(results: Results) -> str:
  """Returns all figures, one line per method and value."""
  lines = []
  for row in results['rows']:
    line = {
      'row': row['name'],
      results['factor'].replace(' ', '_'): row['value'],
      'setting': row['setting'],
      'parameters': row['parameters'],
      'flops_per_example': row['flops_per_example'],
      **{f'regret_{k}': v for k, v in row['regret'].items()},
      **{f'difference_{k}': v for k, v in (row['difference'] or {}).items()},
    }
    for task, metrics in row['test'].items():
      for metric, found in metrics.items():
        line[f'{task}_{metric}'] = found['mean']
    lines.append(line)
  return pd.DataFrame(lines).to_csv(index=False)


def _metric(results: Results) -> str:
  return ' or '.join(map(quality.label, results['metrics']))


def _plus_minus(interval: Mapping[str, float], sign: str = '') -> str:
  reach = (interval['high'] - interval['low']) / 2
  return f'{interval["estimate"]:{sign}.4f} ± {reach:.4f}'


# The tables of a study that a page of published results may ask for.
KINDS: publish.Kinds = {
  'regret': regret_table,
  'difference': difference_table,
  'chosen': settings_table,
}


# Raises InputError for a folder that cannot be published to.
check_target = publish.check


def publish_to(source: pathlib.Path, target: pathlib.Path) -> str:
  """Publishes a study; see `comparison.publish.add`."""
  return publish.add(source, target, KINDS, (JSON, CSV, PICTURE))
