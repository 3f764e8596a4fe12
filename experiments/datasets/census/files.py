"""The files of UCI Census-Income (KDD): find, download, verify, unpack."""

import gzip
import hashlib
import http.client
import io
import os
import pathlib
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from typing import IO, NamedTuple, cast

from experiments.launcher.errors import InputError
from lplmtl.storage import files

URL = 'https://archive.ics.uci.edu/static/public/117/census+income+kdd.zip'
ARCHIVE = 'census+income+kdd.zip'
INNER_ARCHIVE = 'census.tar.gz'
SPLITS = {'train': 'census-income.data', 'test': 'census-income.test'}
# Git's blob SHA-1 (of "blob <size>\0" and the content) of the official files.
OFFICIAL_GIT_SHA1 = {
  'train': '76c4fb3275a1d7bedac9b2a5d515eb9b87a38482',
  'test': '583d3858ca5920be1fbc02f26e50eff45dd1a87a',
}
OFFICIAL_BYTES = {'train': 103_874_469, 'test': 51_918_813}
# SHA-256 of the two halves of census66k (experiments/census_data.py builds the
# same rows from the official test file).
CENSUS66K_SHA256 = {
  'train': 'c5e8dccc2936a024a071d014fc8813468d7885838c120a6f527e95388cd7fe15',
  'test': '3d8d47c948d9ede4bb8b1d043174d7884e7ce1e4396b3ca28f91ec2c5b1701db',
}
MAX_BYTES = 512 * 2**20  # of text in one file: the official one has a fifth
MAX_DOWNLOAD = 64 * 2**20
MAX_MEMBERS = 10_000  # of an archive: three, or 1,600 where bgzip packed it
TIMEOUT = 30.0  # seconds without an answer
_CHUNK = 2**20

Progress = Callable[[int, int | None], None]


class Source(NamedTuple):
  """One file of rows.

  Attributes:
    name: what to call it in messages.
    content: its bytes.
    sha256: of the content.
    label: `official`, `census66k` or `other`, by the content.
  """

  name: str
  content: bytes
  sha256: str
  label: str


def find(data_dir: pathlib.Path, split: str) -> pathlib.Path | None:
  """The file on disk that holds a split: text, .gz, .tar.gz or .zip.

  Raises:
    InputError: the folder cannot be looked into, or something else than a file
      has the name of one.
  """
  name = SPLITS[split]
  for candidate in (name, f'{name}.gz', INNER_ARCHIVE, ARCHIVE):
    path = data_dir / candidate
    try:
      mode = path.stat().st_mode
    except FileNotFoundError:
      continue
    except OSError as error:
      raise InputError(
        f'{path}: cannot be looked for ({error.strerror})'
      ) from error
    if not stat.S_ISREG(mode):
      raise InputError(f'{path}: expected a file, found something else')
    return path
  return None


def read(path: pathlib.Path) -> bytes:
  """The bytes of a file that `find` found, as they are on the disk.

  Raises:
    InputError: it cannot be read, or is too large.
  """
  try:
    return files.read(path, MAX_BYTES)
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from error


def unpack(path: pathlib.Path, packed: bytes, split: str) -> Source:
  """A split's rows out of the bytes that `read` gave.

  Raises:
    InputError: the file is damaged, too large, or does not hold the split.
  """
  member = SPLITS[split]
  try:
    content = _unpack(packed, path.name, member)
  except InputError as error:
    raise InputError(f'{path}: {error}') from error
  except OSError as error:
    raise InputError(f'{path}: not a whole gzip file ({error})') from error
  except Exception as error:  # damage makes Python's modules raise many kinds
    raise InputError(
      f'{path}: damaged or cut short ({_one_line(error)}); fetch it again'
    ) from error
  if content is None:
    raise InputError(f'{path}: expected it to hold {member}, found none')
  sha256 = hashlib.sha256(content).hexdigest()
  return Source(str(path), content, sha256, label_of(split, content, sha256))


def label_of(split: str, content: bytes, sha256: str) -> str:
  """`official`, `census66k` or `other`."""
  if sha256 == CENSUS66K_SHA256[split]:
    return 'census66k'
  if len(content) == OFFICIAL_BYTES[split]:
    git = hashlib.sha1(b'blob %d\0' % len(content), usedforsecurity=False)
    git.update(content)
    if git.hexdigest() == OFFICIAL_GIT_SHA1[split]:
      return 'official'
  return 'other'


def download(data_dir: pathlib.Path, progress: Progress) -> pathlib.Path:
  """Fetches the official archive, verifies it, and only then puts it in place.

  Args:
    data_dir: an existing folder.
    progress: called with bytes done and in all (None where not known).

  Returns:
    The archive's path.

  Raises:
    InputError: no network, or another content than the official one.
  """
  by_hand = (
    'fetch it in some other way, put it into a folder, and pass '
    '--data_dir=FOLDER; or try --dataset=sample'
  )
  target = data_dir / ARCHIVE
  try:
    if not os.access(data_dir, os.W_OK):
      raise PermissionError(f'{data_dir} cannot be written')
    content = _fetch(progress)
    _verify(content)
    files.tidy(data_dir, [ARCHIVE])
    files.write(target, content)
    return target
  except urllib.error.URLError as error:
    raise InputError(
      f'cannot download {URL} ({error.reason}): {by_hand}'
    ) from error
  except (OSError, http.client.HTTPException) as error:
    raise InputError(f'cannot download {URL} ({error!r}): {by_hand}') from error


