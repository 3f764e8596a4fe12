"""Turns the logits of gates into weights, and sums what they weigh."""

import itertools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _alike
from lplmtl.layers import products
from lplmtl.types import Array

Weights = dict[str, Array]
Mixed = list[tuple[Array, Weights]]


def over_all(
  outputs: Mapping[str, Array],
  logits: Sequence[Array],
  pools: Sequence[Sequence[str]],
) -> Mixed:
  """Mixes every expert in every gate, with weight 0 outside of its pools.

  One contraction, which is the fastest as long as most gates see most experts.

  Args:
    outputs: `{pool: [B, E_p, ...]}`.
    logits: `[B, E]` of each gate, with a column for each of the E experts.
    pools: the names of the pools that each gate mixes.
  """
  names = tuple(outputs)
  sizes = [outputs[name].shape[1] for name in names]
  allowed = np.array([[name in seen for name in names] for seen in pools])
  joined = _alike.stack([x.astype(jnp.float32) for x in logits], axis=1)
  if not allowed.all():
    mask = np.repeat(allowed, sizes, axis=1)
    joined = jnp.where(mask[None], joined, -jnp.inf)
  weights = jax.nn.softmax(joined, axis=-1)
  pool = jnp.concatenate(list(outputs.values()), axis=1)
  mixed = jnp.einsum('bge,be...->bg...', weights.astype(pool.dtype), pool)
  results = []
  for x, row, seen in zip(unstack(mixed), unstack(weights), pools, strict=True):
    parts = dict(zip(names, products.split(row, sizes), strict=True))
    results.append((x, {name: parts[name] for name in seen}))
  return results


def over_own(
  outputs: Mapping[str, Array],
  logits: Sequence[Array],
  pools: Sequence[Sequence[str]],
) -> Mixed:
  """Mixes in each gate the experts of its pools, and computes no others.

  Takes the arguments of `over_all`, but logits `[B, E_g]`, with a column for
  each expert that the gate mixes.
  """
  results: dict[int, tuple[Array, Weights]] = {}
  kinds = [tuple(outputs[name].shape[1] for name in seen) for seen in pools]
  for kind in _alike.groups(kinds):
    joined = _alike.stack([logits[i] for i in kind])
    found = _over_equal(outputs, joined, [pools[i] for i in kind])
    results |= zip(kind, found, strict=True)
  return [results[i] for i in range(len(logits))]


def _over_equal(
  outputs: Mapping[str, Array], logits: Array, pools: Sequence[Sequence[str]]
) -> Mixed:
  """Mixes in G gates over equally many pools of equal sizes.

  Args:
    outputs: `{pool: [B, E_p, ...]}`.
    logits: `[G, B, E_g]`.
    pools: the names of the pools that each gate mixes.
  """
  weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
  places = list(zip(*pools, strict=True))  # per place, the pool of each gate
  sizes = [outputs[names[0]].shape[1] for names in places]
  parts = jax.lax.split(weights, sizes, axis=-1)
  # Pools that all gates mix, such as shared experts, need not be stacked.
  runs = itertools.groupby(
    zip(places, parts, strict=True), lambda pair: len(set(pair[0])) == 1
  )
  terms = []
  for is_common, run in runs:
    columns, shares = zip(*run, strict=True)
    if is_common:
      pool = jnp.concatenate([outputs[names[0]] for names in columns], axis=1)
      share = jnp.concatenate(shares, axis=-1).astype(pool.dtype)
      terms.append(jnp.einsum('gbe,be...->gb...', share, pool))
      continue
    for names, share in zip(columns, shares, strict=True):
      pool = _alike.stack([outputs[name] for name in names])
      share = share.astype(pool.dtype)
      terms.append(jnp.einsum('gbe,gbe...->gb...', share, pool))
  by_place = [_alike.unstack(part, len(pools)) for part in parts]
  return [
    (x, dict(zip(seen, shares, strict=True)))
    for x, seen, *shares in zip(
      _alike.unstack(sum(terms[1:], terms[0]), len(pools)),
      pools,
      *by_place,
      strict=True,
    )
  ]


def unstack(x: Array) -> list[Array]:
  """Splits `[B, G, ...]` into G arrays `[B, ...]`."""
  return [part.squeeze(1) for part in products.split(x, (1,) * x.shape[1])]
