"""Two losses of two parameters, on which gradients conflict."""

import jax.numpy as jnp

from lplmtl.types import Array

# From where the papers start: (theta_1, theta_2).
STARTS = ((-8.5, 7.5), (-8.5, 5.0), (0.0, 0.0), (9.0, 9.0), (10.0, -8.0))


def conflicting_losses(theta: Array) -> Array:
  """Returns two losses whose gradients conflict and differ in size.

      L_k = c_1 f_k + c_2 g_k
      f_1 = log max(|(-t_1 - 7) / 2 - tanh(-t_2)|, 5e-6) + 6
      f_2 = log max(|(-t_1 + 3) / 2 - tanh(-t_2) + 2|, 5e-6) + 6
      g_1 = ((-t_1 + 7)^2 + (-t_2 - 8)^2 / 10) / 10 - 20
      g_2 = ((-t_1 - 7)^2 + (-t_2 - 8)^2 / 10) / 10 - 20
      c_1 = max(tanh(t_2 / 2), 0),  c_2 = max(tanh(-t_2 / 2), 0)

  Where t_2 > 0 there are two narrow valleys, and the sum of the losses gets
  stuck in them. The Pareto front lies below, from (-7, -8.4) to (7, -8.4) in
  nearly a straight line.

  Args:
    theta: `[2]` float.

  Returns:
    `[2]` float.

  Example:
    >>> conflicting_losses(jnp.array([0.0, -8.0])).shape
    (2,)

  References:
    Liu et al. 2021, "Conflict-Averse Gradient Descent for Multi-task Learning",
    appendix; as in Navon et al. 2022, "Multi-Task Learning as a Bargaining
    Game".
  """
  one, two = theta
  upper = jnp.maximum(jnp.tanh(0.5 * two), 0)
  lower = jnp.maximum(jnp.tanh(-0.5 * two), 0)
  valleys = jnp.stack(
    [0.5 * (-one - 7) - jnp.tanh(-two), 0.5 * (-one + 3) - jnp.tanh(-two) + 2]
  )
  f = jnp.log(jnp.maximum(jnp.abs(valleys), 5e-6)) + 6
  sides = jnp.stack([-one + 7, -one - 7])
  g = (sides**2 + 0.1 * (-two - 8) ** 2) / 10 - 20
  return upper * f + lower * g
