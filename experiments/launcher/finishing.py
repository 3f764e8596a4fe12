"""The end of a run: scores, and the files of its folder."""

import contextlib
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.datasets.base import Data, Encode
from experiments.launcher import (
  build,
  drawing,
  errors,
  evaluation,
  files,
  gate_map,
  lock,
  panels,
  plots,
  run_folder,
  scoring,
)
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import checkpoint, training
from lplmtl.storage import saves
from lplmtl.training import progress
from lplmtl.types import Batch


class Work(NamedTuple):
  """What a run needs before it trains.

  Attributes:
    config: with the batch size that the rows allow.
    data: encoded rows, or a preview of them.
    parts: of the method.
    results: those of the run, if it is finished.
    seconds: that reading the rows took.
    encode: encodes the rows of which `data` is a preview; None if it has all.
  """

  config: Config
  data: Data
  parts: build.Parts
  results: dict[str, Any] | None
  seconds: float
  encode: Encode | None


def finish(
  work: Work,
  fitted: training.FitResult,
  claim: lock.Claim,
  environment: dict[str, Any],
  start: float,
) -> dict[str, Any]:
  """Scores a trained model and writes all files; returns the results.

  Args:
    work: what it was trained on.
    fitted: from `training.fit`.
    claim: of its folder.
    environment: see `provenance`.
    start: of the run, by `time.perf_counter`.

  Raises:
    InputError: a file cannot be written.
  """
  config, data, parts = work.config, work.data, work.parts
  names = [task.name for task in data.tasks]
  results = {
    **_scores(config, parts, fitted, data),
    **_training_facts(config, fitted, names),
    **environment,
    'command': sys.argv,
  }
  predictions = data.predict and data.predict(parts.model, fitted.params)
  if predictions:
    results['predictions'] = predictions.metrics
  _add_seconds(results['seconds'], work.seconds, time.perf_counter() - start)
  folder = config.run_dir
  try:
    if predictions:
      claim.check()
      content = predictions.content()
      files.write_bytes(folder / run_folder.PREDICTIONS, content)
    write(config, claim, parts, fitted, data, results)
  except InputError:
    raise
  except (OSError, ValueError) as error:
    raise InputError(
      f'cannot write to --out_dir={folder} ({error}): make room and start '
      'the same command again, which resumes from the last checkpoint, if '
      'there is one'
    ) from error
  return results


def _scores(
  config: Config, parts: build.Parts, fitted: training.FitResult, data: Data
) -> dict[str, Any]:
  rows = config.run_dir / run_folder.ROWS
  is_read = not isinstance(data.test, Batch)
  with errors.reading(rows) if is_read else contextlib.nullcontext():
    validation = scoring.of_history(parts.model.tasks, fitted)
    return evaluation.score(
      config, parts.model, fitted.params, data, validation
    )


def _training_facts(
  config: Config, fitted: training.FitResult, task_names: Sequence[str]
) -> dict[str, Any]:
  """Returns what results.json says about the training itself."""
  weights = np.asarray(fitted.history[-1]['loss_weights'], np.float64)
  # Taken on the host: on a device, it would be a program.
  num_steps = int(np.asarray(fitted.state.step)[0])
  rows_seen = fitted.steps_taken * config.batch_size * config.num_seeds
  return {
    'best_epoch': fitted.best_epoch.tolist(),
    'loss_weights': {
      name: scoring.over_seeds(weights[:, i])
      for i, name in enumerate(task_names)
    },
    'skipped_steps': fitted.num_skipped.tolist(),
    'solver_residual': np.max(
      [record['residual'] for record in fitted.history], axis=0
    ).tolist(),
    'resumed_from_step': num_steps - fitted.steps_taken,
    'seconds': dict(fitted.seconds),
    'examples_per_second': rows_seen / fitted.seconds['train'],
  }


def _add_seconds(seconds: dict[str, float], data: float, total: float) -> None:
  """Completes the seconds of `fit`; scoring is what remains of the total."""
  spent = data + sum(seconds.values())
  seconds |= {'data': data, 'scoring': total - spent, 'total': total}


def write(
  config: Config,
  claim: lock.Claim,
  parts: build.Parts,
  fitted: training.FitResult,
  data: Data,
  results: dict[str, Any],
) -> None:
  """Writes the model, the history, the pictures and, last, results.json.

  A run is finished once results.json exists, so that comes last; the
  checkpoints are removed only once everything has reached the disk.
  """
  folder: pathlib.Path = config.run_dir
  claim.check()
  checkpoint.save(
    folder / run_folder.MODEL,
    parts.model,
    fitted.params,
    data.tables,
    num_seeds=config.num_seeds,
    extra={'config': config.to_json(), 'data': data.facts, **data.extra},
  )
  claim.check()
  files.write_json_lines(
    folder / run_folder.HISTORY, map(progress.to_json, fitted.history)
  )
  if drawing.is_available():
    plots.curves(
      folder / run_folder.CURVES,
      fitted.history,
      [task.name for task in data.tasks],
      results['title'],
    )
    if panels.can_be_drawn(results):
      panels.outcomes(folder / run_folder.OUTCOMES, results)
    if results['gates']:
      gate_map.gates(
        folder / run_folder.GATES,
        results['gates'],
        results['title'],
        [task.name for task in data.tasks],
      )
  claim.check()
  files.write_json(folder / run_folder.RESULTS, results)
  saves.clear(folder / run_folder.CHECKPOINTS)
  run_folder.clear_rows(folder)
