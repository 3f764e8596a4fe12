"""A step over the rows that a batch reads, in place of whole tables.

    which = which_rows(...)                 # the rows that the batch reads
    small = gather(state, which)            # a state with rows for tables
    small = step(small)                     # any step, of a model OnRows
    state = scatter(state, small, which)

The step between sees parameters of the size of the rows, whatever it does with
them: T pull-backs, microbatches, the optimiser, a check of what is finite.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl import sparse
from lplmtl.layers import lookup
from lplmtl.types import Array, Model, PyTree

Path = tuple[str, ...]


class Which(NamedTuple):
  """The rows of a table that a batch reads.

  Attributes:
    ids: `[U]` int32 in increasing order, one for each look-up, so that a row
      that is read twice stands here twice. Look-ups and gradients go to the
      first of equal ones.
    shape: of the table, `[V, ...]`.
    dtype: of the table.
  """

  ids: Array
  shape: tuple[int, ...]
  dtype: Any

  @property
  def targets(self) -> Array:
    """Returns `[U]` row numbers to write to, all different; V and up: none."""
    ids, places = self.ids, jnp.arange(len(self.ids), dtype=self.ids.dtype)
    again = jnp.concatenate([jnp.zeros(1, bool), ids[1:] == ids[:-1]])
    return jnp.where(again, self.shape[0] + places, ids)


def which_rows(
  model: Model,
  optimizer: sparse.Lazy,
  params: PyTree,
  features: PyTree,
  axis_name: str | None = None,
) -> dict[Path, Which]:
  """Returns the rows of each lazy table that a batch reads, on all devices.

  Args:
    model: see `lplmtl.types.Model`; a Linen module.
    optimizer: names the tables.
    params: the model's parameters.
    features: of the rows of a batch on this device.
    axis_name: the mapped axis over which the rows of a batch are spread.

  Raises:
    ValueError: the model is no Linen module, or it looks up no table of a given
      name.
  """
  if not isinstance(model, nn.Module):
    raise ValueError(
      'sparse.lazy needs a Linen module, to ask it for the rows that it reads; '
      f'found {type(model).__name__}'
    )
  # Nothing but the row numbers is used, so that nothing else is computed.
  reads = model.apply({'params': params}, features, mutable=[lookup.READS])[1]
  found = {
    _keys(path): table
    for path, table in jax.tree_util.tree_leaves_with_path(
      reads.get(lookup.READS, {}), is_leaf=lambda x: isinstance(x, tuple)
    )
  }
  which = {}
  for path in _chosen(optimizer.tables, list(found)):
    table = params
    for key in path:
      table = table[key]
    ids = jnp.concatenate([x.ravel() for x in found[path]]).astype(jnp.int32)
    if axis_name is not None:
      ids = jax.lax.all_gather(ids, axis_name, tiled=True)
    which[path] = Which(jnp.sort(ids), table.shape, table.dtype)
  return which


def _chosen(names: Any, found: list[Path]) -> list[Path]:
  """Returns the tables with these names, or with names that end so."""
  listed = ['/'.join(path) for path in found]
  if not found:
    raise ValueError(
      'sparse.lazy needs a model that looks up tables by '
      'layers.lookup.take, such as one with a TabularEncoder; found none'
    )
  for name in names or ():
    if not any(f'/{table}'.endswith(f'/{name}') for table in listed):
      raise ValueError(
        f'the model looks up the tables {listed}; found the name {name!r} in '
        'sparse.lazy, which is none of them'
      )
  return [
    path
    for path, table in zip(found, listed, strict=True)
    if names is None or any(f'/{table}'.endswith(f'/{n}') for n in names)
  ]


class OnRows:
  """A model whose lazy tables are given by some of their rows.

  In its parameters, these rows stand in place of the tables.
  """

  def __init__(self, model: Model, which: Mapping[Path, Which]):
    self._model, self._which = model, which

  def __getattr__(self, name: str) -> Any:
    return getattr(self._model, name)

  def apply(
    self, variables: Mapping[str, Any], *args: Any, **kwargs: Any
  ) -> Any:
    """Applies the model."""
    params = variables['params']
    rows: dict[str, Any] = {}
    for path, which in self._which.items():
      values = params
      for key in path:
        values = values[key]
      # No array, so that any use but a look-up fails.
      table = jax.ShapeDtypeStruct(which.shape, which.dtype)
      params = _with(params, path, table)
      rows = _with(rows, path, {'ids': which.ids, 'values': values})
    variables = {'params': params, lookup.ROWS: rows}
    try:
      return self._model.apply(variables, *args, **kwargs)
    except (AttributeError, TypeError) as error:
      if 'ShapeDtypeStruct' not in str(error):
        raise
      names = ['/'.join(path) for path in self._which]
      raise ValueError(
        'a table that sparse.lazy trains may only be looked up, by '
        f'layers.lookup.take; found another use of one of {names}'
      ) from error


def _with(tree: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
  """Returns nested dicts with another value, which may be new, at a path."""
  key, *rest = path
  if rest:
    value = _with(tree.get(key, {}), tuple(rest), value)
  return {**tree, key: value}


def gather(state: Any, which: Mapping[Path, Which]) -> Any:
  """Returns a TrainState with rows in place of tables.

  Args:
    state: a TrainState.
    which: the rows, from `which_rows`.

  Raises:
    ValueError: optimiser or balancer keep what is no row for each row.
  """

  def read(which: Which, table: Array) -> Array:
    return jnp.take(
      table, which.ids, axis=0, mode='clip', indices_are_sorted=True
    )

  return _map(read, which, state)


def scatter(state: Any, small: Any, which: Mapping[Path, Which]) -> Any:
  """Returns a TrainState in which the rows are those of `small`.

  Args:
    state: a TrainState.
    small: from `gather`, a step later.
    which: the rows.
  """

  def write(which: Which, table: Array, rows: Array) -> Array:
    return table.at[which.targets].set(rows, mode='drop', unique_indices=True)

  return _map(write, which, state, small)


def _map(fn: Any, which: Mapping[Path, Which], state: Any, *rest: Any) -> Any:
  """Returns `fn(which, leaf, ...)` for tables and for what is kept of them.

  All other leaves are those of the last state.
  """
  names = paths(state.params)

  def one(path: Any, leaf: Array, *others: Array) -> Any:
    table = owner(_keys(path), names)
    if table not in which:
      return others[-1] if others else leaf
    if path[0].name == 'balancer_state':
      raise ValueError(
        f'the balancer remembers a gradient of {"/".join(table)!r}, most of '
        'whose rows sparse.lazy does not look at: use another balancer, or '
        'leave this table out of `tables`'
      )
    if leaf.shape != which[table].shape:
      raise ValueError(
        f'sparse.lazy needs an optimiser that treats each row of '
        f'{"/".join(table)!r} by itself, such as optax.adam; found one that '
        f'keeps {leaf.shape} for a table of {which[table].shape}'
      )
    return fn(which[table], leaf, *others)

  return jax.tree_util.tree_map_with_path(one, state, *rest)


def owner(path: Path, params: list[Path]) -> Path:
  """Returns the parameter to which a leaf of a state belongs, or ().

  What an optimiser keeps for each parameter is a pytree like the parameters,
  somewhere in its state; it may keep several numbers for one.

  Args:
    path: of the leaf.
    params: those of all parameters.
  """
  places = range(len(path))
  parts = (path[i:j] for i in places for j in range(len(path), i, -1))
  return next((part for part in parts if part in params), ())


def paths(tree: PyTree) -> list[Path]:
  """Returns the names along the path of each leaf."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [_keys(path) for path, _ in leaves]


def _keys(path: Any) -> Path:
  """Returns the names along a path in a pytree."""
  return tuple(
    str(getattr(part, 'key', getattr(part, 'name', getattr(part, 'idx', ''))))
    for part in path
  )
