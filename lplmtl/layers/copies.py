"""Copies of templates, one per task, each with parameters of its own."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from lplmtl import _alike
from lplmtl.layers import experts, modules
from lplmtl.types import Array, PyTree


def apply(
  copies: Sequence[nn.Module],
  templates: Sequence[nn.Module],
  inputs: Sequence[Any],
  *,
  train: bool,
) -> list[Array]:
  """Applies modules that differ in their parameters only.

  Several copies of a template run as one, mapped over their stacked parameters
  (`jax.vmap`), if their inputs have equal shapes.

  Args:
    copies: bound modules.
    templates: the same modules, not bound.
    inputs: what they read, pytrees of `[B, ...]`.
    train: whether dropout is active.

  Returns:
    `[B, ...]` each; see `modules.map_rows`.
  """

  def alone(number: int) -> Array:
    return modules.map_rows(copies[number], inputs[number], train=train)

  if len(copies) <= _alike.FEW or copies[0].is_initializing():
    return [alone(i) for i in range(len(copies))]
  params = [copy.variables.get('params', {}) for copy in copies]
  kinds = _kinds(templates)
  key = experts.dropout_key(copies[0], train=train)

  def one(number: int, params: PyTree, x: Any, own: Array) -> Array:
    rngs = {} if key is None else {'dropout': jax.random.fold_in(key, own)}
    bound = templates[number].bind({'params': params}, rngs=rngs)
    return modules.map_rows(bound, x, train=train)

  calls = list(
    zip(params, inputs, np.arange(len(copies), dtype=np.uint32), strict=True)
  )
  keys = [
    (kind, _alike.shapes(call)) for kind, call in zip(kinds, calls, strict=True)
  ]
  return _alike.each(one, calls, keys, alone=lambda number, *_: alone(number))


def _kinds(templates: Sequence[nn.Module]) -> list[int]:
  """Returns, of each template, the position of the first one like it."""
  first: list[int] = []
  kinds = []
  for i, template in enumerate(templates):
    found = (k for k in first if _is_like(templates[k], template))
    kind = next(found, i)
    if kind == i:
      first.append(i)
    kinds.append(kind)
  return kinds


def _is_like(one: Any, other: Any) -> bool:
  """Returns whether two templates have one class and equal fields."""
  if one is other:
    return True
  if type(one) is not type(other):
    return False
  if isinstance(one, nn.Module):
    names = set(type(one).__dataclass_fields__) - {'parent', 'name'}
    return all(
      _is_like(getattr(one, name, None), getattr(other, name, None))
      for name in names
    )
  if isinstance(one, tuple | list):
    return len(one) == len(other) and all(map(_is_like, one, other))
  try:
    return bool(one == other)
  except (TypeError, ValueError):  # arrays have no single truth value
    return False
