"""What a run prints about its data and its results."""

import pathlib
from collections.abc import Mapping
from typing import Any

from rich import console as rich_console
from rich import table as rich_table
from rich.text import Text

from experiments.launcher import (
  display,
  drawing,
  earlier,
  quality,
  run_folder,
)
from lplmtl.tabular.schema import Schema

# Relative residual of a balancer's solver above which it is worth a line: far
# above what float32 leaves in a converged solve.
_LARGE_RESIDUAL = 0.01

# With so few labels, a 95 % interval of an AUC or accuracy is .2 wide and more.
_FEW_LABELS = 100


def print_data(console: display.Console, facts: Mapping[str, Any]) -> None:
  """Prints what the rows are, and the categories that training never saw."""
  rows = ', '.join(f'{n:,} {split}' for split, n in facts['rows'].items() if n)
  console.print(f'data: {facts["statement"]}\nrows: {rows}', soft_wrap=True)
  for split, counts in facts['unseen'].items():
    if counts:
      console.print(unseen_line(counts, f'{split} rows'), soft_wrap=True)

  few = [
    f'{task} in {n:,} {split} rows'
    for split, counts in facts.get('labelled', {}).items()
    for task, n in counts.items()
    if split != 'train' and facts['rows'][split] and n < _FEW_LABELS
  ]
  if few:
    console.print(
      f'caution: metrics of fewer than {_FEW_LABELS} labels vary much by '
      f'chance, and there are labels of {", ".join(few)}',
      soft_wrap=True,
    )


def unseen_line(counts: Mapping[str, int], who: str = 'rows') -> str:
  """Returns a line about values that training never saw.

  Args:
    counts: `{column: rows}`, at least one.
    who: the rows.
  """
  columns = ', '.join(f'{name} in {n:,}' for name, n in counts.items())
  return (
    f'{who} hold values that no training row holds, which take the reserved '
    f'id: {columns}'
  )


def print_former_targets(
  console: display.Console, old: Schema | None, new: Schema
) -> None:
  """Warns of inputs that the run before, in the same folder, predicted.

  Its outcomes are in the table still, and may be unknown for new rows.
  """
  names = [] if old is None else earlier.former_targets(old, new)
  if names:
    listed = ', '.join(map(str, names))
    console.print(
      f'note: inputs that were targets of the run before: {listed}. If new '
      f'rows lack them, leave them out (--ignore={",".join(map(str, names))})',
      soft_wrap=True,
    )


def print_results(
  console: display.Console, results: Mapping[str, Any], folder: pathlib.Path
) -> None:
  """Prints the table, sizes and times of a run that has just finished."""
  console.print(table(results))
  optimum = ', '.join(
    f'{task} {auc:.4f}'
    for task, auc in results['data']['optimum'].items()
    if 'auc' in results['test'].get(task, ())
  )
  if optimum:
    console.print(f'best possible test AUC on this sample: {optimum}')
  seconds = results['seconds']
  console.print(
    f'{results["parameters"]:,} parameters, '
    f'{results["flops_per_example"]:,} FLOPs per example, '
    f'best epochs {results["best_epoch"]}\n'
    f'{seconds["total"]:.1f} s in total: data {seconds["data"]:.1f}, '
    f'initialisation {seconds["init"]:.1f}, '
    f'compilation {seconds["compile"]:.1f}, training {seconds["train"]:.1f}, '
    f'scoring {seconds["scoring"]:.1f} '
    f'({results["examples_per_second"]:,.0f} training examples/s)\n'
    f'{_remarks(results)}{results["data"]["statement"]}\n'
    f'written to {folder}',
    soft_wrap=True,
  )
  if 'predictions' in results:
    console.print(predictions(results), soft_wrap=True)
  if not drawing.is_available():
    console.print("no curves.png: pip install 'lplmtl[plots]' for pictures")


def print_finished(
  console: display.Console, results: Mapping[str, Any], folder: pathlib.Path
) -> None:
  """Prints the table of a run that an earlier command has finished."""
  console.print(table(results))
  console.print(
    f'{_remarks(results)}this run is already finished, in {folder}; '
    '--overwrite trains it again',
    soft_wrap=True,
  )


