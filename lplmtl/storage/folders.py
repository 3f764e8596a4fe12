"""Folders of our own: marked when they are made, removed by that mark alone.

A folder holds the file `LPLMTL`, which says what it is and how long its files
are, and `SHA256SUMS`, for `sha256sum -c`. Folders of releases before the mark
are known by their metadata. Plain Python.
"""

import contextlib
import errno
import os
import pathlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping

from lplmtl.storage import files

MARK, CHECKSUMS = 'LPLMTL', 'SHA256SUMS'
ARRAYS, META = 'arrays', 'meta'
_METADATA = f'{META}/metadata'
_NEW, _OLD = 'new', 'old'  # inside of a part
_PART = 'part'
# What a damaged folder may hold beside them, where its list of files is lost.
_LAYOUT = {
  MARK, CHECKSUMS, ARRAYS, META, '_CHECKPOINT_METADATA', 'commit_success.txt',
}  # fmt: skip
# Looks for what is written after an error, those in a row that find nothing,
# and seconds between them.
_TRIES, _QUIET, _WAIT = 40, 3, 0.03
# Of metadata before the mark: by what they hold.
_KINDS = {'model': 'model', 'run': 'checkpoint'}
_LINE = re.compile('([0-9a-f]{64})  ([^\n]+)')


def is_empty(folder: pathlib.Path) -> bool:
  """Whether it is a folder, no link to one, with nothing in it."""
  is_folder = folder.is_dir() and not folder.is_symlink()
  return is_folder and not os.listdir(folder)


def is_own(folder: pathlib.Path, kind: str) -> bool:
  """Whether a folder was written here, and holds nothing else.

  Args:
    folder: any path; a link is not own.
    kind: `model` or `checkpoint`.
  """
  try:
    if folder.is_symlink() or not folder.is_dir():
      return False
    listed = _listed(folder)
    if _kind(folder, listed) != kind:
      return False
    # Each of the two lists makes up for damage to the other.
    known = {*listed, *read_mark(folder)[1], CHECKSUMS, MARK}
    if listed or len(known) > 2:
      return names(folder) <= known
    return {name.split('/')[0] for name in names(folder)} <= _LAYOUT
  except (OSError, ValueError):
    return False


def _kind(folder: pathlib.Path, listed: Mapping[str, str]) -> str | None:
  """What the mark says; without one, what the metadata are."""
  kind, _ = read_mark(folder)
  if kind is not None:
    return kind
  if _METADATA not in listed:
    return None
  meta = files.read_json(folder / _METADATA)
  if not isinstance(meta, dict) or 'format' not in meta:
    return None
  return next((kind for key, kind in _KINDS.items() if key in meta), None)


def kind_of(folder: pathlib.Path) -> str | None:
  """What was written here at a path, damaged or not; None for all else."""
  try:
    return _kind(folder, _listed(folder))
  except (OSError, ValueError):
    return None


def read_mark(folder: pathlib.Path) -> tuple[str | None, dict[str, int]]:
  """`(kind, {file: bytes})`; `(None, {})` without a whole mark."""
  try:
    first, *lines = files.read(folder / MARK).decode('utf-8').splitlines()
    name, kind = first.split(' ')
    pairs = (line.split('  ', 1) for line in lines)
    found = {name: int(size) for size, name in pairs}
  except (OSError, ValueError):
    return None, {}
  is_whole = name == 'lplmtl' and kind in {*_KINDS.values(), _PART}
  return (kind, found) if is_whole else (None, {})


def names(folder: pathlib.Path) -> set[str]:
  """All below a folder that is no folder: `{'arrays/d/ab', ...}`."""
  found, todo = set(), ['']
  while todo:
    below = todo.pop()
    for entry in list(os.scandir(folder / below)):
      name = f'{below}{entry.name}'
      if entry.is_dir(follow_symlinks=False):
        todo.append(f'{name}/')
      else:
        found.add(name)
  return found


def seal(folder: pathlib.Path, kind: str) -> None:
  """Marks a folder, sums it up, and waits until all of it is on the disk."""
  sizes = {name: (folder / name).stat().st_size for name in names(folder)}
  lines = [f'lplmtl {kind}', *(f'{n}  {k}' for k, n in sorted(sizes.items()))]
  (folder / MARK).write_text('\n'.join(lines) + '\n', encoding='utf-8')
  sums = {name: files.sha256(folder / name) for name in (*sizes, MARK)}
  (folder / CHECKSUMS).write_text(_text(sums), encoding='utf-8')
  files.sync_tree(folder)


