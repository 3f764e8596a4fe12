"""The families that are no networks: trees, plain and distilled, and additive.

One fit makes the models of all budgets; each seed's is kept by itself.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.comparison.cells import Cell, Fitted, Store
from experiments.frontier import (
  additive,
  additive_bytes,
  growing,
  inputs,
  refitting,
  sequences,
  trees,
)
from experiments.frontier.candidates import Candidate, NotMadeError
from experiments.frontier.dense import Trained
from experiments.frontier.options import ADDITIVE
from experiments.frontier.plan import Plan
from experiments.frontier.points import Point, Scored, constants
from experiments.frontier.teacher import Teacher

_SPLITS = ('validation', 'test')
# Whose constants the models depend on.
_OF_TREES = trees, sequences, growing, refitting, inputs
_OF_ADDITIVE = additive, additive_bytes, refitting, inputs


def points(
  family: str,
  plan: Plan,
  network: Trained,
  teacher: Teacher | None,
  store: Store,
) -> list[Point]:
  """Returns a point per budget.

  Args:
    family: TREES, DISTILLED_TREES or ADDITIVE.
    plan: of the frontier.
    network: has the seeds and the rows.
    teacher: what to learn from, instead of the labels.
    store: keeps the fit of each seed.
  """
  seeds = list(network.seeds)
  modules = _OF_ADDITIVE if family == ADDITIVE else _OF_TREES
  what = {
    'budgets': list(plan.budgets),
    'teacher': teacher.inputs if teacher else None,
    'constants': constants(*modules),
  }
  taught = teacher.train if teacher else None
  # Once, whichever budget comes first.
  fits = functools.cache(lambda: _fits(family, network, taught, what, store))
  return [
    Point(
      f'{family.replace("_", " ")} {budget}',
      family,
      {**what, 'seeds': seeds},
      network.data,
      functools.partial(_scored, fits, budget),
      budget,
      1 if family == ADDITIVE else len(seeds),
    )
    for budget in plan.budgets
  ]


def _fits(
  family: str,
  network: Trained,
  teacher: Mapping[str, np.ndarray] | None,
  what: Mapping[str, Any],
  store: Store,
) -> list[Fitted]:
  """Returns each seed's fit, trained now or before."""
  budgets, seeds = what['budgets'], network.seeds
  if family == ADDITIVE:  # nothing in it is random
    make = functools.partial(
      additive.candidates, network.data, budgets, teacher=teacher
    )
    return [_kept(family, {**what, 'seed': None}, make, store)] * len(seeds)
  fits: list[Fitted] = []
  settings = None  # the first seed tries all, the others what it has chosen
  for seed in seeds:
    make = functools.partial(
      trees.candidates,
      network.data,
      budgets,
      teacher=teacher,
      seed=seed,
      settings=settings,
    )
    of_seed = {**what, 'seed': seed, 'first_seed': seeds[0]}
    fits.append(_kept(family, of_seed, make, store))
    if settings is None and not fits[0].facts['problem']:
      settings = trees.tried(
        Candidate(one['num_bytes'], one['settings'], {}, {})
        for one in fits[0].facts['found'].values()
      )
  return fits


def _kept(
  family: str,
  what: Mapping[str, Any],
  make: Callable[[], Mapping[int, Candidate]],
  store: Store,
) -> Fitted:
  return store.get(Cell(f'seed {family}', what, lambda: _fit(make)))


def _fit(make: Callable[[], Mapping[int, Candidate]]) -> Fitted:
  """Keeps what is found for each budget, or why nothing is."""
  try:
    found = make()
  except NotMadeError as error:
    return Fitted({'found': {}, 'problem': str(error)}, {})
  facts = {
    str(budget): {'num_bytes': one.num_bytes, 'settings': one.settings}
    for budget, one in found.items()
  }
  arrays = {
    f'{budget} {split} {task}': outputs
    for budget, one in found.items()
    for split in _SPLITS
    for task, outputs in getattr(one, split).items()
  }
  return Fitted({'found': facts, 'problem': ''}, arrays)


def _scored(make: Callable[[], list[Fitted]], budget: int) -> Scored:
  """Collects the seeds' models of one budget.

  Raises:
    NotMadeError: none of some seed takes so few bytes.
  """
  fits = make()
  found = [fitted.facts['found'] for fitted in fits]
  absent = [i for i, budgets in enumerate(found) if str(budget) not in budgets]
  if absent:
    least = max((min(map(int, b), default=0) for b in found), default=0)
    raise NotMadeError(
      fits[absent[0]].facts['problem']
      or f'{budget} bytes are too few: the first budget that suffices is '
      f'{least}'
    )
  start = f'{budget} test '
  tasks = [n[len(start) :] for n in fits[0].arrays if n.startswith(start)]
  validation, test = (
    {
      task: np.stack([fit.arrays[f'{budget} {split} {task}'] for fit in fits])
      for task in tasks
    }
    for split in _SPLITS
  )
  sizes = [budgets[str(budget)]['num_bytes'] for budgets in found]
  return Scored(sizes, {}, validation, test)