def table(results: Mapping[str, Any]) -> rich_console.RenderableType:
  """Returns every task's test metrics and its primary validation metric.

  Tasks stand side by side, and a cell is empty in the row of a metric that its
  task does not have. More than six tasks stand one below another, in a table
  for each kind of task.
  """
  names = list(results['test'])
  seeds = results['config']['num_seeds']
  spread = f'mean ± std over {seeds} seeds' if seeds > 1 else '1 seed'
  title = Text(f'{results["title"]} ({spread})')
  if len(names) <= quality.MOST_TASKS:
    made = [_across(results, names)]
  else:
    kinds: dict[tuple[str, ...], list[str]] = {}
    for name in names:
      metrics = results['test'][name]
      kind = quality.primary(metrics), *quality.names([metrics])
      kinds.setdefault(kind, []).append(name)
    made = [_down(results, of_kind) for of_kind in kinds.values()]
  made[0].title = title
  if results.get('gates'):
    unused = ', '.join(
      f'{level["collapsed"]["mean"]:.0%} at level {i}'
      for i, level in enumerate(results['gates'])
    )
    made[-1].caption = Text(
      f'unused experts (mean weight below 1% in every gate): {unused}'
    )
  return made[0] if len(made) == 1 else rich_console.Group(*made)


def _across(results: Mapping[str, Any], names: list[str]) -> rich_table.Table:
  """Returns a table with a column for each task."""
  made = rich_table.Table()
  made.add_column('metric')
  for name in names:
    made.add_column(name, justify='right')
  for head, cells in _lines(results, names):
    made.add_row(head, *cells)
  return made


def _down(results: Mapping[str, Any], names: list[str]) -> rich_table.Table:
  """Returns a table with a row for each task, all of them of one kind."""
  lines = _lines(results, names)
  made = rich_table.Table()
  made.add_column('task')
  for head, _ in lines:
    made.add_column(head, justify='right')
  for i, name in enumerate(names):
    made.add_row(Text(name), *(cells[i] for _, cells in lines))
  return made


def _lines(
  results: Mapping[str, Any], names: list[str]
) -> list[tuple[str, list[str]]]:
  """Returns what is shown of some tasks: a name, and a text for each task."""
  of_tasks = [results['test'][name] for name in names]
  primary = {name: quality.primary(results['test'][name]) for name in names}
  rows = [
    *(('test', metric) for metric in quality.names(of_tasks)),
    *(
      ('validation', metric)
      for metric in dict.fromkeys(primary.values())
      if results['validation']
    ),
  ]
  lines = []
  for split, metric in rows:
    cells = [
      display.plus_minus(results[split][name][metric])
      if metric in results['test'][name]
      and (split == 'test' or metric == primary[name])
      else ''
      for name in names
    ]
    lines.append((f'{split} {quality.label(metric)}', cells))
  weights = results.get('loss_weights', {})
  if weights and quality.weights_differ(
    [weights[name]['per_seed'] for name in results['test']]
  ):
    cells = [display.plus_minus(weights[name]) for name in names]
    lines.append(('final loss weight', cells))
  return lines


def predictions(results: Mapping[str, Any]) -> str:
  """Returns the metrics of what a table's model predicts, in its own units."""
  found = results['predictions']
  seeds = results['config']['num_seeds']
  whose = f'mean of {seeds} seeds' if seeds > 1 else 'one seed'
  if len(found) > quality.MOST_TASKS:
    means = quality.means(next(iter(one.items())) for one in found.values())
    return (
      f'test predictions ({whose}): {"; ".join(means)}; '
      f'those of each task are in {run_folder.RESULTS}'
    )
  tasks = []
  for task, metrics in found.items():
    first = quality.primary(metrics)
    shown = [name for name in (first, 'mae') if name in metrics]
    values = [f'{quality.label(n)} {drawing.number(metrics[n])}' for n in shown]
    tasks.append(f'{task} {", ".join(values)}')
  return f'test predictions ({whose}): {"; ".join(tasks)}'


def _remarks(results: Mapping[str, Any]) -> str:
  """Returns a line per warning worth showing."""
  lines = ''
  if any(counts := results['skipped_steps']):
    lines += f'non-finite steps that were skipped: {counts}\n'
  if (largest := max(results.get('solver_residual', [0]))) > _LARGE_RESIDUAL:
    lines += (
      f"the balancer's equations have residuals of up to {largest:.2g}, as "
      'where task gradients cancel; weights may be large there\n'
    )
  return lines
