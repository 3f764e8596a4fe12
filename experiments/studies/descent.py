"""Descends a landscape of two conflicting losses with every balancer."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.launcher import build
from experiments.launcher.errors import InputError
from lplmtl import balancing, data
from lplmtl.types import Aggregator, Array, Balancer

# No loss is below -20. Balancers that read losses expect them above 0, so that
# is what they get: the losses plus this, whose gradients are the same.
RAISED = 20.0
# A point reaches the front if both losses cannot fall by more than this at
# once. On the front each loss covers a range of 20.
TOLERANCE = 0.1
# The fixed weights that `static` stands for; equal ones are `equal`.
_WEIGHTS = ((0.2, 1.8), (0.6, 1.4), (1.4, 0.6), (1.8, 0.2))
# Without arguments `exponential` is `equal`; with two parameters that both
# tasks share, `random` is `rlw`.
_ALIKE = ('exponential', 'random')
_NUM_RECORDS = 500  # points of a path that are kept
_FRONT_POINTS = 1401


@dataclasses.dataclass(frozen=True)
class Asked:
  """What to draw.

  Attributes:
    methods: names of balancers; empty for all that differ here.
    first_scale: the unit of the first loss.
    num_steps: from each start.
    rates: R learning rates; the first is the one that is drawn.
  """

  methods: tuple[str, ...] = ()
  first_scale: float = 1.0
  num_steps: int = 50_000
  rates: tuple[float, ...] = (0.001, 0.003, 0.01)


class Descent(NamedTuple):
  """The paths of a balancer from S starts, at R rates.

  Attributes:
    name: of the balancer, with its weights if they are fixed.
    paths: `[R, S, P, 2]`, P points on the way.
    losses: `[R, S, 2]`, where they end, whatever the scale.
    gaps: `[R, S]`, by how much both losses could still fall at once.
    steps: `[R, S]`, after which the path stays within TOLERANCE of the front,
      to the next point that is kept; NaN if it does not get there.
  """

  name: str
  paths: np.ndarray
  losses: np.ndarray
  gaps: np.ndarray
  steps: np.ndarray


def parse_rates(texts: Sequence[str]) -> tuple[float, ...]:
  """Parses learning rates; raises InputError unless all are above 0."""
  try:
    rates = tuple(map(float, texts))
  except ValueError:
    rates = ()
  if not rates or not all(0 < rate < np.inf for rate in rates):
    raise InputError(
      '--descent_rates must be numbers above 0, separated by commas; found '
      f'{",".join(texts)!r}'
    )
  return rates


def methods(names: Sequence[str]) -> dict[str, Balancer | Aggregator]:
  """Returns `{name: balancer}`, equal and fixed weights first.

  Args:
    names: functions of `lplmtl.balancing`; empty for all that differ here.

  Raises:
    InputError: there is no such function.
  """
  every: list[Callable[..., Balancer | Aggregator]] = [
    *balancing.LOSS_WEIGHTINGS,
    *balancing.GRAMIAN_METHODS,
    *balancing.AGGREGATORS,
  ]
  wanted = names or [f.__name__ for f in every if f.__name__ not in _ALIKE]
  found: dict[str, Balancer | Aggregator] = {}
  for name in wanted:
    if name == 'static':
      for weights in _WEIGHTS:
        text = ','.join(f'{weight:g}' for weight in weights)
        found[f'static {text}'] = balancing.static(weights)
    else:
      found[name] = build.balancer(name)()
  return found


def descend(name: str, method: Balancer | Aggregator, asked: Asked) -> Descent:
  """Descends from every start at every rate."""
  every = max(asked.num_steps // _NUM_RECORDS, 1)
  path = functools.partial(_path, method, asked, every)
  of_starts = jax.vmap(path, in_axes=(0, 0, None))
  run = jax.jit(jax.vmap(of_starts, in_axes=(None, None, 0)))
  starts = jnp.array(data.STARTS)
  keys = jax.random.split(jax.random.key(0), len(starts))
  paths = np.asarray(run(keys, starts, jnp.array(asked.rates)))
  losses = losses_at(paths)
  gaps = gap(losses)
  return Descent(
    name, paths, losses[:, :, -1], gaps[:, :, -1], arrival(gaps) * every
  )


def _path(
  method: Any, asked: Asked, every: int, key: Array, start: Array, rate: Array
) -> Array:
  """Returns `[P, 2]`: the start, and what follows after each `every` steps."""
  scale = jnp.array([asked.first_scale, 1.0])
  optimizer = optax.scale_by_adam()

  def losses(theta: Array) -> Array:
    return scale * (data.conflicting_losses(theta) + RAISED)

  def step(_: Any, carry: Any) -> Any:
    theta, balancer_state, opt_state = carry
    values, each = losses(theta), jax.jacrev(losses)(theta)
    gradient, _, balancer_state = balancing.balance(
      method, each, values, balancer_state
    )
    updates, opt_state = optimizer.update(gradient, opt_state)
    theta = theta - rate * updates
    if method.after is not None:
      balancer_state = method.after(values, losses(theta), balancer_state)
    return theta, balancer_state, opt_state

  def record(carry: Any, _: Any) -> Any:
    carry = jax.lax.fori_loop(0, every, step, carry)
    return carry, carry[0]

  first = (
    start,
    balancing.first_state(method, key, start, 2),
    optimizer.init(start),
  )
  _, path = jax.lax.scan(record, first, length=asked.num_steps // every)
  return jnp.concatenate([start[None], path])


def losses_at(points: np.ndarray) -> np.ndarray:
  """Returns the losses of `[..., 2]` points, without a scale, `[..., 2]`."""
  flat = jax.jit(jax.vmap(data.conflicting_losses))(points.reshape(-1, 2))
  return np.asarray(flat, np.float64).reshape(points.shape)


@functools.cache
def front() -> tuple[np.ndarray, np.ndarray]:
  """Returns points of the Pareto front, `[F, 2]`, and their losses `[F, 2]`.

  From the task that is best at t_1 = -7 to the one that is best at 7. Below 0
  the losses are c(t_2) g_k, so that w g_1 + (1 - w) g_2 is least, whatever t_2,
  at t_1 = 14 w - 7. That leaves t_2 to search for.
  """
  first = np.linspace(-7, 7, _FRONT_POINTS)
  second = np.linspace(-9, -8, 1001)
  grid = np.stack(np.meshgrid(first, second, indexing='ij'), axis=-1)
  losses = losses_at(grid)
  weight = (first[:, None] + 7) / 14
  total = weight * losses[..., 0] + (1 - weight) * losses[..., 1]
  rows = np.arange(len(first))
  best = total.argmin(axis=1)
  return grid[rows, best], losses[rows, best]


def gap(losses: np.ndarray) -> np.ndarray:
  """Returns by how much both losses can fall at once: 0 on the front.

  Args:
    losses: `[..., 2]`.

  Returns:
    `[...]`, the largest min_k (L_k - P_k) over points P of the front.
  """
  _, best = front()
  flat = losses.reshape(-1, 2)
  found = np.empty(len(flat))
  for i in range(0, len(flat), 10_000):  # 100 MB at a time
    part = flat[i : i + 10_000, None] - best
    found[i : i + 10_000] = part.min(axis=-1).max(axis=-1)
  return found.reshape(losses.shape[:-1])


def arrival(gaps: np.ndarray) -> np.ndarray:
  """Returns the first point of a path from which it stays on the front.

  Args:
    gaps: `[..., P]`; NaN is not on the front.

  Returns:
    `[...]` float, NaN if the last point is not on the front.
  """
  is_away = ~(gaps <= TOLERANCE)
  last_away = gaps.shape[-1] - 1 - is_away[..., ::-1].argmax(axis=-1)
  first = np.where(is_away.any(axis=-1), last_away + 1.0, 0.0)
  return np.where(is_away[..., -1], np.nan, first)
