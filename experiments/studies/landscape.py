"""Balancers on a landscape of two losses: a table, and a picture of the paths.

Matplotlib (the extra `plots`) draws the picture.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.comparison import tables as comparison
from experiments.launcher import display, drawing, files, provenance
from experiments.launcher.errors import InputError
from experiments.studies import descent
from experiments.studies.descent import Asked, Descent
from lplmtl import data

Results = Mapping[str, Any]
_KEYS = {'first_scale', 'starts', 'rows'}  # of our own JSON files
_HALF = 11.0  # the picture shows both parameters from -11 to 11
_PANELS = 6  # side by side
_ENDS = ('.json', '.md', '.csv', '.png')


def make(asked: Asked, stem: pathlib.Path) -> Results:
  """Descends with every balancer; prints a table, and writes it with a picture.

  Args:
    asked: what to draw.
    stem: the files to write, without .md, .csv, .json and .png.

  Returns:
    What is written as JSON.

  Raises:
    InputError: a balancer is unknown, or a file is there that this command did
      not write, or cannot be written.
  """
  paths = {end: stem.with_name(stem.name + end) for end in _ENDS}
  _check(paths)
  methods = descent.methods(asked.methods)
  console = display.make_console(140)
  found = []
  with display.steps(console, len(methods)) as done:
    for name, method in methods.items():
      found.append(descent.descend(name, method, asked))
      done(f'{name}: {_counts(found[-1])} of {len(data.STARTS)}')
  results = to_json(asked, found)
  console.print(table(results).to_rich())
  try:
    stem.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(paths['.md'], page(results))
    files.write_text(paths['.csv'], csv(results))
    if drawing.is_available():
      _draw(paths['.png'], asked, found)
    files.write_json(paths['.json'], results)
  except OSError as error:
    raise InputError(
      f'--landscape_to={stem} cannot be written ({error.strerror or error})'
    ) from error
  console.print(f'written to {stem}.*', soft_wrap=True)
  return results


def _check(paths: Mapping[str, pathlib.Path]) -> None:
  """Refuses files that this command has not written."""
  there = [path for path in paths.values() if path.exists()]
  try:
    is_ours = files.read_json(paths['.json']).keys() >= _KEYS
  except (OSError, ValueError, AttributeError):
    is_ours = False
  if there and not is_ours:
    raise InputError(
      f'{there[0]} exists, but no landscape wrote it: move it away, or choose '
      'another --landscape_to'
    )


def to_json(asked: Asked, found: Sequence[Descent]) -> dict[str, Any]:
  """Returns all figures but the paths."""
  return {
    'first_scale': asked.first_scale,
    'num_steps': asked.num_steps,
    'rates': list(asked.rates),
    'starts': [list(start) for start in data.STARTS],
    'tolerance': descent.TOLERANCE,
    'rows': [
      {
        'name': one.name,
        'rate': rate,
        'steps': [int(n) if np.isfinite(n) else None for n in one.steps[i]],
        'losses': one.losses[i].round(3).tolist(),
        'gaps': one.gaps[i].round(3).tolist(),
      }
      for one in found
      for i, rate in enumerate(asked.rates)
    ],
    'command': ['experiments/landscape.py', *sys.argv[1:]],
    **provenance.environment(),
  }


def table(results: Results) -> display.TextTable:
  """Returns a balancer per row: how often it gets to the front, and where."""
  by_name: dict[str, list[Any]] = {}
  for row in results['rows']:
    by_name.setdefault(row['name'], []).append(row)
  rates, starts = results['rates'], results['starts']
  lines = []
  for name, rows in by_name.items():
    arrived = [[n for n in row['steps'] if n is not None] for row in rows]
    steps = f'{np.median(arrived[0]):,.0f}' if arrived[0] else ''
    ends = zip(rows[0]['losses'], rows[0]['steps'], strict=True)
    lines.append(
      [name, *(str(len(a)) for a in arrived), steps, *(_end(*x) for x in ends)]
    )
  unit = results['first_scale']
  heads = [f'{x:g}, {y:g}' for x, y in starts]
  return display.TextTable(
    f'How many of {len(starts)} starts lead to the Pareto front in '
    f'{results["num_steps"]:,} steps, by learning rate'
    f'{"" if unit == 1 else f"; the unit of L1 is {unit:g}"}. At '
    f'{rates[0]:g}: the median of the steps, and L1, L2 at the end, by start; '
    'in brackets where that is not on the front',
    ['balancer', *(f'{rate:g}' for rate in rates), 'steps', *heads],
    lines,
    left=('balancer',),
  )


def _end(losses: Sequence[float], steps: int | None) -> str:
  text = ', '.join('?' if x is None else f'{x:.1f}' for x in losses)
  return text if steps is not None else f'({text})'


def page(results: Results) -> str:
  """Returns the table, how to read it, and the command, in Markdown."""
  notes = (
    f'A point is on the front if both losses cannot fall by more than '
    f'{results["tolerance"]:g} at once (on the front each has a range of 20); '
    'losses are shown without the unit. Adam, at constant rates; balancers '
    'with their defaults. They are given each loss plus '
    f'{descent.RAISED:g}, times its unit: above 0, as those that read losses '
    'expect, with the same gradients. One key for each start.'
  )
  return comparison.page([table(results)], notes, results['command'])


def csv(results: Results) -> str:
  """Returns all figures, one line per balancer, rate and start."""
  lines = [
    {
      'balancer': row['name'],
      'rate': row['rate'],
      'start_1': start[0],
      'start_2': start[1],
      'steps': row['steps'][i],
      'loss_1': row['losses'][i][0],
      'loss_2': row['losses'][i][1],
      'gap': row['gaps'][i],
    }
    for row in results['rows']
    for i, start in enumerate(results['starts'])
  ]
  frame = pd.DataFrame(lines)
  return frame.astype({'steps': 'Int64'}).to_csv(index=False)


def _counts(found: Descent) -> str:
  return ', '.join(map(str, np.isfinite(found.steps).sum(axis=1)))


def _draw(path: pathlib.Path, asked: Asked, found: Sequence[Descent]) -> None:
  """Draws a panel per balancer, with its paths at the first rate."""
  width = min(_PANELS, len(found))
  height = -(-len(found) // width)
  figure = drawing.new_figure(2.2 * width, 2.35 * height + 0.5)
  axes = figure.subplots(
    height, width, squeeze=False, sharex=True, sharey=True
  ).ravel()
  grid = np.linspace(-_HALF, _HALF, 221)
  points = np.stack(np.meshgrid(grid, grid), axis=-1)
  scale = np.array([asked.first_scale, 1.0])
  mean = (descent.losses_at(points) * scale).mean(axis=-1)
  best, _ = descent.front()
  for axis, one in zip(axes, found, strict=False):
    axis.contour(
      grid, grid, mean, levels=20, cmap='Greys_r', linewidths=0.5, alpha=0.8
    )
    axis.plot(*best.T, color='0.55', lw=4, solid_capstyle='round')
    for number, way in enumerate(one.paths[0]):
      color = f'C{number}'
      reached = np.isfinite(one.steps[0, number])
      axis.plot(*way.T, color=color, lw=1.3)
      axis.plot(*way[0], 'o', color=color, ms=4, mec='black', mew=0.5)
      axis.plot(
        *way[-1], '*' if reached else 'X', color=color, ms=9 if reached else 7,
        mec='black', mew=0.5, zorder=5,
      )  # fmt: skip
    axis.set_title(
      f'{one.name}: {np.isfinite(one.steps[0]).sum()} of {len(data.STARTS)}',
      fontsize=8,
    )
    axis.set(xlim=(-_HALF, _HALF), ylim=(-_HALF, _HALF), aspect='equal')
    axis.tick_params(labelsize=6)
  for axis in axes[len(found) :]:
    axis.set_axis_off()
  figure.suptitle(
    'Paths of Adam at a learning rate of '
    f'{asked.rates[0]:g}, {asked.num_steps:,} steps, from five starts (dots) '
    'to the Pareto front (grey bar; stars) or elsewhere (crosses).\n'
    f'Contours: the mean of L1{_times(asked.first_scale)} and L2',
    fontsize=9,
  )
  drawing.save(figure, path)


def _times(scale: float) -> str:
  return '' if scale == 1 else f' x {scale:g}'
