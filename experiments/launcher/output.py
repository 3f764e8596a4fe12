"""Standard streams whose failures do not end a run.

A reader may exit (`| head -1`), a terminal close, the disk under a log fill up,
an encoding lack a character. The results of a command are in its files, so text
that cannot be shown is dropped and the run continues.
"""

import os
import sys
from typing import Any

from experiments.launcher.errors import InputError


class Stream:
  """A text stream that drops what cannot be written.

  Attributes:
    is_lost: whether any text was dropped.
    is_used: whether there was any text.
  """

  def __init__(self, stream: Any):
    self._stream = stream
    self.is_lost = False
    self.is_used = False

  def write(self, text: str) -> int:
    """Writes what can be written; returns the length of the text, as always."""
    self.is_used = True
    encoding = getattr(self._stream, 'encoding', None) or 'ascii'
    try:
      try:
        self._stream.write(text)
      except UnicodeEncodeError:
        plain = text.encode(encoding, 'replace').decode(encoding)
        self._stream.write(plain)
    except (OSError, ValueError) as error:  # ValueError: it is closed
      self._lose(error)
    return len(text)

  def flush(self) -> None:
    """Writes what is buffered, if that is possible."""
    try:
      self._stream.flush()
    except (OSError, ValueError) as error:
      self._lose(error)

  def finish(self) -> None:
    """Flushes, so that the interpreter cannot fail at it when it exits."""
    self.flush()
    if self.is_lost:
      self._discard()

  def _lose(self, error: Exception) -> None:
    self.is_lost = True
    # A full disk or a slow reader may accept more later; a closed pipe never.
    if isinstance(error, BrokenPipeError):
      self._discard()

  def _discard(self) -> None:
    """Sends what is buffered, and all that follows, to /dev/null."""
    try:
      nowhere = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nowhere, self._stream.fileno())
      os.close(nowhere)
      self._stream.flush()
    except (OSError, ValueError):
      pass

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


def safe(stream: Any) -> Stream:
  """Returns a stream that drops what cannot be written."""
  return stream if isinstance(stream, Stream) else Stream(stream)


def gap(first: Stream, second: Stream) -> None:
  """Sets off what comes next in the second stream by a blank line.

  Only if the first one shows text in the same place, such as a terminal.
  """
  first.flush()
  try:
    is_shared = os.path.sameopenfile(first.fileno(), second.fileno())
  except (AttributeError, OSError, ValueError):  # closed, or no file
    return
  if is_shared and first.is_used:
    second.write('\n')


def refuse_loss() -> None:
  """Raises InputError if text was lost; for commands that write no files."""
  if isinstance(sys.stdout, Stream):
    sys.stdout.flush()
    if sys.stdout.is_lost:
      raise InputError('standard output could not be written')
