"""The folder of one run: who may write to it, and what it holds already."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from experiments.errors import InputError
from experiments.options import Config
from lplmtl import resume, storage

LOCK = '.lock'
RESULTS, HISTORY = 'results.json', 'history.jsonl'
CURVES, GATES = 'curves.png', 'gates.png'
MODEL, CHECKPOINTS = 'model', 'checkpoints'
COMPARISON, CELLS = 'comparison.json', 'cells'


@contextlib.contextmanager
def claim(folder: pathlib.Path) -> Iterator[None]:
  """Makes a folder ours for a while; an empty new one goes away again.

  Raises:
    InputError: it cannot be written, or another run is at work in it.
  """
  try:
    storage.check_path(folder.absolute() / MODEL, 'model')
  except ValueError as error:
    raise InputError(f'--out_dir={folder}: {error}') from error
  except OSError:
    pass  # the same will be told of below
  try:
    is_new = not folder.exists()
    checkpoints = folder / CHECKPOINTS
    if checkpoints.exists() and not checkpoints.is_dir():
      raise InputError(
        f'{checkpoints} is there and is no folder: remove it or choose another '
        '--out_dir'
      )
    if folder.exists() and not folder.is_dir():
      raise InputError(
        f'--out_dir={folder} is a file: choose a folder, which is made'
      )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
    lock = (folder / LOCK).open('a+', encoding='utf-8')
  except OSError as error:
    raise InputError(
      f'cannot write to --out_dir={folder} ({error.strerror}): choose a folder '
      'that can be written'
    ) from error
  with lock:
    _lock(lock, folder)
    try:
      yield
    finally:
      with contextlib.suppress(OSError):
        (folder / CHECKPOINTS).rmdir()  # only if it is empty
      # The lock stays, or who waits for it could hold one that is gone; but
      # not where nothing else has been written.
      if is_new and [path.name for path in folder.iterdir()] == [LOCK]:
        (folder / LOCK).unlink()
        folder.rmdir()


def _lock(file: IO[str], folder: pathlib.Path) -> None:
  """Locks a file until it is closed or the process ends, however it does."""
  try:
    import fcntl
  except ImportError:  # not on Windows
    return
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    file.seek(0)
    owner = file.read().strip() or 'unknown'
    raise InputError(
      f'another run (process {owner}) is writing to --out_dir={folder}: wait '
      'for its end, or choose another folder'
    ) from error
  except OSError:
    return  # a file system without locks
  file.truncate(0)
  file.write(str(os.getpid()))
  file.flush()


def refuse(folder: pathlib.Path, names: Sequence[str], what: str) -> None:
  """Keeps runs and comparisons apart.

  Raises:
    InputError: the folder holds one of these files.
  """
  found = [name for name in names if (folder / name).exists()]
  if found:
    raise InputError(
      f'--out_dir={folder} holds {what} ({found[0]}): choose another folder'
    )


def identity(config: Config, facts: Mapping[str, Any]) -> dict[str, Any]:
  """What makes a run this run and no other; JSON data."""
  return {
    **config.identity(),
    'data': {split: file['sha256'] for split, file in facts['files'].items()},
  }


def finished(
  folder: pathlib.Path, config: Config, run: Mapping[str, Any]
) -> dict[str, Any] | None:
  """The results of the same run, if it has been finished here.

  Raises:
    InputError: the folder holds another run, or any with `resume` off.
  """
  path = folder / RESULTS
  if not config.resume and (path.exists() or (folder / CHECKPOINTS).exists()):
    raise InputError(
      f'--out_dir={folder} holds a run already: go on with it by --resume, '
      'start it afresh by --overwrite, or choose another folder'
    )
  if not path.exists():
    return None
  try:
    results = json.loads(path.read_text(encoding='utf-8'))
    old = Config.from_json(results['config'])
    was = identity(old, results['data'])
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise InputError(
      f'{path} is not what this release writes ({error!r}): start the run '
      'afresh by --overwrite, or choose another --out_dir'
    ) from error
  different = resume.differences(was, dict(run))
  if different:
    raise InputError(
      f'--out_dir={folder} holds another run, which differs in '
      f'{", ".join(different)}: choose another --out_dir, or replace that run '
      'by --overwrite'
    )
  lost = [name for name in (MODEL, HISTORY) if not (folder / name).exists()]
  if lost:
    raise InputError(
      f'--out_dir={folder} holds a finished run whose {lost[0]} is gone: train '
      'it again by --overwrite, or choose another folder'
    )
  return results


def clear(folder: pathlib.Path) -> None:
  """Removes what a run writes, the results first."""
  for name in (RESULTS, HISTORY, CURVES, GATES, CHECKPOINTS, MODEL):
    if (folder / name).is_dir():
      shutil.rmtree(folder / name, ignore_errors=True)
    else:
      (folder / name).unlink(missing_ok=True)
