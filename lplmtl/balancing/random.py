"""Random gradient weighting (Lin et al. 2022)."""

from lplmtl.balancing import _contract
from lplmtl.balancing.rlw import rlw
from lplmtl.types import Balancer, Scope


def random(scope: Scope = 'shared') -> Balancer:
  """RGW: random weights for the gradients, drawn anew in every step.

  This is `rlw` with normal numbers, except that its weights act only on the
  shared parameters: a baseline for Gramian methods that needs no Gramian. The
  weights sum to 1.

  Args:
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is a random key, `[2]` uint32; one forward and two
    backward passes per step.

  References:
    Lin et al. 2022, "Reasonable Effectiveness of Random Weighting: A Litmus
    Test for Multi-Task Learning".
  """
  _contract.check_scope(scope)
  return rlw()._replace(scope=scope)
