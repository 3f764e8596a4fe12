"""Codes and scales as bytes, densely packed, little endian. NumPy only."""

import numpy as np

# Five ternary digits take a byte: 3^5 = 243 of its 256 values.
_DIGITS = 3 ** np.arange(5)
# How far the bits of a float16 are shifted for a float of 8 bits: 5 bits of
# exponent, 3 of mantissa, no sign.
_SHIFT = 7


def max_code(bits: int) -> int:
  """Returns the largest code: codes lie between it and its negative."""
  return 2 ** (bits - 1) - 1


def num_bytes(count: int, bits: int) -> int:
  """Returns the bytes of `count` numbers of 2 (ternary), 3, 4, 8, ... bits."""
  return -(-count // len(_DIGITS)) if bits == 2 else -(-count * bits // 8)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
  """Packs codes into bytes.

  Codes of 8 bits are int8. Others are stored as `code + max_code(bits)`: those
  of 3 and 4 bits one after the other from the lowest bit of the first byte
  (of 4 bits, code k is in `byte[k / 2] >> 4 * (k % 2) & 15`), ternary ones five
  a byte, code k in `byte[k / 5] / 3^(k % 5) % 3`.

  Args:
    codes: int8 of any shape, packed in C order.
    bits: 2, 3, 4 or 8.

  Returns:
    uint8 `[num_bytes(codes.size, bits)]`.

  Example:
    >>> pack(np.array([-7, 7, 1], np.int8), 4).tolist()
    [224, 8]
  """
  flat = codes.ravel()
  if bits == 8:
    return flat.astype(np.int8).view(np.uint8)
  stored = (flat + max_code(bits)).astype(np.uint8)
  if bits == 2:
    padded = np.zeros(num_bytes(flat.size, 2) * len(_DIGITS), np.uint8)
    padded[: flat.size] = stored
    groups = padded.reshape(-1, len(_DIGITS))
    return (groups * _DIGITS).sum(axis=1).astype(np.uint8)
  each = np.unpackbits(stored[:, None], axis=1, bitorder='little')[:, :bits]
  return np.packbits(each.ravel(), bitorder='little')


def unpack(data: np.ndarray, bits: int, count: int) -> np.ndarray:
  """Returns `[count]` int8; the inverse of `pack`."""
  if bits == 8:
    return data[:count].view(np.int8)
  if bits == 2:
    stored = (data[:, None] // _DIGITS % 3).ravel()
  else:
    each = np.unpackbits(data, bitorder='little')[: count * bits]
    weights = 1 << np.arange(bits)
    stored = each.reshape(-1, bits) @ weights
  return (stored[:count].astype(np.int16) - max_code(bits)).astype(np.int8)


def pack_scales(scales: np.ndarray, bits: int) -> np.ndarray:
  """Packs positive scales into 8, 16 or 32 bits each.

  A scale of 8 bits is the upper half of those of a float16: in C, the float16
  whose bits are `byte << 7`.

  Args:
    scales: float32, rounded to that many bits.
    bits: 8, 16 or 32.

  Returns:
    uint8, float16 or float32 `[scales.size]`.
  """
  flat = scales.ravel()
  if bits == 8:
    halves = flat.astype('<f2').view('<u2')
    return (halves >> _SHIFT).astype(np.uint8)
  return flat.astype(f'<f{bits // 8}')


def unpack_scales(data: np.ndarray, bits: int) -> np.ndarray:
  """Returns float32 scales; the inverse of `pack_scales`."""
  if bits == 8:
    data = (data.astype('<u2') << _SHIFT).view('<f2')
  return data.astype(np.float32)
