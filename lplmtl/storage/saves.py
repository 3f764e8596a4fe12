"""The checkpoints in a folder: their names, and whose they are."""

import contextlib
import os
import pathlib
import re

from lplmtl.storage import folders

KIND = 'checkpoint'  # of folder
_NAME = re.compile('step_([0-9]{10,})')


def path(directory: pathlib.Path, step: int) -> pathlib.Path:
  """Where the checkpoint of a step is."""
  return directory / f'step_{step:010}'


def named(directory: pathlib.Path) -> list[int]:
  """The steps that anything in a folder is named after, in order.

  Raises:
    OSError: the folder cannot be read; one that is not there holds none.
  """
  try:
    names = set(os.listdir(directory))
  except FileNotFoundError:
    return []
  matches = [match for name in names if (match := _NAME.fullmatch(name))]
  steps = {int(match[1]) for match in matches}
  return sorted(step for step in steps if path(directory, step).name in names)


def is_own(folder: pathlib.Path) -> bool:
  """Whether it is a checkpoint, whole or not, that was written here.

  An empty folder is what a removal may leave that breaks off.
  """
  try:
    return folders.is_own(folder, KIND) or folders.is_empty(folder)
  except OSError:
    return False


def own(directory: pathlib.Path) -> list[int]:
  """The steps of own checkpoints, in order; raises as `named`."""
  return [s for s in named(directory) if is_own(path(directory, s))]


def strangers(directory: pathlib.Path) -> list[pathlib.Path]:
  """What bears the name of a checkpoint and is none; raises as `named`."""
  found = (path(directory, step) for step in named(directory))
  return [folder for folder in found if not is_own(folder)]


def tidy(directory: pathlib.Path) -> None:
  """Removes what writes have left that broke off."""
  folders.tidy(directory, _NAME.pattern.replace('(', '(?:'))


def clear(directory: pathlib.Path) -> None:
  """Removes own checkpoints, and the folder if nothing else is in it."""
  with contextlib.suppress(OSError):
    for step in own(directory):
      folders.remove(path(directory, step))
    tidy(directory)
    directory.rmdir()
