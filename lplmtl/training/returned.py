"""What a balancer of one's own must return, looked at when a step is traced."""

from typing import Any

import jax
import jax.numpy as jnp

from lplmtl.types import Array, PyTree


def parts(found: Any, names: tuple[str, ...]) -> Any:
  """What an `update` returned, if it is a tuple of so many.

  Raises:
    ValueError: something else.
  """
  if not isinstance(found, tuple) or len(found) != len(names):
    raise ValueError(
      f"a balancer's update must return ({', '.join(names)}); found "
      f'{type(found).__name__}'
    )
  return found


def as_weights(weights: Any, losses: Array) -> Array:
  """`[T]`, of the losses' dtype.

  Raises:
    ValueError: another shape.
  """
  if jnp.shape(weights) != losses.shape:
    raise ValueError(
      f"a balancer's update must return weights of shape {losses.shape}, one "
      f'a task; found {jnp.shape(weights)}'
    )
  return jnp.asarray(weights).astype(losses.dtype)


def check_state(new: PyTree, old: PyTree, function: str) -> None:
  """Refuses a new state that a loop could not carry in the old one's place.

  Raises:
    ValueError: another structure, shape or dtype.
  """
  if _kinds(new) != _kinds(old):
    raise ValueError(
      f"a balancer's {function} must return a state of the structure, shapes "
      f'and dtypes of the one that it got, {_shown(old)}; found {_shown(new)}'
    )


def check_gradient(found: PyTree, params: PyTree) -> None:
  """Refuses what an aggregator makes of gradients, if it is not like them.

  Raises:
    ValueError: another structure, shape or dtype.
  """
  if _kinds(found) != _kinds(params):
    raise ValueError(
      "an aggregator's update must return a gradient of the structure, shapes "
      f'and dtypes of the parameters in its scope, {_shown(params)}; found '
      f'{_shown(found)}'
    )


def _kinds(tree: PyTree) -> Any:
  leaves, structure = jax.tree.flatten(tree)
  dtypes = [
    x.dtype if hasattr(x, 'dtype') else jnp.result_type(x) for x in leaves
  ]
  return structure, [jnp.shape(x) for x in leaves], dtypes


def _shown(tree: PyTree) -> str:
  structure, shapes, dtypes = _kinds(tree)
  leaves = [f'{d}{list(s)}' for s, d in zip(shapes, dtypes, strict=True)]
  return str(jax.tree.unflatten(structure, leaves))
