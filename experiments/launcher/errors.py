"""Mistakes and failures that end a command in a single line."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator


class InputError(ValueError):
  """A mistake in what the user gave: a flag, a file, a folder.

  The message says what was expected, what was found and what to do.
  """


@contextlib.contextmanager
def reading(folder: pathlib.Path) -> Iterator[None]:
  """Says what to do about encoded rows of a run that cannot be read.

  Args:
    folder: of the rows.

  Raises:
    InputError: in the place of ValueError.
  """
  try:
    yield
  except InputError:
    raise
  except ValueError as error:
    raise InputError(
      f'{error} (to write all rows again, remove {folder} and repeat the '
      'command)'
    ) from error


@contextlib.contextmanager
def one_line() -> Iterator[None]:
  """Ends the process with one line and exit code 1, except for bugs.

  The line is for a user's mistake, a full disk or memory, or a damaged model.
  Any other exception passes with its traceback.
  """
  try:
    yield
  except Exception as error:
    text = describe(error)
    if text is None:
      raise
    sys.exit(f'error: {text}')


def describe(error: Exception) -> str | None:
  """Returns a line for users; None for a bug, whose traceback is shown."""
  if isinstance(error, InputError):
    return str(error)
  if isinstance(error, OSError):
    name = f'{error.filename}: ' if error.filename else ''
    return (
      f'{name}{error.strerror or error}: make room, or choose a place that can '
      'be read and written'
    )
  # Deferred: it imports JAX, and a mistyped flag should answer at once.
  from experiments.launcher import failures

  return failures.describe(error)
