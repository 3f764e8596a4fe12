"""What a run does differently as one of several processes.

Everything here also works in a single process, where it does almost nothing.
"""

import contextlib
import dataclasses
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from experiments.launcher import children, errors, interrupts, jax_setup
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from experiments.launcher.processes import Place
from lplmtl.training import agreement, hosts

_T = TypeVar('_T')
# Seconds after which a person may wonder whether a start hangs: one that does
# not hang takes a few.
_SILENCE = 10.0


def connect(place: Place, config: Config) -> Config:
  """Connects this process with the others; before anything else of JAX.

  Returns:
    The Config with a number of host devices that all processes can have.

  Raises:
    InputError: the others do not come, or do not fit.
  """
  if place.is_local:
    # They could not share an accelerator.
    jax.config.update('jax_platforms', 'cpu')
  waits = threading.Timer(_SILENCE, _say_wait, (place,))
  waits.daemon = True
  waits.start()
  try:
    hosts.initialize(place.coordinator, place.num_processes, place.process_id)
  except (hosts.HostsError, ValueError) as error:
    raise InputError(str(error)) from error
  finally:
    waits.cancel()
  if not config.cpu_devices:
    # Equally many in each: hosts may have different numbers of cores.
    share = 1
    if place.is_local:
      share = jax_setup.cpu_devices(config, place.num_processes or 1)
    config = dataclasses.replace(config, cpu_devices=share)
  # Before JAX looks for devices, as `is_first` makes it do.
  jax.config.update('jax_num_cpu_devices', config.cpu_devices)
  if not hosts.is_first():  # which alone prints
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
  return config


def _say_wait(place: Place) -> None:
  others = 'the other processes'
  if place.num_processes:
    others = f'all {place.num_processes} processes'
  print(
    f'waiting for {others} to start, up to {hosts.TIMEOUT / 60:.0f} minutes …',
    flush=True,
  )


def is_first() -> bool:
  """Returns whether this process prints, writes and decides."""
  return hosts.is_first()


def call(function: Callable[[], _T]) -> _T:
  """Calls a function in each process; raises in all of them if one fails.

  All processes must come here; the function itself must wait for no other.

  Raises:
    HostsError: it has failed in another process.
  """
  if jax.process_count() == 1:
    return function()
  return agreement.together(function)


def first_then_others(function: Callable[[], _T]) -> _T:
  """Calls a function in the first process, and then in all others at once.

  So that these find what it has left in a cache or a shared folder.

  Raises:
    HostsError: it has failed in another process.
  """
  result = in_first(function)
  return call(lambda: function() if result is None else result)


def in_first(function: Callable[[], _T]) -> _T | None:
  """Calls a function in the first process, while the others wait.

  Returns:
    What it returns; None in the others.
  """
  return call(lambda: function() if is_first() else None)


def any_of(value: int) -> int:
  """Returns the largest of the numbers that the processes have."""
  if jax.process_count() == 1:
    return value
  return int(agreement.exchange(np.array(value, np.int32)).max())


def compare(facts: Mapping[str, Any]) -> None:
  """Raises HostsError, in all processes, if facts differ between them."""
  if jax.process_count() > 1:
    agreement.check_alike(facts)


@contextlib.contextmanager
def in_order() -> Iterator[None]:
  """Ends one of several processes within a `with` block, if anything fails.

  At once, as JAX would wait for all others, and after its reason is said.
  """
  try:
    yield
  except BaseException as error:
    children.end(_explain(error))


def _explain(error: BaseException) -> int:
  """Prints why a process ends, unless another one knows; returns a code."""
  if isinstance(error, interrupts.Stopped):
    print(error, file=sys.stderr)
    return error.exit_code
  if isinstance(error, SystemExit) and isinstance(error.code, int):
    return error.code
  if isinstance(error, KeyboardInterrupt):
    return 128 + interrupts.SIGNALS[0]
  try:
    with hosts.naming_loss():
      raise error
  except hosts.LostError:
    return children.LOST
  except Exception as caught:
    text = errors.describe(caught)
    if text is None:
      traceback.print_exception(caught)
    else:
      print(f'error: {text}', file=sys.stderr)
  return 1
