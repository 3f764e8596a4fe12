"""Looking inside: which experts the gates of a trained model use."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.types import Model, PyTree

# `{selector: {pool: [E_p]}}`, as `aux['gates']` but without rows.
Level = Mapping[str, Mapping[str, Any]]


def usage(
  model: Model, params: PyTree, features: PyTree, *, chunk_size: int = 1024
) -> Sequence[Level]:
  """The mean weight of every expert in every gate, over a table.

  Fit for jit.

  Args:
    model: see `lplmtl.types.Model`.
    params: its parameters.
    features: pytree of `[N, ...]`.
    chunk_size: rows at a time.

  Returns:
    A dict a level, `{selector: {pool: [E_p] float32}}`; the weights of a
    selector sum to 1. Empty for a model without gates.

  Raises:
    ValueError: no rows, or something else than a model and its parameters.

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
      'expected at least one row, and one at a time; found '
      f'{count} rows and chunk_size={chunk_size}'
    )
  size = min(chunk_size, count)
  num_chunks = -(-count // size)
  rows = jnp.arange(num_chunks * size)

  def total(rows: Any) -> Any:
    # The last chunk repeats the last row, which then counts once.
    chunk = jax.tree.map(lambda x: x[jnp.minimum(rows, count - 1)], features)
    gates = model.apply({'params': params}, chunk)[1].get('gates', ())
    counts = (rows < count).astype(jnp.float32)
    return jax.tree.map(lambda w: counts @ w, gates)

  sums = jax.lax.map(total, rows.reshape(num_chunks, size))
  return jax.tree.map(lambda x: x.sum(axis=0) / count, sums)


def peaks(level: Level) -> dict[str, np.ndarray]:
  """`{pool: [E_p]}`: the largest share that any gate gives an expert."""
  found: dict[str, np.ndarray] = {}
  for pools in level.values():
    for pool, weights in pools.items():
      own = np.asarray(weights)
      found[pool] = np.maximum(found.get(pool, own), own)
  return found


def collapsed(level: Level, least: float = 0.01) -> float:
  """The share of a level's experts that no gate gives as much as `least`.

  Args:
    level: of `usage`.
    least: mean weight below which an expert counts as unused by a gate.

  Returns:
    A number from 0 to 1; NaN where a weight is.

  Raises:
    ValueError: not one level, but all that `usage` returns.
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
