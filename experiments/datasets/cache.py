"""Caches the columns of a file, so that the next start need not parse it.

An entry is used only if nothing can have changed: this user wrote it, for a
file with exactly these bytes, and no bit of it has changed since.
Otherwise the file is parsed again.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping
from concurrent import futures
from typing import Any

import numpy as np

from experiments.launcher import options
from lplmtl.columns import Column, Factor
from lplmtl.storage import files

# Raise the number whenever what a reader returns changes.
_MAGIC = b'lplmtl columns 3\n'
_DIGEST = 32  # bytes of a SHA-256
_PLACE = 16  # hex digits that tell the cached files apart
_SIZE = 8  # bytes of the length of the description
_ALIGN = 64  # bytes: arrays begin at multiples, for fast access


def path_of(source: str | pathlib.Path, kind: str) -> pathlib.Path | None:
  """Returns where a file's columns are kept; None without a home folder.

  This is never beside the file, because that folder may be shared or belong to
  somebody else.
  """
  folder = options.cache_dir()
  if folder is None:
    return None
  place = hashlib.sha256(os.fsencode(source)).hexdigest()[:_PLACE]
  return folder / 'columns' / f'{kind}-{place}'


def read(
  path: pathlib.Path, kind: str, digest: str
) -> tuple[dict[str, Column], dict[str, Any]] | None:
  """Returns what `write` wrote for the same kind and digest, or None."""
  try:
    with files.open_regular(path) as file:
      if not _is_own(os.fstat(file.fileno())):
        return None
      return _parse(_Verified(file), kind, digest)
  except Exception:  # missing, damaged in any way, or of another release
    return None


def _is_own(status: os.stat_result) -> bool:
  """Whether only this user (or root) can have written a file."""
  others = stat.S_IWGRP | stat.S_IWOTH
  return status.st_uid in (os.geteuid(), 0) and not status.st_mode & others


class _Verified:
  """Reads an entry part by part, each into memory of its own.

  Columns outlive others, when rows are taken from one after the other: as parts
  of one content, each would keep all of it in memory.
  """

  def __init__(self, file: io.BufferedReader):
    self._file = file
    self._digest = hashlib.sha256()
    self._pool = futures.ThreadPoolExecutor(1)  # one, to keep the order
    self._at = 0

  def read(self, size: int) -> np.ndarray:
    """Returns the next bytes; raises EOFError if there are fewer."""
    content = np.empty(size, np.uint8)
    if self._file.readinto(content.data) < size:
      raise EOFError
    # While the next bytes are read.
    self._pool.submit(self._digest.update, content.data)
    self._at += size
    return content

  def align(self) -> None:
    """Leaves out what stands before the next array."""
    self.read(-self._at % _ALIGN)

  def is_whole(self) -> bool:
    """Whether the digest follows, and is that of all bytes that were read."""
    self._pool.shutdown()
    return self._file.read() == self._digest.digest()


def _parse(
  entry: _Verified, kind: str, digest: str
) -> tuple[dict[str, Column], dict[str, Any]] | None:
  if entry.read(len(_MAGIC)).tobytes() != _MAGIC:
    return None
  size = int.from_bytes(entry.read(_SIZE), 'little')
  described = json.loads(entry.read(size).tobytes())
  if described['of'] != [kind, digest]:
    return None
  columns: dict[str, Column] = {}
  for name, parts in described['columns']:
    arrays = []
    for part in parts:
      entry.align()
      arrays.append(_array(entry.read(part['bytes']), part))
    columns[name] = Factor(*arrays) if len(arrays) > 1 else arrays[0]
  return (columns, described['facts']) if entry.is_whole() else None


def write(
  path: pathlib.Path,
  kind: str,
  digest: str,
  columns: Mapping[str, Column],
  facts: Mapping[str, Any],
) -> None:
  """Stores columns if possible.

  Args:
    path: from `path_of`.
    kind: of the columns, because a file may hold several (an archive has
      `train` and `test`).
    digest: SHA-256 of the file that was parsed, archive or not, and of whatever
      else the columns depend on.
    columns: arrays, or Factors of them, of numbers or texts.
    facts: JSON data about them.
  """
  # If this fails (a full disk, say), the next start parses the text again.
  with contextlib.suppress(OSError):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.is_symlink():
      files.tidy(path.parent, [path.name])
      parts = {
        name: [_stored(array) for array in _arrays(column)]
        for name, column in columns.items()
      }
      described = {
        'of': [kind, digest],
        'facts': dict(facts),
        'columns': [
          [name, [about for about, _ in stored]]
          for name, stored in parts.items()
        ],
      }
      every = [content for stored in parts.values() for _, content in stored]
      files.write(path, _with_digest(_chunks(described, every)), mode=0o644)


def _arrays(column: Column) -> tuple[np.ndarray, ...]:
  return tuple(column) if isinstance(column, Factor) else (column,)


def _stored(array: np.ndarray) -> tuple[dict[str, Any], Any]:
  """Returns what describes an array, and its bytes; texts are UTF-8."""
  if array.dtype != object:
    content: Any = np.ascontiguousarray(array).view(np.uint8).data
    return {'dtype': array.dtype.str, 'bytes': array.nbytes}, content
  texts = [text.encode() for text in array]
  sizes = np.array([len(text) for text in texts], '<u4').tobytes()
  content = sizes + b''.join(texts)
  return {'texts': len(texts), 'bytes': len(content)}, content


def _array(content: np.ndarray, about: Mapping[str, Any]) -> np.ndarray:
  """The inverse of `_stored`."""
  if 'dtype' in about:
    return content.view(about['dtype'])
  start = 4 * about['texts']
  ends = np.cumsum(content[:start].view('<u4'), dtype=np.int64)
  texts, rest, begin = [], content[start:].data, 0
  for end in ends.tolist():
    texts.append(str(rest[begin:end], 'utf-8'))
    begin = end
  return np.array(texts, object)


def _chunks(described: Any, arrays: list[Any]) -> Iterator[Any]:
  """Returns an entry piece by piece: it may be as large as the file."""
  head = json.dumps(described).encode()
  head = _MAGIC + len(head).to_bytes(_SIZE, 'little') + head
  yield head
  at = len(head)
  for content in arrays:
    padding = bytes(-at % _ALIGN)
    yield padding
    yield content
    at += len(padding) + len(content)


def _with_digest(chunks: Iterator[Any]) -> Iterator[Any]:
  digest = hashlib.sha256()
  for chunk in chunks:
    digest.update(chunk)
    yield chunk
  yield digest.digest()
