"""Conflict-averse gradient descent (Liu et al. 2021)."""

from typing import Any

import jax
import jax.numpy as jnp

from lplmtl.balancing import _arguments, _contract, _solvers
from lplmtl.types import Array, Balancer, Scope


def cagrad(c: float = 0.5, scope: Scope = 'shared') -> Balancer:
  """CAGrad: near the mean gradient, the best direction for the worst task.

      max_d min_k g_k . d   so that  || d - g_0 || <= c ||g_0||

  with g_0 the mean; c = 0 is the mean. The weights are at least 1/T; they sum
  to `1 + c ||g_0|| / ||g_w||`, g_w being the mixture of gradients that the dual
  problem chooses.

  Args:
    c: from 0 to 1; below 1 the mean of the losses goes down.
    scope: see `Balancer`.

  Returns:
    A Balancer whose state is a `Solved`; 1 pass forward, T back. A task
    whose gradient is 0 takes no part.

  Raises:
    ValueError: a c out of range.

  Differs from the paper's code: solved exactly, and not divided by 1 + c^2.

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
  """What the weights have beyond 1/T.

  As the allowed distance from the mean grows from 0, x changes along a line
  until a task joins the worst ones or leaves them: at most 2 T pieces or so, of
  which the last ends where the distance is `c ||g_0||`. On each, the tasks in
  the support share one `g_k . d`, the lowest.
  """
  size = len(norms)
  gramian = cosines * jnp.outer(norms, norms)
  here = norms > 0
  tasks = jnp.arange(size)
  tiny = jnp.finfo(norms.dtype).tiny
  inverse = _solvers.inverse(norms)
  allowed = c**2 * jnp.maximum(gramian.mean(), 0)

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
    join, joins = first(
      (heights - lowest) / jnp.where(closing > 0, closing, 1),
      here & ~support & (closing > 0) & (tasks != last),
    )
    leave, leaves = first(
      x / jnp.where(move < 0, -move, 1), support & (move < 0) & (tasks != last)
    )
    a, b, d = move @ slopes, x @ slopes, x @ gramian @ x - allowed
    root = jnp.sqrt(jnp.maximum(b**2 - a * d, 0))
    # The root without cancellation; none where the direction is 0.
    reach = jnp.where(b + root > tiny, -d / jnp.maximum(b + root, tiny), 0)
    length = jnp.minimum(jnp.minimum(join, leave), jnp.maximum(reach, 0))
    done = length >= reach
    event = jnp.where(join < leave, joins, leaves)
    x = jnp.maximum(x + length * move, 0)
    support = jnp.where(done, support, support ^ (tasks == event))
    return x, support, jnp.where(done, last, event), done, count + 1

  start = jnp.where(here, gramian.mean(axis=1), jnp.inf)
  support = (tasks == jnp.argmin(start)) & (allowed > 0)
  x, support, _, done, _ = jax.lax.while_loop(
    lambda loop: ~loop[3] & (loop[4] < 4 * size),
    step,
    (jnp.zeros_like(norms), support, jnp.array(-1), allowed <= 0, jnp.array(0)),
  )
  heights = jnp.where(here, gramian @ (x + 1 / size), jnp.inf)
  missed = jnp.max(jnp.where(support, heights, heights.min()) - heights.min())
  missed = jnp.where(jnp.isfinite(missed), missed, 0)
  return x, jnp.where(done, missed, 1)
