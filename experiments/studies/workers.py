"""Fits of a study, one after the other or in several processes.

A small model gains little from a second core, so two processes with a core each
fit nearly twice as much as one process with two.
"""

import functools
import multiprocessing
import os
import pathlib
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import process
from typing import Any, NamedTuple

import jax

from experiments.comparison import cells, rows
from experiments.comparison import run as comparison
from experiments.launcher import display, jax_setup, run_folder
from experiments.launcher.errors import InputError
from experiments.studies.methods import Method
from experiments.studies.plan import Plan
from lplmtl import training

# Draws whose rows are kept in memory, for the next method.
_KEPT_DRAWS = 40


class Outcome(NamedTuple):
  """What became of a method at one value.

  Attributes:
    lines: still to print.
    is_done: whether there was time for all of its fits.
    failure: why it cannot be fitted, or empty.
  """

  lines: list[str]
  is_done: bool
  failure: str = ''


def methods(plan: Plan, note: Callable[[str], None]) -> list[Method]:
  """Returns all methods, value by value, the baseline first.

  Args:
    plan: of the study.
    note: called with a line for each setting that diverges.
  """
  compared = plan.compared
  order = sorted(compared.rows, key=lambda name: name != compared.baseline)
  found = []
  for value, setup in plan.setups.items():
    draw = functools.lru_cache(_KEPT_DRAWS)(setup.draw)
    found += [
      Method(name, value, setup, draw, compared, note) for name in order
    ]
  return found


def store(
  plan: Plan, directory: pathlib.Path, before_writing: Callable[[], None]
) -> cells.Store:
  """Returns the finished fits of a study."""
  return cells.Store(
    directory / run_folder.CELLS,
    {'dataset': 'generated'},
    before_writing,
    plan.shared(),
  )


def fit_all(
  plan: Plan,
  every: Sequence[Method],
  kept: cells.Store,
  directory: pathlib.Path,
  console: display.Console,
) -> tuple[list[str], bool]:
  """Fits what is missing; a method that diverges is left out at that value.

  Args:
    plan: of the study.
    every: all its methods, from `methods`.
    kept: the finished fits, from `store`.
    directory: where they are.
    console: to show what is being fitted, and what became of it.

  Returns:
    A line for each method that failed, and whether there was time for all.

  Raises:
    InputError: several processes were asked for, and there is an accelerator,
      or one of them was killed.
  """
  missing = [
    number
    for number, method in enumerate(every)
    if rows.finished(method, kept) is None
  ]
  note = functools.partial(console.print, soft_wrap=True)
  names = [every[number].name for number in missing]
  if names:
    note(
      f'to fit: {len(names)} of {len(every)}, first {names[0]}; each new size '
      'is compiled, which takes seconds'
    )
  if plan.workers > 1 and names:
    outcomes = _side_by_side(plan, directory, missing)
    names = [f'in {plan.workers} processes'] * len(names)
  else:
    is_late = comparison.clock(plan.compared.max_minutes)
    outcomes = (_fit_one(every[n], kept, is_late, note) for n in missing)
  failures, is_whole = [], True
  with display.fits(console, names) as advance:
    for outcome in outcomes:
      for line in outcome.lines:
        note(line)
      is_whole = is_whole and outcome.is_done
      if outcome.failure:
        failures.append(outcome.failure)
        note(outcome.failure)
      advance()
  return failures, is_whole


def _fit_one(
  method: Method,
  kept: cells.Store,
  is_late: Callable[[], bool],
  note: Callable[[str], None],
) -> Outcome:
  try:
    return Outcome([], rows.fit(method, kept, is_late, note))
  except training.NonFiniteError as error:
    return Outcome([], True, f'{method.name} cannot be fitted: {error}')


def _side_by_side(
  plan: Plan, directory: pathlib.Path, missing: Sequence[int]
) -> Iterator[Outcome]:
  if jax.default_backend() != 'cpu':
    raise InputError(
      f'--workers={plan.workers} is for CPUs: use --workers=1, or set '
      'JAX_PLATFORMS=cpu'
    )
  context = multiprocessing.get_context('spawn')  # JAX has threads: no fork
  shares = context.SimpleQueue()
  for share in _shares(plan.workers):
    shares.put(share)
  pool = process.ProcessPoolExecutor(
    plan.workers, context, _start, (plan, directory, shares)
  )
  try:
    asked = [pool.submit(_fit, number) for number in missing]
    for future in futures.as_completed(asked):
      yield future.result()
  except process.BrokenProcessPool as error:
    raise InputError(
      'a process that fits was killed, perhaps for want of memory: run the '
      'same command again with fewer --workers; finished fits are kept'
    ) from error
  finally:
    for child in multiprocessing.active_children():
      child.terminate()
    pool.shutdown(cancel_futures=True)


def _shares(count: int) -> list[set[int]]:
  """Returns the cores of each process; none where they cannot be chosen."""
  affinity: Any = getattr(os, 'sched_getaffinity', None)  # only on Linux
  cores = sorted(affinity(0)) if affinity else []
  return [set(cores[i::count] or cores) for i in range(count)]


class _Worker:
  """Fits methods, and keeps rows and programs from one to the next."""

  def __init__(self, plan: Plan, directory: pathlib.Path):
    self._lines: list[str] = []
    self._methods = methods(plan, self._lines.append)
    self._kept = store(plan, directory, _check_parent)
    self._is_late = comparison.clock(plan.compared.max_minutes)

  def fit(self, number: int) -> Outcome:
    """Fits what a method lacks."""
    self._lines.clear()
    outcome = _fit_one(
      self._methods[number], self._kept, self._is_late, self._lines.append
    )
    return outcome._replace(lines=[*self._lines])


_worker: _Worker


def _start(plan: Plan, directory: pathlib.Path, shares: Any) -> None:
  """Prepares a process: signals are its parent's to handle."""
  global _worker
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  if share := shares.get():
    os.sched_setaffinity(0, share)
  jax_setup.apply(plan.compared.base)
  _worker = _Worker(plan, directory)


def _check_parent() -> None:
  parent = multiprocessing.parent_process()
  if parent is None or not parent.is_alive():
    raise InputError('the command that asked for this fit has ended')


def _fit(number: int) -> Outcome:
  return _worker.fit(number)
