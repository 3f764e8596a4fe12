"""Which of several processes this is: from flags, SLURM, or a TPU pod.

Cheap to import (no JAX), so that --help answers at once.
"""

import glob
import importlib.util
import os
import socket
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

from absl import flags

from experiments.launcher.errors import InputError
from experiments.launcher.options import Config

_MOST = 256  # processes on one machine


class Place(NamedTuple):
  """Which of several processes this is.

  Attributes:
    coordinator: `host:port` of the first process; None where JAX finds the
      others by itself.
    num_processes: how many there are; None likewise.
    process_id: number of this one, from 0; None likewise.
    is_local: whether all are on this machine.
  """

  coordinator: str | None = None
  num_processes: int | None = None
  process_id: int | None = None
  is_local: bool = False


def define_flags() -> None:
  """Defines the flags once, for all commands."""
  if 'coordinator' in flags.FLAGS:
    return
  flags.DEFINE_string(
    'coordinator', '',
    'Processes: host:port of the first of several processes, which listens '
    'there; give it, --num_processes and --process_id to each of them. Leave '
    'out all three on TPU pods and under srun.',
  )  # fmt: skip
  flags.DEFINE_integer(
    'num_processes', None,
    'Processes: how many train together, usually one a host.',
    lower_bound=1, upper_bound=100_000,
  )  # fmt: skip
  flags.DEFINE_integer(
    'process_id', None,
    'Processes: number of this one, from 0; the first, 0, prints and writes.',
    lower_bound=0, upper_bound=100_000,
  )  # fmt: skip
  flags.DEFINE_integer(
    'local_processes', 0,
    'Processes: start this many on the CPU of this machine, to try what '
    'several hosts do; 0 for one process, which is faster.',
    lower_bound=0, upper_bound=_MOST,
  )  # fmt: skip


def from_flags(values: flags.FlagValues) -> Place | None:
  """Returns the place of this process among others, None if it is alone.

  Raises:
    InputError: the flags do not fit together.
  """
  names = 'coordinator', 'num_processes', 'process_id'
  given = {n: values[n].value for n in names if values[n].present}
  local = values.local_processes
  if local and given:
    raise InputError(
      f'--local_processes={local} starts all processes here: leave out '
      f'--{next(iter(given))}'
    )
  if local:
    return Place(f'127.0.0.1:{free_port()}', local, 0, True)
  if given and len(given) < len(names):
    missing = next(name for name in names if name not in given)
    raise InputError(
      '--coordinator, --num_processes and --process_id belong together: '
      f'--{missing} is missing'
    )
  if given:
    coordinator, num_processes, process_id = (values[n].value for n in names)
    place = Place(coordinator, num_processes, process_id)
    host, _, port = str(coordinator).rpartition(':')
    if not host or not port.isdecimal():
      raise InputError(
        f'--coordinator={coordinator} must be host:port of the first process, '
        'such as 10.0.0.1:1234'
      )
    if (place.process_id or 0) >= (place.num_processes or 0):
      raise InputError(
        f'--process_id={place.process_id} must be below '
        f'--num_processes={place.num_processes}'
      )
    return place
  return Place() if _in_slurm(os.environ) or _in_tpu_pod(os.environ) else None


def check(place: Place, config: Config) -> None:
  """Looks at --local_processes before they are started, which takes a while.

  Prints a line if they are more than the cores.

  Raises:
    InputError: they cannot share the rows of a batch.
  """
  count = place.num_processes or 1
  if not place.is_local:
    return
  # The batch of a table of one's own may still be lowered.
  if config.num_seeds == 1 and not config.data and config.batch_size % count:
    raise InputError(
      f'--local_processes={count} share the rows of a batch: '
      f'--batch_size={config.batch_size} must be a multiple of {count}'
    )
  affinity = getattr(os, 'sched_getaffinity', None)  # on Linux
  cores = len(affinity(0)) if affinity else os.cpu_count() or 1
  if count > cores:
    print(f'{count} processes take turns on {cores} cores: this is slow')


def refuse(values: flags.FlagValues, what: str) -> None:
  """Raises InputError if several processes are asked for.

  Args:
    values: the flags.
    what: what one process does, such as `scoring`.
  """
  names = 'local_processes', 'coordinator', 'num_processes', 'process_id'
  given = [name for name in names if values[name].present]
  if given:
    raise InputError(
      f'--{given[0]} is for training, and {what} takes one process: leave it '
      'out'
    )


def _in_slurm(environment: Mapping[str, str]) -> bool:
  """Whether this is one of several tasks of an srun."""
  names = 'SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_PROCID', 'SLURM_LOCALID'
  count = environment.get('SLURM_STEP_NUM_TASKS', '')
  is_task = all(name in environment for name in names)
  return is_task and count.isdecimal() and int(count) > 1


def _in_tpu_pod(environment: Mapping[str, str]) -> bool:
  """Whether this is one of several hosts of a TPU pod."""
  names = environment.get('TPU_WORKER_HOSTNAMES', '')  # on GKE
  if ',' in names:
    return True
  if names or importlib.util.find_spec('libtpu') is None:
    return False
  devices = glob.glob('/dev/accel*') + glob.glob('/dev/vfio/[0-9]*')
  if not devices:
    return False
  try:  # on a VM: the hosts of the pod are joined by commas
    with urllib.request.urlopen(_tpu_hosts(), timeout=2) as answer:
      return b',' in answer.read()
  except (OSError, ValueError):
    return False


def _tpu_hosts() -> urllib.request.Request:
  return urllib.request.Request(
    'http://metadata.google.internal/computeMetadata/v1/instance/attributes/'
    'worker-network-endpoints',
    headers={'Metadata-Flavor': 'Google'},
  )


def free_port() -> int:
  """Returns a port on which nobody listens."""
  with socket.create_server(('127.0.0.1', 0)) as server:
    port: int = server.getsockname()[1]
  return port
