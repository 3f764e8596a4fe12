"""Launchers: programs around the library. Not part of the package."""

import importlib
import signal
import sys
import warnings
from typing import Any

# `python -m experiments.<...>` is about to import for a second or two. Ctrl-C
# ends that at once and without a word, as a KeyboardInterrupt within the import
# of a package would abort or print a hundred lines; see `interrupts.start`.
is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if sys.argv[:1] == ['-m'] and is_usual:
  signal.signal(signal.SIGINT, signal.SIG_DFL)


def __getattr__(name: str) -> Any:
  """`experiments.options`, where it was: for one more release."""
  if name not in ('errors', 'options'):
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  moved = f'{__name__}.launcher.{name}'
  warnings.warn(
    f'{__name__}.{name} is now {moved}', DeprecationWarning, stacklevel=2
  )
  return importlib.import_module(moved)
