"""Parses the texts of flags."""

import os
import pathlib
import re
from collections.abc import Collection
from typing import Any

from experiments.launcher.errors import InputError

Widths = tuple[int, ...]
Numbers = tuple[float, ...]
_MOST_UNITS, _MOST_LAYERS = 10_000_000, 100
_MOST_ROWS = 1_000_000_000


def path(flag: str, text: str) -> pathlib.Path:
  """Returns the path that a flag names; see `expanded`."""
  return pathlib.Path(expanded(flag, text))


def expanded(name: str, path: Any) -> str:
  """Returns a path with `~` replaced by the home folder.

  Raises:
    InputError: it is not a path, not UTF-8, or no home folder is known.
  """
  if not isinstance(path, str | os.PathLike):
    raise InputError(f'{name} must be a path, found {path!r:.50}')
  full = os.path.expanduser(os.fspath(path))
  if full.startswith('~'):
    raise InputError(f'{name}: no home folder is known for {path}')
  try:
    full.encode('utf-8')
  except UnicodeEncodeError as error:
    raise InputError(
      f'{name}: {os.fsencode(full)!r} is not UTF-8 and could not be written '
      'to results: choose another name'
    ) from error
  return full


def stem(data: str) -> str:
  """Returns a short name for a file, a folder or a pattern of files.

  `'shop/customers.csv.gz' -> 'customers'`, `'sales-*.csv' -> 'sales'`.
  """
  name = pathlib.PurePath(data).name.split('.')[0]
  kept = re.split(r'[*?\[\]]', name)[0].strip(' -_')
  return kept or 'table'


def parse_widths(text: str) -> Widths:
  """`'128x64' -> (128, 64)`; an empty text means no layers."""
  try:
    widths = tuple(int(width) for width in text.split('x')) if text else ()
  except ValueError:
    widths = (0,)
  if any(width < 1 for width in widths):
    raise InputError(
      f'expected layer widths such as 64 or 128x64, found {text!r}'
    )
  check_widths(widths)
  return widths


def parse_levels(text: str) -> tuple[Widths, ...]:
  """`'128x64,64' -> ((128, 64), (64,))`."""
  levels = tuple(parse_widths(level) for level in text.split(','))
  check_widths(*levels)
  if not all(levels):
    raise InputError(f'expected widths per level such as 64,64, found {text!r}')
  return levels


def parse_counts(flag: str, texts: Collection[str]) -> list[int]:
  """`['256', '1024'] -> [256, 1024]`; at least one."""
  try:
    counts = [int(text) for text in texts]
  except ValueError:
    counts = []
  if not counts or not all(1 <= count <= _MOST_ROWS for count in counts):
    raise InputError(
      f'{flag} must be whole numbers from 1 to {_MOST_ROWS:,}, found '
      f'{",".join(texts)[:60] or "none"}'
    )
  return counts


def check_widths(*levels: Widths) -> None:
  """Refuses sizes far beyond any machine, which might overflow."""
  units = [width for widths in levels for width in widths]
  most = max(map(len, (levels, *levels)), default=0)
  if most > _MOST_LAYERS or max(units, default=0) > _MOST_UNITS:
    text = ','.join(map(widths_text, levels))
    raise InputError(
      f'expected at most {_MOST_UNITS:,} units per layer, and at most '
      f'{_MOST_LAYERS} layers per level and levels; found {text[:60]}'
    )


def parse_numbers(texts: Collection[str]) -> Numbers:
  """`['1', '.5'] -> (1.0, .5)`."""
  try:
    return tuple(float(text) for text in texts)
  except ValueError as error:
    raise InputError(
      f'expected numbers such as 1,0.5, found {",".join(texts)!r}'
    ) from error


def widths_text(widths: Widths) -> str:
  """The inverse of `parse_widths`."""
  return 'x'.join(map(str, widths))


def levels_text(levels: tuple[Widths, ...]) -> str:
  """The inverse of `parse_levels`."""
  return ','.join(map(widths_text, levels))
