"""Sizes that do not fit, reported in one line, if possible before training."""

import contextlib
import math
import os
from collections.abc import Iterator

import jax

from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl.types import PyTree

# Moments that an optimiser keeps per parameter; two unless listed.
_MOMENTS = {'adagrad': 1, 'sgd': 1}
# How JAX and the C++ runtime report it.
_SIGNS = ('RESOURCE_EXHAUSTED', 'out of memory', 'bad_alloc')


def check(variables: PyTree, config: Config) -> None:
  """Refuses a model that is too large for a single training step.

  An operating system that overcommits memory would kill the run instead.

  Args:
    variables: the shapes of one seed's parameters.
    config: the sizes that were asked for.

  Raises:
    InputError: the model needs more memory than all devices together have.
  """
  one = sum(
    math.prod(leaf.shape) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(variables)
  )
  state = 1 + _MOMENTS.get(config.optimizer, 2)
  # The state before and after a chunk of steps, the gradient, the best so far.
  copies = 2 * state + 2
  limits = _device_limits()
  available = sum(limits)
  if not limits:  # the host's memory, which also holds what is being saved
    copies += state + 1
    available = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  needed = copies * one * config.num_seeds
  if needed > available:
    raise InputError(
      f'this model does not fit: parameters, optimiser and best epoch take at '
      f'least {needed / 1e9:,.1f} GB, of {available / 1e9:,.1f} GB available; '
      f'{_advice(config)}'
    )


def _device_limits() -> list[int]:
  """Returns the bytes of each device; empty if unknown, as on a CPU."""
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  limits = [of_device.get('bytes_limit', 0) for of_device in stats]
  return limits if all(limits) else []


@contextlib.contextmanager
def guard(config: Config) -> Iterator[None]:
  """Turns an out-of-memory error into an InputError that names the sizes."""
  try:
    yield
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    if not is_out(error):
      raise
    raise InputError(f'{explain(error)}; {_advice(config)}') from error


def is_out(error: BaseException) -> bool:
  """Whether an error means that a device or the host ran out of memory."""
  return isinstance(error, MemoryError) or (
    isinstance(error, jax.errors.JaxRuntimeError)
    and any(sign in str(error) for sign in _SIGNS)
  )


def explain(error: BaseException) -> str:
  """Returns, in one line, what could not be allocated."""
  reason = str(error).strip().split('\n')[0]
  reason = reason.removeprefix('RESOURCE_EXHAUSTED: ')
  return f'out of memory on {jax.default_backend()} ({reason or "no size"})'


def _advice(config: Config) -> str:
  widths = ','.join('x'.join(map(str, w)) for w in config.expert_widths)
  bottom = 'x'.join(map(str, config.bottom_widths))
  return (
    f'asked for --num_seeds={config.num_seeds}, '
    f'--batch_size={config.batch_size}, --expert_widths={widths}, '
    f'--bottom_widths={bottom}, --num_experts={config.num_experts}, '
    f'--embed_dim={config.embed_dim}: lower the largest of them'
  )
