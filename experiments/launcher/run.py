"""A training run: train, score, write."""

import pathlib
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from experiments.datasets.base import Data, Dataset
from experiments.launcher import (
  build,
  display,
  drawing,
  earlier,
  evaluation,
  files,
  gate_map,
  interrupts,
  lock,
  memory,
  options,
  panels,
  plots,
  provenance,
  run_folder,
  scoring,
  summary,
  tracking,
  unused,
)
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import checkpoint, resume, training
from lplmtl.storage import saves
from lplmtl.training import progress
from lplmtl.types import Batch


def execute(
  config: Config,
  find: Callable[[Config], Dataset],
  *,
  given: Collection[str] = (),
  on_again: Callable[[int], None] = interrupts.interrupt,
) -> dict[str, Any]:
  """Trains, scores, prints and writes what a Config asks for.

  Args:
    config: see `options.Config`.
    find: returns the data set that a Config names.
    given: the fields that were given as flags; those that have no effect are
      refused, as are those that differ from their defaults.
    on_again: see `interrupts.watch`.

  Returns:
    What is written to results.json.

  Raises:
    InputError: a mistake in the Config or the files.
    CheckpointError: the folder holds no intact model or checkpoint, or one
      cannot be written.
    NonFiniteError: a loss or gradient is not finite.
    Stopped: SIGTERM, SIGHUP or Ctrl-C during training; the progress is kept.
    KeyboardInterrupt: Ctrl-C before training, or a second one (such as a
      notebook's second Stop), which does not wait for anything.
  """
  if config.eval_only:
    return evaluation.evaluate(config, find)
  unused.refuse([config], options.changed(config).union(given))
  tracking.check(config)  # before --overwrite removes a run
  with lock.claim(config.run_dir) as claim, memory.guard(config):
    run_folder.refuse(
      config.run_dir, (run_folder.CELLS, run_folder.COMPARISON), 'a comparison'
    )
    run_folder.check(config.run_dir)
    return _execute(config, find(config), claim, on_again)


def _execute(
  config: Config,
  dataset: Dataset,
  claim: lock.Claim,
  on_again: Callable[[int], None],
) -> dict[str, Any]:
  start = time.perf_counter()
  console = display.make_console()
  folder = config.run_dir
  dataset.check(config)
  data = dataset.load(config, console).encode(config.num_bins, is_last=True)
  num_train = data.facts['rows']['train']
  # Rows that are read in chunks fill no batch beyond a chunk.
  most = getattr(data.train, 'chunk_rows', num_train)
  config = build.fit_batch_size(config, most)
  build.check_batch_size(config, num_train)
  parts = build.make_parts(config, data.tasks, data.tables, num_train)
  build.check_model(config, parts.model, evaluation.one_row(data))
  schema = earlier.parsed(data.extra.get('schema'))
  claim.check()
  if config.overwrite:
    run_folder.clear(folder)
  elif results := run_folder.finished(folder, config, data.facts, schema):
    saves.clear(folder / run_folder.CHECKPOINTS)
    run_folder.clear_rows(folder)
    summary.print_finished(console, results, folder)
    return results
  if schema is not None:  # before training, so that it may be edited soon
    summary.print_former_targets(
      console, earlier.schema_of_file(folder / run_folder.SCHEMA), schema
    )
    files.write_json(
      folder / run_folder.SCHEMA, schema.to_json(), ensure_ascii=False
    )
  data_seconds = time.perf_counter() - start
  summary.print_data(console, data.facts)
  with (
    interrupts.watch(on_again) as request,
    tracking.track(config, _names(data), console) as tracker,
  ):
    environment = provenance.environment()
    keeper = {
      'directory': folder / run_folder.CHECKPOINTS,
      'run': run_folder.identity(config, data.facts),
      'environment': {
        **{k: environment[k] for k in ('versions', 'commit')},
        'rows': earlier.rows_of(data.facts),
      },
      'check': claim.check,
    }
    fitted = _train(config, parts, data, keeper, console, request, tracker)
    results = {
      **evaluation.score(config, parts.model, fitted.params, data),
      **_training_facts(config, fitted, _names(data)),
      **environment,
      'command': sys.argv,
    }
    predictions = data.predict and data.predict(parts.model, fitted.params)
    if predictions:
      results['predictions'] = predictions.metrics
    _add_seconds(results['seconds'], data_seconds, time.perf_counter() - start)
    try:
      if predictions:
        claim.check()
        content = predictions.content()
        files.write_bytes(folder / run_folder.PREDICTIONS, content)
      _write(config, claim, parts, fitted, data, results)
    except InputError:
      raise
    except (OSError, ValueError) as error:
      raise InputError(
        f'cannot write to --out_dir={folder} ({error}): make room and start '
        'the same command again, which resumes from the last checkpoint, if '
        'there is one'
      ) from error
    tracker.finish(results)
  summary.print_results(console, results, folder)
  return results


