"""The pictures of a report."""

import pathlib
from typing import Any, NamedTuple

from experiments.comparison import plots as comparison_plots
from experiments.launcher import gate_map, panels, plots
from experiments.reporting import tables
from experiments.reporting.contents import Contents


class Picture(NamedTuple):
  """A picture of the page.

  Attributes:
    file: its name in the folder.
    text: what it shows.
  """

  file: str
  text: str


def draw(contents: Contents, folder: pathlib.Path) -> list[Picture]:
  """Draws all pictures into a folder."""
  return [*_of_runs(contents, folder), *_of_comparisons(contents, folder)]


def _of_runs(contents: Contents, folder: pathlib.Path) -> list[Picture]:
  runs, drawn = contents.runs, []
  tasks = tables.task_names(runs)
  histories = {run.name: run.history for run in runs if run.history}
  if histories:
    plots.learning(folder / 'learning.png', histories, tasks)
    drawn.append(Picture('learning.png', 'Learning curves and loss weights'))
  diagrams = {
    run.name: run.results['calibration']
    for run in runs
    if run.results.get('calibration')
  }
  if diagrams:
    binary = [t for t in tasks if any(t in of for of in diagrams.values())]
    targets: dict[str, Any] = {}
    for run in runs:
      targets |= run.results['data'].get('targets', {})
    plots.calibration(folder / 'calibration.png', diagrams, binary, targets)
    drawn.append(Picture('calibration.png', 'Calibration on the test rows'))
  for i, run in enumerate(runs):
    if run.results.get('outcomes'):
      name = f'outcomes_{i}.png'
      panels.outcomes(folder / name, run.results)
      drawn.append(Picture(name, f'Predictions beside the truth: {run.name}'))
    if run.results['gates']:
      name = f'gates_{i}.png'
      gate_map.gates(
        folder / name, run.results['gates'], run.name, list(run.results['test'])
      )
      drawn.append(Picture(name, f'Gate use: {run.name}'))
  return drawn


def _of_comparisons(contents: Contents, folder: pathlib.Path) -> list[Picture]:
  drawn = []
  for i, comparison in enumerate(contents.comparisons):
    title = comparison['title']
    if len(comparison['rows']) > 1:
      name = f'differences_{i}.png'
      comparison_plots.differences(folder / name, comparison)
      drawn.append(Picture(name, f'Differences: {title}'))
    name = f'sizes_{i}.png'
    comparison_plots.sizes(folder / name, comparison)
    drawn.append(Picture(name, f'Quality against size: {title}'))
  return drawn
