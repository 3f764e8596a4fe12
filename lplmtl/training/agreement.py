"""What several processes tell each other, at the same point of their program.

Every function here must be called by all of them. Only one of them knows
whether a save is due; any of them may be asked to stop. Arrays are exchanged on
the devices, as in training: no further connections are needed.
"""

import functools
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lplmtl.training import hosts
from lplmtl.types import PyTree

_T = TypeVar('_T')
_BLOCK = 2**24  # bytes that are sent at once
_LONGEST_ABSENCE = 1.0  # seconds, see `attend`


def exchange(values: np.ndarray) -> np.ndarray:
  """Returns what each process has passed, `[P, ...]` for P processes.

  All processes must call it, with arrays of the same shape and dtype.

  Args:
    values: `[...]`, of 32 bits or fewer.
  """
  with hosts.naming_loss():
    meeting = _meeting()
    shared = jax.make_array_from_process_local_data(
      meeting.apart, np.asarray(values)[None]
    )
    return np.asarray(meeting.gather(shared).addressable_data(0))


def send(content: bytes) -> bytes:
  """Returns the bytes that the first process has passed.

  All processes must call it; what the others pass is ignored.
  """
  size = _sizes(content)[0]
  received = bytearray()
  for start in range(0, size, _BLOCK):
    # Few sizes, so that few programs are compiled.
    block = np.zeros(_padded(min(_BLOCK, size - start)), np.uint8)
    if hosts.is_first():
      part = np.frombuffer(content[start : start + _BLOCK], np.uint8)
      block[: len(part)] = part
    with hosts.naming_loss():
      meeting = _meeting()
      shared = jax.make_array_from_process_local_data(
        meeting.apart, block[None]
      )
      received += np.asarray(meeting.add(shared).addressable_data(0)).tobytes()
  return bytes(received[:size])


def texts(text: str) -> list[str]:
  """Returns the text that each process has passed, in the order of processes.

  All processes must call it.
  """
  content = text.encode()
  sizes = _sizes(content)
  block = np.zeros(_padded(max(sizes)), np.uint8)
  block[: len(content)] = np.frombuffer(content, np.uint8)
  return [
    row[:size].tobytes().decode()
    for row, size in zip(exchange(block), sizes, strict=True)
  ]


def attend(call: Callable[[], _T]) -> _T:
  """Calls a function that may take far longer in some processes than in others.

  All processes must call it; the call itself must exchange nothing. On CPUs an
  exchange fails after 30 seconds without another process (Gloo's own limit), so
  until the last call has ended, all of them meet every second.

  Raises:
    LostError: another process is lost.
    Exception: whatever the call raises, once all calls have ended.
  """
  ended, failures = threading.Event(), list[Exception]()

  def meet() -> None:
    try:
      is_over = False
      while not is_over:
        own = np.array(ended.wait(_LONGEST_ABSENCE), np.int32)
        is_over = bool(exchange(own).all())
    except Exception as error:
      failures.append(error)

  # A daemon: the end of a script must not wait for other processes.
  thread = threading.Thread(target=meet, daemon=True)
  thread.start()
  error: Exception | None = None
  try:
    result = call()
  except Exception as caught:
    error = caught
  # KeyboardInterrupt and the like end this process alone: the others find out.
  ended.set()
  thread.join()
  if error is not None:
    raise error
  if failures:
    raise failures[0]
  return result


def together(call: Callable[[], _T]) -> _T:
  """Calls a function in each process; raises in all of them if one fails.

  All processes must call it; the call itself must exchange nothing. A process
  whose own call fails raises its error. The call may take long, see `attend`.

  Raises:
    HostsError: the call has failed in another process; says in which, and why.
  """
  error: Exception | None = None
  try:
    result = attend(call)
  except Exception as caught:
    error = caught
  reports = texts('' if error is None else _line(error))
  if error is not None:
    raise error
  for number, reason in enumerate(reports):
    if reason:
      raise hosts.HostsError(f'process {number}: {reason}')
  return result


def check_alike(facts: Mapping[str, Any]) -> None:
  """Compares facts that must be the same in all processes.

  All processes must call it.

  Args:
    facts: JSON data by name; long ones as a `digest`.

  Raises:
    HostsError: in all processes, if two of them differ; names the facts.
  """
  first, *others = map(json.loads, texts(json.dumps(dict(facts))))
  for number, found in enumerate(others, 1):
    different = [
      f'{name} (found {found.get(name)}, in the first {first.get(name)})'
      for name in dict.fromkeys((*first, *found))
      if json.dumps(found.get(name)) != json.dumps(first.get(name))
    ]
    if different:
      raise hosts.HostsError(
        f'process {number} differs from the first one in '
        f'{", ".join(different)}: start all processes alike'
      )


def digest(tree: PyTree) -> str:
  """Returns a short text that differs if any number in a pytree does.

  Args:
    tree: arrays, random keys, or None.
  """
  found = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    if hosts.is_key(leaf):
      leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(leaf)
    name = jax.tree_util.keystr(path)
    found.update(f'{name} {array.dtype} {array.shape} '.encode())
    found.update(array.view(np.uint8) if array.size else b'')
  return found.hexdigest()[:12]


class _Meeting(NamedTuple):
  """How processes exchange arrays: each has one row, on all of its devices."""

  apart: NamedSharding
  gather: Callable[[jax.Array], jax.Array]
  add: Callable[[jax.Array], jax.Array]


@functools.cache
def _meeting() -> _Meeting:
  count = jax.process_count()
  devices = sorted(jax.devices(), key=lambda x: (x.process_index, x.id))
  if len(devices) % count:
    shares = np.bincount([x.process_index for x in devices]).tolist()
    raise hosts.HostsError(
      'all processes must have the same number of devices; found, in the order '
      f'of processes, {shares}'
    )
  mesh = Mesh(
    np.array(devices).reshape(count, -1), ('hosts', 'local'),
    axis_types=(AxisType.Auto,) * 2,
  )  # fmt: skip
  everywhere = NamedSharding(mesh, P())
  return _Meeting(
    NamedSharding(mesh, P('hosts')),
    jax.jit(lambda x: x, out_shardings=everywhere),
    jax.jit(lambda x: jnp.sum(x, 0, dtype=x.dtype), out_shardings=everywhere),
  )


def _sizes(content: bytes) -> list[int]:
  # In two numbers: JAX would cut off the upper half of 64 bits.
  pair = np.array(divmod(len(content), 2**31), np.int32)
  return [int(high) * 2**31 + int(low) for high, low in exchange(pair)]


def _padded(size: int) -> int:
  """Returns the power of two, 1024 or more, into which some bytes fit."""
  return max(1024, 1 << (size - 1).bit_length())


def _line(error: Exception) -> str:
  return ' '.join(str(error).split()) or type(error).__name__
