"""Where a result comes from: versions, device, commit, command."""

import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax

PACKAGES = (
  'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'pandas',
  'absl-py', 'scipy',
)  # fmt: skip
_GIT_SECONDS = 10  # a checkout on a slow network drive must not block a run


def environment() -> dict[str, Any]:
  """Returns what results depend on besides the Config, as JSON data."""
  devices = jax.devices()
  return {
    'versions': {
      'python': platform.python_version(),
      **{name: importlib.metadata.version(name) for name in PACKAGES},
    },
    'device': {
      'platform': devices[0].platform,
      'kind': devices[0].device_kind,
      'count': len(devices),
      'processes': jax.process_count(),
      'cpu_count': os.cpu_count(),
    },
    'commit': commit(),
  }


def commit() -> str | None:
  """Returns the checkout's commit, with a `+` if tracked files were changed.

  None outside a checkout, or without git.
  """
  here = pathlib.Path(__file__)

  def git(*args: str) -> str:
    return subprocess.run(
      ['git', *args],
      cwd=here.parent, capture_output=True, text=True, check=True,
      timeout=_GIT_SECONDS,
    ).stdout.strip()  # fmt: skip

  try:
    # An installation may lie inside a checkout of another project.
    git('ls-files', '--error-unmatch', here.name)
    head = git('rev-parse', 'HEAD')
    return head + ('+' if git('status', '--porcelain', '-uno') else '')
  except (OSError, subprocess.SubprocessError):
    return None


def command_line(command: Sequence[str]) -> str:
  """Returns what to type to repeat `command`, a program's `sys.argv`.

  That is `lplmtl ...` if this process was started so, or if the commands are
  installed: `python -m experiments...` works in a checkout only.
  """
  program = pathlib.Path(command[0])
  start = command[0]
  if program.parent.name == 'experiments':
    is_installed = (program.parent.parent / '__init__.py').exists()
    usual = 'lplmtl ' if is_installed else 'python -m experiments.'
    caller = getattr(sys.modules.get('experiments'), 'CALLER', '')
    start = (caller or usual) + program.stem
  return ' '.join([start, *map(shlex.quote, command[1:])])
