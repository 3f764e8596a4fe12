"""The file to which the figures of a benchmark are written."""

import json
import pathlib
import tempfile
from typing import Any

from experiments.launcher import files
from experiments.launcher.errors import InputError
from lplmtl.storage import files as storage_files


def check(path: pathlib.Path) -> None:
  """Refuses, before anything is measured, a path that cannot be written.

  Raises:
    InputError: it is a folder or a file of another kind, or no file can be
      created there.
  """
  folder = path.absolute().parent
  try:
    if not folder.is_dir():
      raise InputError(f'--out={path} is in a folder that does not exist')
    if path.is_dir():
      raise InputError(f'--out={path} is a folder: name a file in it')
    if not path.exists():
      with tempfile.TemporaryFile(dir=folder):
        return
    if path.is_file() and path.stat().st_size and not _is_figures(path):
      raise InputError(
        f'--out={path} exists and is not the output of a benchmark: move it '
        'away, or choose another name'
      )
  except OSError as error:
    raise InputError(
      f'--out={path!s:.80} cannot be written ({error.strerror})'
    ) from error


def write(path: pathlib.Path, figures: Any) -> None:
  """Writes JSON: to a file atomically, to a device or pipe directly.

  Raises:
    InputError: the path cannot be written.
  """
  try:
    if path.exists() and not path.is_file():
      path.write_text(json.dumps(figures, indent=2) + '\n', encoding='utf-8')
    else:
      files.write_json(path.resolve(), figures)  # where a link leads
  except OSError as error:
    raise InputError(
      f'--out={path} cannot be written ({error.strerror})'
    ) from error


def _is_figures(path: pathlib.Path) -> bool:
  try:
    content = storage_files.read_json(path)
  except ValueError:
    return False
  return isinstance(content, dict) and 'measured' in content
