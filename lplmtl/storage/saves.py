"""The checkpoints in a folder: their names, and which of them lplmtl wrote."""

import contextlib
import os
import pathlib
import re

from lplmtl.storage import folders

KIND = 'checkpoint'  # see `folders`
_NAME = re.compile('step_([0-9]{10,})')


def path(directory: pathlib.Path, step: int) -> pathlib.Path:
  """Returns the path of the checkpoint of a step."""
  return directory / f'step_{step:010}'


def named(directory: pathlib.Path) -> list[int]:
  """Lists the steps in the names in a folder, in order.

  A folder that does not exist has none.

  Raises:
    OSError: the folder cannot be read.
  """
  try:
    names = set(os.listdir(directory))
  except FileNotFoundError:
    return []
  matches = [match for name in names if (match := _NAME.fullmatch(name))]
  steps = {int(match[1]) for match in matches}
  return sorted(step for step in steps if path(directory, step).name in names)


def is_own(folder: pathlib.Path) -> bool:
  """Returns whether it is a checkpoint that lplmtl wrote, intact or not.

  An empty folder counts as one: an interrupted removal may leave it.
  """
  try:
    return folders.is_own(folder, KIND) or folders.is_empty(folder)
  except OSError:
    return False


def own(directory: pathlib.Path) -> list[int]:
  """Lists the steps of the checkpoints that lplmtl wrote; raises OSError."""
  return [s for s in named(directory) if is_own(path(directory, s))]


def strangers(directory: pathlib.Path) -> list[pathlib.Path]:
  """Lists what has the name of a checkpoint, but was not written by lplmtl."""
  found = (path(directory, step) for step in named(directory))
  return [folder for folder in found if not is_own(folder)]


def tidy(directory: pathlib.Path) -> None:
  """Removes what interrupted writes left behind."""
  folders.tidy(directory, _NAME.pattern.replace('(', '(?:'))


def clear(directory: pathlib.Path) -> None:
  """Removes lplmtl's checkpoints, and the folder if nothing else is in it."""
  with contextlib.suppress(OSError):
    for step in own(directory):
      folders.remove(path(directory, step))
    tidy(directory)
    directory.rmdir()
