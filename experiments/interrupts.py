"""SIGTERM, Ctrl-C, SIGHUP: the first asks to stop, a second leaves at once."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

SIGNALS = tuple(
  getattr(signal, name)
  for name in ('SIGINT', 'SIGTERM', 'SIGHUP')  # SIGHUP: not on Windows
  if hasattr(signal, name)
)


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
  """Turns SIGINT, SIGTERM and SIGHUP into a request, for as long as this lasts.

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
        'stopping once the progress is kept, or all is done (again to leave '
        'at once)',
        file=sys.stderr,
        flush=True,
      )

  listener = threading.Thread(target=listen, name='signals', daemon=True)
  before = {number: signal.getsignal(number) for number in SIGNALS}
  ignored = [n for n, handler in before.items() if handler == signal.SIG_IGN]
  for number in set(SIGNALS) - set(ignored):  # nohup ignores SIGHUP
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
