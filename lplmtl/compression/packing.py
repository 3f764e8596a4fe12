"""All constant data that a device needs to score a raw row, as packed arrays.

    packed = pack(quantization.freeze(model, params), tables)
    packed.num_bytes                     # what a budget is spent on
    unpack(packed)                       # the frozen parameters, bit for bit
    reference.score(packed, columns)     # logits of raw rows

Shapes and the order of layers are not among the bytes: they are constants in
the code of a device, not data.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl import _checks
from lplmtl.compression import bits, device_tables, leaves
from lplmtl.compression.integers import Integers
from lplmtl.tables import Tables
from lplmtl.types import PyTree

# Parameters of an encoder.
_TABLES = ('embedding', 'steps', 'buckets', 'remainders', 'quotients')


class Leaf(NamedTuple):
  """How one parameter is stored.

  Attributes:
    name: such as `bottom/layer_0/kernel`.
    part: `embeddings`, `weights` or `biases`.
    shape: of the parameter.
    bits: of each number: 16 and 32 are floats, others codes.
    scale_bits: of each scale; 0 for floats.
    scale_shape: of the scales.
    sizes: see Integers.
  """

  name: str
  part: str
  shape: tuple[int, ...]
  bits: int
  scale_bits: int = 0
  scale_shape: tuple[int, ...] = ()
  sizes: tuple[int, ...] = ()

  @property
  def streams(self) -> Iterator[tuple[str, int, int]]:
    """The sections that it takes part in: `(name, numbers, bits of each)`."""
    yield f'{self.part}{self.bits}', math.prod(self.shape), self.bits
    if self.scale_bits:
      scales = f'scales{self.scale_bits}'
      yield scales, math.prod(self.scale_shape), self.scale_bits


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
  """A model and its tables as a device stores them.

  Attributes:
    sections: arrays, little endian. Those of the tables are described in
      `device_tables`. `embeddings4`, `weights4`, `biases32`, ... hold the
      numbers of a part that have so many bits, one parameter after the other
      without gaps (see `bits.pack`), and `scales16` their scales, all in the
      order of `leaves`.
    leaves: how each parameter is stored.
    tables: that were packed; None for parameters alone.
    hash_bits: 8 or 16.
  """

  sections: dict[str, np.ndarray]
  leaves: tuple[Leaf, ...]
  tables: Tables | None = None
  hash_bits: int = 8

  @property
  def num_bytes(self) -> int:
    """The sum of all sections."""
    return sum(array.nbytes for array in self.sections.values())

  @property
  def parts(self) -> dict[str, int]:
    """The bytes of each part, as `cost.count_bytes` counts them."""
    return by_part({name: a.nbytes for name, a in self.sections.items()})


def pack(
  frozen: PyTree,
  tables: Tables | None = None,
  *,
  hash_bits: int = 8,
  row: Sequence[Any] | None = None,
) -> Packed:
  """Packs parameters, and the tables that encode their inputs.

  Args:
    frozen: what `quantization.freeze`, `as_float16` or `thaw` returned, or any
      parameters; those that are not Integers are stored as float16 if they are
      that, else as float32.
    tables: those that the model was trained with; None packs parameters alone.
    hash_bits: of the hash of a category's value. Of n hashes of 8 bits, a value
      that training never saw passes for a known one with probability n / 256
      (see `false_matches`); of 16 bits with n / 65,536.
    row: the names of all columns of a raw row, if a device picks its columns
      out of a longer row.

  Raises:
    ValueError: the parameters do not belong to the tables, or the tables cannot
      be packed (see `device_tables`).
  """
  _checks.check_params(frozen)
  if tables is None and row is not None:
    raise ValueError('row names the columns of a raw row: it needs tables')
  named = leaves.names(frozen)
  if not named:
    raise ValueError('expected parameters to pack, found none')
  layout = tuple(_leaf(name, value) for name, value in named.items())
  if tables is not None:
    check_tables(layout, device_tables.checked(tables))
  streams: dict[str, list[np.ndarray]] = {}
  for leaf in layout:
    for (stream, *_), array in zip(
      leaf.streams, _arrays(named[leaf.name], leaf), strict=True
    ):
      streams.setdefault(stream, []).append(array)
  sections = {
    stream: _packed(stream, np.concatenate(arrays))
    for stream, arrays in streams.items()
  }
  if tables is not None:
    sections |= device_tables.pack(tables, hash_bits, row)
  return Packed(sections, layout, tables, hash_bits)


def unpack(packed: Packed) -> PyTree:
  """Returns the frozen parameters, bit for bit; all floats are NumPy arrays."""
  places = dict.fromkeys(packed.sections, 0)
  flat: dict[str, np.ndarray] = {}
  totals: dict[str, int] = {}
  for leaf in packed.leaves:
    for stream, count, _ in leaf.streams:
      totals[stream] = totals.get(stream, 0) + count
  for stream, count in totals.items():
    flat[stream] = _unpacked(stream, packed.sections[stream], count)
  tree: dict[str, Any] = {}
  for leaf in packed.leaves:
    found = []
    for stream, count, _ in leaf.streams:
      start = places[stream]
      found.append(flat[stream][start : start + count])
      places[stream] = start + count
    value: Any = found[0].reshape(leaf.shape)
    if leaf.scale_bits:
      scale = found[1].reshape(leaf.scale_shape)
      value = Integers(value, scale, leaf.bits, leaf.scale_bits, leaf.sizes)
    *above, last = leaf.name.split('/')
    place = tree
    for name in above:
      place = place.setdefault(name, {})
    place[last] = value
  return tree


def false_matches(packed: Packed) -> dict[Any, float]:
  """Returns how likely an unseen text passes for a known one.

  Returns:
    `{column: probability}` of each category column, for texts that are not in
    its vocabulary. Known values are never mistaken for each other.
  """
  if packed.tables is None:
    return {}
  found = {}
  for name in packed.tables.vocabularies:
    hashes = device_tables.category(
      packed.tables, name, packed.hash_bits
    ).hashes
    found[name] = len(hashes) / 2 ** (8 * hashes.itemsize)
  return found


def by_part(sections: Mapping[str, int]) -> dict[str, int]:
  """Sums the bytes of sections by part."""
  parts: dict[str, int] = {}
  for name, count in sections.items():
    part = device_tables.PARTS.get(name) or _split(name)[0]
    parts[part] = parts.get(part, 0) + count
  return dict(sorted(parts.items()))


def part_of(name: str, is_matrix: bool) -> str:
  """Returns `embeddings`, `weights` or `biases` for a parameter's name."""
  if not is_matrix:
    return 'biases'
  return 'embeddings' if name.split('/')[-1] in _TABLES else 'weights'


