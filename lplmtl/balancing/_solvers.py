"""Small problems over a Gramian, `[T, T]`: fixed shapes, bounded loops.

Each matrix holds the cosines between gradients (`normalize`) and has a diagonal
of 1, so `T eps` bounds the rounding error of its eigenvalues.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lplmtl.types import Array


class Solved(NamedTuple):
  """State of a balancer that solves a problem in every step.

  Attributes:
    residual: scalar float32, how far the last solution was from satisfying the
      conditions of its problem, relative to their terms; 0 is exact. Training
      reports it.
  """

  residual: Array


def solved(residual: Array) -> Solved:
  """Returns the state after a step."""
  return Solved(residual.astype(jnp.float32))


def unsolved(key: Array, num_tasks: int) -> Solved:
  """Returns the state before the first step: `init` of such a Balancer."""
  del key, num_tasks
  return Solved(jnp.zeros((), jnp.float32))


def normalize(gramian: Array) -> tuple[Array, Array]:
  """Returns the gradients' cosines, `[T, T]`, and their lengths, `[T]`.

  Gradients of very different lengths then do not make the problem
  ill-conditioned. A gradient of length 0 counts as orthogonal to all others.
  Rounding can neither take a cosine beyond 1 nor make the matrix asymmetric.
  """
  norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0))
  safe = jnp.where(norms > 0, norms, 1)
  # One division after the other: the product of two lengths may overflow.
  cosines = gramian / safe[None] / safe[:, None]
  cosines = jnp.clip((cosines + cosines.T) / 2, -1, 1)
  return jnp.where(jnp.eye(len(norms), dtype=bool), 1, cosines), norms


def shares(values: Array, norms: Array) -> Array:
  """Returns `[T]` weights of sum 1, in proportion to `values`.

  If the values cancel, all weights are 1/T.

  Args:
    values: `[T]`; those of gradients of length 0 are ignored.
    norms: `[T]` lengths of the gradients.
  """
  values = jnp.where(norms > 0, values, 0)
  total = values.sum()
  # A sum below 1e-6 of its terms is within their rounding errors, T eps.
  usable = jnp.abs(total) > 1e-6 * jnp.abs(values).sum()
  even = jnp.ones_like(values) / len(values)
  return jnp.where(usable, values / jnp.where(usable, total, 1), even)


def solve_on(matrix: Array, rhs: Array, support: Array) -> Array:
  """Returns x with `(A x)_i = b_i` on the support, and 0 elsewhere.

  A ridge of 4 T eps, the size of rounding errors, keeps singular matrices
  solvable. Three steps of iterative refinement remove its effect if the matrix
  is regular. If rounding has made the matrix more indefinite than that, the
  ridge grows by factors of 8; at T, the trace, it outweighs any negative
  eigenvalue, and the loop ends even if the matrix holds NaN.

  Args:
    matrix: `[T, T]`, symmetric, positive semidefinite, with a diagonal of 1.
    rhs: `[T]`.
    support: `[T]` bool.
  """
  size = len(rhs)
  chosen = jnp.where(support[None] & support[:, None], matrix, 0)

  def factorize(ridge: Array) -> Array:
    diagonal = jnp.diag(jnp.where(support, ridge, 1))
    return jax.scipy.linalg.cholesky(chosen + diagonal, lower=True)

  def has_failed(loop: tuple[Array, Array]) -> Array:
    ridge, factor = loop
    return ~jnp.isfinite(factor).all() & (ridge < size)

  def grow(loop: tuple[Array, Array]) -> tuple[Array, Array]:
    ridge = 8 * loop[0]
    return ridge, factorize(ridge)

  # In loops, each operation is compiled once: a quarter less time to compile
  # `nonnegative`. So `grow` makes the first factor, too.
  smallest = 4 * size * jnp.finfo(matrix.dtype).eps
  nothing = jnp.full_like(matrix, jnp.nan)
  loop = jnp.asarray(smallest / 8, matrix.dtype), nothing
  _, factor = jax.lax.while_loop(has_failed, grow, loop)
  rhs = jnp.where(support, rhs, 0)

  def refine(_: Array, x: Array) -> Array:
    return x + jax.scipy.linalg.cho_solve((factor, True), rhs - chosen @ x)

  # The solution and three refinements.
  return jax.lax.fori_loop(0, 4, refine, jnp.zeros_like(rhs))


def nonnegative(matrix: Array, rhs: Array) -> tuple[Array, Array]:
  """Minimises `x^T A x / 2 - b^T x` over `x >= 0`, by block pivoting.

  Guesses which x are positive and solves for them; all x that contradict the
  guess change sides. If three guesses in a row do not lower the number of
  contradictions, as can happen with a singular A, `one_by_one` takes over.

  Args:
    matrix: `[T, T]`, as in `solve_on`.
    rhs: `[T]`.

  Returns:
    (x, residual): `[T]`, and the largest of `|min(x, A x - b)|`, relative.

  References:
    Júdice & Pires 1994, "A block principal pivoting algorithm for large-scale
    strictly monotone linear complementarity problems".
  """
  size = len(rhs)

  def is_open(loop: Any) -> Array:
    _, _, wrong, _, patience = loop
    return wrong.any() & (patience >= 0)

  def step(loop: Any) -> Any:
    support, _, _, fewest, patience = loop
    x = solve_on(matrix, rhs, support)
    wrong = jnp.where(support, x < 0, _lacks(matrix, rhs, x) > 0)
    number = wrong.sum()
    patience = jnp.where(number < fewest, 3, patience - 1)
    return support ^ wrong, x, wrong, jnp.minimum(number, fewest), patience

  unknown = jnp.zeros_like(rhs), jnp.ones(size, bool)  # until the first step
  loop = rhs > 0, *unknown, jnp.array(size + 1), jnp.array(3)
  _, x, wrong, _, _ = jax.lax.while_loop(is_open, step, loop)
  x = jnp.maximum(one_by_one(matrix, rhs, x, wrong.any()), 0)
  terms = jnp.max(jnp.abs(matrix) @ jnp.abs(x) + jnp.abs(rhs))
  missed = jnp.max(jnp.abs(jnp.minimum(x, matrix @ x - rhs)))
  return x, missed / jnp.where(terms > 0, terms, 1)


def one_by_one(matrix: Array, rhs: Array, x: Array, needed: Array) -> Array:
  """Solves the problem of `nonnegative` by Lawson & Hanson's method.

  Starting from 0, the x with the steepest descent joins the positive ones, and
  those that would become negative leave. Each x that joins lowers the value, so
  the method ends; it is also linearly independent of those already there, so
  the method works for a singular A, too. On random matrices of every rank with
  2 to 50 tasks, it took at most 1.6 T steps; the limit of 10 T is reached only
  if rounding makes it go round in circles.

  Args:
    matrix: `[T, T]`, as in `solve_on`.
    rhs: `[T]`.
    x: `[T]`, returned unchanged if `needed` is False.
    needed: scalar bool.

  References:
    Lawson & Hanson 1974, "Solving Least Squares Problems".
  """
  size = len(rhs)

  def step(loop: Any) -> Any:
    x, support, barred, last, _, count = loop
    wanted = solve_on(matrix, rhs, support)
    below = support & (wanted <= 0)
    apart = jnp.where(x > wanted, x - wanted, 1)
    times = jnp.where(below, x / apart, jnp.inf)
    length = jnp.minimum(times.min(), 1)
    leaving = below & (times <= length)
    x = jnp.where(support & ~leaving, x + length * (wanted - x), 0)
    # An x that leaves right after joining does so through rounding: bar it.
    barred = barred | (leaving & (last == jnp.arange(size)))
    lacks = _lacks(matrix, rhs, x)
    lacks = jnp.where(support | barred | below.any(), 0, lacks)
    joins = jnp.argmax(lacks)
    joining = (lacks > 0) & (joins == jnp.arange(size))
    done = ~below.any() & ~joining.any()
    support = (support & ~leaving) | joining
    last = jnp.where(joining.any(), joins, last)
    return x, support, barred, last, done, count + 1

  nobody = jnp.zeros(size, bool)
  start = jnp.where(needed, 0, x)
  loop = start, nobody, nobody, jnp.array(-1), ~needed, jnp.array(0)
  return jax.lax.while_loop(
    lambda loop: ~loop[4] & (loop[5] < 10 * size), step, loop
  )[0]


def _lacks(matrix: Array, rhs: Array, x: Array) -> Array:
  """Returns `b - A x`, or 0 where it is not above 8 T eps of its terms.

  A sum of T products has a rounding error of up to T eps of its terms; the
  factor of 8 covers the error of x.
  """
  eps = 8 * len(rhs) * jnp.finfo(matrix.dtype).eps
  terms = jnp.abs(matrix) @ jnp.abs(x) + jnp.abs(rhs)
  lacks = rhs - matrix @ x
  return jnp.where(lacks > eps * terms, lacks, 0)


def fair(matrix: Array, rhs: Array, power: Any) -> tuple[Array, Array]:
  """Solves `(A x)_i = b_i x_i^-power` for `x > 0`, by Newton's method.

  The solution minimises the convex `x^T A x / 2 - sum_i b_i U(x_i)` with
  `U' = x^-power`, so it exists unless a mixture of rows of A is 0: then x grows
  until rounding stops it. A line search over 16 lengths, from the Newton step
  down to 3e-5 of it, keeps the value falling. With powers from 1/2 to 2, ten
  steps suffice, or up to 30 if the matrix is nearly singular; the limit of 40
  is for smaller powers, whose solutions leave the range of float32.

  Args:
    matrix: `[T, T]`, as in `solve_on`.
    rhs: `[T]` > 0.
    power: > 0, a number or a traced scalar.

  Returns:
    (x, residual): `[T]`, and the largest relative error of an equation.
  """
  eps = jnp.finfo(matrix.dtype).eps
  matrix = matrix + eps * jnp.eye(len(rhs), dtype=matrix.dtype)
  lengths = 0.5 ** jnp.arange(16, dtype=matrix.dtype)

  def value(x: Array) -> Array:
    return x @ matrix @ x / 2 - rhs @ _utility(x, power)

  def missed(x: Array) -> Array:
    wanted = rhs * x**-power
    return jnp.max(jnp.abs(matrix @ x - wanted) / wanted)

  def finite(numbers: Array) -> Array:
    return jnp.where(jnp.isfinite(numbers), numbers, jnp.inf)

  def is_open(loop: Any) -> Array:
    _, residual, moved, count = loop
    # 10 eps: a few roundings of the equations themselves.
    return (residual > 10 * eps) & moved & (count < 40)

  def step(loop: Any) -> Any:
    x, residual, _, count = loop
    # In units of x, where the matrix is best conditioned.
    terms = rhs * x ** (1 - power)
    bend = matrix * jnp.outer(x, x) + jnp.diag(power * terms)
    move = jnp.linalg.solve(bend, terms - x * (matrix @ x))
    # No x shrinks to less than a tenth of itself, so x stays positive.
    move = move * jnp.minimum(1, 0.9 / jnp.maximum(-move.min(), 0.9))
    tried = x[None] * (1 + jnp.outer(lengths, move))
    values = finite(jax.vmap(value)(tried))
    misses = finite(jax.vmap(missed)(tried))
    # Near the minimum, rounding hides differences of the value; the errors of
    # the equations still show progress.
    current = value(x)
    lower = values.min() < current - 10 * eps * jnp.abs(current)
    better = lower | (misses.min() < residual)
    best = jnp.argmin(jnp.where(lower, values, misses))
    x = jnp.where(better, tried[best], x)
    return x, jnp.where(better, misses[best], residual), better, count + 1

  start = rhs ** (1 / (1 + power))  # the solution for orthogonal gradients
  loop = start, missed(start), jnp.array(True), jnp.array(0)
  x, residual, _, _ = jax.lax.while_loop(is_open, step, loop)
  return x, residual


def _utility(x: Array, power: Any) -> Array:
  """Returns an integral of `x^-power`."""
  if not isinstance(power, jax.Array):
    return jnp.log(x) if power == 1 else x ** (1 - power) / (1 - power)
  is_log = power == 1
  rest = jnp.where(is_log, 1, 1 - power)
  return jnp.where(is_log, jnp.log(x), x**rest / rest)


def inverse(norms: Array) -> Array:
  """Returns `[T]` 1 / length, relative to the shortest; 0 for a length of 0."""
  nonzero = norms > 0
  shortest = jnp.min(jnp.where(nonzero, norms, jnp.inf))
  return jnp.where(nonzero, shortest / jnp.where(nonzero, norms, 1), 0)
