"""Launchers: programs around the library. Not part of the package."""

import signal
import sys

# `python -m experiments.<...>` is about to import for a second or two. Ctrl-C
# ends that at once and without a word, as a KeyboardInterrupt within the import
# of a package would abort or print a hundred lines; see `interrupts.start`.
is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if sys.argv[:1] == ['-m'] and is_usual:
  signal.signal(signal.SIGINT, signal.SIG_DFL)
