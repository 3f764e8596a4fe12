"""The rows of a chunk of which each of several processes has some only."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lplmtl.training import hosts, parallel
from lplmtl.types import PyTree


def own_shards(num_shards: int, mesh: Mesh) -> list[int]:
  """Returns the shards of a chunk that this process's devices work on.

  All of them, in one process or unless the mesh is over rows.

  Args:
    num_shards: W, a multiple of the devices of a mesh over rows.
    mesh: from `make_mesh`.
  """
  if not (parallel.splits_rows(mesh) and hosts.spans(mesh)):
    return [*range(num_shards)]
  share = num_shards // mesh.size
  return [
    shard
    for place in _own_places(mesh)
    for shard in range(place * share, (place + 1) * share)
  ]


def join(
  tree: PyTree, sharding: NamedSharding, mesh: Mesh, axis: int
) -> PyTree:
  """Moves what each process has of `own_shards` to its devices.

  Args:
    tree: NumPy arrays, of this process's shards along an axis.
    sharding: from `split_table` or `batches`.
    mesh: from `make_mesh`.
    axis: that of the shards, or of the rows in them.
  """
  if not (parallel.splits_rows(mesh) and hosts.spans(mesh)):
    return hosts.place(tree, sharding)
  places = _own_places(mesh)

  def move(x: np.ndarray) -> jax.Array:
    size = x.shape[axis] // len(places)
    shape = (*x.shape[:axis], size * mesh.size, *x.shape[axis + 1 :])

    def of_device(index: Any) -> np.ndarray:
      own = places.index((index[axis].start or 0) // size)
      return x[*index[:axis], own * size : (own + 1) * size]

    return jax.make_array_from_callback(shape, sharding, of_device)

  return jax.tree.map(move, tree)


def _own_places(mesh: Mesh) -> list[int]:
  """Returns which devices of a mesh are those of this process, in order."""
  own = jax.process_index()
  return [
    place
    for place, device in enumerate(mesh.devices.flat)
    if device.process_index == own
  ]
