"""What all pictures share: Matplotlib, styles, the legend, the PNG file.

Matplotlib is optional (the extra `plots`).
"""

import importlib.util
import io
import pathlib
from typing import Any, NamedTuple

from experiments.launcher import files, quality
from lplmtl.storage import files as storage

# Which program made a picture, as a PNG's tEXt chunk states it.
MARK = b'Software\0lplmtl'
_HEADER = 256  # bytes of a PNG within which Matplotlib writes that chunk
# Distinguishable in greyscale, too.
STYLES = ('-', '--', ':', '-.')
MARKERS = 'os^vD*PX'  # filled, then open


class _Matplotlib(NamedTuple):
  figure: Any
  ticker: Any
  backend_agg: Any


def matplotlib() -> _Matplotlib:
  """Returns the modules of Matplotlib that pictures need."""
  # Deferred: it is optional, and takes half a second that other runs save.
  from matplotlib import figure, ticker
  from matplotlib.backends import backend_agg

  return _Matplotlib(figure, ticker, backend_agg)


def is_available() -> bool:
  """Whether Matplotlib is installed."""
  return importlib.util.find_spec('matplotlib') is not None


def is_own(path: pathlib.Path) -> bool:
  """Whether a file is a picture that `save` has written."""
  try:
    with storage.open_regular(path) as file:
      return MARK in file.read(_HEADER)
  except OSError:
    return False


def new_figure(width: float, height: float) -> Any:
  """Returns an empty figure, in inches, outside pyplot's global state."""
  return matplotlib().figure.Figure(
    figsize=(width, height), layout='constrained'
  )


def line_style(number: int) -> dict[str, Any]:
  """Returns colour, marker and line style of one of several lines."""
  return {
    'color': f'C{number % 10}',
    'marker': MARKERS[number % len(MARKERS)],
    'linestyle': STYLES[number % len(STYLES)],
  }


def label_epochs(axis: Any) -> None:
  """Labels a horizontal axis of epochs, with whole numbers."""
  axis.set_xlabel('epoch')
  axis.xaxis.get_major_locator().set_params(integer=True)


def number(value: float) -> str:
  """Returns 43,750 or 0.04375: a number with four digits or more."""
  return quality.shown(value, ',.0f' if 1e3 <= abs(value) < 1e12 else '.4g')


def plain_numbers(axis: Any) -> None:
  """Lets an axis write 1,200,000, not 1.2 and, at its end, 1e6."""
  axis.set_major_locator(matplotlib().ticker.MaxNLocator(4))
  # Ten digits: enough for distant steps, and no rounding errors.
  axis.set_major_formatter(matplotlib().ticker.StrMethodFormatter('{x:,.10g}'))


def add_legend(figure: Any, axes: Any) -> None:
  """Adds one legend beside all axes, with each name once."""
  handles: dict[str, Any] = {}
  for axis in axes.ravel():
    for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
      handles.setdefault(label, handle)
  figure.legend(
    list(handles.values()), list(handles), loc='outside right center',
    fontsize=8,
  )  # fmt: skip


def save(figure: Any, path: pathlib.Path) -> None:
  """Writes a figure as a PNG that `is_own` recognises, atomically."""
  content = io.BytesIO()
  _, software = MARK.decode().split('\0')
  canvas = matplotlib().backend_agg.FigureCanvasAgg(figure)
  canvas.print_png(content, metadata={'Software': software})
  files.write_bytes(path, content.getvalue())