def _fetch(progress: Progress) -> bytes:
  content = bytearray()
  with urllib.request.urlopen(URL, timeout=TIMEOUT) as response:
    if not response.geturl().startswith('https://'):
      raise InputError(
        f'the download was led away to {response.geturl()}, which is not https'
      )
    length = response.headers.get('Content-Length')
    total = int(length) if length and length.isdecimal() else None
    while chunk := response.read(_CHUNK):
      content += chunk
      if len(content) > MAX_DOWNLOAD:
        raise InputError(
          f'the download exceeds {MAX_DOWNLOAD} bytes, which the official '
          'archive does not: not kept'
        )
      progress(len(content), total)
  if total is not None and len(content) < total:
    raise InputError(
      f'the download broke off after {len(content)} of {total} bytes: try again'
    )
  return bytes(content)


def _verify(packed: bytes) -> None:
  for split, member in SPLITS.items():
    try:
      content = _unpack(packed, ARCHIVE, member)
    except InputError:
      raise
    except Exception as error:
      raise InputError(
        f'the download is no whole archive ({_one_line(error)}): not kept, try '
        'again'
      ) from error
    found = 'missing'
    if content is not None:
      sha256 = hashlib.sha256(content).hexdigest()
      if label_of(split, content, sha256) == 'official':
        continue
      found = f'{len(content):,} bytes, SHA-256 {sha256}'
    raise InputError(
      f'wrong checksum: the downloaded {member} is not the official file '
      f'(expected {OFFICIAL_BYTES[split]:,} bytes with git SHA-1 '
      f'{OFFICIAL_GIT_SHA1[split]}, found {found}); not kept'
    )


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split()) or type(error).__name__


def _unpack(packed: bytes, name: str, member: str) -> bytes | None:
  """The content of `member` in the bytes of a file that is called `name`.

  Names inside an archive are only compared, never used as paths, and nothing is
  written. None where the archive does not hold the member.
  """
  file = io.BytesIO(packed)
  if name.endswith('.zip'):
    _check_parts(packed, b'PK\x01\x02', name)
    with zipfile.ZipFile(file) as archive:
      for info in archive.infolist():
        inner = pathlib.PurePosixPath(info.filename).name
        if inner in (INNER_ARCHIVE, member, f'{member}.gz'):
          with archive.open(info) as stream:
            return _unpack(_bounded(stream, inner), inner, member)
    return None
  if name.endswith('.gz'):
    _check_parts(packed, b'\x1f\x8b\x08', name)
    with gzip.open(file) as unzipped:
      stream = cast(IO[bytes], unzipped)
      if not name.endswith('.tar.gz'):
        return _bounded(stream, name)
      limited = _Limited(stream, name)
      content = _from_tar(limited, name, member)
      while limited.read(_CHUNK):  # to the end, where gzip's checksum is
        pass
    return content
  return packed


def _check_parts(packed: bytes, mark: bytes, name: str) -> None:
  """Refuses an archive of very many members before they are listed.

  Every member starts with this mark, which chance puts into compressed data
  once in 16 MB at most.
  """
  if packed.count(mark) > MAX_MEMBERS:
    raise InputError(f'{name} is made of more than {MAX_MEMBERS} parts')


def _from_tar(stream: '_Limited', name: str, member: str) -> bytes | None:
  with tarfile.open(fileobj=cast(IO[bytes], stream), mode='r|') as archive:
    for number, entry in enumerate(archive):
      if number >= MAX_MEMBERS:
        raise InputError(f'{name} is made of more than {MAX_MEMBERS} parts')
      inner = pathlib.PurePosixPath(entry.name).name
      if entry.isfile() and inner in (member, f'{member}.gz'):
        extracted = archive.extractfile(entry)
        assert extracted is not None  # it is a file
        return _unpack(_bounded(extracted, inner), inner, member)
  return None


class _Limited:
  """A stream that ends in an error after so many bytes, whatever they are."""

  def __init__(self, stream: IO[bytes], name: str):
    self.stream, self.name, self.left = stream, name, 2 * MAX_BYTES

  def read(self, size: int) -> bytes:
    """At most `size` bytes."""
    chunk = self.stream.read(size)
    self.left -= len(chunk)
    if self.left < 0:
      raise InputError(
        f'{self.name} unpacks to more than {2 * MAX_BYTES} bytes; the official '
        'archive holds a third'
      )
    return chunk


def _bounded(stream: IO[bytes], name: str) -> bytes:
  content = io.BytesIO()
  while chunk := stream.read(_CHUNK):
    content.write(chunk)
    if content.tell() > MAX_BYTES:
      raise InputError(
        f'{name} unpacks to more than {MAX_BYTES} bytes; the official file has '
        f'{OFFICIAL_BYTES["train"]}'
      )
  return content.getvalue()  # no copy
