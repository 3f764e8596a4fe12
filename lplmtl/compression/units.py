"""Hidden units of a model's MLPs, and models without some of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lplmtl.compression import leaves
from lplmtl.types import PyTree


class Axis(NamedTuple):
  """An axis of a parameter, part of which are the units.

  Attributes:
    name: of the parameter.
    axis: its number, from the end: -1 of weights into units, -2 out of them.
    first: where the units begin.
    size: the length of the axis.
  """

  name: str
  axis: int
  first: int
  size: int


class Copy(NamedTuple):
  """Units that go together with one number each.

  Attributes:
    axes: of all parameters that the units have.
    expert: the number in a stack of experts of which this is one; None if the
      axes are those of whole parameters.
  """

  axes: tuple[Axis, ...]
  expert: int | None


@dataclasses.dataclass(frozen=True)
class Layer:
  """A layer of one template.

  Attributes:
    field: of the model, `levels` for instance.
    entry: the number in the field, if it is a tuple.
    number: of the layer in the MLP.
    width: number of its units.
    copies: as the template is used more than once, and each copy chooses units
      of its own; one copy if their outputs are added up.
  """

  field: str
  entry: int | None
  number: int
  width: int
  copies: tuple[Copy, ...]

  @property
  def name(self) -> str:
    """`levels[1].widths[0]`, for instance."""
    entry = '' if self.entry is None else f'[{self.entry}]'
    return f'{self.field}{entry}.widths[{self.number}]'


# Per layer name, the units that stay: `[copies, kept]` int.
Kept = Mapping[str, np.ndarray]


def set_widths(
  model: Any, widths: Mapping[tuple[str, int | None, int], int]
) -> Any:
  """Returns a model with other widths, `{(field, entry, layer): width}`."""
  for (field, entry, number), width in widths.items():
    value = getattr(model, field)
    mlp = value if entry is None else value[entry]
    new = list(mlp.widths)
    new[number] = width
    mlp = mlp.clone(widths=tuple(new))
    if entry is not None:
      mlp = (*value[:entry], mlp, *value[entry + 1 :])
    model = model.clone(**{field: mlp})
  return model


def remove(
  model: Any, params: PyTree, layers: Sequence[Layer], kept: Kept
) -> tuple[Any, PyTree]:
  """Returns the smaller model and its parameters."""
  masks: dict[tuple[str, int], np.ndarray] = {}
  for layer in layers:
    for copy, numbers in zip(layer.copies, kept[layer.name], strict=True):
      for axis in copy.axes:
        mask = _stay(axis, layer.width, numbers)
        key = axis.name, axis.axis
        if copy.expert is None:
          masks[key] = masks.get(key, True) & mask
        else:  # in the order of the experts
          rows = masks.get(key, np.zeros((0, axis.size), bool))
          masks[key] = np.concatenate([rows, mask[None]])

  # By NumPy: JAX would compile a program for each shape.
  def take(name: str, x: Any) -> Any:
    x = np.asarray(x)
    for axis in (-1, -2):
      mask = masks.get((name, axis))
      if mask is not None:
        x = _take(x, mask, axis)
    return jax.numpy.asarray(x)

  widths = {
    (layer.field, layer.entry, layer.number): kept[layer.name].shape[1]
    for layer in layers
  }
  return set_widths(model, widths), leaves.map_named(take, params)


def mask(params: PyTree, layers: Sequence[Layer], kept: Kept) -> PyTree:
  """Sets the weights into all other units to 0, and their biases.

  Their outputs are then those of the activation at 0: 0 for relu and its like.
  """
  factors: dict[str, np.ndarray] = {}
  for layer in layers:
    for copy, numbers in zip(layer.copies, kept[layer.name], strict=True):
      for axis in (a for a in copy.axes if a.axis == -1):
        stay = _stay(axis, layer.width, numbers).astype(np.float32)
        if copy.expert is not None:
          rows = factors.get(axis.name, np.zeros((0, axis.size), np.float32))
          stay = np.concatenate([rows, stay[None]])
        factors[axis.name] = stay

  def times(name: str, x: Any) -> Any:
    factor = factors.get(name)
    if factor is None:
      return x
    if factor.ndim > 1 and x.ndim > 2:  # [E, H] for a kernel [E, D, H]
      factor = factor[:, None]
    x = np.asarray(x)
    return jax.numpy.asarray(x * factor.astype(x.dtype))

  return leaves.map_named(times, params)


def _take(x: np.ndarray, mask: np.ndarray, axis: int) -> np.ndarray:
  if mask.ndim == 1:
    return x.take(np.flatnonzero(mask), axis=axis)
  rows = [x[e].take(np.flatnonzero(m), axis=axis) for e, m in enumerate(mask)]
  return np.stack(rows)


def _stay(axis: Axis, width: int, numbers: np.ndarray) -> np.ndarray:
  stay = np.ones(axis.size, bool)
  stay[axis.first : axis.first + width] = False
  stay[axis.first + numbers] = True
  return stay
