"""The file that throughput.py writes its figures to."""

import json
import pathlib
import tempfile
from typing import Any

from experiments.launcher.errors import InputError


def check(path: pathlib.Path) -> None:
  """Refuses, before anything is measured, what figures cannot be written to.

  Raises:
    InputError: a folder, a file of another kind, or no place for a file.
  """
  try:
    if not path.absolute().parent.is_dir():
      raise InputError(f'--out={path} lies in a folder that is not there')
    if path.is_dir():
      raise InputError(f'--out={path} is a folder: name a file in it')
    if not path.exists():
      with tempfile.TemporaryFile(dir=path.absolute().parent):
        return
    if path.is_file() and path.stat().st_size and not _is_figures(path):
      raise InputError(
        f'--out={path} is there and holds no figures of throughput: move it '
        'away, or choose another name'
      )
  except OSError as error:
    raise InputError(
      f'--out={path!s:.80} cannot be written ({error.strerror})'
    ) from error


def _is_figures(path: pathlib.Path) -> bool:
  from lplmtl.storage import files

  try:
    content = files.read_json(path)
  except ValueError:
    return False
  return isinstance(content, dict) and 'measured' in content


def write(path: pathlib.Path, figures: Any) -> None:
  """Writes JSON: a file whole or not at all, a device or a pipe as it is.

  Raises:
    InputError: it cannot be written.
  """
  from experiments.launcher import files

  try:
    if path.exists() and not path.is_file():
      path.write_text(json.dumps(figures, indent=2) + '\n', encoding='utf-8')
    else:
      files.write_json(path.resolve(), figures)  # the file that a link names
  except OSError as error:
    raise InputError(
      f'--out={path} cannot be written ({error.strerror})'
    ) from error
