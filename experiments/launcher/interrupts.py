"""SIGTERM, Ctrl-C, SIGHUP: the first asks to stop, a second one leaves at once.

The same signal twice within a second counts once: GNU timeout sends its signal
to the process and to its group, and so do wrappers that forward what a terminal
has already sent to every process. SIGHUP never leaves at once, however often it
comes: when a terminal closes, both the kernel and the shell send it, and nobody
is left to ask twice. Nor is a signal of another kind a second request:
SIGTERM may follow SIGHUP when a login ends.
"""

import _thread
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from experiments.launcher import output

SIGNALS = tuple(
  getattr(signal, name)
  for name in ('SIGINT', 'SIGTERM', 'SIGHUP')  # SIGHUP: not on Windows
  if hasattr(signal, name)
)
AGAIN = 1.0  # seconds after which the same signal is a second request


class Stopped(Exception):  # noqa: N818, not an error
  """A run has stopped because a signal asked it to."""

  def __init__(self, text: str, exit_code: int):
    super().__init__(text)
    self.exit_code = exit_code


class Request:
  """What the signals received so far ask for.

  Attributes:
    event: set by the first signal.
    signal: the number of the first signal; None before.
    is_over: whether a second request has been made, to leave at once.
  """

  def __init__(self) -> None:
    self.event = threading.Event()
    self.signal: int | None = None
    self.is_over = False
    self._first: dict[int, float] = {}

  @property
  def exit_code(self) -> int:
    """128 plus the signal's number, as in shells: 130 or 143."""
    return 128 + (self.signal or 0)

  def receive(self, number: int, now: float) -> bool:
    """Records a signal; returns whether it asks to leave at once.

    Args:
      number: of the signal.
      now: the time, in seconds of any clock.
    """
    first = self._first.setdefault(number, now)
    if self.signal is None:
      self.signal = number
      self.event.set()
      output.safe(sys.stderr).write(
        'stopping once the progress is saved or the run is finished (to leave '
        'at once, repeat the signal after a second)\n'
      )
      output.safe(sys.stderr).flush()
    is_again = now - first >= AGAIN and number != getattr(signal, 'SIGHUP', 0)
    self.is_over = self.is_over or is_again
    return is_again


def leave(number: int) -> None:
  """Ends the process, whatever it is doing; for commands."""
  os._exit(128 + number)


def interrupt(number: int) -> None:
  """Raises KeyboardInterrupt in the main thread; for notebooks."""
  _thread.interrupt_main(signal.Signals(number))  # calls the handler of `watch`


def start() -> None:
  """Makes Ctrl-C raise KeyboardInterrupt, now that packages are imported."""
  if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def watch(on_again: Callable[[int], None] = interrupt) -> Iterator[Request]:
  """Turns SIGINT, SIGTERM and SIGHUP into a request, within a `with` block.

  A separate thread reads the signals: Python's own handlers would have to wait
  until a compilation or a compiled program has finished. Outside the main
  thread, where Python allows no handlers, signals are left as they are.

  Args:
    on_again: called with the number of a second request's signal: `leave` or
      `interrupt`.
  """
  request = Request()
  if threading.current_thread() is not threading.main_thread():
    yield request
    return
  read_end, write_end = socket.socketpair()
  write_end.setblocking(False)

  def listen() -> None:
    while number := read_end.recv(1):
      if number[0] not in SIGNALS or request.is_over:
        continue
      if request.receive(number[0], time.monotonic()):
        on_again(number[0])

  def handle(*_: object) -> None:
    if request.is_over:
      raise KeyboardInterrupt

  listener = threading.Thread(target=listen, name='signals', daemon=True)
  before = {number: signal.getsignal(number) for number in SIGNALS}
  ignored = [n for n, handler in before.items() if handler == signal.SIG_IGN]
  for number in set(SIGNALS) - set(ignored):  # nohup ignores SIGHUP
    signal.signal(number, handle)
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
