"""Multi-objective gradients with double sampling (Chen et al. 2023)."""

from typing import Literal

from lplmtl.balancing.sdmgrad import sdmgrad
from lplmtl.types import Balancer


def modo(
  learning_rate: float = 0.1,
  rho: float = 0.0,
  scope: Literal['all', 'shared'] = 'shared',
) -> Balancer:
  """MoDo: the way to MGDA's weights, by products without bias.

      w <- project(w - rate (G_1^T G_2 w + rho w))

  It is `sdmgrad` without the pull to the mean gradient; args, state, cost and
  differences are as there. The weights sum to 1.

  References:
    Chen et al. 2023, "Three-Way Trade-Off in Multi-Objective Learning:
    Optimization, Generalization and Conflict-Avoidance".
  """
  return sdmgrad(learning_rate, strength=0.0, rho=rho, scope=scope)
