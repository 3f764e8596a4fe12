"""SIGTERM and Ctrl-C: the first asks to stop, a second one leaves at once."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):  # noqa: N818, no error
  """A run that has stopped because a signal asked for it."""

  def __init__(self, text: str, exit_code: int):
    super().__init__(text)
    self.exit_code = exit_code


class Request:
  """What has been asked for.

  Attributes:
    event: set by the first signal.
    signal: its number, None before.
  """

  def __init__(self) -> None:
    self.event = threading.Event()
    self.signal: int | None = None

  @property
  def exit_code(self) -> int:
    """128 and the signal's number, as shells have it: 130 and 143."""
    return 128 + (self.signal or 0)


@contextlib.contextmanager
def watch() -> Iterator[Request]:
  """Turns SIGINT and SIGTERM into a request, for as long as this lasts.

  A thread of its own reads the signals, as Python's handlers would have to wait
  for the end of a compilation or of a running program. Outside of the main
  thread, where Python allows no handlers, nothing is watched.
  """
  request = Request()
  if threading.current_thread() is not threading.main_thread():
    yield request
    return
  read_end, write_end = socket.socketpair()
  write_end.setblocking(False)

  def listen() -> None:
    while number := read_end.recv(1):
      if number[0] not in SIGNALS:
        continue
      if request.signal is not None:
        os._exit(128 + number[0])
      request.signal = number[0]
      request.event.set()
      print(
        'stopping: the progress is kept in a moment (again to leave at once)',
        file=sys.stderr,
        flush=True,
      )

  listener = threading.Thread(target=listen, name='signals', daemon=True)
  before = {number: signal.getsignal(number) for number in SIGNALS}
  for number in SIGNALS:
    signal.signal(number, lambda *_: None)
  wakeup = signal.set_wakeup_fd(write_end.fileno(), warn_on_full_buffer=False)
  listener.start()
  try:
    yield request
  finally:
    signal.set_wakeup_fd(wakeup)
    for number, handler in before.items():
      signal.signal(number, handler)
    write_end.close()
    listener.join()
    read_end.close()
