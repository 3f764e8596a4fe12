"""Several processes, usually one a host, that train one model together.

Each runs the same script: it calls `initialize` before anything else of JAX,
and then `fit` as a single process would. `agreement` is how they agree on what
only one of them knows.
"""

import contextlib
import functools
import importlib.metadata
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lplmtl.training import roll_call
from lplmtl.types import PyTree

# Seconds without a sign of life after which JAX takes a process for lost, and
# ends the others (its own default is 100). A process says one every few
# seconds, from a thread that neither training nor a compilation holds up.
HEARTBEAT = 20
# Seconds to wait for all processes to start, as in JAX: hosts boot slowly.
TIMEOUT = 300.0
# How JAX reports, among others, that the connection to another process broke.
_SIGNS = ('Gloo', 'NCCL', 'coordination service', 'distributed service')


class HostsError(RuntimeError):
  """Processes that disagree, or of which one has failed or is lost."""


class LostError(HostsError):
  """Another process has ended, or cannot be reached."""


def initialize(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  timeout: float = TIMEOUT,
) -> None:
  """Makes this process one of several; comes before anything else of JAX.

  On TPU pods, under SLURM and under Open MPI, JAX finds the arguments by
  itself. All processes wait for each other. Once one of them is lost, JAX ends
  the others within 30 seconds.

  JAX takes over SIGTERM; this gives it back to whoever had it.

  Args:
    coordinator: `host:port` of the first process, at which it will listen.
    num_processes: how many there are.
    process_id: number of this one, from 0; the first one, 0, writes what `fit`
      saves.
    timeout: seconds to wait for all to start.

  Raises:
    ValueError: an argument is missing or out of range, or `coordinator` is no
      address.
    HostsError: not all processes have come in time, or JAX could not connect
      them.
  """
  given = coordinator, num_processes, process_id
  if any(value is not None for value in given):
    _check(*given)
    # Those of another JAX would never answer its collectives.
    versions = {x: importlib.metadata.version(x) for x in ('jax', 'jaxlib')}
    try:
      if process_id == 0:
        roll_call.gather(
          str(coordinator), int(num_processes or 1), timeout, versions
        )
      else:
        roll_call.report(
          str(coordinator), int(process_id or 0), int(num_processes or 1),
          timeout, versions,
        )  # fmt: skip
    except roll_call.AbsentError as error:
      raise HostsError(str(error)) from None
  is_main = threading.current_thread() is threading.main_thread()
  before = signal.getsignal(signal.SIGTERM) if is_main else None
  try:
    jax.distributed.initialize(
      coordinator, num_processes, process_id,
      initialization_timeout=max(int(timeout), 1),
      heartbeat_timeout_seconds=HEARTBEAT,
    )  # fmt: skip
  except (RuntimeError, ValueError) as error:
    reason = str(error).split('\n')[0]
    raise HostsError(f'JAX cannot connect the processes: {reason}') from error
  if before is not None:
    signal.signal(signal.SIGTERM, before)


def _check(coordinator: Any, num_processes: Any, process_id: Any) -> None:
  """Raises ValueError for arguments of `initialize` that are out of range."""
  if None in (coordinator, num_processes, process_id):
    raise ValueError(
      'coordinator, num_processes and process_id belong together: give all '
      'three, or none on TPU pods and under SLURM; found '
      f'{coordinator!r}, {num_processes!r} and {process_id!r}'
    )
  roll_call.split_address(coordinator)
  if not all(isinstance(x, int) for x in (num_processes, process_id)) or not (
    0 <= process_id < num_processes
  ):
    raise ValueError(
      'process_id must be a whole number from 0 to below num_processes; found '
      f'{process_id!r} of {num_processes!r}'
    )


def spans(mesh: Mesh) -> bool:
  """Returns whether a mesh has devices of more than one process."""
  return len({device.process_index for device in mesh.devices.flat}) > 1


def is_first() -> bool:
  """Returns whether this is the process that decides, prints and writes."""
  return jax.process_index() == 0


@contextlib.contextmanager
def naming_loss() -> Iterator[None]:
  """Turns JAX's error about a broken connection into a LostError."""
  try:
    yield
  except (ValueError, RuntimeError) as error:
    is_ours = isinstance(error, HostsError)
    if is_ours or not any(sign in str(error) for sign in _SIGNS):
      raise
    raise LostError(
      'another process of this run has ended, or cannot be reached: start all '
      'of them again; with a keeper, they resume from the last save'
    ) from error


def place(tree: PyTree, sharding: NamedSharding) -> PyTree:
  """Moves arrays to devices, those of other processes included.

  Args:
    tree: arrays or random keys. Those on the host must be the same in all
      processes.
    sharding: of every leaf.
  """
  if sharding.is_fully_addressable:
    return jax.device_put(tree, sharding)

  def move(x: Any) -> jax.Array:
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
      return _move(sharding)(x)
    if hasattr(x, 'dtype') and is_key(x):
      moved = move(jax.random.key_data(x))
      return jax.random.wrap_key_data(moved, impl=jax.random.key_impl(x))
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])

  return jax.tree.map(move, tree)


def whole(tree: PyTree, mesh: Mesh) -> PyTree:
  """Returns arrays of a mesh as this process's own, on one of its devices.

  All processes of the mesh must call it. With a single one it does nothing.
  """
  if not spans(mesh):
    return tree
  gather = _move(NamedSharding(mesh, P()))

  def one(x: jax.Array) -> jax.Array:
    return (x if x.is_fully_replicated else gather(x)).addressable_data(0)

  return jax.tree.map(one, tree)


@functools.cache
def _move(sharding: NamedSharding) -> Callable[[jax.Array], jax.Array]:
  """Returns a program that moves an array between processes; kept."""
  return jax.jit(lambda x: x, out_shardings=sharding)


def is_key(leaf: Any) -> bool:
  """Returns whether an array holds random keys."""
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
