"""Finds the files of a table."""

import contextlib
import glob
import hashlib
import importlib
import pathlib
from collections.abc import Sequence
from types import ModuleType

from experiments.launcher.errors import InputError
from lplmtl.storage import files

STDIN = '-'
ARROW = ('.parquet', '.pq', '.feather', '.arrow', '.ipc')
_TEXT = ('.csv', '.tsv', '.txt', '.tab', '.psv', '.data', '.test')
_PACKED = ('.gz', '.bz2', '.xz', '.zst', '.zip', '.tar', '.tgz')


def find(flag: str, data: str) -> list[pathlib.Path]:
  """Returns the files that a path, a folder or a pattern stands for, by name.

  Args:
    flag: whose value it is, for messages.
    data: the path; not `-`.

  Raises:
    InputError: there is no such file, or none that could be a table.
  """
  path = pathlib.Path(data)
  if path.is_dir():
    found = sorted(
      p for p in path.iterdir()
      if p.is_file() and not p.name.startswith(('.', '_')) and is_table(p)
    )  # fmt: skip
    if not found:
      raise InputError(
        f'--{flag}={data} is a folder without tables: expected files such as '
        '.csv, .csv.gz, .tsv or .parquet in it'
      )
    return found
  if path.exists():
    return [path]
  found = sorted(
    p for p in map(pathlib.Path, glob.glob(data)) if not p.is_dir()
  )
  if not found:
    raise InputError(f'--{flag}={data}: no such file or folder{_others(path)}')
  return found


def _others(path: pathlib.Path) -> str:
  """Returns a hint: the tables beside a path that does not exist."""
  with contextlib.suppress(OSError):
    names = sorted(p.name for p in path.parent.iterdir() if is_table(p))
    if names:
      more = ', ...' if len(names) > 3 else ''
      return f'; its folder holds {", ".join(names[:3])}{more}'
  return ''


def is_table(path: pathlib.Path) -> bool:
  """Whether the name of a file is that of a table."""
  suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
  if suffixes and suffixes[-1] in _PACKED:
    suffixes.pop()
  return bool(suffixes) and suffixes[-1] in (*_TEXT, *ARROW)


def arrow(path: pathlib.Path) -> ModuleType:
  """Returns the module that reads and writes Arrow's formats.

  Raises:
    InputError: PyArrow, which it needs, is missing.
  """
  module = with_pyarrow('arrow')
  if module is None:
    raise InputError(
      f"{path} needs PyArrow: pip install 'lplmtl[tables]', or use CSV"
    )
  return module


def warn_of_types(paths: Sequence[pathlib.Path]) -> None:
  """Warns of columns that Arrow's files store in types that do not fit.

  Raises:
    InputError: a file is damaged, or PyArrow is missing.
  """
  stored = [path for path in paths if path.suffix.lower() in ARROW]
  if len(stored) > 1:
    arrow(stored[0]).warn_of_types(stored)


def with_pyarrow(name: str) -> ModuleType | None:
  """Returns a module of this folder; None if PyArrow, an extra, is missing."""
  try:
    return importlib.import_module(f'{__package__}.{name}')
  except ImportError:
    return None


def digests(paths: list[pathlib.Path]) -> list[str]:
  """Returns the SHA-256 of the bytes of each file.

  Raises:
    InputError: a file cannot be read.
  """
  try:
    return [files.sha256(path) for path in paths]
  except OSError as error:
    raise InputError(
      f'{error.filename}: cannot be read ({error.strerror})'
    ) from error


def digest(digests: list[str]) -> str:
  """Returns the digest of a file; of several, the SHA-256 of theirs."""
  if len(digests) == 1:
    return digests[0]
  return hashlib.sha256(''.join(digests).encode()).hexdigest()


def changed(path: pathlib.Path) -> InputError:
  """Returns what to say about a file that was written to."""
  return InputError(f'{path} changed while it was read: try again')
