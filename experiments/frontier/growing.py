"""Grows small trees with LightGBM, over a limited pool of splits.

A device stores each split of the pool once, and in every tree an index into it.
The pool holds the splits with the largest gain per byte in a first, larger
forest; the small trees are then grown on columns that are cut at these only.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.comparison import boosting
from experiments.frontier.inputs import Inputs, Targets

Split = tuple[int, int]  # (column, rank): goes right if the row's is larger
_FIXED = {
  'verbosity': -1, 'deterministic': True, 'force_row_wise': True,
  # Threads cost more than they bring on columns of a few bins.
  'num_threads': 1,
  'min_data_in_bin': 1, 'feature_pre_filter': False, 'min_data_in_leaf': 50,
  'bagging_freq': 1, 'bagging_fraction': 0.9,
}  # fmt: skip
_FIRST = {'num_leaves': 15, 'learning_rate': 0.1}
_FIRST_ROUNDS = 150
_OBJECTIVES = {
  'decisions': 'cross_entropy', 'number': 'regression', 'count': 'poisson',
}  # fmt: skip


class Tree(NamedTuple):
  """A tree of the n splits in `nodes`, in the order root, left, right.

  Attributes:
    nodes: for each node the index of its split in the pool, or -1 for a leaf.
    values: `[n + 1]` float64, of the leaves in the same order.
    output: which of the task's outputs it is added to.
  """

  nodes: tuple[int, ...]
  values: np.ndarray
  output: int

  @property
  def num_leaves(self) -> int:
    """The number of leaves; 1 if there was no split left to make."""
    return len(self.values)


def gains(
  inputs: Inputs, todo: Targets, ranks: Sequence[np.ndarray], seed: int
) -> dict[Split, float]:
  """Returns the gain of each split in a first forest."""
  pool = [
    (column, rank)
    for column, size in enumerate(inputs.sizes)
    for rank in _some(size - 1)
  ]
  found: dict[Split, float] = {}
  codes = cut(inputs.codes['train'], ranks, pool)
  cuts = _cuts(pool)
  for booster in boosters(codes, todo, _FIRST, _FIRST_ROUNDS, seed):
    for tree in _structures(booster):
      for node in _splits(tree):
        split = _split(node, cuts)
        found[split] = found.get(split, 0.0) + node['split_gain']
  return found


def cut(
  codes: np.ndarray, ranks: Sequence[np.ndarray], pool: Sequence[Split]
) -> np.ndarray:
  """Returns `[N, columns of the pool]`: how many splits a row is right of."""
  return np.stack(
    [
      np.searchsorted(kept, ranks[column])[codes[column]]
      for column, kept in _cuts(pool)
    ],
    axis=1,
  )


def grow(
  codes: np.ndarray,
  todo: Targets,
  pool: Sequence[Split],
  settings: dict[str, Any],
  rounds: int,
  seed: int,
) -> list[list[Tree]]:
  """Grows trees.

  Args:
    codes: `[N, columns of the pool]` ints, from `cut`.
    todo: what to learn.
    pool: sorted splits.
    settings: LightGBM's parameters.
    rounds: at most so many trees for each output.
    seed: of the random choice of rows.

  Returns:
    For each round the trees of the outputs, K in all.
  """
  places, cuts = {split: i for i, split in enumerate(pool)}, _cuts(pool)
  trained = boosters(codes, todo, settings, rounds, seed)
  num_outputs = todo.means.shape[1]
  flat = [
    [_tree(s, cuts, places) for s in _structures(booster)]
    for booster in trained
  ]
  if len(flat) == 1:  # of several outputs, one after the other
    trees = flat[0]
    rows = [
      trees[i : i + num_outputs] for i in range(0, len(trees), num_outputs)
    ]
  else:
    rows = [list(row) for row in zip(*flat, strict=False)]
  # Without a split left to make, LightGBM answers with single leaves.
  return [
    [tree._replace(output=k) for k, tree in enumerate(row)]
    for row in rows
    if any(tree.num_leaves > 1 for tree in row)
  ]


def sides(
  codes: np.ndarray, ranks: Sequence[np.ndarray], pool: Sequence[Split]
) -> np.ndarray:
  """Returns `[P, N]` bool, whether rows are right of the splits of a pool."""
  return np.stack(
    [(ranks[column] > rank)[codes[column]] for column, rank in pool]
  )


def _some(count: int) -> np.ndarray:
  """Returns all of `count` ranks, or 254 of them: LightGBM takes no more."""
  return np.unique(np.linspace(0, count - 1, min(count, 254)).astype(int))


def boosters(
  codes: np.ndarray,
  todo: Targets,
  settings: dict[str, Any],
  rounds: int,
  seed: int,
) -> list[Any]:
  """Trains one booster per output; one for all outputs of a softmax."""
  lightgbm = boosting.package()
  rows = todo.weights > 0
  means, weights = todo.means[rows], todo.weights[rows]
  given = {**_FIXED, **settings, 'seed': seed}

  def train(labels: np.ndarray, more: dict[str, Any]) -> Any:
    data = lightgbm.Dataset(
      codes[rows].astype(np.float64),
      labels,
      weight=None if (weights == 1).all() else weights,
      params=given,
    )
    return lightgbm.train({**given, **more}, data, rounds)

  if todo.link.kind == 'classes':
    return [train(means[:, 0], _softmax(means, weights))]
  objective = {'objective': _OBJECTIVES[todo.link.kind]}
  return [train(means[:, k], objective) for k in range(means.shape[1])]


def _softmax(means: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
  """Returns an objective: LightGBM's own takes no probabilities as labels."""
  num_outputs = means.shape[1]
  base = np.log(np.average(means, axis=0, weights=weights) + 1e-7)

  def objective(scores: np.ndarray, _: Any) -> tuple[np.ndarray, np.ndarray]:
    x = scores.reshape(-1, num_outputs) + base
    odds = np.exp(x - x.max(axis=1, keepdims=True))
    p = odds / odds.sum(axis=1, keepdims=True)
    # As LightGBM: with K outputs the diagonal of the curvature is too flat.
    factor = num_outputs / max(num_outputs - 1, 1)
    w = weights[:, None]
    return w * (p - means), w * factor * p * (1 - p)

  return {'objective': objective, 'num_class': num_outputs}


