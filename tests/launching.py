"""Calls commands as from the command line, but in this process."""

import signal
import sys

from absl import flags


def launch(main, *arguments):
  """Runs a command with these arguments; returns its exit code."""
  terminate = signal.getsignal(signal.SIGTERM)
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  rest = flags.FLAGS(['command', *arguments])
  try:
    main(rest)
  except SystemExit as stop:
    if isinstance(stop.code, str):
      print(stop.code, file=sys.stderr)
      return 1
    return stop.code
  finally:
    signal.signal(signal.SIGTERM, terminate)
  return 0
