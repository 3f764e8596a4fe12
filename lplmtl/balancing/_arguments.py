"""Checks of the arguments of balancers."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
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
  """Checks that `value` is finite and within its bounds.

  Traced values are not checked.

  Raises:
    ValueError: names the argument, its bounds and the value.
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
  """Returns a scalar as a float; NaN for anything that is not a number.

  NaN is within no bounds.
  """
  is_number = isinstance(
    value, int | float | np.number | np.ndarray | jax.Array
  )
  if isinstance(value, bool) or not is_number or np.ndim(value):
    return math.nan
  return float(value)


def check_each(
  name: str, values: Sequence[float] | None, **bounds: float
) -> None:
  """Applies `check` to one number per task; None passes."""
  if values is None:
    return
  if not isinstance(values, tuple | list | np.ndarray | jax.Array):
    raise ValueError(
      f'{name} must be a tuple with one number per task, found {values!r}'
    )
  for i, value in enumerate(values):
    check(f'{name}[{i}]', value, **bounds)


def check_length(name: str, values: Any, num_tasks: int) -> None:
  """Checks, in `init`, that there is one entry per task; None passes."""
  if values is not None and len(values) != num_tasks:
    raise ValueError(
      f'{name} must have one entry per task, {num_tasks}; found {len(values)}'
    )


def check_whole(name: str, value: Any, least: int = 1) -> None:
  """Checks that `value` is a whole number of at least `least`.

  Raises:
    ValueError: names the argument, its bound and the value.
  """
  if not _checks.is_whole_number(value, least):
    raise ValueError(
      f'{name} must be a whole number of at least {least}, found {value!r}'
    )


def as_losses(losses: Any) -> Array:
  """Returns the losses of an `update` as `[T]` float32, gradients stopped.

  Args:
    losses: `[T]`, or a list or tuple of T scalars.

  Raises:
    ValueError: `losses` has another shape or does not hold numbers.
  """
  losses = _stacked(losses)
  shape = getattr(losses, 'shape', None)
  if shape is None or len(shape) != 1 or not shape[0]:
    actual = type(losses).__name__ if shape is None else shape
    raise ValueError(
      f'losses must have the shape [T], one per task; found {actual}'
    )
  return jax.lax.stop_gradient(jnp.asarray(losses, jnp.float32))


def _stacked(values: Any) -> Any:
  """Stacks a list or tuple of scalars; returns anything else unchanged."""
  if not isinstance(values, list | tuple) or any(map(np.ndim, values)):
    return values
  return jnp.stack([_scalar(x) for x in values]) if values else np.zeros(0)


def _scalar(loss: Any) -> Array:
  try:
    return jnp.asarray(loss, jnp.float32)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'losses must be numbers, one per task; found {loss!r}'
    ) from error


def as_present(present: Any, losses: Array) -> Array | None:
  """Returns `present` of an `update`: `[T]` bool, or None for all tasks.

  Raises:
    ValueError: the shape is not that of the losses.
  """
  if present is None:
    return None
  if np.shape(present) != losses.shape:
    raise ValueError(
      f'present must be {losses.shape} bool, like the losses; found shape '
      f'{np.shape(present)}'
    )
  return jnp.asarray(present).astype(bool)


def as_gramian(gramian: Any, losses: Array) -> Array:
  """Returns the Gramian of an `update`, `[T, T]`, with gradients stopped.

  Its dtype is float32 or wider.

  Raises:
    ValueError: there is no Gramian, or its shape does not fit the losses.
  """
  size = losses.shape
  if gramian is None or np.shape(gramian) != size * 2:
    actual = 'no Gramian'
    if gramian is not None:
      actual = f'a Gramian of shape {np.shape(gramian)}'
    raise ValueError(
      'a Gramian method needs losses [T] and their Gramian [T, T], which '
      'training passes and lplmtl.balancing.gramian(task_gradients) computes; '
      f'found losses of shape {size} and {actual}'
    )
  gramian = jnp.asarray(gramian)
  is_float = jnp.issubdtype(gramian.dtype, jnp.floating)
  if gramian.dtype.itemsize < 4 or not is_float:
    gramian = gramian.astype(jnp.float32)
  return jax.lax.stop_gradient(gramian)


def check_no_list(gradients: Any) -> None:
  """Rejects a list or tuple of gradients, which would be ambiguous."""
  if type(gradients) in (list, tuple):
    raise ValueError(
      f'gradients must not be a {type(gradients).__name__}: it could hold T '
      'gradients or the parts of each. Stack T gradients, jax.tree.map(lambda '
      '*g: jnp.stack(g), *gradients), or make parts a dict, '
      'dict(enumerate(gradients))'
    )


def check_shared(shared: Any, tree: Any) -> None:
  """Checks that `shared` is a pytree of bools like `tree`; None passes.

  Raises:
    ValueError: the structure differs, a leaf is not a bool, or all are False.
  """
  if shared is None:
    return
  actual: Any = jax.tree.structure(shared)
  wanted: Any = jax.tree.structure(tree)
  if actual != wanted:
    raise ValueError(
      'shared must be a pytree of bools like the parameters, '
      f'{wanted}; found {actual}'
    )
  leaves = jax.tree.leaves(shared)
  wrong = [x for x in leaves if not isinstance(x, bool | np.bool_ | jax.Array)]
  if wrong:
    raise ValueError(f'shared must hold True or False, found {wrong[0]!r}')
  if not any(leaves):
    raise ValueError(
      'shared must be True for at least one parameter, found False for all'
    )


def check_stacked(gradients: Any, num_tasks: int | None = None) -> None:
  """Checks that all leaves have a leading axis of the same size T.

  Raises:
    ValueError: a leading axis differs, or there are no leaves.
  """
  leaves = jax.tree_util.tree_flatten_with_path(gradients)[0]
  if not leaves:
    raise ValueError('gradients must have at least one array; found none')
  for path, leaf in leaves:
    shape = np.shape(leaf)
    num_tasks = shape[0] if num_tasks is None and shape else num_tasks
    if shape[:1] != (num_tasks,):
      raise ValueError(
        'every array of the gradients must have a leading axis of size T, the '
        f'number of tasks{f", {num_tasks}" if num_tasks else ""}; found shape '
        f'{shape} at '
        f'gradients{jax.tree_util.keystr(path)}. To stack T gradients: '
        'jax.tree.map(lambda *g: jnp.stack(g), *gradients)'
      )


def one_each(losses: Any, learned: Any) -> tuple[Array, Array]:
  """Returns the losses and learned values of a total loss, both as `[T]`.

  Raises:
    ValueError: the shapes differ or are not `[T]`, or one holds no numbers.
  """
  both = _stacked(losses), _stacked(learned)
  shapes = [getattr(x, 'shape', type(x).__name__) for x in both]
  if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
    raise ValueError(
      'losses and the values learned with them must have the shape [T], one '
      f'per task; found {shapes[0]} and {shapes[1]}'
    )
  return jnp.asarray(both[0]), jnp.asarray(both[1])