def _structures(booster: Any) -> list[dict[str, Any]]:
  return [t['tree_structure'] for t in booster.dump_model()['tree_info']]


def _splits(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
  if 'split_feature' in node:
    yield node
    yield from _splits(node['left_child'])
    yield from _splits(node['right_child'])


def _cuts(pool: Sequence[Split]) -> list[tuple[int, list[int]]]:
  """Returns the columns of a pool in order, and the sorted ranks of each."""
  columns: dict[int, list[int]] = {}
  for column, rank in sorted(pool):
    columns.setdefault(column, []).append(rank)
  return list(columns.items())


def _split(
  node: dict[str, Any], cuts: Sequence[tuple[int, list[int]]]
) -> Split:
  """Returns the split that a node makes."""
  column, ranks = cuts[node['split_feature']]
  return column, int(ranks[int(np.floor(node['threshold']))])


def _tree(
  structure: dict[str, Any],
  cuts: Sequence[tuple[int, list[int]]],
  places: dict[Split, int],
) -> Tree:
  nodes: list[int] = []
  values: list[float] = []

  def visit(node: dict[str, Any]) -> None:
    if 'split_feature' not in node:
      nodes.append(-1)
      values.append(node['leaf_value'])
      return
    nodes.append(places[_split(node, cuts)])
    visit(node['left_child'])
    visit(node['right_child'])

  visit(structure)
  return Tree(tuple(nodes), np.array(values), 0)
