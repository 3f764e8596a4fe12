"""A step over the rows that a batch reads, in place of whole tables.

    which = which_rows(...)                 # the rows that the batch reads
    small = gather(state, which)            # a state with rows for tables
    small = step(small)                     # any step, of a model `on_rows`
    state = scatter(state, small, which)

The step between sees parameters of the size of the rows, whatever it does with
them: T pull-backs, microbatches, the optimiser, a check of what is finite.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp

from lplmtl import sparse
from lplmtl.layers import lookup
from lplmtl.training import standing
from lplmtl.types import Array, Model, PyTree

Path = standing.Path


class Which(NamedTuple):
  """The rows of a table that a batch reads.

  Attributes:
    ids: `[U]` int32 in increasing order, one for each look-up, so that a row
      that is read twice stands here twice. Look-ups and gradients go to the
      first of equal ones.
    table: shape and dtype of the table, `[V, ...]`.
    held: the shape of what this device holds of it.
    axis_name: the mapped axis of the devices that hold a part each; None if
      every device holds all of it.
  """

  ids: Array
  table: jax.ShapeDtypeStruct
  held: tuple[int, ...]
  axis_name: str | None

  def read(self, array: Array) -> Array:
    """Returns the rows; of a part, with zeros for those that it lacks."""
    if self.axis_name is not None:
      return lookup.Part(array, self.axis_name).own(self.ids)
    return jnp.take(
      array, self.ids, axis=0, mode='clip', indices_are_sorted=True
    )

  def write(self, array: Array, rows: Array) -> Array:
    """Returns the array with new rows; of a part, with those that it has."""
    ids, places = self.ids, jnp.arange(len(self.ids), dtype=self.ids.dtype)
    is_left_out = jnp.concatenate([jnp.zeros(1, bool), ids[1:] == ids[:-1]])
    if self.axis_name is not None:
      ids = ids - lookup.Part(array, self.axis_name).first
      is_left_out |= (ids < 0) | (ids >= len(array))
    # All different: behind the last row are those that are not written.
    targets = jnp.where(is_left_out, len(array) + places, ids)
    return array.at[targets].set(rows, mode='drop', unique_indices=True)


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
    optimizer: names the tables, and those of which `params` hold a part.
    params: the model's parameters.
    features: of the rows of a batch on this device.
    axis_name: the mapped axis over which the rows of a batch are spread.

  Raises:
    ValueError: the model is no Linen module, it looks up no table of a given
      name, or a table has too many rows.
  """
  which = {}
  for path, ids in reads(model, optimizer, params, features).items():
    array = standing.at(params, path)
    flat = jnp.concatenate([x.ravel() for x in ids]).astype(jnp.int32)
    if axis_name is not None:
      flat = jax.lax.all_gather(flat, axis_name, tiled=True)
    whole = jax.ShapeDtypeStruct(array.shape, array.dtype)
    _check_numbers(path, array.shape[0], flat.size)
    which[path] = Which(
      jnp.sort(flat),
      optimizer.parts.get(path, whole),
      array.shape,
      axis_name if path in optimizer.parts else None,
    )
  return which


def reads(
  model: Model, optimizer: sparse.Lazy, params: PyTree, features: PyTree
) -> dict[Path, tuple[Array, ...]]:
  """Returns the row numbers of all look-ups in each lazy table.

  Args:
    model: see `which_rows`, as the others.
    optimizer: likewise.
    params: likewise.
    features: likewise.
  """
  if not isinstance(model, nn.Module):
    raise ValueError(
      'sparse.lazy needs a Linen module, to ask it for the rows that it reads; '
      f'found {type(model).__name__}'
    )
  for path, table in optimizer.parts.items():
    params = standing.replace(params, path, table)
  _, found = model.apply({'params': params}, features, mutable=[lookup.READS])
  tables = {
    _keys(path): ids
    for path, ids in jax.tree_util.tree_leaves_with_path(
      found.get(lookup.READS, {}), is_leaf=lambda x: isinstance(x, tuple)
    )
  }
  return {path: tables[path] for path in _chosen(optimizer.tables, tables)}


