"""Folders that lplmtl writes: marked when made, removed only if marked.

A folder holds the file `LPLMTL`, with its kind and the sizes of its files, and
`SHA256SUMS`, for `sha256sum -c`. Folders older than the mark are recognised by
their metadata. This module uses only the standard library.
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
METADATA = f'{META}/metadata'
_NEW, _OLD = 'new', 'old'  # inside a part
_PART = 'part'
# What a damaged folder may hold if its list of files is lost.
_LAYOUT = {
  MARK, CHECKSUMS, ARRAYS, META, '_CHECKPOINT_METADATA', 'commit_success.txt',
}  # fmt: skip
# After an error, Orbax's background threads may keep writing for a moment. So a
# part is removed repeatedly: in at most 40 tries (1.2 s), until it is absent in
# three tries in a row; the third number is the seconds between tries.
_TRIES, _QUIET, _WAIT = 40, 3, 0.03
# The kind of a folder without a mark, by a key of its metadata.
_KINDS = {'model': 'model', 'run': 'checkpoint'}
ROWS = 'rows'  # the kind of a folder of encoded rows
_LINE = re.compile('([0-9a-f]{64})  ([^\n]+)')


def is_empty(folder: pathlib.Path) -> bool:
  """Returns whether it is a folder (not a link to one) with nothing in it."""
  is_folder = folder.is_dir() and not folder.is_symlink()
  return is_folder and not os.listdir(folder)


def is_own(folder: pathlib.Path, kind: str) -> bool:
  """Returns whether lplmtl wrote a folder, and nothing was added to it.

  Args:
    folder: any path; a link does not count.
    kind: `model`, `checkpoint` or `rows`.
  """
  try:
    if folder.is_symlink() or not folder.is_dir():
      return False
    listed = _listed(folder)
    if _kind(folder, listed) != kind:
      return False
    # If one list of files is damaged, the other makes up for it.
    known = {*listed, *read_mark(folder)[1], CHECKSUMS, MARK}
    if listed or len(known) > 2:
      return names(folder) <= known
    return {name.split('/')[0] for name in names(folder)} <= _LAYOUT
  except (OSError, ValueError):
    return False


def _kind(folder: pathlib.Path, listed: Mapping[str, str]) -> str | None:
  """Returns the kind in the mark; without one, that of the metadata."""
  kind, _ = read_mark(folder)
  if kind is not None:
    return kind
  if METADATA not in listed:
    return None
  meta = files.read_json(folder / METADATA)
  if not isinstance(meta, dict) or 'format' not in meta:
    return None
  return next((kind for key, kind in _KINDS.items() if key in meta), None)


def kind_of(folder: pathlib.Path) -> str | None:
  """Returns the kind of a folder that lplmtl wrote, damaged or not, or None."""
  try:
    return _kind(folder, _listed(folder))
  except (OSError, ValueError):
    return None


def read_mark(folder: pathlib.Path) -> tuple[str | None, dict[str, int]]:
  """Returns `(kind, {file: bytes})`; `(None, {})` without an intact mark."""
  try:
    first, *lines = files.read(folder / MARK).decode('utf-8').splitlines()
    name, kind = first.split(' ')
    pairs = (line.split('  ', 1) for line in lines)
    sizes = {name: int(size) for size, name in pairs}
  except (OSError, ValueError):
    return None, {}
  is_intact = name == 'lplmtl' and kind in {*_KINDS.values(), ROWS, _PART}
  return (kind, sizes) if is_intact else (None, {})


def names(folder: pathlib.Path) -> set[str]:
  """Returns all files below a folder: `{'arrays/d/ab', ...}`."""
  below_folder, todo = set(), ['']
  while todo:
    below = todo.pop()
    for entry in list(os.scandir(folder / below)):
      name = f'{below}{entry.name}'
      if entry.is_dir(follow_symlinks=False):
        todo.append(f'{name}/')
      else:
        below_folder.add(name)
  return below_folder


def seal(folder: pathlib.Path, kind: str) -> None:
  """Adds the mark and the checksums, and waits until all is on the disk."""
  sizes = {name: (folder / name).stat().st_size for name in names(folder)}
  lines = [f'lplmtl {kind}', *(f'{n}  {k}' for k, n in sorted(sizes.items()))]
  (folder / MARK).write_text('\n'.join(lines) + '\n', encoding='utf-8')
  sums = {name: files.sha256(folder / name) for name in (*sizes, MARK)}
  (folder / CHECKSUMS).write_text(_text(sums), encoding='utf-8')
  files.sync_tree(folder)


def damage(folder: pathlib.Path) -> str | None:
  """Compares every file with its size, then with its checksum.

  Returns:
    The first damage, such as 'meta/metadata has changed'; None if there is
    none.

  Raises:
    OSError: something cannot be read.
  """
  present = names(folder)
  if CHECKSUMS not in present:
    return f'expected {CHECKSUMS} in it, found none'
  expected = _listed(folder)
  if not expected:
    return f'{CHECKSUMS} has changed'
  for name in sorted(present ^ {*expected, CHECKSUMS}):
    return f'{name} {"was added" if name in present else "is missing"}'
  kind, sizes = read_mark(folder)
  if kind is None and MARK in present:  # the sizes of the others are lost
    return f'{MARK} has changed'
  for name in sorted(expected):
    size = (folder / name).stat().st_size
    if name in sizes and size != sizes[name]:
      return f'{name} has changed in size'
  for name, sha256 in sorted(expected.items()):
    if files.sha256(folder / name) != sha256:
      return f'{name} has changed'
  return None


def _text(sums: Mapping[str, str]) -> str:
  return ''.join(f'{sha}  {name}\n' for name, sha in sorted(sums.items()))


def _listed(folder: pathlib.Path) -> dict[str, str]:
  """Returns `{file: checksum}`; an empty dict if the list is damaged."""
  try:
    text = files.read(folder / CHECKSUMS).decode('utf-8')
  except (OSError, ValueError):
    return {}
  sums = {name: sha for sha, name in _LINE.findall(text)}
  return sums if _text(sums) == text else {}


def remove(folder: pathlib.Path) -> None:
  """Removes a folder that lplmtl wrote, as far as possible.

  The mark goes last, so that what an interruption leaves is still recognised.
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
  """Yields a path for a new folder, which then replaces the old one.

  It is written inside a hidden folder (a part) beside the old one until it is
  complete. If the process is killed between the two renames, `tidy` restores
  the old folder.
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
  """Removes a part, although background threads may create it again."""
  quiet = 0
  for _ in range(_TRIES):
    if (part / _OLD).exists() or quiet == _QUIET:
      return  # an old folder in the part is the only copy: `tidy` restores it
    quiet = 0 if part.exists() else quiet + 1
    shutil.rmtree(part, ignore_errors=True)
    time.sleep(_WAIT)


def tidy(parent: pathlib.Path, pattern: str) -> None:
  """Removes the parts that a kill or an error left behind, and nothing else.

  Args:
    parent: a folder, which need not exist.
    pattern: regular expression for the names of the folders that the parts were
      to become.
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
