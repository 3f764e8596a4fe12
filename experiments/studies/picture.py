"""The picture of a study: regret, and its difference, against the factor.

Needs Matplotlib (the extra `plots`).
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.launcher import drawing, quality

# A factor that varies by more than this is drawn on a logarithmic axis.
_WIDE = 20.0
# Bands of more methods than this would hide each other: the table has them.
_MOST_BANDS = 10


def draw(path: pathlib.Path, results: Mapping[str, Any]) -> None:
  """Draws a line per method, with a band for the 95 % interval if they are few.

  Args:
    path: the file, written atomically.
    results: the content of study.json.
  """
  has_others = len({row['name'] for row in results['rows']}) > 1
  count = len(results['methods'])
  has_bands = count <= _MOST_BANDS
  height = max(4.6, 0.27 * count)  # of the legend
  figure = drawing.new_figure(5.2 * (1 + has_others) + 1.8, height)
  axes = figure.subplots(1, 1 + has_others, squeeze=False)
  places = _places(results['values'])
  kinds = ['regret', 'difference'][: 1 + has_others]
  for axis, kind in zip(axes[0], kinds, strict=True):
    for number, name in enumerate(results['methods']):
      rows = [
        row
        for row in results['rows']
        if row['name'] == name and row[kind] is not None
      ]
      if rows:
        style = drawing.line_style(number)
        _line(axis, rows, kind, places, style, has_band=has_bands)
    _label(axis, results, places)
  metric = ' or '.join(map(quality.label, results['metrics']))
  axes[0, 0].set_ylabel(f'regret: best possible less test {metric}')
  axes[0, 0].set_ylim(bottom=min(0.0, axes[0, 0].get_ylim()[0]))
  if has_others:
    axes[0, 1].axhline(0, color='0.4', lw=0.8)
    axes[0, 1].set_ylabel('difference in regret (less is better)')
    axes[0, 1].set_title(f'above that of {results["baseline"]}', fontsize=9)
  drawing.add_legend(figure, axes)
  of = ', '.join(results['regret_of']) or 'all tasks'
  figure.suptitle(
    f'{results["problem"]}\nmean over {of} and {results["num_draws"]} draws'
    f'{"; bands: 95 % interval" if has_bands else ""}',
    fontsize=9,
  )
  drawing.save(figure, path)


def _line(
  axis: Any,
  rows: Sequence[Mapping[str, Any]],
  kind: str,
  places: Mapping[str, float],
  style: Mapping[str, Any],
  *,
  has_band: bool,
) -> None:
  x = [places[row['value']] for row in rows]
  mean, low, high = (
    [row[kind][end] for row in rows] for end in ('estimate', 'low', 'high')
  )
  axis.plot(
    x, mean, label=rows[0]['name'], ms=5, lw=1.3, mec='black', mew=0.5, **style
  )
  if has_band:
    axis.fill_between(x, low, high, color=style['color'], alpha=0.15, lw=0)


def _label(
  axis: Any, results: Mapping[str, Any], places: Mapping[str, float]
) -> None:
  x = np.array(list(places.values()))
  if (x > 0).all() and x.max() > _WIDE * x.min():
    axis.set_xscale('log')
    axis.minorticks_off()
  axis.set_xticks(x, list(places), fontsize=8)
  axis.set_xlabel(results['factor'])
  axis.grid(alpha=0.3)


def _places(values: Sequence[str]) -> dict[str, float]:
  """Returns where values lie on the axis: evenly, unless all are numbers."""
  try:
    return {value: float(value) for value in values}
  except ValueError:
    return {value: float(i) for i, value in enumerate(values)}
