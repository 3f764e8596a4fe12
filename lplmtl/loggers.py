"""TensorBoard, Weights & Biases and MLflow, for the `on_epoch` of `fit`.

A logger is a pair of functions, so that one of your own is two functions more:

    logger = loggers.tensorboard('runs/tensorboard')
    fit(..., on_epoch=loggers.follow([logger], ('churn', 'value')))
    logger.close({})

Each needs the package (and extra) of its name, which is imported when it is
called.
"""

import importlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Values = Mapping[str, float]
# What each logger, and the extra of its name, needs.
_PACKAGES = {
  'tensorboard': 'tensorboardX',
  'wandb': 'wandb',
  'mlflow': 'mlflow',
}


class Logger(NamedTuple):
  """Where the figures of a run go.

  Attributes:
    log: `(values, epoch) -> None`, called after each epoch with `{name:
      number}`.
    close: `(summary) -> None`, called once at the end, with `{name: number}`:
      what the run as a whole reached, such as its test metrics; empty if it was
      interrupted.
  """

  log: Callable[[Values, int], None]
  close: Callable[[Values], None]


def follow(
  loggers: Sequence[Logger], task_names: Sequence[str]
) -> Callable[[Mapping[str, Any]], None]:
  """Returns an `on_epoch` that passes each record of `fit` to the loggers.

  Args:
    loggers: any number of them.
    task_names: T names, in the order of the model's tasks.

  Example:
    >>> seen = []
    >>> log = Logger(lambda values, epoch: seen.append(values), None)
    >>> record = {'epoch': 1, 'losses': np.array([[0.5]]),
    ...           'loss_weights': np.array([[1.0]])}
    >>> follow([log], ('click',))(record)
    >>> seen
    [{'loss/click': 0.5, 'loss_weight/click': 1.0}]
  """

  def on_epoch(record: Mapping[str, Any]) -> None:
    values = scalars(record, task_names)
    for logger in loggers:
      logger.log(values, record['epoch'])

  return on_epoch


def scalars(
  record: Mapping[str, Any], task_names: Sequence[str]
) -> dict[str, float]:
  """Flattens a record of `fit`'s history; means over the seeds.

  Returns:
    `loss/<task>` and `loss_weight/<task>`, and at evaluated epochs
    `validation/<task>/<metric>`. What is not a number (a loss without labels,
    an undefined metric) is left out.
  """
  values = {}
  for i, task in enumerate(task_names):
    values[f'loss/{task}'] = record['losses'][:, i]
    values[f'loss_weight/{task}'] = record['loss_weights'][:, i]
  for task, metrics in record.get('validation', {}).items():
    for metric, of_seeds in metrics.items():
      values[f'validation/{task}/{metric}'] = of_seeds
  means = {name: float(np.mean(x)) for name, x in values.items()}
  return {name: x for name, x in means.items() if np.isfinite(x)}


def tensorboard(folder: str | pathlib.Path) -> Logger:
  """Writes event files for TensorBoard, by tensorboardX (extra `tensorboard`).

  An epoch that is logged again, as by a run that resumes or starts over in the
  same folder, hides the older events from that epoch on.

  Raises:
    ModuleNotFoundError: tensorboardX is not installed.
  """
  package = require('tensorboard')
  writer: Any = None
  last = 0

  def log(values: Values, epoch: int) -> None:
    nonlocal writer, last
    if writer is None:
      writer = package.SummaryWriter(str(folder), purge_step=epoch)
    last = epoch
    for name, value in values.items():
      writer.add_scalar(name, value, epoch)
    writer.flush()  # to be seen while training continues

  def close(summary: Values) -> None:
    if writer is not None:
      for name, value in summary.items():
        writer.add_scalar(name, value, last)
      writer.close()

  return Logger(log, close)


def wandb(config: Mapping[str, Any], **settings: Any) -> Logger:
  """Starts a run of Weights & Biases (extra `wandb`).

  Args:
    config: the settings of the run, to be filtered by.
    **settings: see `wandb.init`, such as `project`, `name`, `dir`, `mode`.

  Raises:
    ModuleNotFoundError: wandb is missing. What `wandb.init` raises.
  """
  package = require('wandb')
  run = package.init(config=dict(config), **settings)

  def log(values: Values, epoch: int) -> None:
    run.log({'epoch': epoch, **values})

  def close(summary: Values) -> None:
    run.summary.update(dict(summary))
    run.finish(exit_code=0 if summary else 1)

  return Logger(log, close)


def mlflow(config: Mapping[str, Any], **settings: Any) -> Logger:
  """Starts a run of MLflow (extra `mlflow`), at MLflow's own tracking address.

  Args:
    config: the settings of the run, logged as parameters.
    **settings: see `mlflow.start_run`, such as `run_name`, `experiment_id`.

  Raises:
    ModuleNotFoundError: MLflow is missing. What `mlflow.start_run` raises.
  """
  package = require('mlflow')
  run_id = package.start_run(**settings).info.run_id
  package.log_params({name: str(value) for name, value in config.items()})

  def log(values: Values, epoch: int) -> None:
    package.log_metrics(dict(values), step=epoch, run_id=run_id)

  def close(summary: Values) -> None:
    package.log_metrics(dict(summary), run_id=run_id)
    package.end_run('FINISHED' if summary else 'KILLED')

  return Logger(log, close)


def summary_of(metrics: Mapping[str, Mapping[str, Any]], split: str) -> Values:
  """Flattens `{task: {metric: number or {'mean': number}}}` for `close`.

  What is undefined (NaN, or None as in JSON) is left out.

  Example:
    >>> summary_of({'click': {'auc': {'mean': 0.75}}}, 'test')
    {'test/click/auc': 0.75}
  """
  values = {}
  for task, of_task in metrics.items():
    for metric, value in of_task.items():
      number = value['mean'] if isinstance(value, Mapping) else value
      if number is not None and np.isfinite(number):
        values[f'{split}/{task}/{metric}'] = float(number)
  return values


def require(name: str) -> Any:
  """Imports and returns the package that a logger needs.

  Args:
    name: of the logger: `tensorboard`, `wandb` or `mlflow`.

  Raises:
    ModuleNotFoundError: the package is not installed.
  """
  package = _PACKAGES[name]
  try:
    return importlib.import_module(package)
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f"this logger needs {package}: pip install 'lplmtl[{name}]'"
    ) from error
