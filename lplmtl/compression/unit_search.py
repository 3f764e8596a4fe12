"""Finds the hidden units of a model's MLPs.

Reads no architecture: a width is a field, and the parameters whose shapes
change with it are the unit's own weights (their last axis) or those that read
its output (the axis before the last).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lplmtl.compression import leaves, units
from lplmtl.compression.units import Axis, Copy, Layer
from lplmtl.types import PyTree


def find(model: Any, params: PyTree, features: PyTree) -> list[Layer]:
  """Returns the layers whose units have weights that can be told apart.

  Args:
    model: a Linen module whose fields hold MLPs, or tuples of them.
    params: its parameters, of one seed.
    features: some rows.
  """
  before = _shapes(model, features)

  @jax.jit
  @jax.grad
  def slopes(params: PyTree) -> Any:
    predictions, _ = model.apply({'params': params}, features)
    return sum(x.sum() for x in predictions.values())

  layers = []
  for field, entry, mlp in _templates(model):
    for number, width in enumerate(mlp.widths):
      wider = units.set_widths(model, {(field, entry, number): width + 1})
      try:
        after = _shapes(wider, features)
      except ValueError:  # such as SPLE's identity, which needs equal widths
        continue
      axes = _axes(before, after)
      is_dense = _are_dense(axes, number)
      copies = _copies(axes, before, number) if is_dense else ()
      layer = Layer(field, entry, number, width, copies)
      if len(copies) == 1 and any(axis.size > width for axis in axes):
        layer = _located(params, slopes, layer)
      if layer.copies:
        layers.append(layer)
  return layers


def _templates(model: Any) -> list[tuple[str, int | None, Any]]:
  """Returns the fields that hold MLPs, `(field, entry, mlp)`."""
  found: list[tuple[str, int | None, Any]] = []
  for field in getattr(type(model), '__dataclass_fields__', {}):
    value = getattr(model, field)
    if field in ('parent', 'name', 'tasks'):
      continue
    if hasattr(value, 'widths'):
      found.append((field, None, value))
    elif isinstance(value, tuple):
      entries = [(i, x) for i, x in enumerate(value) if hasattr(x, 'widths')]
      found += [(field, i, x) for i, x in entries]
  return found


def _shapes(model: Any, features: PyTree) -> dict[str, tuple[int, ...]]:
  key = jax.random.key(0)
  params = jax.eval_shape(model.init, key, features)['params']
  return {name: tuple(x.shape) for name, x in leaves.names(params).items()}


def _axes(
  before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[Axis, ...]:
  """Returns the axes of units; none if some parameter has them elsewhere."""
  axes = []
  for name, old in before.items():
    new = after.get(name, ())
    changed = [i for i, n in enumerate(old) if new[i : i + 1] != (n,)]
    if not changed:
      continue
    axis = changed[0] - len(old)
    grows = len(new) == len(old) and new[axis] == old[axis] + 1
    if len(changed) > 1 or axis < -2 or not grows:
      return ()
    axes.append(Axis(name, axis, 0, old[axis]))
  return tuple(axes)


def _are_dense(axes: Sequence[Axis], number: int) -> bool:
  """Returns whether units have kernels, biases and readers, and nothing else.

  Some models make a layer's kernel from factors, for instance.
  """
  into = {axis.name for axis in axes if axis.axis == -1}
  layers = {name.rpartition('/')[0] for name in into}
  whole = {f'{x}/{part}' for x in layers for part in ('kernel', 'bias')}
  ends = f'layer_{number}'
  is_named = all(layer.split('/')[-1] == ends for layer in layers)
  return bool(into) and into == whole and is_named and len(into) < len(axes)


def _located(
  params: PyTree, gradient: Callable[[PyTree], PyTree], layer: Layer
) -> Layer:
  """Finds where the units are on axes that also hold others.

  A tower may read two levels side by side. If every other unit of a layer puts
  out 0, the weights that read these, and only those, get no gradient.

  Args:
    params: the parameters.
    gradient: of the sum of the outputs, for parameters.
    layer: with one copy.

  Returns:
    The layer; without copies if the rows do not tell.
  """
  gone = np.arange(0, layer.width, 2)
  stay = np.arange(1, layer.width, 2)[None]
  masked = units.mask(params, [layer], {layer.name: stay})
  slopes = leaves.names(jax.device_get(gradient(masked)))
  places: dict[int, set[int]] = {}
  for axis in layer.copies[0].axes:
    slope = np.moveaxis(slopes[axis.name], axis.axis, 0)
    is_at = {
      i
      for i in (0, axis.size - layer.width)
      if not slope[i + gone].any() or axis.size == layer.width
    }
    # Towers read in one order; that of a dead tower is known from the others.
    places[axis.size] = places.get(axis.size, is_at) & is_at
  if any(len(found) != 1 for found in places.values()):
    return dataclasses.replace(layer, copies=())
  axes = tuple(
    axis._replace(first=min(places[axis.size])) for axis in layer.copies[0].axes
  )
  return dataclasses.replace(layer, copies=(Copy(axes, None),))


def _copies(
  axes: tuple[Axis, ...], shapes: Mapping[str, Any], number: int
) -> tuple[Copy, ...]:
  """Splits the axes by what they are part of, if each part has both ends."""
  into = [axis for axis in axes if axis.axis == -1]
  stacks = {axis.name.split(f'/layer_{number}/')[0] for axis in into}
  for prefixes in (stacks, {name.split('/')[0] for name in stacks}):
    parts = {
      prefix: tuple(a for a in axes if a.name.startswith(f'{prefix}/'))
      for prefix in sorted(prefixes)
    }
    whole = sum(map(len, parts.values())) == len(axes)
    if whole and all({a.axis for a in x} == {-1, -2} for x in parts.values()):
      return tuple(
        copy for part in parts.values() for copy in _experts(part, shapes)
      )
  return (Copy(axes, None),)


def _experts(axes: tuple[Axis, ...], shapes: Mapping[str, Any]) -> list[Copy]:
  """Returns one copy for each expert of a stack, or one for a single module."""
  kernels = [shapes[a.name] for a in axes if not a.name.endswith('/bias')]
  if not all(len(shape) == 3 for shape in kernels):
    return [Copy(axes, None)]
  return [Copy(axes, expert) for expert in range(kernels[0][0])]
