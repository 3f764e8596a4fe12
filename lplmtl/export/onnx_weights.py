"""Weights of few bits as int8, a quarter of the bytes.

They are cast to float32 and multiplied by their scales, which a runtime does
once, when it loads the file, and to the bit. `DequantizeLinear` would say the
same, but onnxruntime 1.32 replaces it and a product by one that rounds the
inputs to 8 bits, too: probabilities of an SPLE were off by .02.
"""

from typing import Any

import jax
import numpy as np

from lplmtl.compression.integers import Integers
from lplmtl.export.onnx_graph import TYPES, Graph
from lplmtl.types import PyTree

_MOST = 127  # the largest code of int8
_FEW = 64  # numbers: of fewer, two nodes and scales would take more bytes


def scales_of(frozen: PyTree) -> np.ndarray:
  """Returns all scales of what `quantization.freeze` returned, largest first.

  Args:
    frozen: a pytree with Integers; None has none.
  """
  is_leaf = lambda leaf: isinstance(leaf, Integers)  # noqa: E731
  found = [
    leaf.scale.ravel()
    for leaf in jax.tree.leaves(frozen, is_leaf=is_leaf)
    if is_leaf(leaf)
  ]
  return np.unique(np.concatenate(found))[::-1] if found else np.zeros(0)


def constant(graph: Graph, data: np.ndarray, scales: np.ndarray) -> str:
  """Adds a constant, a matrix as int8 if it consists of codes.

  A graph moves and joins the weights of a model, so that what is `codes *
  scale` is found by its numbers: each column `[K]` of matrices `[..., K, N]`,
  or each row of a table, has whole multiples of one of the scales.

  Args:
    graph: is extended.
    data: the constant.
    scales: of the model, float32.
  """
  is_matrix = data.dtype == np.float32 and data.ndim > 1
  if is_matrix and data.size >= _FEW and len(scales):
    for axis in (-2, -1):
      found = _codes(np.moveaxis(data, axis, -1), scales)
      if found is not None:
        codes, scale = found
        codes = graph.constant(np.moveaxis(codes, -1, axis))
        scale = graph.constant(np.moveaxis(scale, -1, axis))
        return graph.add(
          'Mul', graph.add('Cast', codes, to=TYPES['float32']), scale
        )
  return graph.constant(data)


def _codes(vectors: np.ndarray, scales: np.ndarray) -> Any:
  """Returns codes and scales, `[..., K]` and `[..., 1]`; None without them."""
  rows = vectors.reshape(-1, vectors.shape[-1])
  codes = np.zeros(rows.shape, np.int8)
  scale = np.zeros(len(rows), np.float32)
  for one in scales:
    (left,) = np.nonzero(scale == 0)
    whole = np.rint(rows[left] / one)
    is_same = (whole * one == rows[left]) & (np.abs(whole) <= _MOST)
    fits = is_same.all(axis=1)
    codes[left[fits]] = whole[fits]
    scale[left[fits]] = one
  if (scale == 0).any():
    return None
  return codes.reshape(vectors.shape), scale.reshape(*vectors.shape[:-1], 1)
