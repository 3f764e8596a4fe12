"""Removes experts from pools, with their columns in the gates that mix them.

Reads no architecture: only the names that `lplmtl.layers.mixture` and the
levels above it give to parameters, and the fields that count experts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lplmtl import _checks
from lplmtl.types import PyTree

# Per level, `{pool: numbers of the experts that stay}`.
Kept = Sequence[Mapping[str, tuple[int, ...]]]
# `{gate: {pool: number of experts}}` of one level.
Sizes = Mapping[str, Mapping[str, int]]

_SPECIFIC = 'specific_experts_'
# One pool for each expert, of a level whose experts read different inputs.
_SINGLE = 'expert_'


def sizes(use: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[Sizes]:
  """Returns the number of experts in every pool of every gate, by level."""
  return [
    {
      gate: {pool: len(weights) for pool, weights in pools.items()}
      for gate, pools in level.items()
    }
    for level in use
  ]


def stored(model: Any, params: PyTree, levels: Sequence[Sizes]) -> Kept:
  """Returns all experts that have parameters, those that pruning may remove.

  Raises:
    ValueError: the gates are not softmax gates over pools, or the levels are
      not those of these parameters.
  """
  _checks.check_call(model, params)
  kind = type(model).__name__
  fields = getattr(type(model), '__dataclass_fields__', {})
  if 'model' in fields:
    raise ValueError(
      f'expected a model with experts, found {kind}: prune the model inside '
      'before it is wrapped'
    )
  if not levels:
    raise ValueError(f'{kind} has no gates, and so no experts to prune')
  found = []
  for i, level in enumerate(levels):
    scope, pools = _scope(params, i), _pools(level)
    found.append({n: tuple(range(k)) for n, k in pools.items() if n in scope})
    for pool, count in pools.items():
      lengths = {x.shape[:1] for x in jax.tree.leaves(scope.get(pool, ()))}
      is_given = pool in _names(model)  # what the level below passes on
      if lengths - {(count,)} or (not lengths and not is_given):
        raise ValueError(
          f'the gates use {count} experts {pool!r} at level {i}, the '
          f'parameters hold {_describe(lengths)}: pass the parameters of one '
          'seed, and the use of the same model'
        )
    others = {x for x in scope if x.startswith('native_')}
    if others or not _counted(fields, pools):
      raise ValueError(
        f'cannot prune experts of {kind}: they also reach the tasks by '
        f'{sorted(others) or sorted(pools)}, not only by softmax gates'
      )
    for gate, weighed in level.items():
      _check_gate(kind, scope, i, gate, sum(weighed.values()))
  return found


def keep(
  model: Any, params: PyTree, levels: Sequence[Sizes], kept: Kept
) -> tuple[Any, PyTree]:
  """Keeps some experts; returns a smaller model and its parameters.

  The gates lose a column for each expert that goes, so that the softmax runs
  over the others: what setting the logits of the experts to minus infinity
  gives.

  Args:
    model: a model with softmax gates over pools.
    params: its parameters, of one seed.
    levels: from `sizes`.
    kept: like what `stored` returns, with fewer experts.
  """
  new = dict(params)
  for i, level in enumerate(levels):
    scope = _scope(params, i)
    above = kept[i + 1] if i + 1 < len(levels) else {}
    pruned = _prune(scope, level, kept[i], above, _names(model))
    if scope is params:
      new = pruned
    else:
      new[f'level_{i}'] = pruned
  return model.clone(**_fields(model, kept)), new


def _prune(
  scope: Mapping[str, Any],
  level: Sizes,
  kept: Mapping[str, tuple[int, ...]],
  above: Mapping[str, tuple[int, ...]],
  tasks: Sequence[str],
) -> dict[str, Any]:
  """Returns the parameters of one level with some of its experts."""
  gates = {_gate_name(scope, gate): gate for gate in level}
  new = {}
  for name, part in scope.items():
    gate = gates.get(name) or gates.get(name.removeprefix('hidden_'))
    if name in kept:
      if kept[name]:
        rows = np.array(kept[name])
        part = jax.tree.map(lambda x, rows=rows: _take(x, rows, 0), part)
        new[_renumbered(name, kept)] = part
    elif gate is None:
      new[name] = part
    elif above.get(gate, (0,)):
      columns = _columns(level[gate], kept, tasks)
      # A gate over one expert has no parameters.
      if len(columns) > 1:
        is_kernel = not name.startswith('hidden_')
        part = _take(part, columns, 1) if is_kernel else part
        new[name.replace(gate, _renumbered(gate, above))] = part
  return new


def _take(x: Any, numbers: np.ndarray, axis: int) -> Any:
  """Returns part of an array, taken by NumPy: JAX compiles each shape first."""
  part = np.take(np.asarray(x), numbers, axis)
  return jax.device_put(part) if isinstance(x, jax.Array) else part


def _columns(
  weighed: Mapping[str, int],
  kept: Mapping[str, tuple[int, ...]],
  tasks: Sequence[str],
) -> np.ndarray:
  """Returns a gate's columns that stay.

  They follow the order of its pools: the tasks' own ones, then the shared one.
  """

  def position(pool: str) -> tuple[bool, int]:
    if pool.startswith(_SINGLE):
      return False, int(pool.removeprefix(_SINGLE))
    task = pool.removeprefix(_SPECIFIC)
    return task not in tasks, tasks.index(task) if task in tasks else 0

  columns, first = [], 0
  for pool in sorted(weighed, key=position):
    stay = kept.get(pool, range(weighed[pool]))
    columns += [first + expert for expert in stay]
    first += weighed[pool]
  return np.array(columns)


def _renumbered(name: str, kept: Mapping[str, tuple[int, ...]]) -> str:
  """Returns `expert_<j>` with j counted among those that stay."""
  if not name.startswith(_SINGLE) or name not in kept:
    return name
  stay = sorted(int(k.removeprefix(_SINGLE)) for k, v in kept.items() if v)
  return f'{_SINGLE}{stay.index(int(name.removeprefix(_SINGLE)))}'


def _fields(model: Any, kept: Kept) -> dict[str, Any]:
  """Returns the fields of the smaller model that count experts."""
  rows = [
    tuple(len(level.get(_SPECIFIC + task, ())) for task in _names(model))
    for level in kept
  ]
  shared = [len(level.get('shared_experts', ())) for level in kept]
  counts = [sum(map(len, level.values())) for level in kept]
  own = set(type(model).__dataclass_fields__)
  if 'num_experts' in own:
    return {'num_experts': _by_level(model, counts)}
  fields: dict[str, Any] = {}
  if 'num_top' in own:
    fields['num_top'] = shared.pop()
    rows.pop()
  fields['num_specific'] = _by_level(model, rows)
  return {**fields, 'num_shared': _by_level(model, shared)}


def _by_level(model: Any, counts: Sequence[Any]) -> Any:
  return tuple(counts) if hasattr(model, 'levels') else counts[0]


def _counted(fields: Mapping[str, Any], pools: Iterable[str]) -> bool:
  """Returns whether the model has the fields that count these pools."""
  plain = {'experts', *(p for p in pools if p.startswith(_SINGLE))}
  if 'num_experts' in fields:
    return set(pools) <= plain
  others = set(pools) - {'shared_experts'}
  has_own = {'num_specific', 'num_shared'} <= set(fields)
  return has_own and not any(p.startswith('experts') for p in others)


def _check_gate(
  kind: str, scope: Mapping[str, Any], level: int, gate: str, count: int
) -> None:
  kernel = scope.get(_gate_name(scope, gate))
  if count == 1 and kernel is None:
    return
  shape = getattr(kernel, 'shape', None)
  if shape is None or len(shape) != 2 or shape[1] != count:
    found = 'none' if kernel is None else f'the shape {shape}'
    if isinstance(kernel, Mapping):
      found = f'{sorted(kernel)}'
    raise ValueError(
      f'the gate {gate!r} of {kind} at level {level} must have a kernel '
      f'[D, {count}], a column for each expert; found {found}: only softmax '
      'gates can be pruned, with the use of the same model'
    )


def _gate_name(scope: Mapping[str, Any], gate: str) -> str:
  names = [f'gate_{gate}', f'selector_{gate}']
  if gate == 'shared':
    names = ['shared_gate', 'gate']
  return next((name for name in names if name in scope), names[0])


def _pools(level: Sizes) -> dict[str, int]:
  return {p: count for pools in level.values() for p, count in pools.items()}


def _scope(params: PyTree, level: int) -> Mapping[str, Any]:
  return params.get(f'level_{level}', params)


def _names(model: Any) -> list[str]:
  return [task.name for task in model.tasks]


def _describe(lengths: set[Any]) -> str:
  return ', '.join(str(n) for (n,) in sorted(lengths)) if lengths else 'none'
