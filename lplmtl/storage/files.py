"""Single files: written whole, found again after a power cut, read with care.

Plain Python. A rename may reach the disk before the bytes that it names: so a
file is synchronised before it gets its name, and the folder of the name after.
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

# Not on every system.
_NOFOLLOW = getattr(os, 'O_NOFOLLOW', 0)
_NONBLOCK = getattr(os, 'O_NONBLOCK', 0)
_BINARY = getattr(os, 'O_BINARY', 0)
# What a file system answers that cannot synchronise a folder, or a user who may
# not read it.
_NO_SYNC = (
  errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF,
)  # fmt: skip
LARGEST = 2**28  # bytes: more than any file that is read whole here


def write(path: pathlib.Path, content: bytes, mode: int = 0o666) -> None:
  """Writes a whole file or none, for good.

  The part that becomes the file has a random name beside it, so that nothing
  which stands there already is written to; what is no regular file, a link too,
  is not replaced.

  Args:
    path: the file.
    content: its bytes.
    mode: its permissions, less the umask.

  Raises:
    OSError: it cannot be written; an older file is still there.
  """
  check_regular(path)
  part = path.with_name(f'.{path.name}.{secrets.token_hex(8)}.part')
  descriptor = create(part, os.O_WRONLY | os.O_EXCL, mode)
  try:
    with open(descriptor, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(descriptor)
    os.replace(part, path)
  except BaseException:
    with contextlib.suppress(OSError):
      part.unlink()
    raise
  sync(path.parent)


def create(path: pathlib.Path, flags: int, mode: int = 0o666) -> int:
  """A descriptor of a new file, or of one that is there; no link is followed.

  Args:
    path: the file.
    flags: `os.O_EXCL` for a new file alone, and how to open it.
    mode: permissions of a new file, less the umask.
  """
  flags |= os.O_CREAT | _NOFOLLOW | _NONBLOCK | _BINARY
  return os.open(path, flags, mode)


def check_regular(path: pathlib.Path) -> None:
  """Raises an OSError for what is there and is no regular file, a link too."""
  with contextlib.suppress(FileNotFoundError):
    if not stat.S_ISREG(path.lstat().st_mode):
      raise _no_regular_file(path)


def tidy(folder: pathlib.Path, names: Iterable[str]) -> None:
  """Removes the parts of these files, which a kill has left."""
  wanted = '|'.join(map(re.escape, names))
  pattern = re.compile(rf'\.(?:{wanted})\.[0-9a-f]{{16}}\.part')
  for entry in list(os.scandir(folder)):
    if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
      with contextlib.suppress(OSError):
        os.unlink(entry.path)


def open_regular(path: pathlib.Path) -> io.BufferedReader:
  """Opens a file for reading; never waits, as a FIFO would have it.

  Raises:
    OSError: it cannot be opened, or is no regular file nor a link to one.
  """
  descriptor = os.open(path, os.O_RDONLY | _NONBLOCK | _BINARY)
  if not stat.S_ISREG(os.fstat(descriptor).st_mode):
    os.close(descriptor)
    raise _no_regular_file(path)
  return open(descriptor, 'rb')


def read(path: pathlib.Path, largest: int = LARGEST) -> bytes:
  """The content of a regular file.

  Raises:
    OSError: it cannot be read, is no regular file, or is larger than
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
  """JSON data of a regular file; raises as `read`, or a ValueError."""
  try:
    return json.loads(read(path))
  except RecursionError as error:
    raise ValueError(f'{path} is nested too deeply') from error


def sha256(path: pathlib.Path) -> str:
  """The checksum of a regular file of any size; raises as `read`."""
  with open_regular(path) as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def sync(path: pathlib.Path) -> None:
  """Waits until a file, or the names in a folder, are on the disk."""
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
  """The same for all that is below a folder, and for itself."""
  for parent, _, names in os.walk(folder, topdown=False):
    for name in names:
      sync(pathlib.Path(parent, name))
    sync(pathlib.Path(parent))


def make_folder(folder: pathlib.Path) -> None:
  """Makes a folder and its missing parents, for good."""
  missing = [p for p in (folder, *folder.parents) if not p.exists()]
  for path in reversed(missing):
    path.mkdir(exist_ok=True)
    sync(path.parent)


def _no_regular_file(path: pathlib.Path) -> OSError:
  return OSError(errno.EINVAL, 'is no regular file', str(path))
