"""Several devices, several seeds: how one function becomes many."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lplmtl import _checks
from lplmtl.types import PyTree

SEEDS, DATA = 'seeds', 'data'


def make_mesh(
  num_seeds: int,
  batch_size: int | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Devices, for seeds or for the rows of a batch.

  Several seeds take a device each (or share one); a single seed splits its
  batches instead, over as many devices as divide the batch.

  Args:
    num_seeds: S.
    batch_size: B; None for a mesh of one device when S is 1.
    devices: None for all local ones.

  Returns:
    A mesh with the axis `seeds` or `data`.
  """
  devices = list(devices or jax.local_devices())
  if num_seeds > 1:
    count, axis = min(num_seeds, len(devices)), SEEDS
  else:
    rows = batch_size or 1
    fits = [n for n in range(1, len(devices) + 1) if rows % n == 0]
    count, axis = fits[-1], DATA
  return jax.make_mesh(
    (count,), (axis,), devices=devices[:count], axis_types=(AxisType.Auto,)
  )


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
  """Arrays that every device holds whole."""
  return jax.device_put(tree, everywhere(mesh))


def splits_rows(mesh: Mesh) -> bool:
  """Whether each device of a mesh takes a part of every batch."""
  return DATA in mesh.axis_names and mesh.size > 1


def split_batches(indices: Any, mesh: Mesh) -> jax.Array:
  """`[S, N, B]` row numbers; a mesh over rows holds B in parts."""
  spec = P(None, None, DATA) if DATA in mesh.axis_names else P()
  return jax.device_put(indices, NamedSharding(mesh, spec))


def over_rows(run_chunk: Callable, mesh: Mesh) -> Callable:
  """Spreads the batches of `(state, hyperparams, data, rows [S, N, B], ...)`.

  Each device gathers and computes its own rows; sums over a batch are the
  function's business, by the axis `data`.
  """
  if not splits_rows(mesh):
    return run_chunk
  return jax.shard_map(
    run_chunk,
    mesh=mesh,
    in_specs=(P(), P(), P(), P(None, None, DATA), P(), P()),
    out_specs=P(),
    check_vma=False,
  )


def over_table(predict: Callable, mesh: Mesh) -> Callable:
  """Spreads the rows of `(params, features [N, ...]) -> [N, ...]`.

  The last row stands in where the rows do not fill the devices.
  """
  if not splits_rows(mesh):
    return predict
  sharded = jax.shard_map(
    predict,
    mesh=mesh,
    in_specs=(P(), P(DATA)),
    out_specs=P(DATA),
    check_vma=False,
  )

  def spread(params: PyTree, features: PyTree) -> PyTree:
    num_rows = _checks.num_rows(features)
    rows = np.arange(num_rows + -num_rows % mesh.size)
    if len(rows) > num_rows:
      rows = np.minimum(rows, num_rows - 1)
      features = jax.tree.map(lambda x: x[rows], features)
    found = sharded(params, features)
    return jax.tree.map(lambda x: x[:num_rows], found)

  return spread


def over_seeds(
  fn: Callable, num_seeds: int, in_axes: tuple[int | None, ...], mesh: Mesh
) -> Callable:
  """Spreads a function of one seed over a leading S axis.

  Each device of a mesh over seeds works on its own seeds: all at once on an
  accelerator, one after the other on a CPU, whose cache a single model fills.

  Args:
    fn: a function of pytrees of arrays.
    num_seeds: S, on several devices a multiple of their number (see `fill`).
    in_axes: for each argument, 0 if it leads with S or None if it has no such
      axis and serves all seeds.
    mesh: from `make_mesh`.

  Returns:
    The function with S leading its results too.
  """
  if num_seeds == 1:
    # A batch axis of 1 would cost time in every contraction.
    return _with_axis(fn, in_axes)
  many = _in_turn(fn, in_axes) if on_cpu(mesh) else jax.vmap(fn, in_axes)
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
  """Repeats the last seed until all devices of a mesh have equally many."""

  def repeat(x: Any) -> Any:
    extra = -len(x) % mesh.size if SEEDS in mesh.axis_names else 0
    return x[np.minimum(np.arange(len(x) + extra), len(x) - 1)] if extra else x

  return jax.tree.map(repeat, tree)


def on_cpu(mesh: Mesh) -> bool:
  """Whether the devices are host devices, where other ways are fastest."""
  return mesh.devices.flat[0].platform == 'cpu'


def rows_at_a_time(mesh: Mesh) -> int | None:
  """How many rows a device best works on at once; None for all of a batch.

  On a CPU: what stays in the cache of one core, or gives several enough to
  share.
  """
  if not on_cpu(mesh):
    return None
  return 256 if num_cores() <= mesh.size else 1024


def num_cores() -> int:
  """How many cores this process may use."""
  affinity = getattr(os, 'sched_getaffinity', None)  # Linux alone has it
  return len(affinity(0)) if affinity else os.cpu_count() or 1


def _in_turn(fn: Callable, in_axes: tuple[int | None, ...]) -> Callable:
  def many(*args: Any) -> Any:
    led = tuple(x for x, a in zip(args, in_axes, strict=True) if a is not None)

    def one(own: tuple[Any, ...]) -> Any:
      rest = iter(own)
      return fn(
        *(
          x if axis is None else next(rest)
          for x, axis in zip(args, in_axes, strict=True)
        )
      )

    return jax.lax.map(one, led)

  return many


def _with_axis(fn: Callable, in_axes: tuple[int | None, ...]) -> Callable:
  def single(*args: Any) -> Any:
    args = tuple(
      x if axis is None else jax.tree.map(lambda leaf: leaf[0], x)
      for x, axis in zip(args, in_axes, strict=True)
    )
    return jax.tree.map(lambda leaf: leaf[None], fn(*args))

  return single


def leading(mesh: Mesh) -> NamedSharding:
  """Where arrays that lead with S live."""
  return NamedSharding(mesh, P(SEEDS) if SEEDS in mesh.axis_names else P())


def everywhere(mesh: Mesh) -> NamedSharding:
  """Where arrays live that every device holds whole."""
  return NamedSharding(mesh, P())
