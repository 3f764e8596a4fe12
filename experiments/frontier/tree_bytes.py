"""Forests as the bytes of a device, and scores from these bytes alone.

Sections, beside those of `lplmtl.compression.device_tables`:

| section | content |
|---|---|
| `bases` | what each forest adds to its sum, float32 |
| `scales` | of its leaves, the upper 16 bits of a float32 |
| `forests` | for each forest the bits below |

- For each edge of a number and each flag: whether the forest splits there.
- For each category column: how many ranks its ids have, less one; if there are
  several, whether ids 1, 2, ... have the ranks 0, 1, ... without that of id 0,
  and that rank; or else the rank of every id. A split lies above each rank but
  the last.
- Each tree as one number, whose digits are the number of its shape, the
  indices of its splits among those of the forest, and its leaves but the first,
  which is 0: what it was is part of the base.

How many trees a forest has, of how many leaves and bits, is not among the
bytes, like the shapes of a network: constants in the code of a device.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.frontier import shapes
from experiments.frontier.bitstream import Reader, Writer
from experiments.frontier.sharing import Shared
from lplmtl.columns import Column
from lplmtl.compression import device_rows, device_tables
from lplmtl.tables import Tables


class Tree(NamedTuple):
  """A tree as a device knows it.

  Attributes:
    nodes: in the order root, left, right: the index of a split, or -1.
    codes: of the leaves in the same order; the first is 0.
  """

  nodes: tuple[int, ...]
  codes: tuple[int, ...]


class Forest(NamedTuple):
  """The trees of one output.

  Attributes:
    splits: `[P]` sorted (position in `Shared.columns`, rank).
    ranks: for each category column the `[ids]` rank of each id.
    trees: all with the same number of leaves.
    base: float32.
    scale: float32, see `refitting.short`.
    bits: of a leaf.
  """

  splits: tuple[tuple[int, int], ...]
  ranks: tuple[np.ndarray, ...]
  trees: tuple[Tree, ...]
  base: float
  scale: float
  bits: int


class Form(NamedTuple):
  """What a device's code knows of a forest: sizes, no data."""

  num_trees: int
  num_splits: int
  bits: int


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
  """Forests and the tables that they share, as bytes.

  Attributes:
    sections: see above.
    forms: of each forest.
    tables: whose bytes are among the sections; only its names and sizes are
      used to score.
  """

  sections: dict[str, np.ndarray]
  forms: tuple[Form, ...]
  tables: Tables

  @property
  def num_bytes(self) -> int:
    """The sum of all sections."""
    return sum(array.nbytes for array in self.sections.values())


def pack(
  shared: Shared, forests: Sequence[Forest], hash_bits: int = 8
) -> Packed:
  """Packs forests, in the order of their outputs."""
  writer = Writer()
  for forest in forests:
    _write(writer, forest, shared)
  scales = np.array([forest.scale for forest in forests], '<f4')
  sections = {
    'bases': np.array([forest.base for forest in forests], '<f4'),
    'scales': (scales.view('<u4') >> 16).astype('<u2'),
    'forests': writer.content,
    **device_tables.pack(shared.tables, hash_bits),
  }
  forms = [
    Form(len(f.trees), len(f.trees[0].codes) - 1 if f.trees else 0, f.bits)
    for f in forests
  ]
  return Packed(sections, tuple(forms), shared.tables)


def score(
  packed: Packed, columns: Mapping[Any, Column], hash_bits: int = 8
) -> np.ndarray:
  """Returns `[N, forests]` float32 scores of raw rows, from the bytes."""
  ids, flags = device_rows.encode(
    packed.sections, packed.tables, columns, hash_bits
  )
  return score_ids(packed, np.concatenate([ids, flags], axis=1).T.astype(int))


def score_ids(packed: Packed, ids: np.ndarray) -> np.ndarray:
  """Returns `[N, forests]` float32 scores of encoded rows.

  Args:
    packed: the forests.
    ids: `[columns, N]` ints, in the order of `Shared.columns`.
  """
  return np.stack([_score(f, ids) for f in unpack(packed)], axis=1)


def unpack(packed: Packed) -> list[Forest]:
  """Returns the forests; the inverse of `pack`."""
  reader = Reader(packed.sections['forests'])
  scales = packed.sections['scales'].astype('<u4') << 16
  found = []
  for form, base, scale in zip(
    packed.forms, packed.sections['bases'], scales.view('<f4'), strict=True
  ):
    splits, ranks = _read_splits(reader, packed.tables)
    trees = tuple(
      _read_tree(reader, form, len(splits)) for _ in range(form.num_trees)
    )
    found.append(Forest(splits, ranks, trees, base, scale, form.bits))
  return found


