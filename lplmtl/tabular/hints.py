"""What a message says about names and values: the nearest, the first few.

A cell may hold a book, of which no message shows more than a line.
"""

import difflib
from collections.abc import Collection, Sequence
from typing import Any

_MAX_NAMES = 12  # of a table with thousands of columns
_SHOWN = 40  # characters of a value


def nearest(name: Any, names: Collection[Any]) -> str:
  """Returns "; did you mean 'churn'?", or else the names there are."""
  lower = {str(one).lower(): one for one in names}
  near = difflib.get_close_matches(str(name).lower(), lower, n=3)
  if near:
    return f'; did you mean {" or ".join(repr(lower[one]) for one in near)}?'
  return f'; there are {listed(list(names))}' if names else ''


def listed(names: Sequence[Any], most: int = _MAX_NAMES) -> str:
  """Returns the first names in quotes, and how many more there are."""
  shown = ', '.join(map(quoted, names[:most]))
  more = len(names) - most
  return f'{shown} and {more:,} more' if more > 0 else shown


def quoted(value: Any) -> str:
  """Returns `repr(value)`, cut where a text is long."""
  return repr(cut(value) if isinstance(value, str) else value)


def cut(text: str) -> str:
  """Returns a text, cut where it is long."""
  return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'
