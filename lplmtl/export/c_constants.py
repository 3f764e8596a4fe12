"""How constants are stored in C: in the fewest bytes that hold them."""

import numpy as np

from lplmtl.export.nodes import Node

_MOST = 7  # the largest code of 4 bits


def stored(constant: Node) -> np.ndarray:
  """Returns the numbers of a constant array as they are stored.

  Whole numbers become the smallest type that holds them all. Of codes `[..., K,
  N]` of up to 4 bits, a byte has two, each plus 7: of an even row the lower
  bits, of the next row the upper ones, so that a product of both rows reads
  bytes in order.

  Args:
    constant: a node.
  """
  data = np.asarray(constant.data)
  if is_halves(constant):
    odd = [(0, 0)] * (data.ndim - 2) + [(0, data.shape[-2] % 2), (0, 0)]
    halves = np.pad(data + _MOST, odd).astype(np.uint8)
    return halves[..., ::2, :] | halves[..., 1::2, :] << 4
  if constant.dtype != 'int32':
    return data
  kinds = (np.int8, np.uint8, np.int16, np.int32)
  return data.astype(
    next(kind for kind in kinds if (data == data.astype(kind)).all())
  )


def is_halves(constant: Node) -> bool:
  """Returns whether an array is stored as codes of 4 bits.

  Args:
    constant: a node.
  """
  if constant.dtype != 'int8':
    return False
  return bool(np.abs(np.asarray(constant.data)).max() <= _MOST)
