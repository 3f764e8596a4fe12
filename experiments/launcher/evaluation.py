"""Scores a model: one that was just trained, or one that was saved."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from experiments.datasets.base import Data, Dataset
from experiments.launcher import (
  display,
  outcomes,
  run_folder,
  scoring,
  summary,
)
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import checkpoint
from lplmtl.types import Batch, PyTree


def one_row(data: Data) -> PyTree:
  """Returns the features of one test row, to trace a model with."""
  test = data.test
  rows = test if isinstance(test, Batch) else test.example
  return jax.tree.map(lambda x: x[:1], rows.features)


def score(
  config: Config,
  model: nn.Module,
  params: PyTree,
  data: Data,
  validation: dict[str, Any] | None = None,
) -> dict[str, Any]:
  """Returns what results.json says about a trained model.

  Args:
    config: of its run.
    model: an architecture.
    params: its parameters, with a leading axis of S seeds.
    data: the rows; metrics are those of the test and the validation rows.
    validation: the metrics of the validation rows, see `scoring.of_history`;
      None computes them.
  """
  test = scoring.score(model, model.tasks, params, data.test)
  if validation is None:
    validation = {}  # of a saved model that scores other rows than its own
    if data.facts['rows']['validation']:
      validation = scoring.score(
        model, model.tasks, params, data.validation
      ).metrics
  return {
    'title': f'{config.architecture}, {config.balancer}, '
    f'{data.facts["dataset"]}',
    'test': test.metrics,
    'validation': validation,
    'calibration': test.calibration,
    'outcomes': outcomes.describe(
      model.tasks, test.logits, test.rows, data.facts.get('targets', {})
    ),
    **scoring.costs(model, params, one_row(data)),
    'gates': test.gates,
    'config': config.effective(),
    'data': {**data.facts, 'optimum': data.optimum},
  }


def evaluate(
  config: Config, find: Callable[[Config], Dataset]
) -> dict[str, Any]:
  """Scores the saved model of a run, prints and returns the results.

  Args:
    config: only where it finds the rows (`data_dir`, or `data` and
      `test_data`) and the folder of its run matter.
    find: returns the data set that a Config names.

  Raises:
    InputError: there is no model of a run, or its data were not given.
  """
  console = display.make_console()
  folder = config.run_dir / run_folder.MODEL
  try:
    model, params, tables = checkpoint.load(folder)
    extra = checkpoint.load_extra(folder)
  except ValueError as error:  # of a bad path, too
    raise InputError(str(error)) from error
  saved = config_of(extra, config, folder)
  source = find(saved).load(saved, console, extra)
  data = source.encode(saved.num_bins, tables, is_last=True)
  summary.print_data(console, data.facts)
  if not _is_own(data.facts['files'], (extra.get('data') or {}).get('files')):
    console.print('note: the model was trained on files other than these')
  try:
    results = score(saved, model, params, data)
  finally:
    run_folder.clear_rows(config.run_dir)
  console.print(summary.table(results))
  if data.predict is not None:
    results['predictions'] = data.predict(model, params).metrics
    console.print(summary.predictions(results), soft_wrap=True)
  return results


def config_of(
  extra: dict[str, Any], config: Config, folder: pathlib.Path
) -> Config:
  """Returns the Config of the run that saved a model, with other files.

  Args:
    extra: saved with the model.
    config: only where it finds the rows matters.
    folder: of the model.

  Raises:
    InputError: no run saved the model, or its data are not named.
  """
  return _moved(_saved_config(extra, folder), config, folder)


def _is_own(files: dict[str, Any], trained_on: Any) -> bool:
  """Whether the rows of a table, or of Census-Income, are those of training."""
  if 'data' in files:  # a table: another file of test rows may be scored
    own = (trained_on or {}).get('data', {})
    return bool(files['data']['sha256'] == own.get('sha256'))
  return bool(files == trained_on)


def _moved(saved: Config, config: Config, folder: pathlib.Path) -> Config:
  """Returns a saved Config that reads the files that another one names.

  A stranger's model must not decide where this machine reads and writes.
  """
  if saved.data and not config.data:
    raise InputError(
      f'{folder} was trained on the table {saved.data!r}: give --data, that '
      'table or another one with the same columns'
    )
  if config.data and not saved.data:
    raise InputError(f'{folder} was not trained on a table: leave out --data')
  if saved.data_dir and not config.data_dir and saved.dataset != 'sample':
    raise InputError(
      f'{folder} was trained on the files in {saved.data_dir!r}: give '
      '--data_dir, that folder or another one with the same files'
    )
  places = ('data', 'test_data', 'data_dir')
  return dataclasses.replace(
    saved,
    schema='',
    out_dir=str(config.run_dir),
    **{name: getattr(config, name) for name in places},
  )


def _saved_config(extra: dict[str, Any], folder: Any) -> Config:
  if 'config' not in extra:
    raise InputError(
      f'the model in {folder} was saved without the configuration of a run '
      '(extra.config): score it from Python, with lplmtl.checkpoint.load'
    )
  try:
    return Config.from_json(extra['config'])
  except InputError as error:
    raise InputError(f'the model in {folder}: {error}') from error
