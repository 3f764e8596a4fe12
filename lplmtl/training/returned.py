"""Checks what a user's own balancer returns, when a step is traced."""

from typing import Any

import jax
import jax.numpy as jnp

from lplmtl.types import Array, PyTree


def parts(outputs: Any, names: tuple[str, ...]) -> Any:
  """Returns the outputs of an `update`.

  Raises:
    ValueError: they are not a tuple with one entry per name.
  """
  if not isinstance(outputs, tuple) or len(outputs) != len(names):
    raise ValueError(
      f"a balancer's update must return ({', '.join(names)}); found "
      f'{type(outputs).__name__}'
    )
  return outputs


def as_weights(weights: Any, losses: Array) -> Array:
  """Returns weights `[T]` of the losses' dtype.

  Raises:
    ValueError: they do not have shape `[T]`.
  """
  if jnp.shape(weights) != losses.shape:
    raise ValueError(
      f"a balancer's update must return weights of shape {losses.shape}, one "
      f'per task; found {jnp.shape(weights)}'
    )
  return jnp.asarray(weights).astype(losses.dtype)


def check_state(new: PyTree, old: PyTree, function: str) -> None:
  """Checks that a loop over steps can carry a new state.

  Raises:
    ValueError: its structure, a shape or a dtype differs from the old one.
  """
  if _kinds(new) != _kinds(old):
    raise ValueError(
      f"a balancer's {function} must return a state with the structure, shapes "
      f'and dtypes of the one it received, {_shown(old)}; found {_shown(new)}'
    )


def check_gradient(gradient: PyTree, params: PyTree) -> None:
  """Checks that an aggregator's gradient is like the parameters in its scope.

  Raises:
    ValueError: its structure, a shape or a dtype differs.
  """
  if _kinds(gradient) != _kinds(params):
    raise ValueError(
      "an aggregator's update must return a gradient with the structure, "
      'shapes and dtypes of the parameters in its scope, '
      f'{_shown(params)}; found {_shown(gradient)}'
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
