"""Multi-task learning as a bargaining game (Navon et al. 2022)."""

from lplmtl.balancing.fairgrad import fairgrad
from lplmtl.types import Balancer, Scope


def nash_mtl(scope: Scope = 'shared') -> Balancer:
  """Nash-MTL: the direction on which the tasks would agree in a bargain.

  It maximises `sum_k log(g_k . d)` over directions of fixed length, so

      A w = 1 / w,   w > 0

  element by element, with the Gramian A. The loss of every task falls, and its
  scale has no effect on the direction. The sum of the weights is not fixed: the
  length of the step is `sqrt(T)` (counting only tasks whose gradient is not 0),
  however long the gradients are; `normalized` makes it comparable with other
  methods.

  Args:
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is a `Solved`; one forward and T backward passes per
    step.

  Differs from the paper: the equation is solved by Newton's method in every
  step, instead of by a sequence of convex programs every few steps. The
  authors' code clips the gradient of the shared parameters to length 1; for
  that, put `optax.clip_by_global_norm(1.0)` before the optimiser.

  References:
    Navon et al. 2022, "Multi-Task Learning as a Bargaining Game".
  """
  return fairgrad(alpha=1.0, scope=scope)
