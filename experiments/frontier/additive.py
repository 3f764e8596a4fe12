"""The additive baseline: a weight for each bin and category.

Logistic regression for decisions, softmax and linear regression likewise. The
columns are taken one after the other, each time the one that improves the
training loss most per byte; weights of 8 or 4 bits have a scale per column.
Validation rows decide on columns, bins, bits, and on which categories are too
rare for a weight of their own.

| section | content |
|---|---|
| `weights` | of each column and output, id by id, 4 or 8 bits; id 0 has 0 |
| `scales` | of each column and output, the upper 16 bits of a float32 |
| `bases` | of each output, float32 |

and those of `lplmtl.compression.device_tables`, which tasks share.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.datasets.base import Data
from experiments.frontier import candidates as choosing
from experiments.frontier import inputs, refitting, sharing
from experiments.frontier.candidates import Candidate, Offer
from experiments.frontier.inputs import Inputs, Targets
from experiments.frontier.sharing import Shared
from lplmtl.compression import bits as packing
from lplmtl.compression import device_tables
from lplmtl.tables import UNSEEN

_BITS = (4, 8)
_BINS = (8, 16, 32, 64)  # of a number, at most
_ROWS = (0, 300)  # of a category that has a weight of its own, at least
_FIRST = 16, 100  # bins and rows, with which columns are put in order
_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)  # of columns
_RIDGE = 3.0
_PASSES = 4  # whenever columns are added


class Columns(NamedTuple):
  """An additive model of one task.

  Attributes:
    parts: `{column: [size] part of each code}`; equal ones share a weight.
    weights: `{column: [K, parts] ints}`.
    scales: `{column: [K] float32}`.
    bases: `[K]` float32.
    bits: of a weight.
    made: the settings, JSON data.
  """

  parts: dict[int, np.ndarray]
  weights: dict[int, np.ndarray]
  scales: dict[int, np.ndarray]
  bases: np.ndarray
  bits: int
  made: dict[str, Any]


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
    order = _order(rows, todo, _merged(rows, *_FIRST))
    points = []
    for num_bins, least in itertools.product(_BINS, _ROWS):
      parts = _merged(rows, num_bins, least)
      made = {'bins': num_bins, 'least': least}
      for model in _models(rows, todo, order, parts, made):
        shared, sections = pack(rows, [model])
        scores = score(sections, shared, [model], rows, 'validation')
        points.append(Offer(size(sections), measure(scores), model))
    fronts[task.name] = choosing.front(points)

  def models(choice: Mapping[str, Offer]) -> list[Columns]:
    return [point.model for point in choice.values()]

  chosen = choosing.split_all(
    fronts, budgets, lambda choice: size(pack(rows, models(choice))[1])
  )
  return {budget: _candidate(rows, choice) for budget, choice in chosen.items()}


def size(sections: Mapping[str, np.ndarray]) -> int:
  """Returns the bytes of all sections."""
  return sum(array.nbytes for array in sections.values())


def pack(
  rows: Inputs, models: Sequence[Columns]
) -> tuple[Shared, dict[str, np.ndarray]]:
  """Returns the tables that models share, and all sections."""
  shared = sharing.share(
    rows, [model.parts for model in models], keep_unseen=True
  )
  streams: dict[str, list[np.ndarray]] = {'scales': [], 'bases': []}
  for model in models:
    for column, ids in zip(shared.columns, shared.ids, strict=True):
      if column in model.weights:
        own = _by_id(model, column, ids)
        stream = f'weights{model.bits}'
        streams.setdefault(stream, []).append(own[:, 1:].ravel())
        streams['scales'].append(model.scales[column])
    streams['bases'].append(model.bases)
  joined = {name: np.concatenate(x) for name, x in streams.items() if x}
  sections = {
    name: packing.pack(array.astype(np.int8), int(name[7:]))
    for name, array in joined.items()
    if name.startswith('weights')
  }
  if 'scales' in joined:
    upper = joined['scales'].astype('<f4').view('<u4') >> 16
    sections['scales'] = upper.astype('<u2')
  sections['bases'] = joined['bases'].astype('<f4')
  return shared, sections | device_tables.pack(shared.tables, 8)


def score(
  sections: Mapping[str, np.ndarray],
  shared: Shared,
  models: Sequence[Columns],
  rows: Inputs,
  split: str,
) -> np.ndarray:
  """Returns `[N, K of all models]` float32 scores, from the sections.

  Of the models only the columns and the sizes are used.
  """
  ids = sharing.recode(shared, rows.codes[split]) if shared.columns else None
  upper = sections.get('scales', np.zeros(0, '<u2')).astype('<u4') << 16
  scales, places = iter(upper.view('<f4')), dict.fromkeys(_BITS, 0)
  counts = {
    bits: sum(
      sum(map(np.size, _stored(m, shared))) for m in models if m.bits == bits
    )
    for bits in _BITS
  }
  weights = {
    bits: packing.unpack(sections[f'weights{bits}'], bits, count)
    for bits, count in counts.items()
    if count
  }
  bases, found = iter(sections['bases']), []
  for model in models:
    num_outputs, num_rows = len(model.bases), rows.codes[split].shape[1]
    total = np.zeros((num_outputs, num_rows), np.float32)
    for place, (column, of) in enumerate(
      zip(shared.columns, shared.ids, strict=True)
    ):
      if column not in model.weights or ids is None:
        continue
      shape = num_outputs, int(of.max())
      start = places[model.bits]
      places[model.bits] += shape[0] * shape[1]
      flat = weights[model.bits][start : places[model.bits]]
      own = np.pad(flat.reshape(shape), ((0, 0), (1, 0)))  # id 0 has 0
      for k in range(num_outputs):
        total[k] += next(scales) * own[k][ids[place]]
    found.append(total.T + np.array([next(bases) for _ in model.bases]))
  return np.concatenate(found, axis=1).astype(np.float32)


def _stored(model: Columns, shared: Shared) -> list[np.ndarray]:
  return [
    _by_id(model, column, ids)[:, 1:]
    for column, ids in zip(shared.columns, shared.ids, strict=True)
    if column in model.weights
  ]


def _by_id(model: Columns, column: int, ids: np.ndarray) -> np.ndarray:
  """Returns `[K, ids]` weights; the first is 0 as that of its part is."""
  found = np.zeros((len(model.bases), int(ids.max()) + 1), int)
  codes = np.arange(len(ids))[::-1]
  found[:, ids[codes]] = model.weights[column][:, model.parts[column][codes]]
  return found


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
    is_common[counts.argmax()] = False
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
    for bits in _BITS:
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
  shared, sections = pack(rows, models)
  ends = np.cumsum([len(model.bases) for model in models])[:-1]
  outputs = []
  for split in ('validation', 'test'):
    scores = score(sections, shared, models, rows, split)
    parts = np.split(scores, ends, axis=1)
    outputs.append(dict(zip(choice, parts, strict=True)))
  settings = {
    name: {**point.model.made, 'bytes_alone': point.num_bytes}
    for name, point in choice.items()
  }
  return Candidate(size(sections), settings, *outputs)
