"""What the metrics share: masked means, and checks of shapes."""

import jax.numpy as jnp

from lplmtl.types import Array


def to_float(values: Array) -> Array:
  """Casts to float32."""
  return values.astype(jnp.float32)


def or_one(total: Array) -> Array:
  """Returns `total`, or 1 in place of 0: a safe divisor."""
  return jnp.where(total > 0, total, 1)


def as_mask(values: Array, where: Array | None) -> Array:
  """Returns `where`, or a mask of all rows in place of None."""
  return jnp.ones(values.shape[:1], bool) if where is None else where


def mean(values: Array, where: Array | None) -> Array:
  """Returns the mean of the rows that count; NaN if none does."""
  mask = as_mask(values, where)
  total = to_float(jnp.sum(mask))
  average = jnp.sum(jnp.where(mask, values, 0)) / or_one(total)
  return jnp.where(total > 0, average, jnp.nan)


def variance(values: Array, where: Array | None) -> Array:
  """Returns the variance of the rows that count; exactly 0 if they are equal.

  Relative to the smallest value: the mean of equal values is rounded, but their
  distances are exactly 0; and values far from 0 lose no digits.
  """
  mask = as_mask(values, where)
  distances = values - jnp.min(values, initial=jnp.inf, where=mask)
  distances = jnp.where(mask, distances, 0.0)
  return mean(jnp.square(distances - mean(distances, where)), where)


def column(values: Array) -> Array:
  """Returns `[N]` for `[N]` or `[N, 1]`; raises ValueError for others."""
  if values.ndim == 2 and values.shape[1] == 1:
    return values[:, 0]
  if values.ndim == 1:
    return values
  raise ValueError(f'expected shape [N] or [N, 1], found {values.shape}')


def check_labels(outputs: Array, labels: Array) -> None:
  """Raises ValueError unless labels are `[N]`, one for each row of outputs."""
  if labels.shape != outputs.shape[:1]:
    raise ValueError(
      f'expected labels of shape {outputs.shape[:1]}, found {labels.shape}'
    )


def unless_nan(values: Array, outputs: Array) -> Array:
  """Replaces `[N]` values of decisions by NaN in rows whose outputs are NaN.

  Comparisons would silently turn NaN into a class.
  """
  is_nan = jnp.isnan(outputs).reshape(outputs.shape[0], -1).any(axis=1)
  return jnp.where(is_nan, jnp.nan, to_float(values))
