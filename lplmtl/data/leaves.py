"""Batches as columns of bytes: which arrays they hold, as JSON data."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl.types import Batch

_ALIGN = 64  # bytes


class Leaf(NamedTuple):
  """One array of a batch.

  Attributes:
    path: such as `.features['categories']`.
    dtype: of NumPy or JAX.
    shape: of a row.
  """

  path: str
  dtype: np.dtype
  shape: tuple[int, ...]

  @property
  def row_bytes(self) -> int:
    """The bytes of a row."""
    return self.dtype.itemsize * math.prod(self.shape)

  def to_json(self) -> list[Any]:
    """Returns JSON data, which `of_json` reads."""
    return [self.path, self.dtype.name, list(self.shape)]


def empty(leaf: Leaf, num_rows: int) -> np.ndarray:
  """Returns an array that begins at a multiple of 64 bytes.

  JAX's host devices then use it as it is, instead of a copy.
  """
  size = num_rows * leaf.row_bytes
  memory = np.empty(size + _ALIGN, np.uint8)
  first = -memory.ctypes.data % _ALIGN
  flat = memory[first : first + size].view(leaf.dtype)
  return flat.reshape(num_rows, *leaf.shape)


def of_json(data: Any) -> tuple[Leaf, ...]:
  """Returns the leaves that `to_json` wrote.

  Raises:
    TypeError, ValueError: it is something else.
  """
  return tuple(
    Leaf(str(path), jnp.dtype(name), tuple(map(int, shape)))
    for path, name, shape in data
  )


def of_batch(batch: Batch) -> tuple[Leaf, ...]:
  """Returns the leaves of a batch of NumPy arrays, in their order."""
  return tuple(
    Leaf(jax.tree_util.keystr(path), x.dtype, x.shape[1:])
    for path, x in jax.tree_util.tree_flatten_with_path(batch)[0]
  )


def structure(tree: Any) -> Any:
  """Returns the structure of a batch as JSON data.

  Dicts are dicts, tuples and lists are lists, None is null, arrays are 0.

  Raises:
    ValueError: features or labels are in another kind of container, or in a
      dict whose keys are not strings.
  """
  if tree is None:
    return None
  if isinstance(tree, Mapping):
    if not all(isinstance(key, str) for key in tree):
      raise ValueError(f'the keys of a dict must be texts, found {[*tree]}')
    return {key: structure(tree[key]) for key in sorted(tree)}
  if isinstance(tree, Batch | tuple | list):
    return [structure(part) for part in tree]
  if not hasattr(tree, 'dtype'):
    raise ValueError(
      'rows must be arrays in dicts, tuples and lists, found '
      f'{type(tree).__name__}'
    )
  return 0


def assemble(form: Any, arrays: Sequence[Any]) -> Batch:
  """Returns the batch of a structure; lists become tuples.

  Args:
    form: from `structure`.
    arrays: in the order of `of_batch`.
  """
  return Batch(*_build(form, iter(arrays)))


# Not inside of `assemble`: a function that calls itself would keep the arrays
# in a cycle, and so in memory, until the garbage collector runs.
def _build(form: Any, rest: Iterator[Any]) -> Any:
  if form is None:
    return None
  if isinstance(form, Mapping):
    return {key: _build(form[key], rest) for key in sorted(form)}
  if isinstance(form, Sequence):
    return tuple(_build(part, rest) for part in form)
  return next(rest)
