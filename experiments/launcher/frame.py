"""The frame around every command: flags, output, signals, mistakes.

A command imports little (absl, the options), so that --help answers at once,
and looks like this:

    def main(argv):
      with frame.command() as ready:
        from experiments... import ...  # JAX and what is built on it
        ready(config)
        ...

    if __name__ == '__main__':
      frame.run(main)

`ready` comes right after the last import.
"""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags, logging

from experiments.launcher import errors, interrupts, output
from experiments.launcher.options import Config

# What users look for among the flags, but is elsewhere.
_ELSEWHERE = {
  'tune': 'experiments.compare tries settings (--setting), and so does '
  'lplmtl.tabular.tune in Python',
  'predict': 'experiments.tabular predicts with --model and --predict_to',
}
# What Python says about a text that is no number.
_NOT_NUMBERS = (
  (r"invalid literal for int\(\) with base 10: '.*?'",
   'expected a whole number'),
  (r"could not convert string to float: '.*?'", 'expected a number'),
)  # fmt: skip
_HELP = {'--help', '-help', '-h', '--helpshort', '--helpfull'}


@contextlib.contextmanager
def command(interrupted: str = '') -> Iterator[Callable[..., None]]:
  """Ends a command with one line, whether it fails or is interrupted.

  Exit codes are those of shells: 1 after a mistake, 128 plus the number of the
  signal after an interrupt.

  Args:
    interrupted: printed when SIGINT or SIGTERM ends the command.

  Yields:
    A function `ready` to call once all packages are imported. Until then either
    signal kills the process at once, because an exception inside an import
    might be swallowed or printed at length. With a Config, `ready` first
    applies its settings of JAX, which may import a plugin. A function as its
    second argument returns what to print in place of `interrupted`.
  """

  def said() -> str:
    return interrupted

  def leave(number: int, *_: object) -> None:
    if text := said():
      print(text, file=sys.stderr)
    sys.exit(128 + number)

  def ready(
    config: Config | None = None, text: Callable[[], str] | None = None
  ) -> None:
    nonlocal said
    said = text or said
    if config is not None:
      # Deferred: it imports JAX.
      from experiments.launcher import jax_setup

      jax_setup.apply(config)
    interrupts.start()
    signal.signal(signal.SIGTERM, leave)

  if not flags.FLAGS['verbosity'].present:
    # Orbax logs every step that it takes, and failures as tracebacks.
    logging.set_verbosity(logging.FATAL)
  try:
    with errors.one_line():
      yield ready
  except interrupts.Stopped as stopped:
    print(stopped, file=sys.stderr)
    sys.exit(stopped.exit_code)
  except KeyboardInterrupt:
    leave(signal.SIGINT)


def run(main: Callable[[list[str]], Any]) -> None:
  """Parses the flags and calls `main`, whatever becomes of its output.

  The process exits with the code of `main`, even if its output is lost.
  """
  _open_standard_files()
  sys.stdout, sys.stderr = output.safe(sys.stdout), output.safe(sys.stderr)  # type: ignore
  streams = sys.stdout, sys.stderr
  _name_program()
  try:
    app.run(main, flags_parser=_parse)
  except SystemExit as stop:
    if _HELP & set(sys.argv[1:]):
      sys.exit(0)  # absl's 1 would stop `... --help && ...`
    if not isinstance(stop.code, str):
      raise
    output.gap(*streams)
    print(stop.code, file=sys.stderr)
    sys.exit(1)
  finally:
    for stream in streams:
      stream.finish()


def _name_program() -> None:
  """Shows the command in --help as it was called, such as `lplmtl tabular`."""
  caller = getattr(sys.modules.get('experiments'), 'CALLER', '')
  module = sys.modules['__main__']
  if caller and module.__doc__:
    module.__doc__ = module.__doc__.replace('python -m experiments.', caller)


def _parse(arguments: list[str]) -> list[str]:
  """Parses the flags; a mistake in them is one line, as any other is."""
  try:
    return flags.FLAGS(arguments)
  except flags.Error as error:
    reason = ' '.join(str(error).removeprefix('ERROR:: ').split())
    for words, ours in _NOT_NUMBERS:
      reason = re.sub(words, ours, reason)
    name = getattr(error, 'flagname', '')
    hint = _ELSEWHERE.get(name, '--help lists all flags')
    sys.exit(f'error: {reason} ({hint})')


def _open_standard_files() -> None:
  """Opens standard files that are closed as /dev/null.

  Otherwise the next file opened would take the number of, say, standard output,
  and everything printed (by compilers, too) would go into that file.
  """
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
  for name in ('stdout', 'stderr'):
    if getattr(sys, name) is None:
      setattr(sys, name, open(os.devnull, 'w', encoding='utf-8'))  # noqa: SIM115
