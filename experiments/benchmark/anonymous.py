"""The anonymous memory of a process: that which no file holds."""

import contextlib
import pathlib
import threading
from collections.abc import Iterator

_EVERY = 0.1  # seconds between two looks at the memory


def now() -> int:
  """Returns the anonymous memory of this process, in bytes; 0 off Linux."""
  try:
    text = pathlib.Path('/proc/self/status').read_text(encoding='utf-8')
  except OSError:
    return 0
  kilobytes = [x.split()[1] for x in text.splitlines() if x[:7] == 'RssAnon']
  return 1024 * int(kilobytes[0]) if kilobytes else 0


class Peak:
  """The most that this process had in looks that a thread took.

  Attributes:
    most: bytes.
  """

  def __init__(self) -> None:
    self.most = now()

  def look(self) -> None:
    """Takes another look."""
    self.most = max(self.most, now())


@contextlib.contextmanager
def watched() -> Iterator[Peak]:
  """Looks ten times a second, until the end of `with`."""
  peak, is_over = Peak(), threading.Event()

  def watch() -> None:
    while not is_over.wait(_EVERY):
      peak.look()

  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    yield peak
  finally:
    is_over.set()
    thread.join()
