"""One error instead of hundreds of lines: silences Orbax's threads.

When one of many arrays cannot be written or read, Orbax raises an error, logs
it once more per thread, and closes the event loop to which TensorStore reports
the other arrays: Python prints a traceback for each of these. Here only the
error that is raised reaches the user.
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

# Seconds: how long Orbax's threads may take to end after an error (they finish
# the arrays that they have begun), and how long TensorStore must be silent
# before its last report is taken to be final.
_PATIENCE, _QUIET = 10.0, 0.1
_lock = threading.Lock()
_users = 0
_hook: Any = None
_reported = 0.0


@contextlib.contextmanager
def orbax() -> Iterator[None]:
  """Wraps a call of Orbax; after an error, waits for its threads to end."""
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
    # asyncio tasks report errors that nobody retrieved when they are freed:
    # they are freed here, while reports are silenced.
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
  """Sets the hook, if no other thread that is saving has set it."""
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


def _report(unraisable: Any) -> None:
  global _reported
  if str(unraisable.exc_value) == 'Event loop is closed':
    _reported = time.monotonic()
  else:
    _hook(unraisable)
