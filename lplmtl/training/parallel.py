"""Several devices and seeds: spreads a function for one over all of them."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lplmtl import _checks
from lplmtl.training import hosts
from lplmtl.types import PyTree

SEEDS, DATA = 'seeds', 'data'
_ALL = P()


def make_mesh(
  num_seeds: int,
  batch_size: int | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Makes a mesh of devices, for seeds or for the rows of a batch.

  Several seeds are spread over the devices; a single seed splits its batches
  instead, over the largest number of devices that divides the batch. Several
  processes take part with equally many devices each, for a single seed with all
  of them.

  Args:
    num_seeds: S.
    batch_size: B, or whatever else must divide evenly; with None and one seed
      the mesh has one device.
    devices: the devices to use, None for all local ones.

  Returns:
    A mesh with the axis `seeds` or `data`.

  Raises:
    ValueError: several processes have different numbers of devices, which do
      not divide the batch, or `devices` leave one of them out.
  """
  devices = list(devices or jax.local_devices())
  axis = SEEDS if num_seeds > 1 else DATA
  if len({device.process_index for device in devices}) > 1:
    limit = num_seeds if num_seeds > 1 else len(devices)
    devices = _of_all_processes(devices, limit)
    if axis == DATA and (batch_size or 1) % len(devices):
      raise ValueError(
        'batch_size, or the shards of a source, must be a multiple of the '
        f'{len(devices)} devices of all processes, found {batch_size}'
      )
  elif axis == SEEDS:
    devices = devices[:num_seeds]
  else:
    rows = batch_size or 1
    fits = [n for n in range(1, len(devices) + 1) if rows % n == 0]
    devices = devices[: fits[-1]]
  return jax.make_mesh(
    (len(devices),), (axis,), devices=devices, axis_types=(AxisType.Auto,)
  )


