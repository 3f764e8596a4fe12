"""Runs a frontier: fits what is missing, then writes the table."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from experiments.comparison import (
  boosting,
  cells,
  folder,
  results,
  rows,
  winner,
)
from experiments.comparison import run as comparison
from experiments.comparison.folder import interrupted as interrupted
from experiments.datasets.base import Data, Dataset
from experiments.frontier import (
  abreast,
  dense,
  families,
  knees,
  models,
  net,
  outputs,
)
from experiments.frontier.candidates import NotMadeError
from experiments.frontier.dense import Dense
from experiments.frontier.options import DISTILLED_TREES, NET, TREES
from experiments.frontier.plan import Plan
from experiments.frontier.points import Point
from experiments.launcher import display, options, run_folder
from experiments.launcher.errors import InputError
from lplmtl import training
from lplmtl.compression import merging, teachers

# Why a point may be missing; any other exception is a bug or ends the command.
_LEFT_OUT = (
  merging.BudgetError,
  NotMadeError,
  training.NonFiniteError,
)


def compress(
  plan: Plan, dataset: Dataset, directory: pathlib.Path
) -> dict[str, Any]:
  """Fits what is missing, prints the table and writes it.

  Args:
    plan: of the frontier.
    dataset: the rows.
    directory: for the fits, the table and the picture.

  Returns:
    What is written to frontier.json.

  Raises:
    InputError: a mistake in the plan or the files, or too little time to finish
      the dense networks, which come first.
    NonFiniteError: a dense network diverges.
  """
  check(plan, dataset)
  others = {
    'a comparison': (run_folder.COMPARISON,),
    'a study': (run_folder.STUDY,),
  }
  with folder.claim(directory, outputs.NAMES, others) as before_writing:
    return _compress(plan, dataset, directory, before_writing)


def check(plan: Plan, dataset: Dataset) -> None:
  """Refuses what cannot be fitted, before any data is read."""
  dataset.check(plan.dense.base)
  if {TREES, DISTILLED_TREES} & set(plan.families):
    try:
      boosting.package()
    except InputError as error:
      others = [x for x in plan.families if x not in (TREES, DISTILLED_TREES)]
      raise InputError(f'{error} (--families={",".join(others)})') from error
  comparison.refuse_unused(plan.dense, 'dense')


def _compress(
  plan: Plan,
  dataset: Dataset,
  directory: pathlib.Path,
  before_writing: Callable[[], None],
) -> dict[str, Any]:
  is_late = comparison.clock(plan.dense.max_minutes)
  console = display.make_console(140)  # a row of the table per line
  note = functools.partial(console.print, soft_wrap=True)
  base = plan.dense.base
  kept = net.names(plan) if NET in plan.families else []
  models.check(directory, kept)
  if base.overwrite:
    folder.clear(directory, outputs.NAMES)
    models.clear(directory)
  source = dataset.load(options.in_memory(base), console)
  encode = functools.cache(source.encode)
  data = encode(base.num_bins)
  plan = dataclasses.replace(
    plan, dense=plan.dense.fitting(data.facts['rows']['train'])
  )
  dense.check(data.tables)
  identity = cells.identify(base, data)
  shared = {'data': identity, **plan.dense.shared()}
  folder.refuse_other(directory, shared, 'frontier')
  store = cells.Store(
    directory / run_folder.CELLS, identity, before_writing, shared
  )
  every = [Dense(name, plan.dense, encode, note) for name in plan.dense.rows]
  for row in every:
    row.check()
  note(f'data: {data.facts["statement"]}')
  finished = _dense(every, store, is_late, note)
  best = max(finished, key=lambda row: winner.mean_quality(row.facts))
  networks = [
    dense.load(row, done, store)
    for row, done in zip(every, finished, strict=True)
  ]
  (network,) = (one for one in networks if one.name == best.name)
  forms = [point for one in networks for point in dense.forms(one)]
  points = [
    *forms,
    *families.points(plan, network, lambda: encode(0), store, note),
  ]
  is_whole = _fit_all(points, store, is_late, note)
  finished += [
    done for point in points if (done := rows.finished(point, store))
  ]
  before_writing()
  extra = {'config': base.to_json(), 'data': data.facts, **data.extra}
  written = models.write(directory, kept, finished, extra, note)
  made = _results(plan, data, best.name, finished)
  before_writing()
  outputs.write(directory, made)
  for table in outputs.tables(made):
    console.print(table.to_rich())
  note(outputs.notes(made))
  note(f'written to {directory}')
  if written:
    note(models.next_command(directory, written, made))
  if not is_whole:
    note(
      f'stopped after {plan.dense.max_minutes:g} minutes with {len(finished)} '
      f'of {len(every) + len(points)} rows: the same command resumes'
    )
  return {**made, 'is_whole': is_whole}


def _dense(
  every: Sequence[Dense],
  store: cells.Store,
  is_late: Callable[[], bool],
  note: Callable[[str], None],
) -> list[rows.Finished]:
  """Fits the dense networks, without which there is nothing to compare with."""
  found = []
  for row in every:
    rows.fit(row, store, is_late, note)
    done = rows.finished(row, store)
    if done is None:
      raise InputError(
        f'the dense network {row.name} was not finished within --max_minutes: '
        'run the same command again, and it resumes where this one stopped'
      )
    found.append(done)
  return found


def _fit_all(
  points: Sequence[Point],
  store: cells.Store,
  is_late: Callable[[], bool],
  note: Callable[[str], None],
) -> bool:
  """Fits the points.

  A point that cannot be made (its budget cannot be reached, or it diverges) is
  left out; so is all of a family whose teacher is no better than a constant.

  Returns:
    Whether there was time for all.
  """
  untaught: dict[str, str] = {}  # why, by family
  for point in points:
    if point.family in untaught:
      continue
    try:
      if not rows.fit(point, store, is_late, note):
        return False
    except teachers.TeacherError as error:
      why = (
        f': {error}: other --dense networks, more --epochs or another '
        '--learning_rate; or leave the task out of --tasks or --targets'
      )
      is_known = why in untaught.values()
      untaught[point.family] = why
      why = ', for the same reason' if is_known else why
      note(f'left out: all of {point.family}{why}')
    except _LEFT_OUT as error:
      note(f'left out: {point.name}: {error}')
  return True


def _results(
  plan: Plan, data: Data, baseline: str, finished: Sequence[rows.Finished]
) -> dict[str, Any]:
  """Returns the figures of a frontier as JSON data, one family after another.

  Those of a comparison, `families`, `knees` (`{family: row}`) and `abreast`
  (`{row: {task: difference}}`, of roads).
  """
  order = list(dict.fromkeys(row.facts['family'] for row in finished))
  ordered = sorted(finished, key=lambda row: order.index(row.facts['family']))
  compared = dataclasses.replace(plan.dense, baseline=baseline)
  made = results.make(compared, data, ordered)
  return {
    **made,
    'budgets': list(plan.budgets),
    'families': order,
    'knees': knees.find(made['rows']),
    'abreast': abreast.differences(finished, data),
  }
