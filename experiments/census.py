"""Trains several tasks at once on UCI Census-Income (KDD).

    python -m experiments.census --flagfile=experiments/flags/quickstart.flags

From a notebook: `census.run(options.Config(dataset='sample'))`.
"""

import dataclasses
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from absl import flags, logging

from experiments import datasets
from experiments.launcher import errors, frame, interrupts, options, output
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config

options.define_flags()
flags.adopt_module_key_flags(options)

MUCH = 0.01  # of a solver's residual, to be worth a line


def run(
  config: Config, *, on_again: Callable[[int], None] = interrupts.interrupt
) -> dict[str, Any]:
  """Trains, scores, prints and writes what a Config asks for.

  Args:
    config: see `options.Config`.
    on_again: see `interrupts.watch`.

  Returns:
    What is written to results.json.

  Raises:
    InputError: a mistake in the Config or the files.
    CheckpointError: no whole model or checkpoint in the folder, or one that
      cannot be written.
    NonFiniteError: losses or gradients that are not finite.
    Stopped: SIGTERM or Ctrl-C during training, whose progress is kept.
    KeyboardInterrupt: Ctrl-C before training, or again (a notebook's second
      Stop), which waits for nothing.
  """
  from experiments.launcher import memory, run_folder, unused

  if config.eval_only:
    return _evaluate(config)
  unused.refuse([config], options.changed(config))
  with run_folder.claim(config.run_dir) as claim, memory.guard(config):
    run_folder.refuse(
      config.run_dir, (run_folder.CELLS, run_folder.COMPARISON), 'a comparison'
    )
    run_folder.check(config.run_dir)
    return _train(config, config.run_dir, claim, on_again)


def _train(
  config: Config,
  folder: pathlib.Path,
  claim: Any,
  on_again: Callable[[int], None],
) -> dict[str, Any]:
  from experiments.launcher import build as runner
  from experiments.launcher import display, provenance, run_folder

  start = time.perf_counter()
  console = display.make_console()
  dataset = datasets.find(config)
  tasks = dataset.make_tasks(config)
  data = dataset.load(config, console).encode(config.num_bins)
  runner.check_batch_size(config, data.facts['rows']['train'])
  parts = runner.make_parts(
    config, tasks, data.tables, data.facts['rows']['train']
  )
  runner.check_model(config, parts.model, _example(data))
  identity = run_folder.identity(config, data.facts)
  claim.check()
  if config.overwrite:
    run_folder.clear(folder)
  elif results := run_folder.finished(folder, config, identity):
    return _show_finished(console, results, folder)
  data_seconds = time.perf_counter() - start
  _print_data(console, data.facts)
  with interrupts.watch(on_again) as request:
    environment = provenance.environment()
    keep = {
      'directory': folder / run_folder.CHECKPOINTS,
      'run': identity,
      'environment': {k: environment[k] for k in ('versions', 'commit')},
      'check': claim.check,
    }
    fitted = _fit(config, parts, data, keep, console, request)
    results = {
      **_score_all(config, parts.model, fitted.params, data),
      **_training_facts(config, fitted),
      **environment,
      'command': sys.argv,
    }
    total = time.perf_counter() - start
    spent = data_seconds + sum(fitted.seconds.values())
    results['seconds'] |= {
      'data': data_seconds,
      'scoring': total - spent,
      'total': total,
    }
    try:
      _write(config, folder, claim, parts.model, fitted, data, results)
    except InputError:
      raise
    except (OSError, ValueError) as error:
      raise InputError(
        f'cannot write to --out_dir={folder} ({error}): make room and start '
        'the same command again, which goes on from the last checkpoint, if any'
      ) from error
  _print_results(console, results, folder)
  return results


def _fit(
  config: Config,
  parts: Any,
  data: Any,
  keep: dict[str, Any],
  console: Any,
  request: interrupts.Request,
) -> Any:
  """Trains, or goes on with it; a request to stop keeps the progress."""
  from experiments.launcher import build as runner
  from experiments.launcher import display
  from lplmtl import resume, training

  with (
    display.epochs(console, config.epochs, config.tasks) as show,
    resume.Checkpoints(
      **keep,
      every_steps=config.save_every_steps,
      every_seconds=config.save_every_seconds,
      num_kept=config.num_checkpoints,
      stop=request.event,
      on_note=show.note,
    ) as keeper,
  ):
    try:
      return training.fit(
        runner.seed_keys(config),
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
        on_epoch=show.epoch,
      )
    except resume.Interrupted as stopped:
      raise interrupts.Stopped(
        f'{stopped}: the same command goes on from there', request.exit_code
      ) from None
    except resume.RestoreError as error:
      raise InputError(f'{error} (--overwrite does)') from error
    except training.NonFiniteError as error:
      keeper.wait()
      kept = keeper.steps()
      if not kept:
        raise
      raise training.NonFiniteError(
        f'{error}. The checkpoint of step {kept[-1]:,} is good and is kept: '
        'the same command with a larger --skip_nonfinite goes on from there; '
        'other settings want another --out_dir, or --overwrite'
      ) from error


