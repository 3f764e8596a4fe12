"""The folder of a comparison: which files may be replaced or removed."""

import contextlib
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from experiments.launcher import lock, run_folder
from experiments.launcher.errors import InputError
from lplmtl import resume
from lplmtl.storage import files

JSON = run_folder.COMPARISON
MARKDOWN, CSV = 'comparison.md', 'comparison.csv'
SIZES, DIFFERENCES = 'sizes.png', 'differences.png'
# The files of a comparison, the one with all figures first.
NAMES = (JSON, MARKDOWN, CSV, SIZES, DIFFERENCES)
_RUN = {
  'a single run': (
    run_folder.RESULTS,
    run_folder.MODEL,
    run_folder.CHECKPOINTS,
  )
}
_CELL = re.compile('[0-9a-f]{20}')
_MOST_LISTED = 4  # differences in a line
_LONGEST = 120  # characters of each
_ELSEWHERE = 'move it away, or choose another --out_dir'


def check(folder: pathlib.Path, names: Sequence[str] = NAMES) -> None:
  """Refuses, before anything is fitted, files that no comparison has written.

  Args:
    folder: of the comparison.
    names: the files that it writes, the one with all figures first.

  Raises:
    InputError: something has the name of a file that a comparison writes, but
      no comparison wrote it.
  """
  cells = folder / run_folder.CELLS
  if cells.is_symlink() or (cells.exists() and not cells.is_dir()):
    raise InputError(f'{cells} is not a folder: {_ELSEWHERE}')
  is_ours = _has(folder / names[0], 'rows', 'baseline')
  is_ours = is_ours or bool(_cells(cells))
  for name in names:
    path = folder / name
    is_file = path.is_file() and not path.is_symlink()
    if (path.is_symlink() or path.exists()) and not (is_file and is_ours):
      raise InputError(
        f'{path} exists, but no comparison wrote it: {_ELSEWHERE}'
      )


def interrupted(folder: pathlib.Path) -> str:
  """Returns what to say when a command that keeps finished fits is stopped."""
  if not any((folder / run_folder.CELLS).glob('*.json')):
    return 'interrupted: no fit was finished, and nothing is kept'
  return 'interrupted: finished fits are kept, and the same command resumes'


def refuse_other(
  folder: pathlib.Path, shared: Mapping[str, Any], what: str
) -> None:
  """Refuses a folder with fits of another comparison, which would be mixed up.

  Args:
    folder: of the comparison.
    shared: JSON data: what all of its rows share, as `cells.Store` keeps it
      with each fit. Fits of releases that did not are passed over.
    what: it is, such as `study`.

  Raises:
    InputError: the folder holds fits for which something else was shared.
  """
  for path in _cells(folder / run_folder.CELLS):
    old = files.read_json(path).get('shared')
    if not old:
      continue
    different = resume.differences(old, json.loads(json.dumps(shared)))
    if different:
      listed = ', '.join(map(_shortened, different[:_MOST_LISTED]))
      more = len(different) - _MOST_LISTED
      raise InputError(
        f'--out_dir={folder} holds another {what}, which differs in {listed}'
        f'{f" and {more} more" if more > 0 else ""}: choose another --out_dir, '
        'or replace it with --overwrite'
      )
    return


def _shortened(text: str) -> str:
  """Returns a difference, without the middle of a long list of settings."""
  half = _LONGEST // 2
  is_long = len(text) > _LONGEST
  return f'{text[:half]} ... {text[-half:]}' if is_long else text


@contextlib.contextmanager
def claim(
  folder: pathlib.Path,
  names: Sequence[str],
  others: Mapping[str, Sequence[str]],
) -> Iterator[Callable[[], None]]:
  """Keeps a folder for one command, within a `with` block.

  Args:
    folder: of the comparison.
    names: the files that it writes, the one with all figures first.
    others: `{what: its files}`, of which the folder may hold none.

  Yields:
    A function to call before anything is written; see `lock.Claim.check`.

  Raises:
    InputError: the folder holds something else, or cannot be written.
  """
  with lock.claim(folder) as held:
    for what, theirs in {**_RUN, **others}.items():
      run_folder.refuse(folder, theirs, what)
    check(folder, names)
    try:
      yield held.check
    except OSError as error:
      raise InputError(
        f'cannot write to --out_dir={folder} ({error.strerror or error}): make '
        'room and run the same command again; finished fits are kept'
      ) from error


def clear(folder: pathlib.Path, names: Sequence[str] = NAMES) -> None:
  """Removes a comparison, the tables first; raises as `check` does."""
  check(folder, names)
  for name in names:
    (folder / name).unlink(missing_ok=True)
  files.tidy(folder, names)
  cells = folder / run_folder.CELLS
  for path in _cells(cells):
    path.unlink(missing_ok=True)
    path.with_suffix('.npz').unlink(missing_ok=True)
  with contextlib.suppress(OSError):
    cells.rmdir()  # fails if anything else is in it


def _cells(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the finished fits in a folder."""
  paths = folder.glob('*.json') if folder.is_dir() else ()
  keys = ('identity', 'facts', 'digest', 'arrays')
  return [p for p in paths if _CELL.fullmatch(p.stem) and _has(p, *keys)]


def _has(path: pathlib.Path, *keys: str) -> bool:
  """Whether a file is a JSON object with these fields."""
  try:
    files.check_regular(path)
    content: Any = files.read_json(path)
  except (OSError, ValueError):
    return False
  return isinstance(content, dict) and set(keys) <= content.keys()
