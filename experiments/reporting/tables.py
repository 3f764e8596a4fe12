"""The tables of a report about runs; comparisons bring their own."""

from collections.abc import Sequence

from experiments.launcher import display, quality
from experiments.reporting.contents import Run


def task_names(runs: Sequence[Run]) -> list[str]:
  """Returns the tasks of all runs, in order of first appearance."""
  return list(
    dict.fromkeys(task for run in runs for task in run.results['test'])
  )


def run_tables(runs: Sequence[Run]) -> list[display.TextTable]:
  """Returns one table of quality per task, and one of cost."""
  return [*(_quality(runs, task) for task in task_names(runs)), _cost(runs)]


def _quality(runs: Sequence[Run], task: str) -> display.TextTable:
  tests = [run.results['test'] for run in runs]
  metrics = quality.names(test[task] for test in tests if task in test)
  weights = {run.name: run.results['loss_weights'] for run in runs}
  shown = any(
    quality.weights_differ([of_task['per_seed'] for of_task in of_run.values()])
    for of_run in weights.values()
  )
  rows = [
    [
      run.name,
      str(run.results['config']['num_seeds']),
      *(
        display.plus_minus(run.results['test'][task][name])
        if name in run.results['test'][task]
        else ''
        for name in metrics
      ),
      *([display.plus_minus(weights[run.name][task])] if shown else []),
    ]
    for run in runs
    if task in run.results['test']
  ]
  last = ['loss weight'] if shown else []
  head = ['run', 'seeds', *map(quality.label, metrics), *last]
  title = f'{task}: test metrics, mean ± std over seeds'
  return display.TextTable(title, head, rows, ('run',))


def _cost(runs: Sequence[Run]) -> display.TextTable:
  rows = [
    [
      run.name,
      f'{run.results["parameters"]:,}',
      f'{run.results["flops_per_example"]:,}',
      f'{run.results["examples_per_second"]:,.0f}',
      ' '.join(f'{g["collapsed"]["mean"]:.0%}' for g in run.results['gates']),
    ]
    for run in runs
  ]
  head = [
    'run', 'parameters', 'FLOPs', 'train ex/s', 'unused experts per level',
  ]  # fmt: skip
  title = 'Cost, and experts that get less than 1 % from every gate'
  return display.TextTable(title, head, rows, ('run',))
