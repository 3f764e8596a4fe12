"""From the trees of each task to the bytes that they share."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.frontier import sharing, tree_bytes
from experiments.frontier.growing import Split
from experiments.frontier.inputs import Inputs
from experiments.frontier.sharing import Shared
from experiments.frontier.tree_bytes import Forest, Packed


class Draft(NamedTuple):
  """The rounded trees of one output, in terms of a task's own ranks.

  Attributes:
    splits: those that its trees use: (column, rank), sorted.
    trees: of these.
    base: float32.
    scale: float32.
    bits: of a leaf.
  """

  splits: tuple[Split, ...]
  trees: tuple[tree_bytes.Tree, ...]
  base: float
  scale: float
  bits: int


def pack(
  inputs: Inputs, drafts: Iterable[tuple[Draft, Sequence[np.ndarray]]]
) -> tuple[Shared, Packed]:
  """Packs trees, each with the ranks of all columns in its task."""
  parts = [(draft, _parts(draft, ranks)) for draft, ranks in drafts]
  shared = sharing.share(inputs, [of for _, of in parts])
  return shared, tree_bytes.pack(shared, [_place(shared, *x) for x in parts])


def _parts(draft: Draft, ranks: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
  """Returns how many splits of each column the column's codes are above."""
  cuts: dict[int, list[int]] = {}
  for column, rank in draft.splits:
    cuts.setdefault(column, []).append(rank)
  return {c: np.searchsorted(kept, ranks[c]) for c, kept in cuts.items()}


def _place(
  shared: Shared, draft: Draft, parts: Mapping[int, np.ndarray]
) -> Forest:
  """Returns the trees in terms of shared ids."""
  places = {column: i for i, column in enumerate(shared.columns)}
  categories = shared.columns[: shared.num_categories]
  ranks = []
  for column, ids in zip(categories, shared.ids, strict=False):
    found = np.zeros(int(ids.max()) + 1, int)
    if column in parts:
      # Unseen values, the first code, count as the others of their group do.
      found[ids[0]] = parts[column][0]
      found[ids[1:]] = parts[column][1:]
    ranks.append(found)
  splits, seen = [], dict.fromkeys(parts, 0)
  for column, rank in draft.splits:
    place = places[column]
    if column in categories:
      splits.append((place, seen[column]))
      seen[column] += 1
    else:
      splits.append((place, int(shared.ids[place][rank])))
  return Forest(
    tuple(splits),
    tuple(ranks),
    draft.trees,
    draft.base,
    draft.scale,
    draft.bits,
  )
