"""Keepers with the method names of release 0.1."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from lplmtl.training.progress import Progress


def current_keeper(keeper: Any) -> Any:
  """Returns a keeper with the method names of this release.

  Up to release 0.1 `next_pause` was called `until`, and `save_if_due` `look`.
  """
  is_old = hasattr(keeper, 'until') and hasattr(keeper, 'look')
  if not is_old or hasattr(keeper, 'next_pause') or isinstance(keeper, type):
    return keeper
  warnings.warn(
    "a keeper's until is now called next_pause, and look save_if_due",
    DeprecationWarning,
    stacklevel=3,
  )
  return _OldKeeper(keeper.restore, keeper.until, keeper.look)


class _OldKeeper(NamedTuple):
  restore: Callable[[Progress], Progress | None]
  next_pause: Callable[[Progress], int]
  save_if_due: Callable[[Progress], None]
