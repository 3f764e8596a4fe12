"""Opens the files of a table, whatever they are packed in."""

import bz2
import codecs
import contextlib
import gzip
import hashlib
import importlib
import io
import lzma
import os
import pathlib
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent import futures
from typing import Any, BinaryIO, cast

from experiments.datasets.tables import sources
from experiments.launcher.errors import InputError
from lplmtl.storage import files

_HEAD = 512  # bytes that tell how a file is packed; tar has its mark at 257
_CHUNK = 2**20
# The first bytes of what is no table of text, and what to do.
_OTHERS = (
  (rb'\x89PNG|\xff\xd8\xff|GIF8|RIFF', 'a picture or a sound', ''),
  (rb'%PDF-', 'a PDF', ''),
  (rb'\xd0\xcf\x11\xe0', 'an old Excel file', ': save it as CSV'),
  (rb'SQLite format 3', 'an SQLite database', ': export the table as CSV'),
  (rb'\x89HDF', 'an HDF5 file', ': save it as CSV or Parquet'),
  (rb'\s*(\[\s*[\[{]|\{\s*")', 'JSON', ': convert it to CSV or Parquet'),
  (rb'(?i)\s*(<!doctype|<html|<\?xml)', 'a web page or XML',
   ': save the table as CSV'),
)  # fmt: skip
# What Python's modules raise on damage, besides OSError.
_DAMAGE = (
  EOFError, ValueError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile,
  RuntimeError, NotImplementedError,
)  # fmt: skip


class Hashed:
  """A stream that can be read once, and the SHA-256 of its bytes.

  Args:
    stream: a thread hashes what is read from it.
  """

  def __init__(self, stream: BinaryIO):
    self._stream, self._digest = stream, hashlib.sha256()
    self._pool = futures.ThreadPoolExecutor(1)  # one, to keep the order

  def read(self, size: int) -> bytes:
    """Reads at most `size` bytes."""
    found = self._stream.read(size)
    self._pool.submit(self._digest.update, found)
    return found

  def hexdigest(self) -> str:
    """Reads what is left, and returns the digest."""
    while self.read(_CHUNK):
      pass
    self._pool.shutdown()
    return self._digest.hexdigest()


@contextlib.contextmanager
def hashed(path: pathlib.Path) -> Iterator[tuple[BinaryIO, Hashed]]:
  """Opens a file, unpacked, and has the bytes of the file hashed.

  Raises:
    InputError: it cannot be read or unpacked, or was written to meanwhile.
  """
  with _complaints(str(path)), contextlib.ExitStack() as stack:
    file = stack.enter_context(files.open_regular(path))
    before = _state(file)
    source = Hashed(file)
    yield _unpacked(cast(BinaryIO, source), str(path), stack), source
    if _state(file) != before:
      raise sources.changed(path)


def _state(file: BinaryIO) -> tuple[int, int]:
  """Returns what is another after a file was written to."""
  status = os.fstat(file.fileno())
  return status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def opened(path: pathlib.Path | None) -> Iterator[BinaryIO]:
  """Opens a file, unpacked; standard input if there is no path.

  Raises:
    InputError: it cannot be read or unpacked.
  """
  name = str(path) if path else 'standard input'
  with _complaints(name), contextlib.ExitStack() as stack:
    if path is None:
      file = cast(BinaryIO, sys.stdin.buffer)
    else:
      file = stack.enter_context(files.open_regular(path))
    yield _unpacked(file, name, stack)


@contextlib.contextmanager
def _complaints(name: str) -> Iterator[None]:
  """Turns what a damaged file raises into InputErrors."""
  try:
    yield
  except InputError:
    raise
  except OSError as error:
    raise InputError(
      f'{name}: cannot be read ({error.strerror or error})'
    ) from error
  except _DAMAGE as error:
    raise InputError(
      f'{name}: damaged or truncated ({" ".join(str(error).split())})'
    ) from error


