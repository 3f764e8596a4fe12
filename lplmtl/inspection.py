"""Shows which experts the gates of a trained model use."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _alike, _checks
from lplmtl.training import merged
from lplmtl.types import Array, Model, PyTree

# `{gate: {pool: [E_p]}}`: an entry of `aux['gates']` without the rows.
Level = Mapping[str, Mapping[str, Any]]


def usage(
  model: Model, params: PyTree, features: PyTree, *, chunk_size: int = 1024
) -> Sequence[Level]:
  """Returns the mean weight of every expert in every gate over the rows.

  Can be called under jit.

  Args:
    model: see `lplmtl.types.Model`.
    params: parameters of the model.
    features: pytree of `[N, ...]`.
    chunk_size: number of rows per forward pass, which bounds the memory.

  Returns:
    One dict per level, `{gate: {pool: [E_p] float32}}`, where the key of a gate
    is its task or 'shared'; the weights of a gate sum to 1. Empty for a model
    without gates.

  Raises:
    ValueError: there are no rows, or the first arguments are not a model and
      its parameters.

  Example:
    >>> import lplmtl
    >>> from lplmtl import data, tasks
    >>> rows = data.clicks(100)
    >>> todo = tasks.binary('click'), tasks.binary('buy')
    >>> model = lplmtl.MMoE(todo, num_experts=4)
    >>> params = jax.jit(model.init)(jax.random.key(0), rows.features)['params']
    >>> mean_weights = usage(model, params, rows.features)[0]['buy']['experts']
    >>> mean_weights.shape, round(float(mean_weights.sum()), 3)
    ((4,), 1.0)
  """
  _checks.check_call(model, params, chunk_size)
  features = jax.tree.map(jnp.asarray, features)
  count = _checks.num_rows(features)
  if not count or chunk_size < 1:
    raise ValueError(
      'expected at least one row and a chunk_size of at least 1, found '
      f'{count} rows and chunk_size={chunk_size}'
    )
  size = min(chunk_size, count)
  num_chunks = -(-count // size)
  rows = jnp.arange(num_chunks * size)

  def share(chunk: PyTree, counts: Array) -> Any:
    gates = model.apply({'params': params}, chunk)[1].get('gates', ())
    return jax.tree.map(lambda w: counts @ w / count, gates)

  is_large = len(model.tasks) > _alike.FEW
  run = functools.partial(merged.run, share) if is_large else share

  def of_chunk(rows: Array) -> Any:
    # The last chunk is padded with copies of the last row, of weight 0.
    chunk = jax.tree.map(lambda x: x[jnp.minimum(rows, count - 1)], features)
    return run(chunk, (rows < count).astype(jnp.float32))

  parts = jax.lax.map(of_chunk, rows.reshape(num_chunks, size))
  return jax.tree.map(lambda x: x.sum(axis=0), parts)


def peaks(level: Level) -> dict[str, np.ndarray]:
  """Returns the largest weight any gate gives each expert, `{pool: [E_p]}`."""
  largest: dict[str, np.ndarray] = {}
  for pools in level.values():
    for pool, values in pools.items():
      weights = np.asarray(values)
      largest[pool] = np.maximum(largest.get(pool, weights), weights)
  return largest


def collapsed(level: Level, least: float = 0.01) -> float:
  """Returns the fraction of a level's experts that no gate uses.

  Args:
    level: one entry of what `usage` returns.
    least: mean weight below which a gate does not use an expert.

  Returns:
    A number from 0 to 1; NaN if any weight is NaN.

  Raises:
    ValueError: `level` is not a single level.
  """
  if not isinstance(level, Mapping):
    raise ValueError(
      'expected one level of what `usage` returns, usage(...)[0], found '
      f'{type(level).__name__}'
    )
  highest = np.concatenate(list(peaks(level).values()))
  if np.isnan(highest).any():
    return float('nan')
  return float((highest < least).mean())
