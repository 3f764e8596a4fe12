"""The picture of gate use; needs Matplotlib (the extra `plots`)."""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.launcher import drawing

_COLUMN = 0.62  # inches of an expert
_LETTERS = 11  # of a pool's name that fit below one expert, at 7 points
_LINES = 3  # of a pool's name
_ROW_LETTERS = 30


class _Table(NamedTuple):
  """One level.

  Attributes:
    values: `[gates, experts]`, NaN where a gate does not have an expert.
    gates: names of the rows.
    pools: `{name: number of experts}`, of the columns from left to right.
  """

  values: np.ndarray
  gates: list[str]
  pools: dict[str, int]


def gates(
  path: pathlib.Path,
  levels: Sequence[Mapping[str, Any]],
  title: str,
  task_names: Sequence[str],
) -> None:
  """Draws the mean weight of each expert in each gate, one heat map per level.

  Only the first seed is shown, because the experts of different seeds have
  nothing in common.

  Args:
    path: the file.
    levels: each with its `usage`, `{gate: {pool: [S][E_p]}}`.
    title: of the picture.
    task_names: in the order of gates and pools, before shared ones.
  """
  tables = [_table(level['usage'], task_names) for level in levels]
  widest = max(table.values.shape[1] for table in tables)
  height = sum(len(table.gates) + 2.4 for table in tables)
  figure = drawing.new_figure(max(_COLUMN * widest + 3, 6), 0.42 * height + 0.8)
  axes = figure.subplots(
    len(tables), 1, squeeze=False,
    height_ratios=[len(table.gates) + 1 for table in tables],
  )[:, 0]  # fmt: skip
  for i, (axis, table) in enumerate(zip(axes, tables, strict=True)):
    shown = _draw(axis, table)
    axis.set_xlim(-0.5, widest - 0.5)
    axis.set_ylabel(f'level {i}\ngate of', fontsize=8)
  axes[-1].set_xlabel('experts of', fontsize=8)
  bar = figure.colorbar(shown, ax=list(axes), shrink=0.9)
  bar.set_label('mean gate weight', fontsize=8)
  figure.suptitle(
    f"{title}\nover the test rows, first seed; blank: not this gate's",
    fontsize=9,
  )
  drawing.save(figure, path)


def _draw(axis: Any, table: _Table) -> Any:
  """Draws one level; returns its image, from which the colour bar is made."""
  image = axis.imshow(table.values, cmap='Greys', vmin=0, vmax=1, aspect='auto')
  for (row, column), value in np.ndenumerate(table.values):
    if np.isfinite(value):
      axis.text(
        column, row, f'{value:.2f}', ha='center', va='center', fontsize=7,
        color='white' if value > 0.6 else 'black',  # on dark, on light
      )  # fmt: skip
  names = [
    name if len(name) <= _ROW_LETTERS else f'{name[: _ROW_LETTERS - 3]}...'
    for name in table.gates
  ]
  axis.set_yticks(range(len(names)), names, fontsize=8)
  # One name below all experts of a pool, in lines of their width.
  ends = np.cumsum(list(table.pools.values()))
  axis.set_xticks(
    [
      end - (size + 1) / 2
      for end, size in zip(ends, table.pools.values(), strict=True)
    ],
    [_lines(name, size) for name, size in table.pools.items()],
    fontsize=7,
  )
  for end in ends[:-1]:
    axis.axvline(end - 0.5, color='0.6', lw=0.6)
  axis.tick_params(axis='x', length=0)
  axis.spines[:].set_visible(False)
  return image


def _lines(name: str, size: int) -> str:
  wrapped = textwrap.wrap(
    name, _LETTERS * size, max_lines=_LINES, placeholder='...'
  )
  return '\n'.join(wrapped)


def _table(
  usage: Mapping[str, Mapping[str, Any]], task_names: Sequence[str]
) -> _Table:
  """Returns the first seed's weights, in the order of the tasks."""
  order = {name: i for i, name in enumerate(task_names)}

  def place(name: str) -> tuple[int, str]:
    return order.get(_short(name), len(order)), name

  sizes: dict[str, int] = {}
  for pools in usage.values():
    for pool, weights in pools.items():
      sizes[pool] = len(weights[0])
  ordered = sorted(sizes, key=place)
  names = sorted(usage, key=place)
  rows = [
    [
      x
      for pool in ordered
      for x in usage[name].get(pool, [[np.nan] * sizes[pool]])[0]
    ]
    for name in names
  ]
  shown = {_short(pool): sizes[pool] for pool in ordered}
  return _Table(np.array(rows, float), names, shown)


def _short(pool: str) -> str:
  """Shortens, for example, `specific_experts_income` to `income`."""
  name = pool.replace('specific_experts_', '').replace('_experts', '')
  return 'expert' if name == 'experts' else name.removeprefix('experts_')
