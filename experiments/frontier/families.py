"""The families of a frontier: what is made as small as the budgets."""

from collections.abc import Callable

from experiments.comparison.cells import Store
from experiments.datasets.base import Data
from experiments.frontier.dense import Trained
from experiments.frontier.plan import Plan
from experiments.frontier.points import Point


def points(
  plan: Plan,
  network: Trained,
  raw: Callable[[], Data],
  store: Store,
  note: Callable[[str], None],
) -> list[Point]:
  """Returns the points of all families that a plan asks for."""
  return []