def damage(folder: pathlib.Path) -> str | None:
  """Compares every file with its size, then with its checksum.

  Returns:
    What is wrong first, such as 'meta/metadata has changed'; None if nothing.

  Raises:
    OSError: something cannot be read.
  """
  found = names(folder)
  if CHECKSUMS not in found:
    return f'expected {CHECKSUMS} in it, found none'
  expected = _listed(folder)
  if not expected:
    return f'{CHECKSUMS} has changed'
  for name in sorted(found ^ {*expected, CHECKSUMS}):
    return f'{name} {"was added" if name in found else "is missing"}'
  kind, sizes = read_mark(folder)
  if kind is None and MARK in found:  # nothing tells how long the others are
    return f'{MARK} has changed'
  for name in sorted(expected):
    size = (folder / name).stat().st_size
    if name in sizes and size != sizes[name]:
      return f'{name} has changed its size'
  for name, sha256 in sorted(expected.items()):
    if files.sha256(folder / name) != sha256:
      return f'{name} has changed'
  return None


def _text(sums: Mapping[str, str]) -> str:
  return ''.join(f'{sha}  {name}\n' for name, sha in sorted(sums.items()))


def _listed(folder: pathlib.Path) -> dict[str, str]:
  """`{file: checksum}`; nothing where the list is not whole."""
  try:
    text = files.read(folder / CHECKSUMS).decode('utf-8')
  except (OSError, ValueError):
    return {}
  found = {name: sha for sha, name in _LINE.findall(text)}
  return found if _text(found) == text else {}


def remove(folder: pathlib.Path) -> None:
  """Removes an own folder as far as it can be.

  The mark goes last, so that half a folder is known too.
  """
  with contextlib.suppress(OSError):
    if read_mark(folder)[0] is None:
      with contextlib.suppress(OSError):  # such as a full disk
        kind = _kind(folder, _listed(folder)) or _PART
        (folder / MARK).write_text(f'lplmtl {kind}\n', encoding='utf-8')
    last = {MARK, CHECKSUMS}
    for entry in list(os.scandir(folder)):
      if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
      elif entry.name not in last:
        os.unlink(entry.path)
    for name in (CHECKSUMS, MARK):
      (folder / name).unlink(missing_ok=True)
    folder.rmdir()


@contextlib.contextmanager
def replacing(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a name for a new folder, which then takes the place of the old one.

  What is written stands in a hidden part beside it until it is whole. If a kill
  comes between the two renames, `tidy` brings the old folder back.
  """
  part = directory.with_name(f'.{directory.name}.{secrets.token_hex(8)}.part')
  part.mkdir()
  with open(files.create(part / MARK, os.O_WRONLY | os.O_EXCL), 'w') as file:
    file.write(f'lplmtl {_PART}\n')
  try:
    yield part / _NEW
    if directory.is_symlink():
      raise OSError(errno.EEXIST, 'is a link', str(directory))
    if directory.exists():
      os.rename(directory, part / _OLD)
    os.rename(part / _NEW, directory)
    files.sync(directory.parent)
  except Exception:
    with contextlib.suppress(OSError):
      tidy(directory.parent, re.escape(directory.name))
    _abandon(part)
    raise
  remove(part)


def _abandon(part: pathlib.Path) -> None:
  """Removes a part that what writes in the background may make anew."""
  quiet = 0
  for _ in range(_TRIES):
    if (part / _OLD).exists() or quiet == _QUIET:
      return  # the one is all that is left of the old folder
    quiet = 0 if part.exists() else quiet + 1
    shutil.rmtree(part, ignore_errors=True)
    time.sleep(_WAIT)


def tidy(parent: pathlib.Path, pattern: str) -> None:
  """Removes parts that a kill or an error has left, and nothing else.

  Args:
    parent: a folder, or nothing.
    pattern: regular expression of the names of the folders that they were for.
  """
  part_of = re.compile(rf'\.({pattern})\.[0-9a-f]{{16}}\.part')
  try:
    entries = list(os.scandir(parent))
  except FileNotFoundError:
    return
  for entry in entries:
    match = part_of.fullmatch(entry.name)
    part = pathlib.Path(entry.path)
    if not match or not entry.is_dir(follow_symlinks=False):
      continue
    if is_empty(part):
      part.rmdir()
    elif read_mark(part)[0] == _PART:
      directory = parent / match[1]
      if (part / _OLD).exists() and not directory.exists():
        os.rename(part / _OLD, directory)
        files.sync(parent)
      remove(part)
