"""The folder of a run: who may write to it, and what it already holds."""

import contextlib
import json
import os
import pathlib
import re
import tempfile
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.launcher import drawing
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import resume
from lplmtl.storage import files, folders, pytrees, saves

fcntl: types.ModuleType | None
try:
  import fcntl
except ImportError:  # on Windows, where nothing is locked
  fcntl = None

LOCK = '.lock'
RESULTS, HISTORY = 'results.json', 'history.jsonl'
CURVES, GATES = 'curves.png', 'gates.png'
MODEL, CHECKPOINTS = 'model', 'checkpoints'
COMPARISON, CELLS = 'comparison.json', 'cells'
_ELSEWHERE = 'move it away, or choose another --out_dir'


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


@contextlib.contextmanager
def claim(folder: pathlib.Path) -> Iterator[Claim]:
  """Locks a folder, within a `with` block; a new one is removed if left empty.

  Raises:
    InputError: it cannot be written, or another run is using it.
  """
  try:
    pytrees.check_name((folder / MODEL).absolute())
    pytrees.check_outside(folder)
  except ValueError as error:
    raise InputError(f'--out_dir: {error}') from error
  is_new = not os.path.lexists(folder)
  try:
    lock = _open(folder)
  except OSError as error:
    _remove_new(folder, is_new)
    raise InputError(
      f'cannot write to --out_dir={folder} ({error.strerror}): choose a folder '
      'that can be written'
    ) from error
  had_checkpoints = os.path.lexists(folder / CHECKPOINTS)
  ours = Claim(folder, lock)
  try:
    ours.check()
    yield ours
  finally:
    if ours.is_held():
      if not had_checkpoints:
        with contextlib.suppress(OSError):
          (folder / CHECKPOINTS).rmdir()  # only if it is empty
      _remove_new(folder, is_new)
    os.close(lock)


def _remove_new(folder: pathlib.Path, is_new: bool) -> None:
  """Removes a folder that was made for a run and in which nothing was written.

  The lock of any other folder stays: another process may have opened it, and
  would then lock a file that no longer has a name.
  """
  with contextlib.suppress(OSError):
    if is_new and os.listdir(folder) == [LOCK]:
      (folder / LOCK).unlink()
    if is_new:
      folder.rmdir()  # only if it is empty


def _open(folder: pathlib.Path) -> int:
  """Makes the folder, opens its lock file and locks it.

  Raises:
    InputError: what is there cannot belong to a run.
    OSError: it cannot be written.
  """
  if folder.exists() and not folder.is_dir():
    raise InputError(
      f'--out_dir={folder} is a file: choose a folder, which will be made'
    )
  files.make_folder(folder)
  with tempfile.TemporaryFile(dir=folder):
    pass
  foreign = InputError(
    f'{folder / LOCK} is there and is not the lock of a run: {_ELSEWHERE}'
  )
  try:
    files.check_regular(folder / LOCK)
  except OSError as error:
    raise foreign from error
  lock = files.create(folder / LOCK, os.O_RDWR)
  try:
    # A lock holds a process id only, and has no second name (a hard link).
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
  """Locks a file until it is closed or the process ends, in whatever way."""
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


def refuse(folder: pathlib.Path, names: Sequence[str], what: str) -> None:
  """Keeps runs and comparisons apart.

  Raises:
    InputError: the folder holds one of these files.
  """
  there = [name for name in names if os.path.lexists(folder / name)]
  if there:
    raise InputError(
      f'--out_dir={folder} holds {what} ({there[0]}): choose another folder'
    )


def check(folder: pathlib.Path) -> None:
  """Refuses files that a run would replace or remove but has not written.

  Called before training, so that no work is lost.

  Raises:
    InputError: a file has the name of one that runs write, and is another.
  """
  kept = folder / CHECKPOINTS
  if os.path.lexists(kept) and (kept.is_symlink() or not kept.is_dir()):
    raise InputError(f'{kept} is there and is not a folder: {_ELSEWHERE}')
  try:
    strangers = saves.strangers(kept)
    pytrees.check_path((folder / MODEL).absolute(), 'model')
  except (OSError, ValueError) as error:
    raise InputError(f'--out_dir={folder}: {error}') from error
  if strangers:
    raise InputError(
      f'{strangers[0]} is not the checkpoint of a run, or holds other files: '
      f'{_ELSEWHERE}'
    )
  for name, is_own in (
    (RESULTS, _is_results),
    (HISTORY, _is_history),
    (CURVES, _is_picture),
    (GATES, _is_picture),
  ):
    path = folder / name
    if os.path.lexists(path) and not (_is_empty(path) or is_own(path)):
      raise InputError(f'{path} was not written by a run: {_ELSEWHERE}')


