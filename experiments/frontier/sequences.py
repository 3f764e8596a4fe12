"""Sequences of small trees, any beginning of which is a model of a task."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.frontier import growing, inputs, refitting, tree_bytes
from experiments.frontier.candidates import NotMadeError
from experiments.frontier.drafts import Draft
from experiments.frontier.growing import Split, Tree
from experiments.frontier.inputs import Inputs, Targets

# The learning rate for so many leaves.
RATES = {2: 0.3, 4: 0.2, 8: 0.15, 16: 0.1, 32: 0.1}
# Gains .002 in income on census66k where there are 16 kB.
_SLOW = {
  'learning_rate': 0.05, 'feature_fraction': 0.3, 'bagging_fraction': 0.8,
}  # fmt: skip
# Bytes that a split costs where trees use it, added to those of the tables.
_NODES = 2.0


class Grower(NamedTuple):
  """What the sequences of one task have in common.

  Attributes:
    inputs: the rows.
    todo: what to learn.
    ranks: see `inputs.ranks`.
    gains: see `growing.gains`.
    seed: of the random choice of rows.
  """

  inputs: Inputs
  todo: Targets
  ranks: list[np.ndarray]
  gains: dict[Split, float]
  seed: int

  def sides(self, split: str, pool: Sequence[Split]) -> np.ndarray:
    """Returns `[P, N]` bool of the rows of train, validation or test."""
    return growing.sides(self.inputs.codes[split], self.ranks, pool)


def grower(rows: Inputs, todo: Targets, seed: int) -> Grower:
  """Orders the values of all columns, and grows a first forest."""
  ranks = inputs.ranks(rows, todo)
  gains = growing.gains(rows, todo, ranks, seed)
  return Grower(rows, todo, ranks, gains, seed)


@dataclasses.dataclass(frozen=True, eq=False)
class TreeSequence:
  """Trees that were grown one after the other.

  Attributes:
    pool: the splits to choose from, sorted.
    leaves: of a tree, at most.
    rows: for each round the trees of all outputs.
    todo: what they learn; rows that the pool cannot tell apart are joined.
    right: `[P, D]` bool, on which side of each split these rows are.
  """

  pool: list[Split]
  leaves: int
  rows: list[list[Tree]]
  todo: Targets
  right: np.ndarray

  @functools.cached_property
  def _trees(self) -> list[Tree]:
    return [tree for row in self.rows for tree in row if tree.num_leaves > 1]

  @functools.cached_property
  def _groups(self) -> list[refitting.Group]:
    numbers = np.arange(self.leaves, dtype=np.uint8)
    return [
      refitting.Group(
        tree_bytes.leaf_of(tree.nodes, self.right, numbers),
        tree.values,
        tree.output,
      )
      for tree in self._trees
    ]

  def refitted(self, rounds: int, bits: int, ridge: float) -> tuple[Draft, ...]:
    """Returns the first rounds with refitted leaves, `[K]` drafts.

    Args:
      rounds: how many.
      bits: of a leaf.
      ridge: see `refitting.refit`.
    """
    count = sum(t.num_leaves > 1 for row in self.rows[:rounds] for t in row)
    trees = self._trees[:count]
    rounded = refitting.refit(
      self._groups[:count], self.todo, bits, ridge=ridge
    )
    drafts = []
    for output, base in enumerate(rounded.bases):
      own = [i for i, tree in enumerate(trees) if tree.output == output]
      used = sorted({n for i in own for n in trees[i].nodes if n >= 0})
      drafts.append(
        Draft(
          tuple(self.pool[n] for n in used),
          tuple(
            _full(trees[i].nodes, used, rounded.codes[i], self.leaves)
            for i in own
          ),
          float(base),
          float(rounded.scales[own[0]]) if own else 1.0,
          bits,
        )
      )
    return tuple(drafts)

  def num_bytes(self, given: Grower, rounds: int, bits: int) -> int:
    """Estimates the bytes of the first rounds."""
    rows = self.rows[:rounds]
    nodes = {n for row in rows for tree in row for n in tree.nodes if n >= 0}
    cuts: dict[int, list[int]] = {}
    for column, rank in (self.pool[n] for n in nodes):
      cuts.setdefault(column, []).append(rank)
    tables = sum(_bytes(given, column, kept) for column, kept in cuts.items())
    each = tree_bytes.tree_size(self.leaves - 1, max(len(nodes), 1), bits)
    count = sum(len(row) for row in rows)
    return round(tables + count * (each - 1).bit_length() / 8)


def grow(
  given: Grower, size: int, leaves: int, is_slow: bool, rounds: int
) -> TreeSequence:
  """Grows a sequence.

  Args:
    given: the task.
    size: of the pool.
    leaves: of a tree.
    is_slow: whether trees learn slowly, each from some of the columns; more of
      them are then better than any number of quick ones.
    rounds: trees for each output, at most.
  """
  pool = _pool(given, size)
  rows = growing.grow(
    growing.cut(given.inputs.codes['train'], given.ranks, pool),
    given.todo,
    pool,
    {
      'num_leaves': leaves,
      'learning_rate': RATES[leaves],
      **(_SLOW if is_slow else {}),
    },
    rounds,
    given.seed,
  )
  joined = inputs.distinct(given.todo, given.sides('train', pool))
  return TreeSequence(pool, leaves, rows, *joined)


def _pool(given: Grower, size: int) -> list[Split]:
  """Returns the splits with the largest gain per byte, sorted."""
  if not given.gains:
    raise NotMadeError(
      f'task {given.todo.task.name!r}: no split of the training rows improves '
      'the loss, so that there is nothing to grow'
    )
  cuts: dict[int, list[int]] = {}
  left, found = dict(given.gains), list[Split]()

  def cost(split: Split) -> float:
    column, rank = split
    old = cuts.get(column, [])
    before = _bytes(given, column, old) if old else 0.0
    return max(_bytes(given, column, [*old, rank]) - before, 0.0)

  costs = {split: cost(split) for split in left}
  while left and len(found) < size:
    best = max(left, key=lambda split: left[split] / (costs[split] + _NODES))
    found.append(best)
    del left[best]
    cuts.setdefault(best[0], []).append(best[1])
    costs |= {split: cost(split) for split in left if split[0] == best[0]}
  return sorted(found)


def _bytes(given: Grower, column: int, cuts: Sequence[int]) -> float:
  """Estimates the bytes of the tables for a column that is cut at some ranks.

  A category column has a count and a seed, and for each value outside the
  largest group a hash and a bit; a number column a count, a format, and edges.
  """
  if column >= given.inputs.num_unordered:
    return 2 + 1.5 * len(cuts)
  parts = np.searchsorted(np.sort(cuts), given.ranks[column][1:])
  largest = int(np.max(np.bincount(parts), initial=0))
  return 2 + 9 / 8 * (len(parts) - largest)


def _full(
  nodes: Sequence[int], used: Sequence[int], codes: np.ndarray, num_leaves: int
) -> tree_bytes.Tree:
  """Returns a tree of `num_leaves` leaves.

  One that has fewer gets splits whose two sides are equal.
  """
  short = num_leaves - len(codes)
  places = {split: i for i, split in enumerate(used)}
  found = [places.get(node, -1) for node in nodes]
  first = found.index(-1)
  found[first : first + 1] = [0] * short + [-1] * (short + 1)
  return tree_bytes.Tree(tuple(found), (0,) * short + tuple(codes.tolist()))
