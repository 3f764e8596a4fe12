"""Sends the figures of a run to TensorBoard, Weights & Biases or MLflow."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from experiments.launcher import together
from experiments.launcher.display import Console
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import loggers

EVENTS = 'tensorboard'  # a folder in that of the run
_PROJECT = 'lplmtl'


class Tracker:
  """The loggers of one run.

  A service that fails during a run is left out from then on, with a line on the
  console: a lost connection must not cost the training.
  """

  def __init__(
    self,
    started: Mapping[str, loggers.Logger],
    task_names: Sequence[str],
    console: Console,
  ):
    self._running = dict(started)
    self._console = console
    self._task_names = tuple(task_names)
    self._summary: loggers.Values = {}

  def epoch(self, record: Mapping[str, Any]) -> None:
    """Logs an entry of the history."""
    values = loggers.scalars(record, self._task_names)
    self._each(lambda logger: logger.log(values, record['epoch']))

  def finish(self, results: Mapping[str, Any]) -> None:
    """Notes the test metrics, for the summaries."""
    self._summary = loggers.summary_of(results['test'], 'test')

  def close(self) -> None:
    """Ends the runs of all services."""
    self._each(lambda logger: logger.close(self._summary))

  def _each(self, call: Callable[[loggers.Logger], None]) -> None:
    for name, logger in [*self._running.items()]:
      try:
        call(logger)
      except Exception as error:  # whatever a service's client raises
        del self._running[name]
        self._console.print(
          f'note: --log_to={name} ends here, the run does not: {_line(error)}',
          soft_wrap=True,
        )


def check(config: Config) -> None:
  """Raises InputError if the package of a logger in --log_to is missing."""
  for name in config.log_to:
    try:
      loggers.require(name)
    except ImportError as error:
      raise InputError(f'--log_to={name}: {_line(error)}') from error


@contextlib.contextmanager
def track(
  config: Config, task_names: Sequence[str], console: Console
) -> Iterator[Tracker]:
  """Starts the loggers of --log_to, and closes them in the end.

  Of several processes, only the first one logs.

  Raises:
    InputError: one cannot be started.
  """
  started: dict[str, loggers.Logger] = {}
  names = config.log_to if together.is_first() else ()
  try:
    for name in names:
      started[name] = _start(name, config)
  except Exception as error:  # whatever a service's client raises
    Tracker(started, task_names, console).close()
    raise InputError(f'--log_to={name}: {_line(error)}') from error
  tracker = Tracker(started, task_names, console)
  try:
    yield tracker
  finally:
    tracker.close()


def _start(name: str, config: Config) -> loggers.Logger:
  settings = config.to_json()
  if name == 'wandb':
    return loggers.wandb(settings, project=_PROJECT, name=config.run_dir.name)
  if name == 'mlflow':
    return loggers.mlflow(settings, run_name=config.run_dir.name)
  return loggers.tensorboard(config.run_dir / EVENTS)


def _line(error: Exception) -> str:
  return ' '.join(str(error).split()) or type(error).__name__
