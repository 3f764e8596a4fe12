"""The additive baseline: a weight for each bin and category.

Logistic regression for decisions, softmax and linear regression likewise. The
columns are taken one after the other, each time the one that improves the
training loss most per byte; weights of 8 or 4 bits have a scale per column.
Validation rows decide on columns, bins, bits, and on which categories are too
rare for a weight of their own.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.datasets.base import Data
from experiments.frontier import additive_bytes, inputs, refitting
from experiments.frontier import candidates as choosing
from experiments.frontier.additive_bytes import Columns
from experiments.frontier.candidates import Candidate, Offer
from experiments.frontier.inputs import Inputs, Targets
from lplmtl.tables import UNSEEN

_BINS = (8, 16, 32, 64)  # of a number, at most
_ROWS = (0, 300)  # of a category that has a weight of its own, at least
_FIRST = 16, 100  # bins and rows, with which columns are put in order,
_SHARE = 0.01  # of a table's rows, where that is fewer
_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)  # of columns
_RIDGE = 3.0
_PASSES = 4  # whenever columns are added


def candidates(
  data: Data,
  budgets: Sequence[int],
  *,
  teacher: Mapping[str, np.ndarray] | None = None,
) -> dict[int, Candidate]:
  """Returns the best additive models that fit each budget.

  Nothing in them is random. Takes the arguments of `trees.candidates`, and
  raises the same errors.
  """
  rows = inputs.encode(data)
  fronts = {}
  for task in data.tasks:
    todo = inputs.targets(data, task, teacher)
    measure = choosing.measure(task, data.validation)
    order = _order(rows, todo, _first_parts(rows))
    points = []
    for num_bins, least in itertools.product(_BINS, _ROWS):
      parts = _merged(rows, num_bins, least)
      made = {'bins': num_bins, 'least': least}
      for model in _models(rows, todo, order, parts, made):
        shared, sections = additive_bytes.pack(rows, [model])
        scores = additive_bytes.score(
          sections, shared, [model], rows, 'validation'
        )
        points.append(
          Offer(additive_bytes.size(sections), measure(scores), model)
        )
    fronts[task.name] = choosing.front(points)

  def models(choice: Mapping[str, Offer]) -> list[Columns]:
    return [point.model for point in choice.values()]

  chosen = choosing.split_all(
    fronts,
    budgets,
    lambda choice: additive_bytes.size(
      additive_bytes.pack(rows, models(choice))[1]
    ),
  )
  return {budget: _candidate(rows, choice) for budget, choice in chosen.items()}


def _first_parts(rows: Inputs) -> list[np.ndarray]:
  num_bins, least = _FIRST
  num_rows = rows.codes['train'].shape[1]
  return _merged(rows, num_bins, min(least, int(_SHARE * num_rows)))


def _merged(rows: Inputs, num_bins: int, least: int) -> list[np.ndarray]:
  """Returns the part of each code of all columns.

  Neighbouring bins are joined, equally many each: those of the tables have
  equally many rows, but for frequent numbers, which have their own. Rare
  categories, and unseen ones, count as the most frequent one, which has part 0.
  """
  found = []
  for column, size_of in enumerate(rows.sizes):
    counts = np.bincount(rows.codes['train'][column], minlength=size_of)
    if column >= rows.num_unordered:
      found.append(np.arange(size_of) * min(num_bins, size_of) // size_of)
      continue
    is_common = (counts >= max(least, 1)) & (np.arange(size_of) != UNSEEN)
    is_common[np.argmax(counts)] = False
    parts = np.zeros(size_of, int)
    parts[is_common] = np.arange(1, is_common.sum() + 1)
    found.append(parts)
  return found


def _order(
  rows: Inputs, todo: Targets, parts: Sequence[np.ndarray]
) -> list[int]:
  """Orders columns: each time the one that gains most per byte, by itself."""
  codes = {
    c: of[rows.codes['train'][c]] for c, of in enumerate(parts) if of.max()
  }
  state = refitting.start(todo)
  order: list[int] = []
  for _ in codes:
    slopes = [refitting.derivatives(state, k) for k in range(len(state.scores))]
    best, steps, most = -1, [], -1.0
    for column in codes.keys() - set(order):
      own, gain = [], 0.0
      for slope, curve in slopes:
        sums = np.bincount(codes[column], slope)
        step = sums / (np.bincount(codes[column], curve) + _RIDGE)
        own.append(step)
        gain += float(step @ sums)
      gain /= _num_bytes(rows, column, int(parts[column].max()))
      if gain > most:
        best, steps, most = column, own, gain
    order.append(best)
    for scores, step in zip(state.scores, steps, strict=True):
      scores += step[codes[best]].astype(np.float32)
  return order


def _num_bytes(rows: Inputs, column: int, num_weights: int) -> float:
  """Estimates the bytes of a column with 4-bit weights."""
  each = 9 / 8 if column < rows.num_unordered else 1.5
  return 4 + (each + 0.5) * num_weights


def _models(
  rows: Inputs,
  todo: Targets,
  order: Sequence[int],
  parts: Sequence[np.ndarray],
  made: dict[str, Any],
) -> Iterator[Columns]:
  """Yields the models of the first columns of an order."""
  order = [column for column in order if parts[column].max()]
  num_outputs = todo.means.shape[1]
  groups: list[refitting.Group] = []
  for count in (*(n for n in _COUNTS if n < len(order)), len(order)):
    used = order[:count]
    groups += [
      refitting.Group(
        parts[c][rows.codes['train'][c]], np.zeros(parts[c].max() + 1), k
      )
      for c in order[len(groups) // num_outputs : count]
      for k in range(num_outputs)
    ]
    groups = refitting.settle(groups, todo, ridge=_RIDGE, passes=_PASSES)
    for bits in additive_bytes.BITS:
      rounded = refitting.refit(
        groups, todo, bits, ridge=_RIDGE, own_scales=True
      )
      weights = iter(rounded.codes)
      scales = rounded.scales.reshape(count, num_outputs)
      yield Columns(
        {c: parts[c] for c in used},
        {
          c: np.stack([next(weights) for _ in range(num_outputs)]) for c in used
        },
        dict(zip(used, scales, strict=True)),
        rounded.bases,
        bits,
        {**made, 'columns': count, 'bits': bits},
      )


def _candidate(rows: Inputs, choice: Mapping[str, Offer]) -> Candidate:
  models = [point.model for point in choice.values()]
  shared, sections = additive_bytes.pack(rows, models)
  ends = np.cumsum([len(model.bases) for model in models])[:-1]
  outputs = []
  for split in ('validation', 'test'):
    scores = additive_bytes.score(sections, shared, models, rows, split)
    parts = np.split(scores, ends, axis=1)
    outputs.append(dict(zip(choice, parts, strict=True)))
  settings = {
    name: {**point.model.made, 'bytes_alone': point.num_bytes}
    for name, point in choice.items()
  }
  return Candidate(additive_bytes.size(sections), settings, *outputs)
