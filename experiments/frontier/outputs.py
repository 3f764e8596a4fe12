"""A frontier as tables and files: Markdown, CSV, JSON and a picture.

All functions take the JSON data of frontier.json.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.comparison import publish
from experiments.comparison import tables as comparison
from experiments.frontier import abreast, abreast_picture, knees, picture
from experiments.launcher import (
  display,
  drawing,
  files,
  quality,
  run_folder,
)

JSON, MARKDOWN, CSV = run_folder.FRONTIER, 'frontier.md', 'frontier.csv'
PICTURE = 'frontier.png'
# The files of a frontier, the one with all figures first.
NAMES = (JSON, MARKDOWN, CSV, PICTURE)

_KNEE = (
  'Knee: where the validation metric rises most above the line between the '
  'smallest and the largest of a family. '
)

Results = Mapping[str, Any]


def write(directory: pathlib.Path, results: Results) -> None:
  """Writes the tables, the picture and, last, frontier.json."""
  files.write_text(directory / MARKDOWN, markdown(results))
  files.write_text(directory / CSV, csv(results))
  (directory / PICTURE).unlink(missing_ok=True)  # of an older table
  if drawing.is_available():
    # Of roads, all bytes are nearly equal.
    draw = abreast_picture.draw if results['abreast'] else picture.draw
    draw(directory / PICTURE, results)
  files.write_json(directory / JSON, results)


def markdown(results: Results) -> str:
  """Returns the tables, how to read them, and the command."""
  return comparison.page(tables(results), notes(results), results['command'])


def tables(results: Results) -> list[display.TextTable]:
  """Returns the tables, of a few tasks each."""
  tasks, most = results['tasks'], comparison.MOST_TASKS
  found = [
    frontier_table(results, tasks[i : i + most])
    for i in range(0, len(tasks), most)
  ]
  return [*found, abreast.table(results)] if results['abreast'] else found


def frontier_table(
  results: Results, tasks: Sequence[str] = ()
) -> display.TextTable:
  """Returns bytes, operations, metrics and differences of each row.

  Args:
    results: of the frontier.
    tasks: those to show; by default all.
  """
  tasks, baseline = tasks or results['tasks'], results['baseline']
  metric = comparison.primary_metrics(results)
  scale = 1 if comparison.is_table(results) else 1e4
  unit = '' if scale == 1 else ', in units of .0001'
  marked = set(results['knees'].values())
  heads = [
    text
    for task in tasks
    for text in (f'{task} {quality.label(metric[task])}', f'Δ {task}')
  ]
  rows = []
  for row in results['rows']:
    operations = row['multiply_adds']
    cells = [
      text
      for task in tasks
      for text in (
        display.plus_minus(row['test'][task][metric[task]]),
        comparison.difference_text(row, task, scale),
      )
    ]
    rows.append(
      [
        row['name'] + (' (knee)' if row['name'] in marked else ''),
        f'{row["num_bytes"]:,}',
        '' if operations is None else f'{operations:,}',
        *cells,
        row['verdict'],
      ]
    )
  return display.TextTable(
    f'Bytes against test {comparison.primary_names(results, tasks)} '
    f'({results["title"]}; mean ± std over {results["num_seeds"]} seeds; Δ: '
    f'difference from {baseline} with its 95 % interval{unit})',
    ['row', 'bytes', 'multiply-adds', *heads, f'against {baseline}'],
    rows,
    left=('row', f'against {baseline}'),
  )


def notes(results: Results) -> str:
  """Returns a paragraph on how to read the tables."""
  sizes = {row['name']: row['num_bytes'] for row in results['rows']}
  smallest = knees.smallest_equivalent(results['rows'])
  found = ', '.join(f'{name} ({sizes[name]:,})' for name in smallest.values())
  return (
    f'{results["data"]["statement"]}. Bytes: all constant data that a device '
    'needs to score a raw row (lplmtl.compression.packing); the mean over the '
    f'seeds. {results["baseline"]} is the best dense network by the validation '
    'rows, and every choice was made on these. Intervals cover the variance of '
    'seeds and of test rows; equivalent: inside '
    f'{comparison.margins_text(results)}; no correction is made for the number '
    f'of rows. {_KNEE if results["knees"] else ""}Smallest equivalent of each '
    f'family: {found or "none"}.'
  )


def csv(results: Results) -> str:
  """Returns all figures, one line per row."""
  known = dict.fromkeys(
    part for row in results['rows'] for part in row['parts']
  )
  lines = []
  for row in results['rows']:
    flat = comparison.flat(row, results)
    lines.append(
      {
        'row': flat.pop('row'),
        'family': row['family'],
        'bytes': row['num_bytes'],
        'multiply_adds': row['multiply_adds'],
        **flat,
        **{f'bytes_{part}': row['parts'].get(part, 0) for part in known},
      }
    )
  return pd.DataFrame(lines).to_csv(index=False)


# All tables that a page of published results may ask for.
KINDS: publish.Kinds = {
  **publish.TABLES,
  'frontier': frontier_table,
  'roads': abreast.table,
}


def publish_to(source: pathlib.Path, target: pathlib.Path) -> str:
  """Publishes a frontier; see `comparison.publish.add`."""
  return publish.add(source, target, KINDS, (JSON, CSV, PICTURE))
