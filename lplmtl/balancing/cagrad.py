"""Conflict-averse gradient descent (Liu et al. 2021)."""

from typing import Any

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, _solvers
from lplmtl.types import Array, Balancer, Scope


def cagrad(c: float = 0.5, scope: Scope = 'shared') -> Balancer:
  """CAGrad: the best direction for the worst task, near the mean gradient.

      max_d min_k g_k . d   subject to  || d - g_0 || <= c ||g_0||

  with g_0 the mean; c = 0 is the mean itself. The weights are at least 1/T and
  sum to `1 + c ||g_0|| / ||g_w||`, where g_w is the mixture of gradients that
  solves the dual problem.

  Args:
    c: from 0 to 1; below 1 the mean loss is guaranteed to fall.
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is a `Solved`; one forward and T backward passes per
    step. A task whose gradient is 0 is ignored.

  Raises:
    ValueError: `c` is out of range.

  Differs from the paper's code: the problem is solved exactly, and the step is
  not divided by 1 + c^2.

  References:
    Liu et al. 2021, "Conflict-Averse Gradient Descent for Multi-task Learning".
  """
  _arguments.check('c', c, least=0, most=1)

  def update(
    losses: Array, state: _solvers.Solved, gramian: Array, present: Any
  ) -> tuple[Array, _solvers.Solved]:
    del state, present
    size = len(losses)
    cosines, norms = _solvers.normalize(gramian)
    scale = jnp.where(norms.max() > 0, norms.max(), 1)
    added, residual = _path(cosines, norms / scale, c)
    return 1 / size + added, _solvers.solved(residual)

  return _contract.balancer(
    _solvers.unsolved, update, needs_gramian=True, scope=scope
  )


def _path(cosines: Array, norms: Array, c: float) -> tuple[Array, Array]:
  """Returns the excess x of the weights over 1/T, and the residual.

  As the allowed distance from the mean grows from 0, x follows a straight line
  until a task joins the worst ones or leaves them. On each piece, the tasks in
  the support share the lowest `g_k . d`; the last piece ends where the distance
  is `c ||g_0||`. On random Gramians of 2 to 20 tasks there were at most 1.6 T
  pieces; the loop gives up after 4 T, with a residual of 1.
  """
  size = len(norms)
  gramian = cosines * jnp.outer(norms, norms)
  nonzero = norms > 0
  tasks = jnp.arange(size)
  tiny = jnp.finfo(norms.dtype).tiny
  inverse = _solvers.inverse(norms)
  allowed = c**2 * jnp.maximum(gramian.mean(), 0)  # ||g_0||^2 = mean(A)

  def first(times: Array, possible: Array) -> tuple[Array, Array]:
    times = jnp.where(possible, jnp.maximum(times, 0), jnp.inf)
    return times.min(), jnp.argmin(times)

  def step(loop: Any) -> Any:
    x, support, last, _, count = loop
    move = _solvers.solve_on(cosines, inverse, support) * inverse
    move = move / jnp.where(move.sum() > 0, move.sum(), 1)
    heights, slopes = gramian @ (x + 1 / size), gramian @ move
    number = jnp.maximum(support.sum(), 1).astype(norms.dtype)
    lowest = jnp.sum(jnp.where(support, heights, 0)) / number
    rate = jnp.sum(jnp.where(support, slopes, 0)) / number
    closing = rate - slopes
    # The task that changed sides last would do so again, through rounding.
    join, joins = first(
      (heights - lowest) / jnp.where(closing > 0, closing, 1),
      nonzero & ~support & (closing > 0) & (tasks != last),
    )
    leave, leaves = first(
      x / jnp.where(move < 0, -move, 1), support & (move < 0) & (tasks != last)
    )
    # a t^2 + 2 b t + d = 0 where the distance is reached; this form of the root
    # avoids cancellation. There is no root where the direction is 0.
    a, b, d = move @ slopes, x @ slopes, x @ gramian @ x - allowed
    root = jnp.sqrt(jnp.maximum(b**2 - a * d, 0))
    reach = jnp.where(b + root > tiny, -d / jnp.maximum(b + root, tiny), 0)
    length = jnp.minimum(jnp.minimum(join, leave), jnp.maximum(reach, 0))
    done = length >= reach
    event = jnp.where(join < leave, joins, leaves)
    x = jnp.maximum(x + length * move, 0)
    support = jnp.where(done, support, support ^ (tasks == event))
    return x, support, jnp.where(done, last, event), done, count + 1

  start = jnp.where(nonzero, gramian.mean(axis=1), jnp.inf)
  support = (tasks == jnp.argmin(start)) & (allowed > 0)
  x, support, _, done, _ = jax.lax.while_loop(
    lambda loop: ~loop[3] & (loop[4] < 4 * size),
    step,
    (jnp.zeros_like(norms), support, jnp.array(-1), allowed <= 0, jnp.array(0)),
  )
  heights = jnp.where(nonzero, gramian @ (x + 1 / size), jnp.inf)
  missed = jnp.max(jnp.where(support, heights, heights.min()) - heights.min())
  missed = jnp.where(jnp.isfinite(missed), missed, 0)
  return x, jnp.where(done, missed, 1)
