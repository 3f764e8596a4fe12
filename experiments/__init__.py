"""Commands built on the library; not part of the package `lplmtl`."""

import atexit
import gc
import importlib
import signal
import sys
import types
import warnings

# `python -m experiments.<command>` is about to import for a second or two.
# Until then, Ctrl-C ends the process at once and silently: a KeyboardInterrupt
# raised while a package is imported may abort, or print a hundred lines.
# `interrupts.start` restores Python's handler.
_is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if sys.argv[:1] == ['-m'] and _is_usual:
  signal.signal(signal.SIGINT, signal.SIG_DFL)


# Importing and tracing allocate a million objects that stay: to search them for
# garbage after every 2,000 took 0.3 s of a run, and once more at its end up to
# 0.3 s; what is frozen is left out. In a notebook (neither `-m` nor `lplmtl`,
# which sets CALLER), that is for its user to decide.
if sys.argv[:1] == ['-m'] or 'CALLER' in globals():
  gc.set_threshold(50_000, 20, 100)
  atexit.register(gc.freeze)


def __getattr__(name: str) -> types.ModuleType:
  """Finds modules under their old names, for one more release."""
  if name not in ('errors', 'options'):  # see also options.py
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  moved = f'{__name__}.launcher.{name}'
  warnings.warn(
    f'{__name__}.{name} is now {moved}', DeprecationWarning, stacklevel=2
  )
  return importlib.import_module(moved)
