"""Scores raw rows from packed arrays with a device's integers. NumPy only.

For `SharedBottom` models of a `TabularEncoder`, with or without a
`CrossNetwork`, whose trunk and towers are MLPs with relu. What a port to a
device, in any language, is tested against: floats are added in the order of
inputs, each product rounded before it is added, so that a port which does the
same has the same bits.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl.columns import Column
from lplmtl.compression import device_rows, packing
from lplmtl.compression.integers import Integers
from lplmtl.compression.packing import Packed

Part = Mapping[str, Any]


def score(
  packed: Packed, columns: Mapping[Any, Column]
) -> dict[str, np.ndarray]:
  """Returns `{task: [B, K] float32 logits}` of raw rows.

  Args:
    packed: with tables.
    columns: `{name: Factor or [B]}`, with at least the columns of the tables.

  Raises:
    ValueError: the model is of another kind, or the rows cannot be read.
  """
  if packed.tables is None:
    raise ValueError('expected a model packed with its tables, found none')
  params = packing.unpack(packed)
  towers = {
    name.removeprefix('tower_'): tower
    for name, tower in params.items()
    if name.startswith('tower_')
  }
  if not towers or set(params) != {
    'encoder',
    *(f'tower_{name}' for name in towers),
    *{'bottom'} & set(params),
  }:
    raise _another_kind(params)
  ids, numbers = device_rows.encode(
    packed.sections, packed.tables, columns, packed.hash_bits
  )
  x = _cross(params['encoder'], ids, numbers)
  x = _layers(params.get('bottom', {}), x)
  return {
    name: _dense(tower['head'], _layers(tower.get('body', {}), x))
    for name, tower in towers.items()
  }


def _another_kind(params: Part) -> ValueError:
  return ValueError(
    'the reference scores SharedBottom models of MLPs with a TabularEncoder '
    '(folded steps, no positions) or a CrossNetwork of one; found the '
    f'parameters {sorted(params)}'
  )


def _cross(encoder: Part, ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
  """Returns `[B, D]`, behind a CrossNetwork if there is one."""
  table = encoder.get('encoder', encoder)
  if set(table) != {'embedding'}:
    raise _another_kind(table)
  first = x = _look_up(table['embedding'], ids, numbers)
  if table is not encoder:
    for i in range(len(encoder) // 2):
      down = _product(x, encoder[f'down_{i}']['kernel'])
      x = first * _dense(encoder[f'up_{i}'], down) + x
  return x


def _look_up(table: Any, ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
  """Returns `[B, D]`: the embeddings of a row, then its numbers."""
  if not isinstance(table, Integers):
    raise _another_kind({'embedding': table})
  rows = ids + np.cumsum((0, *table.sizes[:-1]))
  embedded = table.codes[rows].astype(np.float32) * table.scale
  return np.concatenate([embedded.reshape(len(ids), -1), numbers], axis=1)


def _layers(layers: Part, x: np.ndarray) -> np.ndarray:
  for i in range(len(layers)):
    if f'layer_{i}' not in layers:
      raise _another_kind(layers)
    x = np.maximum(_dense(layers[f'layer_{i}'], x), 0)
  return x


def _dense(layer: Part, x: np.ndarray) -> np.ndarray:
  bias = layer['bias']
  if isinstance(bias, Integers):
    bias = bias.values()
  return _product(x, layer['kernel']) + bias.astype(np.float32)


def _product(x: np.ndarray, kernel: Any) -> np.ndarray:
  """Returns `x @ kernel`; the kernel's scale comes last."""
  codes = kernel.codes if isinstance(kernel, Integers) else kernel
  if codes.shape[0] != x.shape[1]:
    raise ValueError(
      f'a layer reads {codes.shape[0]} numbers, found {x.shape[1]}: pack a '
      'model with the tables that it was trained with'
    )
  sums = _sums(x, codes)
  return sums * kernel.scale if isinstance(kernel, Integers) else sums


def _sums(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Returns `x @ weights` in float32, summed one input after the other."""
  total = np.zeros((len(x), weights.shape[1]), np.float32)
  for i, row in enumerate(weights.astype(np.float32)):
    total += x[:, i, None] * row
  return total