def tree_size(num_splits: int, pool: int, bits: int) -> int:
  """Returns how many different trees there are."""
  return shapes.count(num_splits) * pool**num_splits << (bits * num_splits)


def _write(writer: Writer, forest: Forest, shared: Shared) -> None:
  sizes, num_categories = shared.sizes, shared.num_categories
  taken = set(forest.splits)
  for column in range(num_categories, len(sizes)):
    for rank in range(sizes[column] - 1):
      writer.write((column, rank) in taken, 2)
  for size, ranks in zip(sizes, forest.ranks, strict=False):
    num_ranks = int(ranks.max()) + 1
    writer.write(num_ranks - 1, size)
    if num_ranks > 1:
      _write_ranks(writer, ranks, num_ranks)
  for tree in forest.trees:
    number = shapes.rank([node >= 0 for node in tree.nodes])
    for node in tree.nodes:
      if node >= 0:
        number = number * len(forest.splits) + node
    for code in tree.codes[1:]:
      number = (number << forest.bits) + code + (1 << forest.bits - 1)
    writer.write(
      number,
      tree_size(len(tree.codes) - 1, len(forest.splits), forest.bits),
    )


def _write_ranks(writer: Writer, ranks: np.ndarray, num_ranks: int) -> None:
  in_order = ranks[1:].tolist() == _others(int(ranks[0]), num_ranks)
  writer.write(in_order, 2)
  for rank in ranks[:1] if in_order else ranks:
    writer.write(int(rank), num_ranks)


def _others(rank: int, num_ranks: int) -> list[int]:
  return [other for other in range(num_ranks) if other != rank]


def _read_splits(
  reader: Reader, tables: Tables
) -> tuple[tuple[tuple[int, int], ...], tuple[np.ndarray, ...]]:
  num_categories = len(tables.vocabularies)
  sizes = [*tables.num_categories, *(2 for _ in tables.flags)]
  numbers = [
    (column, rank)
    for column in range(num_categories, len(sizes))
    for rank in range(sizes[column] - 1)
    if reader.read(2)
  ]
  found = []
  for size in sizes[:num_categories]:
    num_ranks = reader.read(size) + 1
    ranks = [0] * size
    if num_ranks > 1:
      if reader.read(2):
        first = reader.read(num_ranks)
        ranks = [first, *_others(first, num_ranks)]
      else:
        ranks = [reader.read(num_ranks) for _ in range(size)]
    found.append(np.array(ranks))
  categories = [
    (column, rank)
    for column, ranks in enumerate(found)
    for rank in range(ranks.max())
  ]
  return (*categories, *numbers), tuple(found)


def _read_tree(reader: Reader, form: Form, pool: int) -> Tree:
  number = reader.read(tree_size(form.num_splits, pool, form.bits))
  codes = []
  for _ in range(form.num_splits):
    number, code = number >> form.bits, number & ((1 << form.bits) - 1)
    codes.append(code - (1 << form.bits - 1))
  splits = []
  for _ in range(form.num_splits):
    number, split = divmod(number, pool)
    splits.append(split)
  nodes = tuple(
    splits.pop() if is_split else -1
    for is_split in shapes.unrank(number, form.num_splits)
  )
  return Tree(nodes, (0, *reversed(codes)))


def _score(forest: Forest, ids: np.ndarray) -> np.ndarray:
  right = []
  for column, rank in forest.splits:
    own = ids[column]
    if column < len(forest.ranks):
      own = forest.ranks[column][own]
    right.append(own > rank)
  total = np.zeros(ids.shape[1], np.int32)
  for tree in forest.trees:
    total += leaf_of(tree.nodes, right, np.array(tree.codes, np.int32))
  return np.float32(forest.base) + np.float32(forest.scale) * total.astype(
    np.float32
  )


def leaf_of(
  nodes: Sequence[int],
  right: Sequence[np.ndarray] | np.ndarray,
  values: Sequence[Any] | np.ndarray,
) -> Any:
  """Returns the value of each row's leaf, `[N]`.

  Args:
    nodes: of a tree.
    right: for each split `[N]` bool, whether rows go right.
    values: of the leaves.
  """
  rest, leaves = iter(nodes), iter(values)

  def walk() -> Any:
    split = next(rest)
    if split < 0:
      return next(leaves)
    low = walk()
    high = walk()
    return np.where(right[split], high, low)

  return walk()
