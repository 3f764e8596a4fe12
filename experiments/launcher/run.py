"""A training run: train, score, write."""

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from experiments.datasets.base import Data, Dataset
from experiments.launcher import (
  build,
  display,
  earlier,
  errors,
  evaluation,
  files,
  finishing,
  interrupts,
  lock,
  memory,
  options,
  provenance,
  run_folder,
  summary,
  together,
  tracking,
  unused,
)
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import resume, training
from lplmtl.storage import saves
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
  with contextlib.ExitStack() as stack:
    claim = together.call(lambda: stack.enter_context(_claim(config, given)))
    with memory.guard(config):
      return _execute(config, find(config), claim, on_again)


@contextlib.contextmanager
def _claim(config: Config, given: Collection[str]) -> Iterator[lock.Claim]:
  """Checks the flags and the folder, and locks it, in the first process."""
  unused.refuse([config], options.changed(config).union(given))
  tracking.check(config)  # before --overwrite removes a run
  if not together.is_first():
    yield lock.Watcher()
    return
  with lock.claim(config.run_dir) as claim:
    run_folder.refuse(
      config.run_dir, (run_folder.CELLS, run_folder.COMPARISON), 'a comparison'
    )
    run_folder.check(config.run_dir)
    yield claim


def _execute(
  config: Config,
  dataset: Dataset,
  claim: lock.Claim,
  on_again: Callable[[int], None],
) -> dict[str, Any]:
  start = time.perf_counter()
  console = display.make_console()
  folder = config.run_dir
  work = together.first_then_others(
    lambda: _prepare(config, dataset, claim, console)
  )
  results = work.results
  environment = provenance.environment()
  run = run_folder.identity(work.config, work.data.facts)
  together.compare(
    {
      **run, **environment['versions'], 'commit': environment['commit'],
      'data': None, **earlier.contents(work.data.facts),
    }
  )  # fmt: skip
  if together.any_of(results is not None):
    if results is not None:
      summary.print_finished(console, results, folder)
    return results or {}
  together.in_first(lambda: _make_ready(config, work.data, claim, console))
  work = together.first_then_others(functools.partial(_encoded, work))
  config, data, parts = work.config, work.data, work.parts
  summary.print_data(console, data.facts)
  with (
    interrupts.watch(on_again) as request,
    tracking.track(config, _names(data), console) as tracker,
  ):
    keeper = {
      'directory': folder / run_folder.CHECKPOINTS,
      'run': run,
      'environment': {
        **{k: environment[k] for k in ('versions', 'commit')},
        **earlier.about(data.facts),
      },
      'check': claim.check,
    }
    fitted = _train(config, parts, data, keeper, console, request, tracker)
    results = together.in_first(
      lambda: finishing.finish(work, fitted, claim, environment, start)
    )
    if results is None:
      run_folder.clear_rows(folder)  # those on a disk of its own
      return {}
    tracker.finish(results)
  summary.print_results(console, results, folder)
  return results


def _prepare(
  config: Config,
  dataset: Dataset,
  claim: lock.Claim,
  console: display.Console,
) -> finishing.Work:
  start = time.perf_counter()
  dataset.check(config)
  source = dataset.load(config, console)
  # Rows that take minutes to encode wait until there is nothing to refuse.
  data = (source.preview or source.encode)(config.num_bins, is_last=True)
  config, parts = _checked(config, data)
  results = None
  if together.is_first():
    results = _finished(config, data, claim)
  return finishing.Work(
    config, data, parts, results, time.perf_counter() - start,
    source.encode if source.preview else None,
  )  # fmt: skip


def _encoded(work: finishing.Work) -> finishing.Work:
  """Returns the same work with all rows."""
  if work.encode is None:
    return work
  start = time.perf_counter()
  data = work.encode(work.config.num_bins, is_last=True)
  config, parts = _checked(work.config, data)
  return work._replace(
    config=config, data=data, parts=parts, encode=None,
    seconds=work.seconds + time.perf_counter() - start,
  )  # fmt: skip


def _finished(
  config: Config, data: Data, claim: lock.Claim
) -> dict[str, Any] | None:
  """Returns the results of the run that the folder holds, if it is finished."""
  folder = config.run_dir
  schema = earlier.parsed(data.extra.get('schema'))
  claim.check()
  if config.overwrite:
    return None
  results = run_folder.finished(folder, config, data.facts, schema)
  if results:
    saves.clear(folder / run_folder.CHECKPOINTS)
    run_folder.clear_rows(folder)
  return results


def _make_ready(
  config: Config, data: Data, claim: lock.Claim, console: display.Console
) -> None:
  """Makes the folder ready for a run that nothing speaks against any more."""
  folder = config.run_dir
  claim.check()
  if config.overwrite:
    run_folder.clear(folder)
  schema = earlier.parsed(data.extra.get('schema'))
  if schema is not None:  # before training, so that it may be edited soon
    summary.print_former_targets(
      console, earlier.schema_of_file(folder / run_folder.SCHEMA), schema
    )
    files.write_json(
      folder / run_folder.SCHEMA, schema.to_json(), ensure_ascii=False
    )


def _checked(config: Config, data: Data) -> tuple[Config, build.Parts]:
  """Returns the Config with a batch that rows can fill, and what it names.

  Raises:
    InputError: they do not fit the rows, or each other.
  """
  num_train = data.facts['rows']['train']
  # Rows that are read in chunks fill no batch beyond a chunk.
  most = getattr(data.train, 'chunk_rows', num_train)
  build.check_rows(config, data.train, num_train)
  config = build.fit_batch_size(config, most)
  build.check_batch_size(config, num_train)
  build.check_shares(config, data.train)
  parts = build.make_parts(config, data.tasks, data.tables, num_train)
  build.check_model(config, parts.model, evaluation.one_row(data))
  return config, parts


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
      # In several processes, all end by the signal that one has received.
      raise interrupts.Stopped(
        f'{stopped}: the same command resumes from there',
        together.any_of(request.exit_code),
      ) from None
    except resume.RestoreError as error:
      raise InputError(f'{error} (--overwrite does)') from error
    except ValueError:
      if isinstance(data.train, Batch):
        raise
      with errors.reading(config.run_dir / run_folder.ROWS):
        raise
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
