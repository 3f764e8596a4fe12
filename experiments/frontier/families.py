"""The families of a frontier: what is made as small as the budgets."""

from collections.abc import Callable

from experiments.comparison.cells import Store
from experiments.datasets.base import Data
from experiments.frontier import distilled, levers, net, rivals, roads, teacher
from experiments.frontier.dense import Trained
from experiments.frontier.options import (
  DISTILLED_DENSE,
  DISTILLED_TREES,
  LEVERS,
  NET,
  ROADS,
)
from experiments.frontier.plan import Plan
from experiments.frontier.points import Point

# Families of networks, which learn from the teacher.
_TAUGHT = {
  DISTILLED_DENSE: distilled.points,
  NET: net.points,
  LEVERS: levers.points,
  ROADS: roads.points,
}


def points(
  plan: Plan,
  network: Trained,
  raw: Callable[[], Data],
  store: Store,
  note: Callable[[str], None],
) -> list[Point]:
  """Returns the points of all families that a plan asks for.

  Args:
    plan: of the frontier.
    network: the best dense network.
    raw: returns the rows without bins.
    store: of the finished cells.
    note: called with lines for a person.
  """
  taught = None
  if {*_TAUGHT, DISTILLED_TREES} & set(plan.families):
    taught = teacher.make(network, raw, store, note)
  found: list[Point] = []
  for family in plan.families:
    if family in _TAUGHT and taught:
      found += _TAUGHT[family](plan, taught)
      continue
    of_family = taught if family == DISTILLED_TREES else None
    found += rivals.points(family, plan, network, of_family, store)
  return found
