"""Single files: written atomically, safe against power cuts, read with care.

A rename may reach the disk before the bytes of the renamed file. Therefore the
file is synchronised before the rename, and its folder afterwards. This module
uses only the standard library.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import pathlib
import re
import secrets
import stat
from collections.abc import Iterable
from typing import Any

# Flags that some systems lack.
_NOFOLLOW = getattr(os, 'O_NOFOLLOW', 0)
_NONBLOCK = getattr(os, 'O_NONBLOCK', 0)
_BINARY = getattr(os, 'O_BINARY', 0)
# Errors of file systems that cannot synchronise a folder, and of folders that
# the user may not read.
_NO_SYNC = (
  errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF,
)  # fmt: skip
# Bytes: larger than any file that is read as a whole here, and smaller than the
# memory of a small machine.
LARGEST = 2**28


def write(
  path: pathlib.Path, content: bytes | Iterable[bytes], mode: int = 0o666
) -> None:
  """Writes a file completely or not at all, and synchronises it.

  The bytes go to a new file with a random name beside it, which is then
  renamed, so that no existing file is written to. Only a regular file is ever
  replaced, not a link.

  Args:
    path: the file.
    content: its bytes, whole or in pieces.
    mode: its permissions, less the umask.

  Raises:
    OSError: the file cannot be written; an older one is still there.
  """
  check_regular(path)
  part = path.with_name(f'.{path.name}.{secrets.token_hex(8)}.part')
  descriptor = create(part, os.O_WRONLY | os.O_EXCL, mode)
  try:
    with open(descriptor, 'wb') as file:
      file.writelines([content] if isinstance(content, bytes) else content)
      file.flush()
      os.fsync(descriptor)
    os.replace(part, path)
  except BaseException:
    with contextlib.suppress(OSError):
      part.unlink()
    raise
  sync(path.parent)


def create(path: pathlib.Path, flags: int, mode: int = 0o666) -> int:
  """Opens a new or an existing file, and returns its descriptor.

  Links are not followed.

  Args:
    path: the file.
    flags: how to open it; with `os.O_EXCL` only a new file.
    mode: permissions of a new file, less the umask.
  """
  flags |= os.O_CREAT | _NOFOLLOW | _NONBLOCK | _BINARY
  return os.open(path, flags, mode)


def check_regular(path: pathlib.Path) -> None:
  """Raises OSError unless `path` is a regular file; a link is not one."""
  with contextlib.suppress(FileNotFoundError):
    if not stat.S_ISREG(path.lstat().st_mode):
      raise _not_regular(path)


def tidy(folder: pathlib.Path, names: Iterable[str]) -> None:
  """Removes what an interrupted `write` of these files left behind."""
  wanted = '|'.join(map(re.escape, names))
  pattern = re.compile(rf'\.(?:{wanted})\.[0-9a-f]{{16}}\.part')
  for entry in list(os.scandir(folder)):
    if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
      with contextlib.suppress(OSError):
        os.unlink(entry.path)


def open_regular(path: pathlib.Path) -> io.BufferedReader:
  """Opens a file for reading, without waiting for the writer of a FIFO.

  Raises:
    OSError: it cannot be opened, or is not a regular file or a link to one.
  """
  descriptor = os.open(path, os.O_RDONLY | _NONBLOCK | _BINARY)
  if not stat.S_ISREG(os.fstat(descriptor).st_mode):
    os.close(descriptor)
    raise _not_regular(path)
  return open(descriptor, 'rb')


def read(path: pathlib.Path, largest: int = LARGEST) -> bytes:
  """Returns the content of a regular file.

  Raises:
    OSError: it cannot be read, is not a regular file, or is larger than
      `largest` bytes.
  """
  with open_regular(path) as file:
    content = file.read(largest + 1)
  if len(content) > largest:
    raise OSError(
      errno.EFBIG, f'is larger than {largest / 1e6:.0f} MB', str(path)
    )
  return content


def read_json(path: pathlib.Path) -> Any:
  """Returns the JSON data of a file; raises what `read` does, or ValueError."""
  try:
    return json.loads(read(path))
  except RecursionError as error:
    raise ValueError(f'{path} is nested too deeply') from error


def sha256(path: pathlib.Path) -> str:
  """Returns the checksum of a regular file of any size; raises OSError."""
  with open_regular(path) as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def sync(path: pathlib.Path) -> None:
  """Waits until a file, or the list of names in a folder, is on the disk."""
  try:
    descriptor = os.open(path, os.O_RDONLY | _NONBLOCK | _BINARY)
  except PermissionError:  # such as any folder on Windows
    return
  try:
    os.fsync(descriptor)
  except OSError as error:
    if error.errno not in _NO_SYNC:
      raise
  finally:
    os.close(descriptor)


def sync_tree(folder: pathlib.Path) -> None:
  """Synchronises everything below a folder, and the folder itself."""
  for parent, _, names in os.walk(folder, topdown=False):
    for name in names:
      sync(pathlib.Path(parent, name))
    sync(pathlib.Path(parent))


def make_folder(folder: pathlib.Path) -> None:
  """Makes a folder and its missing parents, and synchronises them."""
  missing = [p for p in (folder, *folder.parents) if not p.exists()]
  for path in reversed(missing):
    path.mkdir(exist_ok=True)
    sync(path.parent)


def _not_regular(path: pathlib.Path) -> OSError:
  return OSError(errno.EINVAL, 'is not a regular file', str(path))
