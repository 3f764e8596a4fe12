"""Trains several tasks at once on UCI Census-Income (KDD).

    python -m experiments.census --flagfile=experiments/flags/quickstart.flags

From a notebook: `census.run(options.Config(dataset='sample'))`.
"""

import contextlib
import dataclasses
import pathlib
import sys
import time
from typing import Any

from absl import app, flags, logging

from experiments import options
from experiments.errors import InputError
from experiments.options import Config

options.define_flags()
flags.adopt_module_key_flags(options)


def run(config: Config) -> dict[str, Any]:
  """Trains, scores, prints and writes what a Config asks for.

  Args:
    config: see `options.Config`.

  Returns:
    What is written to results.json.

  Raises:
    InputError: a mistake in the Config or the files.
    CheckpointError: with `eval_only`, no whole model in the folder.
    NonFiniteError: a training loss that is not finite.
  """
  if config.eval_only:
    return _evaluate(config)
  from experiments import runner

  folder = config.run_dir
  is_new = runner.claim_folder(folder)
  try:
    return _train(config, folder)
  except BaseException:
    if is_new:
      with contextlib.suppress(OSError):
        folder.rmdir()  # only if nothing has been written
    raise


def _train(config: Config, folder: pathlib.Path) -> dict[str, Any]:
  from experiments import census_data, display, runner
  from lplmtl import training

  start = time.perf_counter()
  console = display.make_console()
  tasks = census_data.make_tasks(config.tasks)
  runner.check_names(config)  # before any data is fetched
  raw = _read(config, console)
  data = census_data.encode(
    raw,
    config.tasks,
    validation=config.validation,
    split_seed=config.split_seed,
    num_bins=config.num_bins,
  )
  _check_batch_size(config, data)
  parts = runner.make_parts(
    config, tasks, data.tables, data.facts['rows']['train']
  )
  runner.check_model(parts.model, _example(data))
  data_seconds = time.perf_counter() - start
  _print_data(console, data.facts)
  with display.epochs(console, config.epochs, config.tasks) as show:
    fitted = training.fit(
      runner.seed_keys(config),
      parts.model,
      tasks,
      parts.optimizer,
      parts.balancer,
      data.train,
      validation=data.validation,
      batch_size=config.batch_size,
      num_epochs=config.epochs,
      eval_every=config.eval_every,
      patience=config.patience or None,
      on_chunk=show,
    )
  results = {
    **_score_all(config, parts.model, fitted.params, raw, data),
    **_training_facts(config, fitted),
    **runner.environment(),
    'command': sys.argv,
  }
  total = time.perf_counter() - start
  spent = data_seconds + sum(fitted.seconds.values())
  results['seconds'] |= {
    'data': data_seconds,
    'scoring': total - spent,
    'total': total,
  }
  _write(config, folder, parts.model, fitted, data, results)
  _print_results(console, results, folder)
  return results


def _check_batch_size(config: Config, data: Any) -> None:
  num_train = data.facts['rows']['train']
  if config.batch_size > num_train:
    raise InputError(
      f'--batch_size={config.batch_size} is larger than the data: '
      f'{num_train:,} training rows'
    )


def _training_facts(config: Config, fitted: Any) -> dict[str, Any]:
  import numpy as np

  from experiments import runner

  weights = np.asarray(fitted.history[-1]['loss_weights'], np.float64)
  steps = int(fitted.state.step[0])
  rows_seen = steps * config.batch_size * config.num_seeds
  return {
    'best_epoch': fitted.best_epoch.tolist(),
    'loss_weights': {
      name: runner.over_seeds(weights[:, i])
      for i, name in enumerate(config.tasks)
    },
    'seconds': dict(fitted.seconds),
    'examples_per_second': rows_seen / fitted.seconds['train'],
  }


def _write(
  config: Config,
  folder: pathlib.Path,
  model: Any,
  fitted: Any,
  data: Any,
  results: dict[str, Any],
) -> None:
  """Writes the model, the history, the picture, and last results.json."""
  from experiments import plots, runner
  from lplmtl import checkpoint

  checkpoint.save(
    folder / 'model',
    model,
    fitted.params,
    data.tables,
    num_seeds=config.num_seeds,
    extra={'config': config.to_json(), 'data': data.facts},
  )
  runner.write_text(
    folder / 'history.jsonl', runner.history_lines(fitted.history)
  )
  if plots.is_available():
    plots.curves(
      folder / 'curves.png', fitted.history, config.tasks, results['title']
    )
  runner.write_json(folder / 'results.json', results)


def _evaluate(config: Config) -> dict[str, Any]:
  """Scores the saved model again; only data_dir and out_dir are looked at."""
  from experiments import census_data, display
  from lplmtl import checkpoint

  console = display.make_console()
  folder = config.run_dir / 'model'
  model, params, tables = checkpoint.load(folder)
  extra = checkpoint.load_extra(folder)
  saved = Config.from_json(extra['config'])
  saved = dataclasses.replace(saved, data_dir=config.data_dir or saved.data_dir)
  raw = _read(saved, console)
  data = census_data.encode(
    raw,
    saved.tasks,
    validation=saved.validation,
    split_seed=saved.split_seed,
    fitted=tables,
  )
  _print_data(console, data.facts)
  if data.facts['files'] != extra['data']['files']:
    console.print('note: these are not the files the model was trained on')
  results = _score_all(saved, model, params, raw, data)
  console.print(display.results_table(results))
  return results


def _read(config: Config, console: Any) -> Any:
  from experiments import census_data, display

  data_dir = pathlib.Path(config.data_dir) if config.data_dir else None
  with display.download(console) as progress:
    return census_data.read(
      config.dataset,
      data_dir,
      num_rows=config.num_rows,
      seed=config.split_seed,
      progress=progress,
    )


def _example(data: Any) -> Any:
  return {name: x[:1] for name, x in data.test.features.items()}


def _score_all(
  config: Config, model: Any, params: Any, raw: Any, data: Any
) -> dict[str, Any]:
  """What can be said of a trained model, now or when it is loaded again."""
  from experiments import runner

  return {
    'title': f'{config.architecture}, {config.balancer}, '
    f'{data.facts["dataset"]}',
    **{
      split: runner.score(model, model.tasks, params, getattr(data, split))
      for split in ('test', 'validation')
    },
    **runner.costs(model, params, _example(data)),
    'config': config.to_json(),
    'data': {**data.facts, 'optimum': raw.optimum},
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
  from experiments import display, plots

  console.print(display.results_table(results))
  for task, auc in results['data']['optimum'].items():
    if task in results['test']:
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
    f'{results["data"]["statement"]}\n'
    f'written to {folder}',
    soft_wrap=True,
  )
  if not plots.is_available():
    console.print("no curves.png: pip install -e '.[plots]' for pictures")


def main(argv: list[str]) -> None:
  """Flags, Config, run; a user's mistake ends in one line and exit code 1."""
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)  # Orbax tells its life at INFO
  try:
    if argv[1:]:
      raise InputError(
        f'unexpected argument {argv[1]!r}: every setting is a --flag, and a '
        'file of them is --flagfile=FILE'
      )
    config = options.from_flags(flags.FLAGS)
    from experiments import runner
  except InputError as error:
    sys.exit(f'error: {error}')
  runner.start(config)
  try:
    run(config)
  except KeyboardInterrupt:
    print('interrupted: nothing of this run was kept', file=sys.stderr)
    sys.exit(130)
  except runner.USER_ERRORS as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  app.run(main)
