"""Tables of embeddings of which each device holds a part of the rows.

The parts of a table are in the order of the devices of a mesh over rows, and so
is what an optimiser keeps for each row. What look-ups need is exchanged (see
`layers.lookup.Part`, and `rows` for a step).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lplmtl import sparse
from lplmtl.layers import lookup
from lplmtl.training import hosts, parallel, rows, standing
from lplmtl.types import Batch, Model, PyTree

Parts = Mapping[standing.Path, Any]  # shapes and dtypes of whole tables
Build = Callable[[Any], tuple[Any, ...]]


def applies(optimizer: Any, mesh: Mesh) -> bool:
  """Returns whether each device is to hold a part of each table.

  Raises:
    ValueError: the devices are those of several processes.
  """
  is_sharded = isinstance(optimizer, sparse.Lazy) and optimizer.sharded
  if not is_sharded or not parallel.splits_rows(mesh):
    return False
  if hosts.spans(mesh):
    raise ValueError(
      'sparse.lazy(sharded=True) needs the devices of a single process, found '
      'those of several: leave it out'
    )
  return True


def parts_of(
  model: Model,
  optimizer: sparse.Lazy,
  params: PyTree,
  features: PyTree,
  mesh: Mesh,
) -> Parts:
  """Returns the tables of a model that are spread over the devices.

  Args:
    model: see `lplmtl.types.Model`.
    optimizer: names the tables.
    params: whole ones; only shapes and dtypes matter, as of the features.
    features: pytree of `[N, ...]`.
    mesh: over rows.

  Raises:
    ValueError: the rows of a table do not divide evenly among the devices.
  """
  parts = {}

  def ask(params: PyTree, features: PyTree) -> None:
    for path in rows.reads(model, optimizer, params, features):
      table = standing.at(params, path)
      parts[path] = jax.ShapeDtypeStruct(table.shape, table.dtype)

  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (params, features)
  )
  jax.eval_shape(ask, *shapes)
  for path, table in parts.items():
    if table.shape[0] % mesh.size:
      raise ValueError(
        f'the {table.shape[0]:,} rows of {"/".join(path)} do not divide evenly '
        f'among {mesh.size} devices: set TabularEncoder(multiple_of='
        f'{mesh.size}), or use sparse.lazy without sharded=True'
      )
  return parts


def specs(tree: PyTree, params: PyTree, parts: Parts, lead: int) -> PyTree:
  """Returns how a state or parameters are spread: a pytree like `tree`.

  Args:
    tree: a TrainState, or parameters.
    params: those of the state, or `tree` itself.
    parts: from `parts_of`.
    lead: axes in front of those of a table: 1 with an axis of seeds.
  """
  names = rows.paths(params)
  part = P(*(None,) * lead, parallel.DATA)
  leaves, structure = jax.tree.flatten(tree)
  owners = [rows.owner(path, names) for path in rows.paths(tree)]
  return jax.tree.unflatten(
    structure,
    [
      part if owner in parts and leaf.ndim > lead else P()
      for owner, leaf in zip(owners, leaves, strict=True)
    ],
  )


def spread(
  made: tuple[Callable[..., Any], Callable[[Parts], Callable[..., Any]]],
  optimizer: Any,
  build: Build,
  mesh: Mesh,
  is_chunk: bool,
) -> tuple[Callable[..., Any], Callable[..., Any], NamedSharding | None]:
  """Spreads the programs that initialise and that run a chunk.

  Args:
    made: the one that initialises, `(keys [S], hyperparams, features, start) ->
      state`; and what makes the other one from the tables that are in parts
      (see `parallel.over_rows`).
    optimizer: see `fit`.
    build: from the hyperparams of a seed to model, optimizer, ...
    mesh: from `parallel.make_mesh`.
    is_chunk: see `parallel.over_rows`.

  Returns:
    (init, run_chunk, home), where home is the sharding of a state; None if that
    differs from leaf to leaf.
  """
  init, run_chunk = made
  if not applies(optimizer, mesh):
    over_rows = parallel.over_rows(run_chunk({}), mesh, is_chunk)
    return init, over_rows, parallel.leading(mesh)

  def of(
    state: Any, hyperparams: PyTree, features: PyTree
  ) -> tuple[Parts, PyTree]:
    params, settings = jax.tree.map(lambda x: x[0], (state.params, hyperparams))
    model, optimizer, *_ = build(settings)
    parts = parts_of(model, optimizer, params, features, mesh)
    return parts, specs(state, state.params, parts, lead=1)

  def place(x: Any, spec: P) -> Any:
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

  def init_parts(
    keys: Any, hyperparams: PyTree, features: PyTree, start: PyTree
  ) -> Any:
    state = init(keys, hyperparams, features, start)
    return jax.tree.map(place, state, of(state, hyperparams, features)[1])

  def run_parts(
    state: Any, hyperparams: PyTree, data: Batch, *rest: Any
  ) -> Any:
    parts, spec = of(state, hyperparams, data.features)
    run = parallel.over_rows(run_chunk(parts), mesh, is_chunk, spec)
    return run(state, hyperparams, data, *rest)

  return init_parts, run_parts, None


def for_rows(
  model: Model, optimizer: Any, params: PyTree, features: PyTree, mesh: Mesh
) -> tuple[Any, Callable[..., Any]]:
  """Returns a model for the rows of each device, and what spreads these.

  Args:
    model: see `lplmtl.types.Model`.
    optimizer: that trained it.
    params: of one seed.
    features: pytree of `[N, ...]`.
    mesh: from `parallel.make_mesh`.

  Returns:
    (model, over_table), see `parallel.over_table`.
  """
  if not applies(optimizer, mesh):
    return model, functools.partial(parallel.over_table, mesh=mesh)
  parts = parts_of(model, optimizer, params, features, mesh)
  on_parts = standing.Standing(
    model, parts, lambda _, values: lookup.Part(values, parallel.DATA)
  )
  spec = specs(params, params, parts, lead=0)
  return on_parts, functools.partial(
    parallel.over_table, mesh=mesh, params=spec
  )


def agreed(is_finite: Any) -> Any:
  """Returns whether something is true on all devices."""
  return jax.lax.pmin(is_finite.astype(jnp.int32), parallel.DATA) > 0