class _Peeked(io.RawIOBase):
  """A stream whose first bytes can be looked at; standard input cannot seek."""

  def __init__(self, file: BinaryIO):
    self._file = file
    self.head = file.read(_HEAD)
    self._left = self.head

  def readable(self) -> bool:
    """Returns True."""
    return True

  def read(self, size: int = -1) -> bytes:
    """Reads at most `size` bytes, without another copy of them."""
    if size < 0:
      return self.readall()
    found, self._left = self._left[:size], self._left[size:]
    return found or self._file.read(size)

  def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
    """Reads into a buffer; returns how many bytes."""
    if self._left:
      found, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
    else:
      found = self._file.read(len(buffer))
    buffer[: len(found)] = found
    return len(found)


def _unpacked(
  file: BinaryIO, name: str, stack: contextlib.ExitStack
) -> BinaryIO:
  """Returns the stream of what a file holds, by its first bytes."""
  peeked, stream = _peeked(file)
  head = peeked.head
  unpacked: Any = None
  if head.startswith(b'\x1f\x8b\x08'):
    unpacked = gzip.GzipFile(fileobj=stream)
  elif head.startswith(b'BZh') and head[4:10] == b'1AY&SY':
    unpacked = bz2.BZ2File(stream)
  elif head.startswith(b'\xfd7zXZ\0'):
    unpacked = lzma.LZMAFile(stream)  # noqa: SIM115
  elif head.startswith(b'\x28\xb5\x2f\xfd'):
    unpacked = _zstandard(stream, name)
  elif head.startswith(b'PK\x03\x04'):
    return _zipped(stream, name, stack)
  if unpacked is not None:
    peeked, stream = _peeked(stack.enter_context(unpacked))
    head = peeked.head
  if head[257:262] == b'ustar':
    return _tarred(stream, name, stack)
  _check_text(name, head.removeprefix(codecs.BOM_UTF8))
  return cast(BinaryIO, peeked)


def _check_text(name: str, head: bytes) -> None:
  """Raises InputError for well-known files that are no table of text."""
  for start, what, advice in _OTHERS:
    if re.match(start, head):
      raise InputError(
        f'{name}: expected a table, found {what}{advice or ": pass a CSV file"}'
      )


def _peeked(file: BinaryIO) -> tuple[_Peeked, BinaryIO]:
  """Returns a stream with its first bytes, and one that reads from it."""
  peeked = _Peeked(file)
  return peeked, cast(BinaryIO, io.BufferedReader(peeked, _CHUNK))


def _zstandard(stream: BinaryIO, name: str) -> Any:
  for module in ('compression.zstd', 'zstandard'):  # the former: Python 3.14
    with contextlib.suppress(ImportError):
      return importlib.import_module(module).open(stream, 'rb')
  raise InputError(
    f'{name} is packed with Zstandard: pip install zstandard, or unpack it'
  )


def _zipped(
  stream: BinaryIO, name: str, stack: contextlib.ExitStack
) -> BinaryIO:
  # The list of members is at the end, which a pipe cannot seek.
  archive = stack.enter_context(zipfile.ZipFile(io.BytesIO(stream.read())))
  members = [info for info in archive.infolist() if not info.is_dir()]
  names = [info.filename for info in members]
  if any(one.startswith('xl/') for one in names):
    raise InputError(
      f'{name}: expected a table, found an Excel file: save it as CSV'
    )
  _check_single(name, names)
  return cast(BinaryIO, stack.enter_context(archive.open(members[0])))


def _tarred(
  stream: BinaryIO, name: str, stack: contextlib.ExitStack
) -> BinaryIO:
  """Returns the first file of an archive; others are not looked for."""
  archive = stack.enter_context(tarfile.TarFile.open(fileobj=stream, mode='r|'))
  for member in archive:
    if member.isfile():
      return cast(BinaryIO, archive.extractfile(member))
  _check_single(name, [])
  raise AssertionError  # the line above raises


def _check_single(name: str, members: list[str]) -> None:
  if len(members) != 1:
    shown = ', '.join(members[:3]) or 'none'
    raise InputError(
      f'{name} must hold one file, found {len(members)} (such as {shown}): '
      'unpack it into a folder, and pass that'
    )