def _of_all_processes(
  devices: Sequence[jax.Device], limit: int
) -> list[jax.Device]:
  """Returns equally many devices of each process, no more than are needed.

  Args:
    devices: those to choose from.
    limit: how many are needed in all; each process gives at least one.
  """
  by_process: dict[int, list[jax.Device]] = {}
  for device in devices:
    by_process.setdefault(device.process_index, []).append(device)
  counts = {process: len(found) for process, found in by_process.items()}
  if len(counts) < jax.process_count() or len({*counts.values()}) > 1:
    raise ValueError(
      'devices must be those of one process, or equally many of each of the '
      f'{jax.process_count()} processes; found {{process: devices}} {counts}'
    )
  share = min(counts[0], -(-limit // len(counts)))
  return [x for process in sorted(counts) for x in by_process[process][:share]]


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
  """Copies arrays to every device."""
  return hosts.place(tree, everywhere(mesh))


def home(tree: PyTree, mesh: Mesh) -> PyTree:
  """Moves arrays with a leading S axis to where the seeds are, padded."""
  return hosts.place(fill(tree, mesh), leading(mesh))


def splits_rows(mesh: Mesh) -> bool:
  """Returns whether a mesh splits the rows of each batch."""
  return DATA in mesh.axis_names and mesh.size > 1


def batches(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of row numbers `[S, N, B]`: of B, over rows."""
  spec = P(None, None, DATA) if DATA in mesh.axis_names else P()
  return NamedSharding(mesh, spec)


def split_batches(indices: Any, mesh: Mesh) -> jax.Array:
  """Moves row numbers `[S, N, B]` to a mesh; splits B if that is over rows."""
  return hosts.place(indices, batches(mesh))


def split_table(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a chunk: by rows if the mesh is over rows."""
  return NamedSharding(mesh, P(DATA) if DATA in mesh.axis_names else P())


def over_rows(
  run_chunk: Callable, mesh: Mesh, is_chunk: bool = False, state: PyTree = _ALL
) -> Callable:
  """Spreads the batches of `(state, hyperparams, data, rows [S, N, B], ...)`.

  Each device gathers its own rows and computes on them; the function itself
  sums over the batch, along the axis `data`.

  Args:
    run_chunk: a function of arrays.
    mesh: from `make_mesh`.
    is_chunk: whether the data are spread as `split_table` does, and row numbers
      count from the first row of each device; every device holds all data
      otherwise.
    state: how the state is spread; every device holds all of it by default.
  """
  if not splits_rows(mesh):
    return run_chunk
  return jax.shard_map(
    run_chunk,
    mesh=mesh,
    in_specs=(
      state,
      P(),
      P(DATA) if is_chunk else P(),
      P(None, None, DATA),
      P(),
      P(),
    ),
    out_specs=(state, P(), P()),
    check_vma=False,
  )


def over_table(
  predict: Callable, mesh: Mesh, params: PyTree = _ALL
) -> Callable:
  """Spreads the rows of `(params, features [N, ...]) -> [N, ...]`.

  The last row is repeated until the rows divide evenly among the devices.

  Args:
    predict: a function of arrays; on several devices, it also receives a mask
      that is False for repeated rows. Results may have a leading axis of
      chunks (see `evaluation.predict_with_gates`) in place of one of rows.
    mesh: from `make_mesh`.
    params: how parameters are spread; every device holds all by default.
  """
  if not splits_rows(mesh):
    return predict
  sharded = jax.shard_map(
    predict,
    mesh=mesh,
    in_specs=(params, P(DATA), P(DATA)),
    out_specs=P(DATA),
    check_vma=False,
  )

  def spread(params: PyTree, features: PyTree) -> PyTree:
    num_rows = _checks.num_rows(features)
    rows = np.arange(num_rows + -num_rows % mesh.size)
    if len(rows) > num_rows:
      rows = np.minimum(rows, num_rows - 1)
      features = jax.tree.map(lambda x: x[rows], features)
    predictions = sharded(params, features, np.arange(len(rows)) < num_rows)
    # Of chunks, there are no more than rows before the first repeated one.
    return jax.tree.map(lambda x: x[:num_rows], predictions)

  return spread


def over_seeds(
  fn: Callable,
  num_seeds: int,
  in_axes: tuple[int | None, ...],
  mesh: Mesh,
  updates: bool = False,
) -> Callable:
  """Spreads a function of one seed over a leading S axis.

  Each device of a mesh over seeds works on its own seeds: all at once on an
  accelerator; in turn on a CPU, whose cache a single model fills (there, four
  or eight seeds at once are 20 to 26 % slower).

  Args:
    fn: a function of pytrees of arrays.
    num_seeds: S, on several devices a multiple of their number (see `fill`).
    in_axes: for each argument, 0 if its leading axis is S, None if all seeds
      share it.
    mesh: from `make_mesh`.
    updates: whether the first result is the first argument with other values.

  Returns:
    A function whose results have a leading S axis, too.
  """
  if num_seeds == 1:
    # Without vmap: a batch axis of 1 makes every contraction slower.
    return _with_axis(fn, in_axes)
  if on_cpu(mesh):
    many = _in_turn(fn, in_axes, updates)
  else:
    many = jax.vmap(fn, in_axes)
  if mesh.size == 1:
    return many
  return jax.shard_map(
    many,
    mesh=mesh,
    in_specs=tuple(P() if axis is None else P(SEEDS) for axis in in_axes),
    out_specs=P(SEEDS),
    check_vma=False,
  )


def fill(tree: PyTree, mesh: Mesh) -> PyTree:
  """Repeats the last seed until S is a multiple of the number of devices.

  Changes nothing unless the mesh is over seeds.
  """

  def repeat(x: Any) -> Any:
    extra = -len(x) % mesh.size if SEEDS in mesh.axis_names else 0
    return x[np.minimum(np.arange(len(x) + extra), len(x) - 1)] if extra else x

  return jax.tree.map(repeat, tree)


@functools.partial(jax.jit, static_argnums=1)
def first_seeds(tree: PyTree, num_seeds: int | None) -> PyTree:
  """Takes the first seeds; with None the first one, without its axis."""
  return jax.tree.map(lambda x: x[:num_seeds] if num_seeds else x[0], tree)


def on_cpu(mesh: Mesh) -> bool:
  """Returns whether the devices of a mesh are host devices."""
  return mesh.devices.flat[0].platform == 'cpu'


def rows_at_a_time(mesh: Mesh) -> int | None:
  """Returns how many rows a device should work on at once; None for all.

  On a CPU, the activations of 256 rows fit in the cache of one core (1 MB where
  this was measured). If a device has several cores, they share each matrix
  product, and 1024 rows give all of them enough to do. A batch of 4096 rows is
  about 1.3 times as fast in microbatches as in one piece.
  """
  if not on_cpu(mesh):
    return None
  # All processes must run the same program, whatever cores they have.
  is_small = hosts.spans(mesh) or num_cores() <= mesh.size
  return 256 if is_small else 1024


def num_cores() -> int:
  """Returns the number of cores that this process may use."""
  affinity = getattr(os, 'sched_getaffinity', None)  # only on Linux
  return len(affinity(0)) if affinity else os.cpu_count() or 1


def _in_turn(
  fn: Callable, in_axes: tuple[int | None, ...], updates: bool
) -> Callable:
  """Runs one seed after the other; see `over_seeds`."""

  def many(*args: Any) -> Any:
    def one(of_seed: Sequence[Any]) -> Any:
      rest = iter(of_seed)
      return fn(
        *(
          x if axis is None else next(rest)
          for x, axis in zip(args, in_axes, strict=True)
        )
      )

    first, *others = (
      x for x, axis in zip(args, in_axes, strict=True) if axis is not None
    )
    if not updates:
      return jax.lax.map(one, (first, *others))

    # In place: results of their own would begin as zeros, which XLA compiles
    # for each shape.
    def step(all_seeds: Any, of_seed: Any) -> Any:
      i, rest = of_seed
      own = jax.tree.map(
        lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), all_seeds
      )
      new, *results = one((own, *rest))
      new = jax.tree.map(
        lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, i, 0),
        all_seeds,
        new,
      )
      return new, tuple(results)

    num_seeds = len(jax.tree.leaves(first)[0])
    new, results = jax.lax.scan(step, first, (np.arange(num_seeds), others))
    return (new, *results)

  return many


def _with_axis(fn: Callable, in_axes: tuple[int | None, ...]) -> Callable:
  """Removes and adds the axis of a single seed around a function."""

  def single(*args: Any) -> Any:
    args = tuple(
      x
      if axis is None
      else jax.tree.map(lambda leaf: jax.lax.squeeze(leaf, (0,)), x)
      for x, axis in zip(args, in_axes, strict=True)
    )
    return jax.tree.map(lambda leaf: jax.lax.expand_dims(leaf, (0,)), fn(*args))

  return single


def leading(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays with a leading S axis."""
  return NamedSharding(mesh, P(SEEDS) if SEEDS in mesh.axis_names else P())


def everywhere(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, P())
