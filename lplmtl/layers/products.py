"""One input times many kernels, as one matrix product."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl.types import Array

# Float32 numbers in a vector register of AVX-512; two registers of AVX2. A
# product whose width is no multiple ends in columns that are computed one by
# one: the three products of a training step with 398 columns (256 rows, 131
# inputs) take 1.08 to 1.09 times as long as those with 400.
_LANES = 16


def joined(
  x: Array,
  kernels: Sequence[Array],
  sizes: Sequence[int],
  *,
  bias: Array | None = None,
  dtype: Any = None,
  train: bool = False,
) -> list[Array]:
  """Returns `x [kernel, kernel, ...] + [bias, 0]`, cut into parts.

  In training, columns of zeros are computed as well where that makes the
  product faster, and the bias is added before the cut: the gradients of all
  parts are then one array, which the gradients of the kernels, of the bias and
  of x read.

  Args:
    x: `[B, D]`.
    kernels: `[D, G_i]` each, at least one.
    sizes: numbers of columns of the parts, as many in total as of the kernels.
    bias: of the first part; None for none.
    dtype: of the computation; None infers it.
    train: whether gradients will be taken.
  """
  x, *kernels = nn.dtypes.promote_dtype(x, *kernels, dtype=dtype)
  total = sum(sizes)
  more = -total % _LANES if train else 0
  if more * _LANES > total:  # over a sixteenth more to compute
    more = 0
  if more:
    kernels.append(jnp.zeros((x.shape[1], more), x.dtype))
  product = x @ join(kernels, axis=1)
  if bias is not None:
    bias = bias.astype(product.dtype)
  if bias is not None and train:
    zeros = jnp.zeros(total + more - len(bias), product.dtype)
    product = product + join([bias, zeros], axis=0)[None]
  parts = split(product, [*sizes, more] if more else sizes)[: len(sizes)]
  if bias is not None and not train:
    parts[0] = parts[0] + bias[None]
  return parts


def split(x: Array, sizes: Sequence[int]) -> list[Array]:
  """Splits axis 1 into parts of the given sizes.

  The gradient of a split is one concatenation; that of slices would be one
  padded array per slice, and their sum.
  """
  return list(jax.lax.split(x, tuple(sizes), axis=1))


def join(parts: Sequence[Array], axis: int) -> Array:
  """Concatenates arrays; a single one stays as it is."""
  return parts[0] if len(parts) == 1 else jax.lax.concatenate(parts, axis)