def _show_finished(
  console: Any, results: dict[str, Any], folder: pathlib.Path
) -> dict[str, Any]:
  from experiments.launcher import display, run_folder
  from lplmtl.storage import saves

  saves.clear(folder / run_folder.CHECKPOINTS)
  console.print(display.results_table(results))
  console.print(
    f'{_remarks(results)}this run is finished, in {folder}; --overwrite trains '
    'it afresh',
    soft_wrap=True,
  )
  return results


def _training_facts(config: Config, fitted: Any) -> dict[str, Any]:
  import numpy as np

  from experiments.launcher import scoring

  weights = np.asarray(fitted.history[-1]['loss_weights'], np.float64)
  num_steps = int(fitted.state.step[0])
  rows_seen = fitted.steps_taken * config.batch_size * config.num_seeds
  return {
    'best_epoch': fitted.best_epoch.tolist(),
    'loss_weights': {
      name: scoring.over_seeds(weights[:, i])
      for i, name in enumerate(config.tasks)
    },
    'skipped_steps': fitted.num_skipped.tolist(),
    'solver_residual': np.max(
      [record['residual'] for record in fitted.history], axis=0
    ).tolist(),
    'resumed_from_step': num_steps - fitted.steps_taken,
    'seconds': dict(fitted.seconds),
    'examples_per_second': rows_seen / fitted.seconds['train'],
  }


def _write(
  config: Config,
  folder: pathlib.Path,
  claim: Any,
  model: Any,
  fitted: Any,
  data: Any,
  results: dict[str, Any],
) -> None:
  """Writes the model, the history, the pictures, and last results.json.

  Checkpoints go once all of it is on the disk.
  """
  from experiments.launcher import files, plots, run_folder
  from lplmtl import checkpoint
  from lplmtl.storage import saves
  from lplmtl.training import progress

  claim.check()
  checkpoint.save(
    folder / run_folder.MODEL,
    model,
    fitted.params,
    data.tables,
    num_seeds=config.num_seeds,
    extra={'config': config.to_json(), 'data': data.facts},
  )
  claim.check()
  files.write_json_lines(
    folder / run_folder.HISTORY, map(progress.to_json, fitted.history)
  )
  if plots.is_available():
    plots.curves(
      folder / run_folder.CURVES, fitted.history, config.tasks, results['title']
    )
    if results['gates']:
      plots.gates(folder / run_folder.GATES, results['gates'], results['title'])
  claim.check()
  files.write_json(folder / run_folder.RESULTS, results)
  saves.clear(folder / run_folder.CHECKPOINTS)


def _evaluate(config: Config) -> dict[str, Any]:
  """Scores the saved model again; only data_dir and out_dir are looked at."""
  from experiments.launcher import display
  from lplmtl import checkpoint

  console = display.make_console()
  folder = config.run_dir / 'model'
  try:
    model, params, tables = checkpoint.load(folder)
    extra = checkpoint.load_extra(folder)
  except ValueError as error:  # of the path, too
    raise InputError(str(error)) from error
  if 'config' not in extra:
    raise InputError(
      f'the model in {folder} was saved without the configuration of a run '
      '(extra.config): score it from Python, by lplmtl.checkpoint.load'
    )
  try:
    saved = Config.from_json(extra['config'])
  except InputError as error:
    raise InputError(f'the model in {folder}: {error}') from error
  if saved.data_dir and not config.data_dir and saved.dataset != 'sample':
    # A stranger's model does not say where this machine reads and writes.
    raise InputError(
      f'{folder} was trained on the files in {saved.data_dir!r}: give '
      '--data_dir, this folder or another one with the same files'
    )
  saved = dataclasses.replace(saved, data_dir=config.data_dir)
  source = datasets.find(saved).load(saved, console)
  data = source.encode(saved.num_bins, tables)
  _print_data(console, data.facts)
  if data.facts['files'] != (extra.get('data') or {}).get('files'):
    console.print('note: these are not the files the model was trained on')
  results = _score_all(saved, model, params, data)
  console.print(display.results_table(results))
  return results


