"""Removes the experts that the gates use least."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lplmtl import _checks
from lplmtl.compression import pools
from lplmtl.types import PyTree


def by_gate_use(
  model: Any, params: PyTree, use: Sequence[Any], num_experts: int
) -> tuple[Any, PyTree]:
  """Keeps the experts that the gates weigh most.

  An expert's use is the largest of its mean weights: the mean is over rows, the
  largest over the gates that mix it, so that an expert stays if one task needs
  it. Gates lose the columns of the experts that go, and the softmax runs over
  the others:

      g'(x)_e = g(x)_e / sum_{e' stays} g(x)_e'

  which is exactly the model whose gate logits of these experts are minus
  infinity. Every pool of shared experts keeps one expert at least; a level may
  lose all specific experts of a task.

  Args:
    model: an architecture whose experts are mixed by softmax gates only: OMoE,
      MMoE, StackedMMoE, CGC, PLE, SPLE or STEM.
    params: its trained parameters, of one seed.
    use: `lplmtl.inspection.usage(model, params, features)` on calibration rows.
    num_experts: the number of experts to keep, over all levels and pools.

  Returns:
    (model, params): the smaller model and its parameters, to be used as they
    are or fine-tuned by `fit(..., start=params)`.

  Raises:
    ValueError: the model has no experts, or experts that softmax gates do not
      fully control (AdaTT, DSelectK); the parameters are those of another model
      or of several seeds; or the number is out of range.

  Example:
    >>> import jax, lplmtl
    >>> from lplmtl import data, inspection, tasks
    >>> rows = data.clicks(100)
    >>> model = lplmtl.MMoE((tasks.binary('click'),), num_experts=4)
    >>> params = jax.jit(model.init)(jax.random.key(0), rows.features)['params']
    >>> use = inspection.usage(model, params, rows.features)
    >>> smaller, params = by_gate_use(model, params, use, 3)
    >>> smaller.num_experts, params['gate_click'].shape
    (3, (8, 3))
  """
  if not isinstance(use, Sequence):
    raise ValueError(
      'use must be what inspection.usage(model, params, features) returns, '
      f'found {type(use).__name__}'
    )
  levels = pools.sizes(use)
  everything = pools.stored(model, params, levels)
  kept = _choose(use, everything, num_experts, 'level_0' in params)
  return pools.keep(model, params, levels, kept)


def _choose(
  use: Sequence[Any],
  everything: pools.Kept,
  num_experts: Any,
  has_levels: bool,
) -> pools.Kept:
  """Returns the experts to keep: the most used, and the last of their kind."""
  ranked = []
  for i, (level, stored) in enumerate(zip(use, everything, strict=True)):
    for pool in stored:
      weights = [x[pool] for x in level.values() if pool in x]
      peaks = np.max(np.asarray(weights, np.float64), axis=0)
      ranked += [(peak, i, pool, e) for e, peak in enumerate(peaks)]
  if not np.isfinite([x[0] for x in ranked]).all():
    raise ValueError(
      'use must hold finite weights, found NaN: were the parameters trained, '
      'and the features encoded?'
    )
  ranked.sort(key=lambda x: x[0])
  kept = [{pool: set(x) for pool, x in level.items()} for level in everything]
  surplus = len(ranked)
  is_count = _checks.is_whole_number(num_experts)
  if is_count:
    surplus -= num_experts
    for _, i, pool, expert in ranked:
      if surplus > 0 and _may_go(kept[i], pool, has_levels):
        kept[i][pool].remove(expert)
        surplus -= 1
  if not is_count or surplus or num_experts > len(ranked):
    least = _least(everything, ranked, has_levels)
    raise ValueError(
      f'num_experts must be from {least}, so that every gate has an expert, to '
      f'the {len(ranked)} that there are; found {num_experts!r}'
    )
  return [{pool: tuple(sorted(x)) for pool, x in lv.items()} for lv in kept]


def _least(
  everything: pools.Kept, ranked: Sequence[Any], has_levels: bool
) -> int:
  kept = [{pool: set(x) for pool, x in level.items()} for level in everything]
  for _, i, pool, expert in ranked:
    if _may_go(kept[i], pool, has_levels):
      kept[i][pool].remove(expert)
  return sum(len(x) for level in kept for x in level.values())


def _may_go(kept: dict[str, set[int]], pool: str, has_levels: bool) -> bool:
  """Returns whether a pool can lose an expert.

  Architectures with levels may have no specific experts; STEM, which has none,
  needs one of each task.
  """
  if pool.startswith('expert_'):  # a pool for each expert of the level
    return sum(map(len, kept.values())) > 1
  is_specific = pool.startswith('specific_experts_')
  return (has_levels and is_specific) or len(kept[pool]) > 1