def _is_empty(path: pathlib.Path) -> bool:
  is_file = path.is_file() and not path.is_symlink()
  return path.stat().st_size == 0 if is_file else folders.is_empty(path)


def _is_results(path: pathlib.Path) -> bool:
  try:
    files.check_regular(path)
    data = files.read_json(path)
    names = {'architecture', 'balancer', 'dataset'}
    return names <= data['config'].keys() and {'test', 'title'} <= data.keys()
  except (OSError, ValueError, TypeError, KeyError, AttributeError):
    return False


def _is_history(path: pathlib.Path) -> bool:
  try:
    files.check_regular(path)
    lines = [json.loads(line) for line in files.read(path).splitlines()]
    return all({'epoch', 'losses'} <= line.keys() for line in lines)
  except (OSError, ValueError, AttributeError, RecursionError):
    return False


def _is_picture(path: pathlib.Path) -> bool:
  """A marked one or, from releases before the mark, one beside our results."""
  if path.is_symlink():
    return False
  if drawing.is_own(path):
    return True
  try:
    with files.open_regular(path) as file:
      is_plot = b'Software\0Matplotlib' in file.read(256)
  except OSError:
    return False
  return is_plot and _is_results(path.with_name(RESULTS))


def identity(config: Config, facts: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what distinguishes a run from all others, as JSON data."""
  return {
    **config.identity(),
    'data': {split: file['sha256'] for split, file in facts['files'].items()},
  }


def finished(
  folder: pathlib.Path, config: Config, run: Mapping[str, Any]
) -> dict[str, Any] | None:
  """Returns the results of a run if the folder holds them; otherwise None.

  Raises:
    InputError: the folder holds another run, or any run and `resume` is off.
  """
  path = folder / RESULTS
  if not config.resume and (path.exists() or (folder / CHECKPOINTS).exists()):
    raise InputError(
      f'--out_dir={folder} already holds a run: resume it with --resume, start '
      'over with --overwrite, or choose another folder'
    )
  if not path.exists():
    return None
  try:
    results: dict[str, Any] = files.read_json(path)
    old = Config.from_json(results['config'])
    was = identity(old, results['data'])
  except (OSError, ValueError, TypeError, KeyError, InputError) as error:
    raise InputError(
      f'{path} is not what this release writes ({error!r}): start over with '
      '--overwrite, or choose another --out_dir'
    ) from error
  different = resume.differences(was, dict(run))
  if different:
    raise InputError(
      f'--out_dir={folder} holds another run, which differs in '
      f'{", ".join(different)}: choose another --out_dir, or replace that run '
      'with --overwrite'
    )
  lost = [name for name in (MODEL, HISTORY) if not (folder / name).exists()]
  if lost:
    raise InputError(
      f'--out_dir={folder} holds a finished run whose {lost[0]} is missing: '
      'train it again with --overwrite, or choose another folder'
    )
  try:
    pytrees.verify(folder / MODEL)
  except pytrees.CheckpointError as error:
    raise InputError(
      f'--out_dir={folder} holds a finished run, but {error}: train it again '
      'with --overwrite, or choose another folder'
    ) from error
  return results


def clear(folder: pathlib.Path) -> None:
  """Removes what a run has written, results first; raises as `check` does."""
  check(folder)
  files.tidy(folder, (RESULTS, HISTORY, CURVES, GATES))
  for name in (RESULTS, HISTORY, CURVES, GATES):
    if (folder / name).is_dir():
      (folder / name).rmdir()  # empty, or `check` would have raised
    else:
      (folder / name).unlink(missing_ok=True)
  saves.clear(folder / CHECKPOINTS)
  folders.remove(folder / MODEL)