def _train(
  config: Config,
  parts: build.Parts,
  data: Data,
  keeper_fields: dict[str, Any],
  console: display.Console,
  request: interrupts.Request,
  tracker: tracking.Tracker,
) -> training.FitResult:
  """Trains or resumes; a request to stop keeps the progress."""

  def on_epoch(record: dict[str, Any]) -> None:
    show.epoch(record)
    tracker.epoch(record)

  with (
    display.epochs(console, config.epochs, _names(data)) as show,
    resume.Checkpoints(
      **keeper_fields,
      every_steps=config.save_every_steps,
      every_seconds=config.save_every_seconds,
      num_kept=config.num_checkpoints,
      stop=request.event,
      on_note=show.note,
    ) as keeper,
  ):
    try:
      return training.fit(
        build.seed_keys(config),
        parts.model,
        parts.optimizer,
        parts.balancer,
        data.train,
        validation=data.validation,
        batch_size=config.batch_size,
        num_epochs=config.epochs,
        eval_every=config.eval_every,
        patience=config.patience or None,
        skip_nonfinite=config.skip_nonfinite,
        keeper=keeper,
        on_epoch=on_epoch,
      )
    except resume.Interrupted as stopped:
      raise interrupts.Stopped(
        f'{stopped}: the same command resumes from there', request.exit_code
      ) from None
    except resume.RestoreError as error:
      raise InputError(f'{error} (--overwrite does)') from error
    except ValueError as error:
      if isinstance(data.train, Batch):
        raise
      rows = config.run_dir / run_folder.ROWS
      raise InputError(
        f'{error} (remove {rows}, and the same command does)'
      ) from error
    except training.NonFiniteError as error:
      keeper.wait()
      kept = keeper.steps()
      if not kept:
        raise
      raise training.NonFiniteError(
        f'{error}. The checkpoint of step {kept[-1]:,} is finite and is kept: '
        'the same command with a larger --skip_nonfinite resumes from it; '
        'other settings need another --out_dir, or --overwrite'
      ) from error


def _names(data: Data) -> list[str]:
  return [task.name for task in data.tasks]


def _training_facts(
  config: Config, fitted: training.FitResult, task_names: Sequence[str]
) -> dict[str, Any]:
  """Returns what results.json says about the training itself."""
  weights = np.asarray(fitted.history[-1]['loss_weights'], np.float64)
  num_steps = int(fitted.state.step[0])
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


def _write(
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
      _names(data),
      results['title'],
    )
    if panels.can_be_drawn(results):
      panels.outcomes(folder / run_folder.OUTCOMES, results)
    if results['gates']:
      gate_map.gates(
        folder / run_folder.GATES,
        results['gates'],
        results['title'],
        _names(data),
      )
  claim.check()
  files.write_json(folder / run_folder.RESULTS, results)
  saves.clear(folder / run_folder.CHECKPOINTS)
  run_folder.clear_rows(folder)
