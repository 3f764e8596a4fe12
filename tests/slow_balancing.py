"""Weights of the Gramian methods from the gradients themselves, in float64.

Each follows the paper's own problem over directions, with NumPy and SciPy, by
another way than the library: `jacobian` is `[T, P]`, a task's gradient a row.
"""

import numpy as np
import scipy.optimize


def _weights_of(jacobian, direction):
  """`[T]` w with `sum_k w_k g_k = d`."""
  return np.linalg.lstsq(jacobian.T, direction, rcond=None)[0]


def mgda(jacobian):
  """The shortest vector of the convex hull, as a distance to a cone."""
  triangle = np.linalg.qr(jacobian.T, mode='r')
  wanted = np.linalg.solve(triangle.T, np.ones(len(jacobian)))
  found = scipy.optimize.nnls(triangle, wanted)[0]
  return found / found.sum()


def upgrad(jacobian):
  """The mean of the projections onto the dual cone."""
  eye = np.eye(len(jacobian))
  found = [
    eye[i] + scipy.optimize.nnls(jacobian.T, -row)[0]
    for i, row in enumerate(jacobian)
  ]
  return np.mean(found, axis=0)


def dualproj(jacobian):
  mean = jacobian.mean(axis=0)
  return 1 / len(jacobian) + scipy.optimize.nnls(jacobian.T, -mean)[0]


def _nearest(jacobian, heights):
  """The shortest z with `J z >= heights` (Lawson & Hanson's LDP)."""
  stacked = np.vstack([jacobian.T, heights])
  target = np.zeros(len(stacked))
  target[-1] = 1
  miss = stacked @ scipy.optimize.nnls(stacked, target)[0] - target
  return -miss[:-1] / miss[-1]


def cagrad(jacobian, c):
  """By how much the worst task can be lifted within the ball."""
  mean = jacobian.mean(axis=0)
  radius = c * np.linalg.norm(mean)
  now = jacobian @ mean

  def beyond(height):
    return np.linalg.norm(_nearest(jacobian, height - now)) - radius

  low = now.min()
  high = low + 2 * radius * np.linalg.norm(jacobian, axis=1).max()
  if beyond(low + 1e-14 * abs(low)) >= 0:
    return np.full(len(jacobian), 1 / len(jacobian))
  height = scipy.optimize.brentq(beyond, low, high, xtol=1e-300, rtol=1e-14)
  direction = mean + _nearest(jacobian, height - now)
  return _weights_of(jacobian, direction)


def fairgrad(jacobian, alpha):
  """The paper's problem: alpha-fair utilities of what each task gains.

  max_d sum_k U(g_k . d) - ||d||^2 / 2,  U' = s^-alpha,  so  w_k = U'(g_k . d).
  """
  basis, triangle = np.linalg.qr(jacobian.T)
  gains = triangle.T  # of the coordinates of d in the basis

  def value(z):
    s = gains @ z
    if (s <= 0).any():
      return np.inf
    total = np.log(s) if alpha == 1 else s ** (1 - alpha) / (1 - alpha)
    return z @ z / 2 - total.sum()

  def slope(z):
    return z - gains.T @ (gains @ z) ** -alpha

  def bend(z):
    outer = (gains.T * (gains @ z) ** (-alpha - 1)) @ gains
    return np.eye(len(z)) + alpha * outer

  z = basis.T @ _nearest(jacobian, np.ones(len(jacobian)))
  z *= len(z) ** 0.5 / np.linalg.norm(z)
  for _ in range(500):
    step = np.linalg.solve(bend(z), slope(z))
    length = 1.0
    while not value(z - length * step) <= value(z) + 1e-12 * abs(value(z)):
      length /= 2
    z = z - length * step
    if np.abs(step).max() < 1e-13 * np.abs(z).max():
      break
  return (gains @ z) ** -alpha


def imtl_g(jacobian):
  """alpha_2..T = g_1 U^T (D U^T)^-1 (the paper's closed form)."""
  units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
  u, d = units[0] - units[1:], jacobian[0] - jacobian[1:]
  others = np.linalg.solve((d @ u.T).T, u @ jacobian[0])
  return np.concatenate([[1 - others.sum()], others])


def config(jacobian):
  units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
  direction = np.linalg.pinv(units) @ np.ones(len(units))
  direction /= np.linalg.norm(direction)
  return _weights_of(jacobian, (jacobian @ direction).sum() * direction)


def aligned_mtl(jacobian, scale):
  """The orthogonal factor of the gradients, scaled; its rows' mean."""
  left, lengths, right = np.linalg.svd(jacobian, full_matrices=False)
  sigma = {
    'min': lengths[-1],
    'median': lengths[len(lengths) // 2],
    'rmse': np.sqrt(np.mean(lengths**2)),
  }[scale]
  return _weights_of(jacobian, (sigma * left @ right).mean(axis=0))


def gradvac(jacobian, wanted, orders, beta):
  """Algorithm 1 over whole gradients; returns the sum and the averages."""
  total, wanted = np.zeros(jacobian.shape[1]), wanted.copy()
  for i, order in enumerate(orders):
    own = jacobian[i].copy()
    for j in order:
      if j == i:
        continue
      length, other = np.linalg.norm(own), np.linalg.norm(jacobian[j])
      phi, goal = own @ jacobian[j] / length / other, wanted[i, j]
      if phi < goal:
        own += (
          length * (goal * np.sqrt(1 - phi**2) - phi * np.sqrt(1 - goal**2))
          / (other * np.sqrt(1 - goal**2)) * jacobian[j]
        )  # fmt: skip
      wanted[i, j] = (1 - beta) * goal + beta * phi
    total += own
  return total, wanted
