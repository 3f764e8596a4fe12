"""Whole numbers of any width, one after the other, from the lowest bit up."""

import numpy as np


def width(size: int) -> int:
  """Returns the bits of a number below `size`."""
  return (size - 1).bit_length()


class Writer:
  """Collects numbers; `content` is what was written."""

  def __init__(self) -> None:
    self._value, self.num_bits = 0, 0

  def write(self, number: int, size: int) -> None:
    """Appends a number below `size`."""
    if not 0 <= number < size:
      raise ValueError(f'expected a number from 0 to {size - 1}: {number}')
    self._value |= int(number) << self.num_bits
    self.num_bits += width(size)

  @property
  def content(self) -> np.ndarray:
    """The bytes, uint8."""
    length = -(-self.num_bits // 8)
    return np.frombuffer(self._value.to_bytes(length, 'little'), np.uint8)


class Reader:
  """Reads numbers in the order in which they were written."""

  def __init__(self, content: np.ndarray) -> None:
    self._value = int.from_bytes(content.tobytes(), 'little')
    self._place = 0

  def read(self, size: int) -> int:
    """Returns the next number, which is below `size`."""
    bits = width(size)
    number = self._value >> self._place & ((1 << bits) - 1)
    self._place += bits
    return number
