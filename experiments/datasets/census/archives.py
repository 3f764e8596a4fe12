"""Extracts texts from .gz, .tar.gz and .zip files, nested or not, in bounds."""

import gzip
import io
import pathlib
import tarfile
import zipfile
from typing import IO, cast

from experiments.launcher.errors import InputError

ARCHIVE = 'census+income+kdd.zip'
INNER_ARCHIVE = 'census.tar.gz'
MAX_BYTES = 512 * 2**20  # of text in one file: five times the official one
MAX_MEMBERS = 10_000  # of an archive: officially 3, or 1,600 if bgzip packed it
CHUNK = 2**20  # bytes read at a time


def extract(packed: bytes, name: str, member: str) -> bytes | None:
  """Extracts a member from the bytes of a file.

  Names inside an archive are only compared, never used as paths, and nothing is
  written.

  Args:
    packed: the bytes.
    name: of the file, whose suffix says how it is packed.
    member: the name of the text.

  Returns:
    The text; None if the archive does not hold it.

  Raises:
    InputError: the archive is too large, or has too many members.
    Exception: of many kinds, from Python's modules; the archive is damaged.
  """
  file = io.BytesIO(packed)
  if name.endswith('.zip'):
    _check_parts(packed, b'PK\x01\x02', name)
    with zipfile.ZipFile(file) as archive:
      for info in archive.infolist():
        inner = pathlib.PurePosixPath(info.filename).name
        if inner in (INNER_ARCHIVE, member, f'{member}.gz'):
          with archive.open(info) as stream:
            return extract(_bounded(stream, inner), inner, member)
    return None
  if name.endswith('.gz'):
    _check_parts(packed, b'\x1f\x8b\x08', name)
    with gzip.open(file) as unzipped:
      stream = cast(IO[bytes], unzipped)
      if not name.endswith('.tar.gz'):
        return _bounded(stream, name)
      limited = _Limited(stream, name)
      content = _from_tar(limited, name, member)
      while limited.read(CHUNK):  # to the end, where gzip stores its checksum
        pass
    return content
  return packed


def _check_parts(packed: bytes, mark: bytes, name: str) -> None:
  """Refuses an archive with very many members before they are listed.

  Every member starts with `mark`. In compressed data its three or more bytes
  occur by chance once in 16 MB at most.
  """
  if packed.count(mark) > MAX_MEMBERS:
    raise InputError(f'{name} has more than {MAX_MEMBERS} members')


def _from_tar(stream: '_Limited', name: str, member: str) -> bytes | None:
  with tarfile.open(fileobj=cast(IO[bytes], stream), mode='r|') as archive:
    for number, entry in enumerate(archive):
      if number >= MAX_MEMBERS:
        raise InputError(f'{name} has more than {MAX_MEMBERS} members')
      inner = pathlib.PurePosixPath(entry.name).name
      if entry.isfile() and inner in (member, f'{member}.gz'):
        extracted = archive.extractfile(entry)
        assert extracted is not None  # it is a file
        return extract(_bounded(extracted, inner), inner, member)
  return None


class _Limited:
  """A stream that raises InputError after 2 MAX_BYTES, whatever it holds.

  A tar file is read to its end, including members that nobody asked for.
  """

  def __init__(self, stream: IO[bytes], name: str):
    self.stream, self.name, self.left = stream, name, 2 * MAX_BYTES

  def read(self, size: int) -> bytes:
    """Reads at most `size` bytes."""
    chunk = self.stream.read(size)
    self.left -= len(chunk)
    if self.left < 0:
      raise InputError(
        f'{self.name} unpacks to more than {2 * MAX_BYTES} bytes, several '
        'times as many as the official archive'
      )
    return chunk


def _bounded(stream: IO[bytes], name: str) -> bytes:
  content = io.BytesIO()
  while chunk := stream.read(CHUNK):
    content.write(chunk)
    if content.tell() > MAX_BYTES:
      raise InputError(
        f'{name} unpacks to more than {MAX_BYTES} bytes, five times the '
        'official file'
      )
  return content.getvalue()  # shares the buffer, without a copy