def _example(data: Any) -> Any:
  return {name: x[:1] for name, x in data.test.features.items()}


def _score_all(
  config: Config, model: Any, params: Any, data: Any
) -> dict[str, Any]:
  """What can be said of a trained model, now or when it is loaded again."""
  from experiments.launcher import scoring

  test, validation = (
    scoring.score(model, model.tasks, params, rows)
    for rows in (data.test, data.validation)
  )
  return {
    'title': f'{config.architecture}, {config.balancer}, '
    f'{data.facts["dataset"]}',
    'test': test.metrics,
    'validation': validation.metrics,
    'calibration': test.calibration,
    **scoring.costs(model, params, _example(data)),
    'gates': scoring.gate_use(model, params, data.test.features),
    'config': config.to_json(),
    'data': {**data.facts, 'optimum': data.optimum},
  }


def _print_data(console: Any, facts: dict[str, Any]) -> None:
  rows = ', '.join(f'{n:,} {split}' for split, n in facts['rows'].items())
  console.print(f'data: {facts["statement"]}\nrows: {rows}', soft_wrap=True)
  for split, counts in facts['unseen'].items():
    if counts:
      columns = ', '.join(f'{name} in {n:,}' for name, n in counts.items())
      console.print(
        f'{split} rows hold values that no training row holds, which take the '
        f'reserved id: {columns}',
        soft_wrap=True,
      )


def _print_results(
  console: Any, results: dict[str, Any], folder: pathlib.Path
) -> None:
  from experiments.launcher import display, plots

  console.print(display.results_table(results))
  for task, auc in results['data']['optimum'].items():
    if 'auc' in results['test'].get(task, ()):
      console.print(f"the generator's own optimum: test AUC {auc:.4f} {task}")
  seconds = results['seconds']
  console.print(
    f'{results["parameters"]:,} parameters, '
    f'{results["flops_per_example"]:,} FLOPs per example, '
    f'best epochs {results["best_epoch"]}\n'
    f'{seconds["total"]:.1f} s in all: data {seconds["data"]:.1f}, '
    f'initialisation {seconds["init"]:.1f}, '
    f'compilation {seconds["compile"]:.1f}, training {seconds["train"]:.1f}, '
    f'scoring {seconds["scoring"]:.1f} '
    f'({results["examples_per_second"]:,.0f} training examples/s)\n'
    f'{_remarks(results)}{results["data"]["statement"]}\n'
    f'written to {folder}',
    soft_wrap=True,
  )
  if not plots.is_available():
    console.print("no curves.png: pip install -e '.[plots]' for pictures")


def _remarks(results: dict[str, Any]) -> str:
  """A line for each thing that does not go without saying."""
  found = ''
  if any(counts := results['skipped_steps']):
    found += f'steps skipped as not finite: {counts}\n'
  if (largest := max(results.get('solver_residual', [0]))) > MUCH:
    found += (
      f"the balancer's equations were missed by up to {largest:.2g}, as where "
      'task gradients cancel; weights may be large there\n'
    )
  return found


def main(argv: list[str]) -> None:
  """Flags, Config, run; a user's mistake ends in one line and exit code 1."""
  if not flags.FLAGS['verbosity'].present:
    # Orbax tells its life at INFO, and its failures as tracebacks.
    logging.set_verbosity(logging.FATAL)
  try:
    with errors.one_line():
      _main(argv)
  except interrupts.Stopped as stopped:
    print(stopped, file=sys.stderr)
    sys.exit(stopped.exit_code)
  except KeyboardInterrupt:
    print(
      'interrupted outside of training: nothing new is kept', file=sys.stderr
    )
    sys.exit(128 + signal.SIGINT)


def _main(argv: list[str]) -> None:
  options.refuse_arguments(argv)
  config = options.from_flags(flags.FLAGS)
  from experiments.launcher import build as runner
  from experiments.launcher import unused

  runner.start(config)
  interrupts.start()
  # Until training begins, and once it is over.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  if not config.eval_only:
    unused.refuse([config], options.given(flags.FLAGS))
  run(config, on_again=interrupts.leave)
  if config.eval_only:
    output.refuse_loss()


if __name__ == '__main__':
  frame.run(main)
