"""Finds, downloads, verifies and unpacks the files of Census-Income (KDD)."""

import hashlib
import http.client
import os
import pathlib
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import NamedTuple

from experiments.datasets.census import archives
from experiments.datasets.census.archives import ARCHIVE, INNER_ARCHIVE
from experiments.launcher.errors import InputError
from lplmtl.storage import files

URL = 'https://archive.ics.uci.edu/static/public/117/census+income+kdd.zip'
SPLITS = {'train': 'census-income.data', 'test': 'census-income.test'}
# Git's blob SHA-1 (of "blob <size>\0" and the content) of the official files.
# Git hosts publish these hashes, so they can be checked without a download.
OFFICIAL_GIT_SHA1 = {
  'train': '76c4fb3275a1d7bedac9b2a5d515eb9b87a38482',
  'test': '583d3858ca5920be1fbc02f26e50eff45dd1a87a',
}
OFFICIAL_BYTES = {'train': 103_874_469, 'test': 51_918_813}
# SHA-256 of the two halves of census66k; `loading` can also take these rows
# from the official test file.
CENSUS66K_SHA256 = {
  'train': 'c5e8dccc2936a024a071d014fc8813468d7885838c120a6f527e95388cd7fe15',
  'test': '3d8d47c948d9ede4bb8b1d043174d7884e7ce1e4396b3ca28f91ec2c5b1701db',
}
MAX_DOWNLOAD = 64 * 2**20  # bytes: three times the official archive
TIMEOUT = 30.0  # seconds without an answer

Progress = Callable[[int, int | None], None]


class Unpacked(NamedTuple):
  """The text of one split.

  Attributes:
    name: what to call it in messages.
    content: its bytes.
    sha256: of the content.
    label: `official`, `census66k` or `other`, see `label_of`.
  """

  name: str
  content: bytes
  sha256: str
  label: str


def find(data_dir: pathlib.Path, split: str) -> pathlib.Path | None:
  """Finds the file on disk that holds a split: text, .gz, .tar.gz or .zip.

  Returns:
    Its path, or None if there is none.

  Raises:
    InputError: the folder cannot be searched, or something other than a file
      has the name.
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
        f'{path}: cannot be accessed ({error.strerror})'
      ) from error
    if not stat.S_ISREG(mode):
      raise InputError(f'{path}: expected a file, found something else')
    return path
  return None


def read(path: pathlib.Path) -> bytes:
  """Returns the bytes of a file from `find`, as they are on disk.

  Raises:
    InputError: it cannot be read, or is too large.
  """
  try:
    return files.read(path, archives.MAX_BYTES)
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from error


def unpack(path: pathlib.Path, packed: bytes, split: str) -> Unpacked:
  """Extracts a split from the bytes of a file.

  Args:
    path: of the file, whose name says how it is packed.
    packed: its bytes, from `read`.
    split: `train` or `test`.

  Raises:
    InputError: the file is damaged, too large, or does not hold the split.
  """
  member = SPLITS[split]
  try:
    content = archives.extract(packed, path.name, member)
  except InputError as error:
    raise InputError(f'{path}: {error}') from error
  except OSError as error:
    raise InputError(f'{path}: not a valid gzip file ({error})') from error
  except Exception as error:  # Python's modules raise many kinds on damage
    raise InputError(
      f'{path}: damaged or truncated ({_one_line(error)}); fetch it again'
    ) from error
  if content is None:
    raise InputError(f'{path}: expected {member} in it, found no such file')
  sha256 = hashlib.sha256(content).hexdigest()
  return Unpacked(str(path), content, sha256, label_of(split, content, sha256))


def label_of(split: str, content: bytes, sha256: str) -> str:
  """Returns what the content is: `official`, `census66k` or `other`."""
  if sha256 == CENSUS66K_SHA256[split]:
    return 'census66k'
  if len(content) == OFFICIAL_BYTES[split]:
    git = hashlib.sha1(b'blob %d\0' % len(content), usedforsecurity=False)
    git.update(content)
    if git.hexdigest() == OFFICIAL_GIT_SHA1[split]:
      return 'official'
  return 'other'


def download(data_dir: pathlib.Path, progress: Progress) -> pathlib.Path:
  """Fetches the official archive and verifies it before it is kept.

  Args:
    data_dir: an existing folder.
    progress: called with the bytes done and the total (None if unknown).

  Returns:
    The archive's path.

  Raises:
    InputError: no network, or the content is not the official one.
  """
  by_hand = (
    'fetch it another way, put it in a folder, and pass '
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
        f'the download was redirected to {response.geturl()}, which is not '
        'https'
      )
    length = response.headers.get('Content-Length')
    total = int(length) if length and length.isdecimal() else None
    while chunk := response.read(archives.CHUNK):
      content += chunk
      if len(content) > MAX_DOWNLOAD:
        raise InputError(
          f'the download exceeds {MAX_DOWNLOAD} bytes, so it is not the '
          'official archive: not kept'
        )
      progress(len(content), total)
  if total is not None and len(content) < total:
    raise InputError(
      f'the download ended after {len(content)} of {total} bytes: try again'
    )
  return bytes(content)


def _verify(packed: bytes) -> None:
  for split, member in SPLITS.items():
    try:
      content = archives.extract(packed, ARCHIVE, member)
    except InputError:
      raise
    except Exception as error:
      raise InputError(
        f'the download is not a complete archive ({_one_line(error)}): not '
        'kept, try again'
      ) from error
    received = 'missing'
    if content is not None:
      sha256 = hashlib.sha256(content).hexdigest()
      if label_of(split, content, sha256) == 'official':
        continue
      received = f'{len(content):,} bytes, SHA-256 {sha256}'
    raise InputError(
      f'wrong checksum: the downloaded {member} is not the official file '
      f'(expected {OFFICIAL_BYTES[split]:,} bytes with git SHA-1 '
      f'{OFFICIAL_GIT_SHA1[split]}, found {received}); not kept'
    )


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split()) or type(error).__name__
