"""Calls commands as from the command line, but in this process."""

import dataclasses
import signal
import sys

from absl import flags

from experiments.datasets.census import protocol


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


def keep_first_metrics(patch):
  """Gives each task of the census its first metric alone, which decides."""
  make_tasks = protocol.make_tasks

  def make(names):
    return tuple(
      dataclasses.replace(task, metric_fns=dict([*task.metric_fns.items()][:1]))
      for task in make_tasks(names)
    )

  patch.setattr(protocol, 'make_tasks', make)