def _chosen(
  names: Sequence[str] | None, tables: Mapping[Path, Any]
) -> list[Path]:
  """Returns the tables with these names, or with names that end so."""
  listed = {'/'.join(path): path for path in tables}
  if not listed:
    raise ValueError(
      'sparse.lazy needs a model that looks up tables by '
      'layers.lookup.take, such as one with a TabularEncoder; found none'
    )
  if names is None:
    return list(tables)
  for name in names:
    if not any(f'/{table}'.endswith(f'/{name}') for table in listed):
      raise ValueError(
        f'the model looks up the tables {list(listed)}; found the name '
        f'{name!r} in sparse.lazy, which is none of them'
      )
  return [
    path
    for table, path in listed.items()
    if any(f'/{table}'.endswith(f'/{name}') for name in names)
  ]


def _check_numbers(path: Path, num_rows: int, num_reads: int) -> None:
  """Raises ValueError if the numbers that `Which.write` needs exceed int32."""
  most = 2**31 - 1 - num_reads
  if num_rows > most:
    raise ValueError(
      f'sparse.lazy takes tables of up to {most:,} rows where a batch looks up '
      f'{num_reads:,}, as int32 numbers them all; found {num_rows:,} in '
      f'{"/".join(path)}: leave it out of `tables`, or take fewer rows'
    )


def on_rows(model: Model, which: Mapping[Path, Which]) -> standing.Standing:
  """Returns a model of the rows that a batch reads."""
  tables = {path: one.table for path, one in which.items()}
  return standing.Standing(
    model, tables, lambda path, rows: lookup.Rows(which[path].ids, rows)
  )


def gather(state: Any, which: Mapping[Path, Which]) -> Any:
  """Returns a TrainState with rows in place of tables.

  Args:
    state: a TrainState.
    which: the rows, from `which_rows`.

  Raises:
    ValueError: optimiser or balancer keep what is no row for each row.
  """
  _map(_check, which, state)
  small = _map(lambda _, one, array: one.read(array), which, state)
  parts = {path: one for path, one in which.items() if one.axis_name}
  if not parts:
    return small
  # As one vector: an exchange hardly depends on its size.
  found: list[Array] = []
  _map(lambda _, one, rows: found.append(rows), parts, small)
  flat, unflatten = jax.flatten_util.ravel_pytree(found)
  axis_name = next(iter(parts.values())).axis_name
  sums = iter(unflatten(jax.lax.psum(flat, axis_name)))
  return _map(lambda *_: next(sums), parts, small)


def scatter(state: Any, small: Any, which: Mapping[Path, Which]) -> Any:
  """Returns a TrainState in which the rows are those of `small`.

  Args:
    state: a TrainState.
    small: from `gather`, a step later.
    which: the rows.
  """
  return _map(
    lambda _, one, array, rows: one.write(array, rows), which, state, small
  )


def _map(fn: Any, which: Mapping[Path, Which], state: Any, *rest: Any) -> Any:
  """Returns `fn(path, which, leaf, ...)` of what is kept of each table.

  All other leaves are those of the last state.
  """
  names = paths(state.params)

  def one(path: Any, leaf: Array, *others: Array) -> Any:
    table = owner(_keys(path), names)
    if table not in which:
      return others[-1] if others else leaf
    return fn(_keys(path), which[table], leaf, *others)

  return jax.tree_util.tree_map_with_path(one, state, *rest)


def _check(path: Path, which: Which, leaf: Array) -> None:
  """Raises ValueError unless a leaf has a row for each row of its table."""
  if path[0] == 'balancer_state':
    raise ValueError(
      f'the balancer remembers a gradient of a table ({"/".join(path)}), most '
      'of whose rows sparse.lazy does not look at: use another balancer, or '
      'leave this table out of `tables`'
    )
  if leaf.shape != which.held:
    raise ValueError(
      'sparse.lazy needs an optimiser that treats each row of a table by '
      f'itself, such as optax.adam; found one that keeps {leaf.shape} for a '
      f'table of {which.held} ({"/".join(path)})'
    )


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
