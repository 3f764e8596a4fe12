"""One error instead of hundreds of lines: what Orbax's threads say beside it.

When one of many arrays cannot be written or read, Orbax raises, logs the same
error once for each thread, and closes the event loop that TensorStore reports
the other arrays to: Python prints a traceback for each of these. Here the error
that is raised is the only one told of.
"""

import contextlib
import gc
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

_PATIENCE = 10.0  # seconds for Orbax's threads to end after an error
_QUIET = 0.1  # without another of TensorStore's reports, to be the last one
_lock = threading.Lock()
_users = 0
_hook: Any = None
_reported = 0.0


@contextlib.contextmanager
def orbax() -> Iterator[None]:
  """Around a call of Orbax; after an error, waits for what goes on."""
  loggers = [logging.getLogger(name) for name in ('absl', 'asyncio')]
  before = set(threading.enumerate())
  for logger in loggers:
    logger.addFilter(_is_wanted)
  _enter()
  try:
    yield
  except Exception as error:
    for thread in set(threading.enumerate()) - before:
      if type(thread).__module__.startswith('orbax'):
        thread.join(_PATIENCE)
    end = time.monotonic() + _PATIENCE
    time.sleep(_QUIET)
    while time.monotonic() < min(_reported + _QUIET, end):
      time.sleep(_QUIET / 4)
    # Tasks whose errors nobody asked for tell of them when they are freed.
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    raise
  finally:
    _leave()
    if not _users:
      for logger in loggers:
        logger.removeFilter(_is_wanted)


def _is_wanted(record: logging.LogRecord) -> bool:
  error = record.exc_info[1] if record.exc_info else None
  if record.name == 'asyncio':
    return 'tensorstore' not in str(error)
  is_error = record.levelno >= logging.ERROR
  return not (is_error and f'{os.sep}orbax{os.sep}' in record.pathname)


def _enter() -> None:
  """Several threads may save at once: the first one in changes the hook."""
  global _users, _hook
  with _lock:
    _users += 1
    if _users == 1:
      _hook, sys.unraisablehook = sys.unraisablehook, _report


def _leave() -> None:
  global _users
  with _lock:
    _users -= 1
    if not _users and sys.unraisablehook is _report:
      sys.unraisablehook = _hook


def _report(found: Any) -> None:
  global _reported
  if str(found.exc_value) == 'Event loop is closed':
    _reported = time.monotonic()
  else:
    _hook(found)
