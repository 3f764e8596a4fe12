"""JAX settings to apply before JAX starts: cache, devices, platform."""

import contextlib
import os
import warnings

import jax

from experiments.launcher.errors import InputError
from experiments.launcher.options import Config, cache_dir
from lplmtl.training import parallel

# The fewest rows per device for which splitting a batch pays off: with fewer,
# exchanging the gradients takes longer than is saved.
_ROWS_PER_DEVICE = 100


def apply(config: Config) -> None:
  """Configures JAX, and checks that it finds a device.

  Compiled programs are kept on disk, however small they are or quick to
  compile. In a notebook, where JAX may be running already, the number of
  devices stays as it is.

  Raises:
    InputError: there is no device, or the compilation cache that was asked for
      cannot be used.
  """
  base = cache_dir()
  folder = config.compilation_cache or (str(base / 'jax') if base else 'none')
  if folder != 'none' and _can_keep(config, folder):
    # A damaged entry is compiled again: not worth a warning.
    warnings.filterwarnings(
      'ignore', r'Error (reading|writing) persistent compilation cache'
    )
    jax.config.update('jax_compilation_cache_dir', os.path.expanduser(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
  with contextlib.suppress(RuntimeError):
    jax.config.update('jax_num_cpu_devices', cpu_devices(config))
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # the latter without a plugin
    reason = str(error).split('\n')[0] or 'it is not installed'
    platforms = os.environ.get('JAX_PLATFORMS', '')
    raise InputError(
      f'JAX finds no device for JAX_PLATFORMS={platforms} ({reason}): leave '
      'it unset to use any device there is, or install JAX for this one'
    ) from error


def _can_keep(config: Config, folder: str) -> bool:
  """Whether compiled programs can be kept in a folder; creates the folder.

  Raises:
    InputError: they cannot, and the folder was asked for.
  """
  if '://' in folder:  # a bucket
    return True
  try:
    os.makedirs(os.path.expanduser(folder), exist_ok=True)
  except OSError as error:
    if config.compilation_cache:
      raise InputError(
        f'--compilation_cache={folder} must be a folder that can be written, '
        f'or none ({error.strerror})'
      ) from error
    return False
  return True


def cpu_devices(config: Config, num_processes: int = 1) -> int:
  """Returns the number of host devices: one per core that has enough work.

  On two cores, two seeds train 1.3 times as fast on two devices as on one, and
  so does a single seed whose batches are split.

  Args:
    config: the seeds and the batch size that they share.
    num_processes: how many processes share them, and the cores.
  """
  if config.cpu_devices:
    return config.cpu_devices
  cores = max(parallel.num_cores() // num_processes, 1)
  if config.num_seeds > 1:
    return min(cores, -(-config.num_seeds // num_processes))
  rows = config.batch_size // num_processes
  most = min(cores, max(rows // _ROWS_PER_DEVICE, 1))
  return next(
    n for n in range(most, 0, -1)
    if n == 1 or config.batch_size % (n * num_processes) == 0
  )  # fmt: skip
