"""The bytes of additive models, and the scores that they give.

| section | content |
|---|---|
| `weights` | of each column and output, id by id, 4 or 8 bits; id 0 has 0 |
| `scales` | of each column and output, the upper 16 bits of a float32 |
| `bases` | of each output, float32 |

and those of `lplmtl.compression.device_tables`, which tasks share.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.frontier import sharing
from experiments.frontier.inputs import Inputs
from experiments.frontier.sharing import Shared
from lplmtl.compression import bits as packing
from lplmtl.compression import device_tables

BITS = 4, 8  # of a weight


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
  scales, places = iter(upper.view('<f4')), dict.fromkeys(BITS, 0)
  counts = dict.fromkeys(BITS, 0)
  for model in models:
    for column, of in zip(shared.columns, shared.ids, strict=True):
      if column in model.weights:
        counts[model.bits] += len(model.bases) * int(of.max())
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


def _by_id(model: Columns, column: int, ids: np.ndarray) -> np.ndarray:
  """Returns `[K, ids]` weights; the first is 0 as that of its part is."""
  found = np.zeros((len(model.bases), int(ids.max()) + 1), int)
  codes = np.arange(len(ids))[::-1]
  found[:, ids[codes]] = model.weights[column][:, model.parts[column][codes]]
  return found
