"""Multi-task learning as a bargaining game (Navon et al. 2022)."""

from lplmtl.balancing.fairgrad import fairgrad
from lplmtl.types import Balancer, Scope


def nash_mtl(scope: Scope = 'shared') -> Balancer:
  """Nash-MTL: the direction on which the tasks would agree in a bargain.

  It maximises `sum_k log(g_k . d)` over directions of one length, so

      A w = 1 / w,   w > 0

  element by element, with the Gramian A. Every task's loss goes
  down, and its scale has no effect on the direction. The weights sum to nothing
  fixed; the step has the length `sqrt(T)` (of the tasks whose gradient is
  not 0) whatever that of the gradients:
  `normalized` brings it to the others' scale.

  Args:
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is a `Solved`; 1 pass forward, T back.

  Differs from the paper: the equation is solved by Newton's method, in every
  step, in place of a sequence of convex programs every few steps. The authors'
  code clips the shared parameters' gradient to the length 1; put
  `optax.clip_by_global_norm(1.0)` before the optimiser for that.

  References:
    Navon et al. 2022, "Multi-Task Learning as a Bargaining Game".
  """
  return fairgrad(alpha=1.0, scope=scope)