def _leaf(name: str, value: Any) -> Leaf:
  if not isinstance(value, Integers):
    return plain_leaf(name, np.asarray(value))
  part = part_of(name, leaves.is_matrix(name, value.codes))
  scales = value.scale_bits, value.scale.shape
  return Leaf(name, part, value.codes.shape, value.bits, *scales, value.sizes)


def plain_leaf(name: str, leaf: Any) -> Leaf:
  """Returns how floats are stored.

  Args:
    name: of the parameter.
    leaf: an array, or its shape and dtype.

  Raises:
    ValueError: they are neither float32 nor float16.
  """
  if leaf.dtype not in (np.float16, np.float32):
    raise ValueError(
      f'{name} must be float32, float16 or Integers, found {leaf.dtype}: use '
      'quantization.freeze, as_float16 or thaw'
    )
  part = part_of(name, leaves.is_matrix(name, leaf))
  return Leaf(name, part, leaf.shape, 8 * np.dtype(leaf.dtype).itemsize)


def _arrays(value: Any, leaf: Leaf) -> list[np.ndarray]:
  if leaf.scale_bits:
    return [value.codes.ravel(), value.scale.ravel()]
  return [np.asarray(value).ravel()]


def _packed(stream: str, flat: np.ndarray) -> np.ndarray:
  part, size = _split(stream)
  if part == 'scales':
    return bits.pack_scales(flat, size)
  return flat.astype(f'<f{size // 8}') if size > 8 else bits.pack(flat, size)


def _unpacked(stream: str, data: np.ndarray, count: int) -> np.ndarray:
  part, size = _split(stream)
  if part == 'scales':
    return bits.unpack_scales(data, size)
  return data if size > 8 else bits.unpack(data, size, count)


def _split(stream: str) -> tuple[str, int]:
  part = stream.rstrip('0123456789')
  return part, int(stream[len(part) :])


def check_tables(layout: Sequence[Leaf], tables: Tables) -> None:
  """Raises ValueError unless embeddings have a row for each id of tables."""
  for leaf in layout:
    if leaf.name.split('/')[-1] == 'remainders':
      raise ValueError(
        'a packed model has a row for each category: found composed columns '
        f'({leaf.name}); train without compose_by, or export another form'
      )
    if leaf.name.split('/')[-1] != 'embedding':
      continue
    sizes = tables.num_categories
    if leaf.shape[0] != sum(sizes) or (leaf.sizes and leaf.sizes != sizes):
      raise ValueError(
        f'{leaf.name} must have {sum(sizes)} rows, one for each id of the '
        f'{len(sizes)} category columns of the tables; found {leaf.shape[0]}: '
        'pass the tables that the model was trained with'
      )
