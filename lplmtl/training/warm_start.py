"""Parameters to start from, checked before a run begins."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.types import PyTree


def read(start: PyTree, drawn: PyTree, num_seeds: int) -> PyTree:
  """Returns parameters with a leading S axis, as NumPy arrays.

  Args:
    start: parameters, with a leading S axis or without it.
    drawn: the shapes and dtypes of those that the model draws, with a leading
      axis of seeds, S or more.
    num_seeds: S.

  Raises:
    ValueError: structure, shapes or dtypes differ, or a value is not finite;
      names the first parameter concerned.
  """
  if hasattr(start, 'params'):
    kind = type(start).__name__
    raise ValueError(f'start must be parameters, found {kind}: use its .params')
  _checks.check_params(start)
  given, expected = _by_name(start), _by_name(drawn)
  for name in (*expected, *given):
    if name not in given or name not in expected:
      problem = (
        f'start lacks the parameter {name}'
        if name in expected
        else f'start has a parameter that the model lacks, {name}'
      )
      raise ValueError(
        f'{problem}: expected the {len(expected)} parameters of this model, '
        f'found {len(given)}'
      )
  # Each leaf of `drawn` has the axis; one leaf of `start` tells for all.
  first = next(iter(expected))
  has_axis = np.ndim(given[first]) == len(expected[first].shape)
  arrays = []
  for name, like in expected.items():
    value = given[name]
    shape = (num_seeds, *like.shape[1:]) if has_axis else like.shape[1:]
    found = getattr(value, 'shape', None), getattr(value, 'dtype', None)
    if found != (shape, like.dtype):
      raise ValueError(
        f'start: the parameter {name} must be {like.dtype} of shape {shape}, '
        f'found {_describe(value)}'
      )
    array = np.asarray(jax.device_get(value))
    if jnp.issubdtype(like.dtype, jnp.inexact) and not np.isfinite(array).all():
      raise ValueError(
        f'start: the parameter {name} holds values that are not finite'
      )
    arrays.append(
      array if has_axis else np.broadcast_to(array, (num_seeds, *shape))
    )
  return jax.tree.unflatten(jax.tree.structure(drawn), arrays)


def _by_name(tree: PyTree) -> dict[str, Any]:
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def _describe(value: Any) -> str:
  if not hasattr(value, 'dtype'):
    return type(value).__name__
  return f'{value.dtype} of shape {value.shape}'
