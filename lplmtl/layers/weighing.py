"""Turns the logits of gates into weights, and sums what they weigh."""

import functools
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
# G gates over E experts are unrolled in training if they are up to so many
# terms, and are one contraction otherwise.
_TERMS = 64


def over_all(
  outputs: Mapping[str, Array],
  logits: Sequence[Array],
  pools: Sequence[Sequence[str]],
  *,
  train: bool = False,
) -> Mixed:
  """Mixes every expert in every gate, with weight 0 outside of its pools.

  All gates at once, which is the fastest as long as most see most experts.

  Args:
    outputs: `{pool: [B, E_p, ...]}`.
    logits: `[B, E]` of each gate, with a column for each of the E experts.
    pools: the names of the pools that each gate mixes.
    train: whether gradients will be taken.
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
  if train and len(logits) * pool.shape[1] <= _TERMS:
    flat = pool.reshape(*pool.shape[:2], -1)
    mixed = [x.reshape(-1, *pool.shape[2:]) for x in _sums(weights, flat)]
  else:
    mixed = unstack(
      jnp.einsum('bge,be...->bg...', weights.astype(pool.dtype), pool)
    )
  results = []
  for x, row, seen in zip(mixed, unstack(weights), pools, strict=True):
    parts = dict(zip(names, products.split(row, sizes), strict=True))
    results.append((x, {name: parts[name] for name in seen}))
  return results


@jax.custom_vjp
def _sums(weights: Array, pool: Array) -> list[Array]:
  """Returns what each of G gates mixes, `[B, H]`: sums of products, unrolled.

  XLA makes one loop of each, without the copies into and out of an array of
  all gates that a contraction needs on both sides; the contraction itself is
  too small to be fast.

  Args:
    weights: `[B, G, E]`.
    pool: `[B, E, H]`.
  """
  return _sums_forward(weights, pool)[0]


def _sums_forward(
  weights: Array, pool: Array
) -> tuple[list[Array], tuple[Array, Array]]:
  # Each gate reads both: XLA would repeat the softmax and the activation of the
  # experts in each loop, and the softmax for each of the H units.
  weights, pool = jax.lax.optimization_barrier((weights, pool))
  shares, values = _wide(weights, pool), _wide(pool)
  mixed = [
    functools.reduce(
      jnp.add,
      [shares[:, g, e, None] * values[:, e] for e in range(pool.shape[1])],
    )
    for g in range(weights.shape[1])
  ]
  return [x.astype(pool.dtype) for x in mixed], (weights, pool)


def _sums_backward(
  kept: tuple[Array, Array], grads: list[Array]
) -> tuple[Array, Array]:
  weights, pool = kept
  shares, values = _wide(weights, pool), _wide(pool)
  wide = [_wide(grad) for grad in grads]
  of_pool = functools.reduce(
    jnp.add,
    [shares[:, g, :, None] * grad[:, None] for g, grad in enumerate(wide)],
  )
  of_weights = [
    jax.lax.optimization_barrier(_total(grad[:, None] * values))
    for grad in wide
  ]
  return (
    jnp.stack(of_weights, axis=1).astype(weights.dtype),
    # What reads it is not a loop over [B, E, H], and would become a slow one.
    jax.lax.optimization_barrier(of_pool.astype(pool.dtype)),
  )


_sums.defvjp(_sums_forward, _sums_backward)


def _wide(x: Array, like: Array | None = None) -> Array:
  """Returns numbers in which to sum those of the dtype of `like`."""
  dtype = (x if like is None else like).dtype
  return x.astype(jnp.promote_types(dtype, jnp.float32))


def _total(x: Array) -> Array:
  """Sums the last axis, half to half: XLA adds one number after the other."""
  while x.shape[-1] % 2 == 0:
    half = x.shape[-1] // 2
    x = x[..., :half] + x[..., half:]
  return x.sum(axis=-1)


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
