"""Trees as good as a network, and as few of them as that takes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.comparison import boosting
from experiments.datasets.base import Data
from experiments.launcher import kinds
from experiments.launcher.errors import InputError
from lplmtl.types import Batch, Task

LEAVES = (8, 16, 32)
# LightGBM's own rate, for few trees, with the samples of `comparison.plan`.
_PARAMETERS = {
  'feature_fraction': 0.8, 'bagging_fraction': 0.8, 'bagging_freq': 1,
}  # fmt: skip
# How far below the best of the trees they may be where none is as good as the
# network: a quarter of what makes no difference to a user (see `quality`).
SLACK = 0.0005


class Trees(NamedTuple):
  """The trees of a task.

  Attributes:
    booster: LightGBM's, with these trees alone.
    facts: `trees`, `leaves` of each, and the AUC of `validation` and `test`
      rows.
    inputs: of the test rows, `[N, M]` float64.
  """

  booster: Any
  facts: dict[str, float]
  inputs: np.ndarray


def check(tasks: tuple[Task, ...]) -> None:
  """Raises InputError if LightGBM is missing, or tasks are not binary."""
  boosting.package()
  others = [task.name for task in tasks if kinds.of(task) != kinds.BINARY]
  if others:
    raise InputError(
      f'trees of equal AUC are for binary tasks, and {others[0]} is none: '
      'leave them out with --notrees'
    )


def score(task: Task, outputs: np.ndarray, rows: Batch) -> float:
  """Returns the primary metric alone: others take seconds to compile.

  Args:
    task: the task.
    outputs: its logits, `[N, K]`.
    rows: with the labels.
  """
  metric_fns = dict([*task.metric_fns.items()][:1])
  task = dataclasses.replace(task, metric_fns=metric_fns)
  (values,) = boosting.score(task, outputs[np.newaxis], rows).values()
  return float(values[0])


def grow(task: Task, data: Data, target: float, seed: int) -> Trees:
  """Returns trees that are as good as a network.

  Args:
    task: a binary one.
    data: rows encoded without bins.
    target: validation AUC of the network.
    seed: of the random choice of rows and columns.
  """
  grown = {
    leaves: boosting.grow(
      {**_PARAMETERS, 'num_leaves': leaves}, task, data, seed
    )
    for leaves in LEAVES
  }
  history = {leaves: found.history[0] for leaves, found in grown.items()}
  leaves, rounds = choose(history, target)
  return _cut(task, data, grown[leaves], rounds, leaves)


def choose(
  history: Mapping[int, Sequence[float]], target: float
) -> tuple[int, int]:
  """Returns the leaves and the rounds that compare least often.

  Of each number of leaves, the fewest rounds whose AUC reaches the target
  count; if none does, those that come close to the best of all.

  Args:
    history: `{leaves: AUC after each round}`.
    target: an AUC.
  """
  best = max(map(max, history.values()))
  least = target if best >= target else best - SLACK
  rounds = {
    leaves: int(np.argmax(np.asarray(found) >= least)) + 1
    for leaves, found in history.items()
    if max(found) >= least
  }
  # A tree of n leaves compares about log2(n) times.
  return min(rounds.items(), key=lambda item: item[1] * math.log2(item[0]))


def _cut(
  task: Task, data: Data, grown: boosting.Grown, rounds: int, leaves: int
) -> Trees:
  text = grown.boosters[0].model_to_string(num_iteration=rounds)
  booster = boosting.package().Booster(model_str=text)
  inputs = grown.encode(data.test)
  outputs = booster.predict(inputs, raw_score=True)[:, np.newaxis]
  facts = {
    'trees': booster.num_trees(),
    'leaves': leaves,
    'validation': grown.history[0][rounds - 1],
    'test': score(task, outputs, data.test),
  }
  return Trees(booster, facts, inputs)
