"""Runs a study: fits what is missing, then writes table and picture."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

from experiments.comparison import folder, rows
from experiments.comparison import run as comparison
from experiments.comparison.folder import interrupted as interrupted
from experiments.launcher import display, run_folder
from experiments.launcher.errors import InputError
from experiments.studies import outputs, results, workers
from experiments.studies.plan import Plan


def study(plan: Plan, directory: pathlib.Path) -> dict[str, Any]:
  """Fits what is missing, prints the table and writes it.

  Args:
    plan: what to study.
    directory: for the fits, the table and the picture.

  Returns:
    What is written to study.json, and `is_whole`: whether no fit is missing.

  Raises:
    InputError: a mistake in the plan or the files, a method that cannot be
      fitted, or too little time to finish the baseline anywhere.
  """
  comparison.refuse_unused(plan.compared, 'row')
  others = {
    'a comparison': (run_folder.COMPARISON,),
    'a frontier': (run_folder.FRONTIER,),
  }
  with folder.claim(directory, outputs.NAMES, others) as before_writing:
    return _study(plan, directory, before_writing)


def _study(
  plan: Plan, directory: pathlib.Path, before_writing: Callable[[], None]
) -> dict[str, Any]:
  console = display.make_console(140)  # a row of the table per line
  note = functools.partial(console.print, soft_wrap=True)
  if plan.compared.base.overwrite:
    folder.clear(directory, outputs.NAMES)
  folder.refuse_other(directory, plan.shared(), 'study')
  every = workers.methods(plan, note)
  for method in every:
    method.check()
  store = workers.store(plan, directory, before_writing)
  failures, is_whole = workers.fit_all(plan, every, store, directory, console)
  finished = [
    (method, done) for method in every if (done := rows.finished(method, store))
  ]
  made = results.make(plan, finished)
  if not made['rows']:
    raise InputError(
      failures[0]
      if failures
      else 'no value of the factor was finished within --max_minutes: run the '
      'same command again, and it resumes where this one stopped'
    )
  before_writing()
  outputs.write(directory, made)
  for table in outputs.tables(made):
    console.print(table.to_rich())
  note(outputs.notes(made))
  note(f'written to {directory}')
  if not is_whole:
    note(
      f'stopped after {plan.compared.max_minutes:g} minutes with '
      f'{len(finished)} of {len(every)} fits: the same command resumes'
    )
  if failures:
    raise InputError('; '.join(failures))
  return {**made, 'is_whole': is_whole}
