"""Runs a comparison: fits what is missing, then writes the table."""

import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from experiments.comparison import (
  boosting,
  cells,
  folder,
  results,
  rows,
  tables,
  winner,
)
from experiments.comparison.folder import interrupted as interrupted
from experiments.comparison.networks import Networks
from experiments.comparison.plan import Plan
from experiments.comparison.taught import Taught
from experiments.comparison.trees import Trees
from experiments.datasets.base import Data, Dataset
from experiments.launcher import display, options, run_folder, unused
from experiments.launcher.errors import InputError
from lplmtl import training


def compare(
  plan: Plan, dataset: Dataset, directory: pathlib.Path
) -> dict[str, Any]:
  """Fits what is missing, prints the table and writes it.

  Args:
    plan: what to compare.
    dataset: the rows to compare on.
    directory: for the fits, the tables and the pictures.

  Returns:
    What is written to comparison.json.

  Raises:
    InputError: a mistake in the plan or the files, a row that cannot be
      fitted, or too little time to finish even the baseline, which comes first.
  """
  check(plan, dataset)
  others = {
    'a frontier': (run_folder.FRONTIER,),
    'a study': (run_folder.STUDY,),
  }
  with folder.claim(directory, folder.NAMES, others) as before_writing:
    return _compare(plan, dataset, directory, before_writing)


def check(plan: Plan, dataset: Dataset) -> None:
  """Refuses what cannot be fitted, before any data is read."""
  dataset.check(plan.base)
  for name, fields in plan.rows.items():
    if fields is None or name in plan.taught:
      where = f'--row={name}: ' if plan.tree_rows.get(name) else ''
      boosting.check(plan.tree_configs(name), where)
  refuse_unused(plan, 'row')


def refuse_unused(plan: Plan, flag: str) -> None:
  """Refuses settings and flags that no network of a plan uses.

  Args:
    plan: of a comparison.
    flag: that names its rows.

  Raises:
    InputError: there are some.
  """
  configs = []
  for name, fields in plan.rows.items():
    if fields is not None:
      tried = list(plan.tuning_configs(name).values())
      unused.refuse(tried, fields, f'--{flag}={name}: ')
      configs += tried
  common = {name for setting in plan.settings.values() for name in setting}
  unused.refuse(configs, common | plan.given | options.changed(plan.base))


def _compare(
  plan: Plan,
  dataset: Dataset,
  directory: pathlib.Path,
  before_writing: Callable[[], None],
) -> dict[str, Any]:
  is_late = clock(plan.max_minutes)
  console = display.make_console(140)  # a row of the table per line
  note = functools.partial(console.print, soft_wrap=True)
  if plan.base.overwrite:
    folder.clear(directory)
  source = dataset.load(options.in_memory(plan.base), console)
  encode = functools.cache(source.encode)
  data = encode(plan.base.num_bins)
  plan = plan.fitting(data.facts['rows']['train'])
  identity = cells.identify(plan.base, data)
  shared = {'data': identity, **plan.shared()}
  folder.refuse_other(directory, shared, 'comparison')
  store = cells.Store(
    directory / run_folder.CELLS, identity, before_writing, shared
  )
  every = [_row(name, plan, encode, note, store) for name in plan.rows]
  for row in every:
    row.check()
  note(f'data: {data.facts["statement"]}')
  is_whole, failures = _fit_all(plan, every, store, is_late, note)
  finished = [f for row in every if (f := rows.finished(row, store))]
  _check_baseline(plan, finished, failures)
  made = results.make(plan, data, finished)
  before_writing()
  tables.write(directory, made)
  for table in tables.tables(made):
    console.print(table.to_rich())
  note(tables.notes(made))
  note(f'written to {directory}')
  if plan.base.data and (line := winner.line(plan, made)):
    note(line)
  if not is_whole:
    note(
      f'stopped after {plan.max_minutes:g} minutes with {len(finished)} of '
      f'{len(plan.rows)} rows: the same command resumes'
    )
  if failures:
    raise InputError('; '.join(failures))
  return made


def _row(
  name: str,
  plan: Plan,
  encode: Callable[[int], Data],
  note: Callable[[str], None],
  store: cells.Store,
) -> rows.Row:
  if plan.rows[name] is None:
    return Trees(name, plan, encode)
  if name in plan.taught:
    return Taught(name, plan, encode, note, store)
  return Networks(name, plan, encode, note)


def _check_baseline(
  plan: Plan, finished: Sequence[rows.Finished], failures: Sequence[str]
) -> None:
  if plan.baseline in [row.name for row in finished]:
    return
  if failures:
    raise InputError(failures[0])
  raise InputError(
    f'the baseline, {plan.baseline}, was not finished within '
    f'{plan.max_minutes:g} minutes: run the same command again, and it resumes '
    'where this one stopped'
  )


def _fit_all(
  plan: Plan,
  every: Sequence[rows.Row],
  store: cells.Store,
  is_late: Callable[[], bool],
  note: Callable[[str], None],
) -> tuple[bool, list[str]]:
  """Fits the rows, the baseline first, without which there is no table.

  Returns:
    Whether there was time for all rows, and a line for each that failed.
  """
  failures: list[str] = []
  for row in sorted(every, key=lambda row: row.name != plan.baseline):
    try:
      if not rows.fit(row, store, is_late, note):
        return False, failures
    except training.NonFiniteError as error:
      failures.append(f'row {row.name} cannot be fitted: {error}')
      note(failures[-1])
      if row.name == plan.baseline:
        break
  return True, failures


def clock(max_minutes: float) -> Callable[[], bool]:
  """Returns a function: whether `max_minutes` have passed; never, if 0."""
  start = time.monotonic()
  return lambda: 0 < 60 * max_minutes <= time.monotonic() - start
