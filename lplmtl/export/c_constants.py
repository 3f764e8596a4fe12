"""How constants are stored in C: in the fewest bytes that hold them."""

import math

import numpy as np

from lplmtl.export import c_memory
from lplmtl.export.nodes import Node
from lplmtl.export.program import Program

_MOST = 7  # the largest code of 4 bits
_FEW = 64  # numbers, of which the code that reads them takes more bytes
_LEAST = 2.0**-14  # the smallest float16 of 11 bits


def float16s(program: Program) -> frozenset[int]:
  """Returns the ids of constants that are stored as float16.

  Those with numbers that are such, as scales are, but operands of products,
  which are read as float32.

  Args:
    program: whose constants are looked at.
  """
  factors = {
    id(c_memory.source(x)[0])
    for node in program.operations
    if node.kind == 'matmul'
    for x in node.operands
  }
  found = {
    id(c): math.prod(c.shape)
    for c in program.constants
    if _is_float16(c) and id(c) not in factors
  }
  return frozenset(found if sum(found.values()) >= _FEW else ())


def _is_float16(constant: Node) -> bool:
  data = np.asarray(constant.data)
  if constant.dtype != 'float32' or data.size < 2:
    return False
  with np.errstate(over='ignore'):
    is_same = data == data.astype(np.float16)
  is_normal = (np.abs(data) >= _LEAST) | (data == 0)
  return bool((is_same & is_normal & np.isfinite(data)).all())


def runs(program: Program) -> dict[int, np.ndarray]:
  """Returns `{id: ends}` of constants that are stored as runs of a number.

  Those of whole numbers that are looked up alone, in which neighbours are
  equal: a run ends before the place `ends[i]`.

  Args:
    program: whose constants are looked at.
  """
  found = {}
  for constant in program.constants:
    data = np.asarray(constant.data)
    if constant.dtype != 'int32' or data.ndim != 1:
      continue
    uses = [
      (node.kind, i)
      for node in program.operations
      for i, x in enumerate(node.operands)
      if x is constant
    ]
    ends = np.append(np.flatnonzero(np.diff(data)) + 1, data.size)
    is_short = 3 * len(ends) + _FEW < data.size < 2**16
    if is_short and set(uses) == {('gather', 0)}:
      found[id(constant)] = ends.astype(np.uint16)
  return found


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
