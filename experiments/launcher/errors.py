"""What a launcher prints as a single line."""

import contextlib
import sys
from collections.abc import Iterator


class InputError(ValueError):
  """A mistake in what the user gave: a flag, a file, a folder.

  Its text says what was expected, what was found and what to do.
  """


@contextlib.contextmanager
def one_line() -> Iterator[None]:
  """A user's mistake, a full disk or memory: one line and exit code 1."""
  try:
    yield
  except Exception as error:
    text = _text(error)
    if text is None:
      raise
    sys.exit(f'error: {text}')


def _text(error: Exception) -> str | None:
  """None for what is no mistake of a user's, and wants its traceback."""
  if isinstance(error, InputError):
    return str(error)
  if isinstance(error, OSError):
    name = f'{error.filename}: ' if error.filename else ''
    return (
      f'{name}{error.strerror or error}: make room, or choose a place that can '
      'be read and written'
    )
  from experiments.launcher import build as runner
  from experiments.launcher import memory
  from lplmtl.training import gradients

  if memory.is_out(error):
    return f'{memory.explain(error)}: lower the sizes or the batch'
  if isinstance(error, gradients.ScopeError):
    return f'{error} (--balancer and --balancer_scope)'
  return str(error) if isinstance(error, runner.USER_ERRORS) else None
