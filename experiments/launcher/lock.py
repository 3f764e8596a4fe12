"""The lock of a run's folder: only one process writes to it at a time."""

import contextlib
import os
import pathlib
import re
import tempfile
import types
from collections.abc import Iterator, Sequence

from experiments.launcher import run_folder
from experiments.launcher.errors import InputError
from lplmtl.storage import files, pytrees

fcntl: types.ModuleType | None
try:
  import fcntl
except ImportError:  # on Windows, where nothing is locked
  fcntl = None

LOCK = '.lock'


class Claim:
  """A folder that only one process may write to."""

  def __init__(self, folder: pathlib.Path, lock: int):
    self._folder, self._lock = folder, lock

  def is_held(self) -> bool:
    """Whether the file we have locked is still the folder's lock."""
    try:
      return os.path.samestat(
        os.fstat(self._lock), (self._folder / LOCK).lstat()
      )
    except OSError:
      return False

  def check(self) -> None:
    """Must be called before anything is written or removed.

    Raises:
      InputError: the folder has been removed, or replaced by another.
    """
    if not self.is_held():
      raise InputError(
        f'--out_dir={self._folder} was removed or replaced during this run: '
        'nothing more is written'
      )


class Watcher(Claim):
  """The claim of a process that writes nothing: another one does."""

  def __init__(self) -> None:
    """Locks nothing."""

  def is_held(self) -> bool:
    """Always true: the process that writes looks after its lock."""
    return True


@contextlib.contextmanager
def claim(folder: pathlib.Path) -> Iterator[Claim]:
  """Locks a folder, within a `with` block; new ones are removed if left empty.

  Raises:
    InputError: the folder cannot be written, or another run is using it.
  """
  try:
    pytrees.check_name((folder / run_folder.MODEL).absolute())
    pytrees.check_outside(folder)
  except ValueError as error:
    raise InputError(f'--out_dir: {error}') from error
  new = [
    path for path in (folder, *folder.parents) if not os.path.lexists(path)
  ]
  try:
    lock = _open(folder)
  except OSError as error:
    _remove_new(folder, new)
    raise InputError(
      f'cannot write to --out_dir={folder} ({error.strerror}): choose a folder '
      'that can be written'
    ) from error
  had_checkpoints = os.path.lexists(folder / run_folder.CHECKPOINTS)
  ours = Claim(folder, lock)
  try:
    ours.check()
    yield ours
  finally:
    if ours.is_held():
      if not had_checkpoints:
        with contextlib.suppress(OSError):
          (folder / run_folder.CHECKPOINTS).rmdir()  # only if it is empty
      _remove_new(folder, new)
    os.close(lock)


def _remove_new(folder: pathlib.Path, new: Sequence[pathlib.Path]) -> None:
  """Removes folders that were made for a run and in which nothing was written.

  The lock of any other folder stays: another process may have opened it, and
  would then lock a file that no longer has a name.

  Args:
    folder: of the run.
    new: those that did not exist, it and its parents, from the lowest up.
  """
  with contextlib.suppress(OSError):
    if new and os.listdir(folder) == [LOCK]:
      (folder / LOCK).unlink()
  with contextlib.suppress(OSError):
    for path in new:
      path.rmdir()  # only if it is empty


def _open(folder: pathlib.Path) -> int:
  """Makes the folder, opens its lock file and locks it.

  Raises:
    InputError: what is there cannot belong to a run.
    OSError: the folder cannot be written.
  """
  if folder.exists() and not folder.is_dir():
    raise InputError(
      f'--out_dir={folder} is a file: choose a folder, which will be created'
    )
  files.make_folder(folder)
  with tempfile.TemporaryFile(dir=folder):
    pass
  foreign = InputError(
    f'{folder / LOCK} exists, but is not the lock of a run: '
    f'{run_folder.ELSEWHERE}'
  )
  try:
    files.check_regular(folder / LOCK)
  except OSError as error:
    raise foreign from error
  lock = files.create(folder / LOCK, os.O_RDWR)
  try:
    # A lock holds only a process id, and has no second name (a hard link).
    if os.fstat(lock).st_nlink > 1 or not _owner(lock):
      raise foreign
    _take(lock, folder)
  except BaseException:
    os.close(lock)
    raise
  return lock


def _owner(lock: int) -> re.Match[bytes] | None:
  return re.fullmatch(rb'([0-9]{0,20})\s*', os.pread(lock, 64, 0))


def _take(lock: int, folder: pathlib.Path) -> None:
  """Locks a file until it is closed or the process ends, however it ends."""
  if fcntl is None:
    return
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    owner = _owner(lock)
    name = owner[1].decode() if owner else ''
    raise InputError(
      f'another run (process {name or "unknown"}) is writing to '
      f'--out_dir={folder}: wait until it ends, or choose another folder'
    ) from error
  except OSError:
    return  # a file system without locks
  os.ftruncate(lock, 0)
  os.pwrite(lock, str(os.getpid()).encode(), 0)
