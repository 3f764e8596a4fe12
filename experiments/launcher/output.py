"""Standard output and error that end nothing when they cannot be written.

A reader that has gone (`| head -1`), a terminal that was closed, a full disk
under a log, a character that the encoding lacks: what a launcher is asked for
is in its files, so text that cannot be shown is dropped, and the run goes on.
"""

import os
import sys
from typing import Any

from experiments.launcher.errors import InputError


class Stream:
  """A text stream whose failures are nobody's concern.

  Attributes:
    is_lost: whether any text could not be written.
  """

  def __init__(self, stream: Any):
    self._stream = stream
    self.is_lost = False

  def write(self, text: str) -> int:
    """Writes what can be written; the length of the text, as streams do."""
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
    """Hands on what is buffered, if anybody takes it."""
    try:
      self._stream.flush()
    except (OSError, ValueError) as error:
      self._lose(error)

  def finish(self) -> None:
    """Flushes, so that the interpreter has nothing left to fail with."""
    self.flush()
    if self.is_lost:
      self._discard()

  def _lose(self, error: Exception) -> None:
    self.is_lost = True
    # A full disk or a slow reader may yet take more; one that is gone, never.
    if isinstance(error, BrokenPipeError):
      self._discard()

  def _discard(self) -> None:
    """What is buffered, and all that follows, goes nowhere."""
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
  """A stream as one that ends nothing."""
  return stream if isinstance(stream, Stream) else Stream(stream)


def refuse_loss() -> None:
  """Raises an InputError where what was printed is all, and is lost."""
  if isinstance(sys.stdout, Stream):
    sys.stdout.flush()
    if sys.stdout.is_lost:
      raise InputError('standard output could not be written')
