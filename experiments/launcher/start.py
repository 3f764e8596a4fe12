"""Starts runs: what the commands that train have in common.

Cheap to import (no JAX), so that --help answers at once.
"""

from collections.abc import Callable, Collection
from typing import Any

from experiments import datasets
from experiments.launcher import interrupts, output
from experiments.launcher.options import Config

INTERRUPTED = 'interrupted outside training: nothing new is kept'


def run(config: Config) -> dict[str, Any]:
  """Trains, scores, prints and writes what a Config asks for.

  Returns:
    What is written to results.json.

  Raises:
    InputError: a mistake in the Config or the files.
    Exception: of other kinds, see `launcher.run.execute`.
  """
  return _execute(config)


def from_flags(
  config: Config, given: Collection[str], ready: Callable[[Config], None]
) -> None:
  """Trains what flags ask for, or scores a saved model (--eval_only).

  Args:
    config: what they say.
    given: the fields that were given, see `options.given`.
    ready: see `frame.command`.
  """
  _execute(config, ready, given=given, on_again=interrupts.leave)
  if config.eval_only:
    output.refuse_loss()  # the printed table is all the output


def _execute(
  config: Config,
  ready: Callable[[Config], None] = lambda config: None,
  **options: Any,
) -> dict[str, Any]:
  # JAX takes seconds to import: not for --help.
  from experiments.launcher import run

  ready(config)
  return run.execute(config, datasets.find, **options)
