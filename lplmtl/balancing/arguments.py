"""What balancers refuse."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl.types import Array


def check(
  name: str,
  value: Any,
  *,
  least: float | None = None,
  above: float | None = None,
  most: float | None = None,
  below: float | None = None,
) -> None:
  """Refuses what is no finite number within its bounds; what is traced passes.

  Raises:
    ValueError: names the argument, its bounds and what was found.
  """
  try:
    number = value_of(value)
  except jax.errors.ConcretizationTypeError:
    return
  held = {
    f' of at least {least}': least is None or number >= least,
    f' above {above}': above is None or number > above,
    f' of at most {most}': most is None or number <= most,
    f' below {below}': below is None or number < below,
  }
  if not math.isfinite(number) or not all(held.values()):
    wanted = ' and'.join(text for text in held if not text.endswith('None'))
    raise ValueError(f'{name} must be a finite number{wanted}, found {value!r}')


def value_of(value: Any) -> float:
  """A scalar as a number; NaN, which no bound allows, where it is none."""
  is_number = isinstance(
    value, int | float | np.number | np.ndarray | jax.Array
  )
  if isinstance(value, bool) or not is_number or np.ndim(value):
    return math.nan
  return float(value)


def check_each(
  name: str, values: Sequence[float] | None, **bounds: float
) -> None:
  """As `check`, for one number a task; None passes."""
  if values is None:
    return
  if not isinstance(values, tuple | list | np.ndarray | jax.Array):
    raise ValueError(
      f'{name} must be a tuple with a number for each task, found {values!r}'
    )
  for i, value in enumerate(values):
    check(f'{name}[{i}]', value, **bounds)


def check_length(name: str, values: Any, num_tasks: int) -> None:
  """In `init`: one entry a task; None passes."""
  if values is not None and len(values) != num_tasks:
    raise ValueError(f'{name} has {len(values)} entries for {num_tasks} tasks')


def as_losses(losses: Any) -> Array:
  """In `update`: `[T]` float32, through which no gradient flows.

  Raises:
    ValueError: another shape.
  """
  if len(jnp.shape(losses)) != 1:
    raise ValueError(
      'losses must have the shape [T], one for each task; found '
      f'{jnp.shape(losses)}'
    )
  return jax.lax.stop_gradient(jnp.asarray(losses, jnp.float32))


def check_one_each(losses: Any, learned: Any) -> None:
  """In a total loss: as many learned values as losses, `[T]` both.

  Raises:
    ValueError: other shapes.
  """
  shapes = jnp.shape(losses), jnp.shape(learned)
  if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
    raise ValueError(
      'losses and what is learned with them must have the shape [T], one for '
      f'each task; found {shapes[0]} and {shapes[1]}'
    )
