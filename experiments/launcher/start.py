"""Starts runs: what the commands that train have in common.

Cheap to import (no JAX), so that --help answers at once.
"""

from collections.abc import Callable, Collection
from typing import Any

from absl import flags

from experiments import datasets
from experiments.launcher import children, interrupts, output, processes
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
  if config.eval_only:
    processes.refuse(flags.FLAGS, 'scoring')
    _execute(config, ready, given=given, on_again=interrupts.leave)
    output.refuse_loss()  # the printed table is all the output
    return
  place = processes.from_flags(flags.FLAGS)
  if place is not None:
    processes.check(place, config)
    place = children.split(place)
  _execute(config, ready, place, given=given, on_again=interrupts.leave)


def _execute(
  config: Config,
  ready: Callable[[Config], None] = lambda config: None,
  place: processes.Place | None = None,
  **options: Any,
) -> dict[str, Any]:
  # JAX takes seconds to import: not for --help, and not before a fork.
  from experiments.launcher import run, together

  if place is None:
    ready(config)
    return run.execute(config, datasets.find, **options)
  with together.in_order():
    config = together.connect(place, config)
    ready(config)
    return run.execute(config, datasets.find, **options)
