"""Arrays of whole numbers that share scales. NumPy only."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Integers:
  """A quantised array.

  Attributes:
    codes: int8, the shape of the parameter.
    scale: float32, whose shape broadcasts to that of `codes`; or, of embeddings
      `[V, embed_dim]`, `[C, 1]`, one for each column.
    bits: of a code: 2 (ternary), 3, 4 or 8.
    scale_bits: of a scale: 8, 16 or 32, to which it has been rounded.
    sizes: the numbers of rows of the C columns; empty if `scale` broadcasts.
  """

  codes: np.ndarray
  scale: np.ndarray
  bits: int
  scale_bits: int = 32
  sizes: tuple[int, ...] = ()

  def values(self) -> np.ndarray:
    """Returns `codes * scale`, float32."""
    scale = self.scale
    if self.sizes:
      scale = np.repeat(scale, self.sizes, axis=0)
    return self.codes.astype(np.float32) * scale
