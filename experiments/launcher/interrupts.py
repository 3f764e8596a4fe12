"""SIGTERM, Ctrl-C, SIGHUP: the first asks to stop, the same again leaves.

The same twice within a second is once: GNU timeout sends its signal to the
process and to its group, and so do wrappers that forward what a terminal has
sent to everybody. SIGHUP never leaves at once, however often it comes: a
terminal that goes away sends it by the kernel and by the shell, and after it
nobody is there to ask twice. Another kind than before is no second request
either, as where SIGTERM follows SIGHUP at the end of a session.
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
AGAIN = 1.0  # seconds after which the same signal is meant as a second one


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
    is_over: whether the same has been asked for again.
  """

  def __init__(self) -> None:
    self.event = threading.Event()
    self.signal: int | None = None
    self.is_over = False
    self._first: dict[int, float] = {}

  @property
  def exit_code(self) -> int:
    """128 and the signal's number, as shells have it: 130 and 143."""
    return 128 + (self.signal or 0)

  def hear(self, number: int, now: float) -> bool:
    """Takes note of a signal; whether to leave at once.

    Args:
      number: of the signal.
      now: seconds of a clock.
    """
    first = self._first.setdefault(number, now)
    if self.signal is None:
      self.signal = number
      self.event.set()
      output.safe(sys.stderr).write(
        'stopping once the progress is kept, or all is done (the same again, '
        'a second later, leaves at once)\n'
      )
      output.safe(sys.stderr).flush()
    is_again = now - first >= AGAIN and number != getattr(signal, 'SIGHUP', 0)
    self.is_over = self.is_over or is_again
    return is_again


def leave(number: int) -> None:
  """Ends the process, whatever it is doing; the launchers' way."""
  os._exit(128 + number)


def interrupt(number: int) -> None:
  """Raises KeyboardInterrupt in the main thread, such as a notebook's."""
  _thread.interrupt_main(signal.Signals(number))  # calls the handler of `watch`


def start() -> None:
  """Ctrl-C is a KeyboardInterrupt from now on: all packages are imported."""
  if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def watch(on_again: Callable[[int], None] = interrupt) -> Iterator[Request]:
  """Turns SIGINT, SIGTERM and SIGHUP into a request, for as long as this lasts.

  A thread of its own reads the signals, as Python's handlers would have to wait
  for the end of a compilation or of a running program. Outside of the main
  thread, where Python allows no handlers, nothing is watched.

  Args:
    on_again: called with a signal that asks again, `leave` or `interrupt`.
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
      if request.hear(number[0], time.monotonic()):
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
