"""What a keeper of `lplmtl.resume` checks, and what it says."""

import numbers
import pathlib
import warnings
from typing import Any

import numpy as np

from lplmtl._progress_data import RestoreError


def check_limits(every_steps: Any, every_seconds: Any, num_kept: Any) -> None:
  """Raises ValueError unless the limits are numbers within bounds."""
  are_ints = isinstance(every_steps, int | np.integer) and isinstance(
    num_kept, int | np.integer
  )
  are_numbers = are_ints and isinstance(every_seconds, numbers.Real)
  if (
    not are_numbers or every_steps < 0 or num_kept < 1 or not every_seconds >= 0
  ):
    raise ValueError(
      'every_steps and every_seconds must be at least 0, num_kept at least 1 '
      '(and whole numbers, except for seconds); found '
      f'{every_steps!r}, {every_seconds!r} and {num_kept!r}'
    )


def check_callables(stop: Any, check: Any, on_note: Any) -> None:
  """Raises ValueError unless `stop` is an event and the rest functions."""
  is_event = callable(getattr(stop, 'is_set', None))
  if stop is not None and (isinstance(stop, type) or not is_event):
    raise ValueError(f'stop must be a threading.Event, found {stop!r}')
  if not callable(check):
    raise ValueError(f'check must be a function, found {check!r}')
  if on_note is not None and not callable(on_note):
    raise ValueError(f'on_note must be a function of a text, found {on_note!r}')


def unreadable(directory: pathlib.Path, error: OSError) -> RestoreError:
  """Returns the error of a folder that cannot be read."""
  return RestoreError(
    f'cannot read the folder of checkpoints {directory}: {error.strerror}'
  )


def warn_of_rename(old: str, new: str) -> None:
  """Warns of a name of release 0.1."""
  warnings.warn(
    f'Checkpoints.{old} is now called {new}', DeprecationWarning, stacklevel=3
  )
