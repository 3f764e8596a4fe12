"""The families of a frontier: what is made as small as the budgets."""

from collections.abc import Callable

from experiments.comparison.cells import Store
from experiments.datasets.base import Data
from experiments.frontier import net, teacher
from experiments.frontier.dense import Trained
from experiments.frontier.plan import NET, Plan
from experiments.frontier.points import Point


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
  if NET not in plan.families:
    return []
  return net.points(plan, teacher.make(network, raw, store, note))
