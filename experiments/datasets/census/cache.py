"""Caches the parsed columns of a file, so that the next start need not parse.

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
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.datasets.census.reader import Table
from experiments.launcher import options
from lplmtl.storage import files
from lplmtl.tables import Factor

# Raise the number whenever what the reader returns changes.
_MAGIC = b'lplmtl columns 2\n'
_DIGEST = 32  # bytes of a SHA-256
_PLACE = 16  # hex digits that tell the cached files apart


def path_of(source: pathlib.Path, split: str) -> pathlib.Path | None:
  """Returns where a file's columns are kept; None without a home folder.

  This is never beside the file, because that folder may be shared or belong to
  somebody else.
  """
  folder = options.cache_dir()
  if folder is None:
    return None
  place = hashlib.sha256(os.fsencode(source)).hexdigest()[:_PLACE]
  return folder / 'columns' / f'{split}-{place}'


def read(
  path: pathlib.Path, split: str, digest: str
) -> tuple[Table, dict[str, Any]] | None:
  """Returns what `write` wrote for the same split and digest, or None."""
  try:
    with files.open_regular(path) as file:
      if not _is_own(os.fstat(file.fileno())):
        return None
      content = file.read()
    return _parse(content, split, digest)
  except Exception:  # missing, damaged in any way, or of another release
    return None


def _is_own(status: os.stat_result) -> bool:
  """Whether only this user (or root) can have written a file."""
  others = stat.S_IWGRP | stat.S_IWOTH
  return status.st_uid in (os.geteuid(), 0) and not status.st_mode & others


def _parse(
  content: bytes, split: str, digest: str
) -> tuple[Table, dict[str, Any]] | None:
  start = len(_MAGIC) + _DIGEST
  head, payload = content[:start], memoryview(content)[start:]
  if head != _MAGIC + hashlib.sha256(payload).digest():
    return None
  with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
    described = json.loads(str(arrays['described']))
    if described['of'] != [split, digest]:
      return None
    table = {
      column: Factor(arrays[f'{column}.codes'], arrays[f'{column}.values'])
      for column in described['columns']
    }
  return table, described['facts']


def write(
  path: pathlib.Path,
  split: str,
  digest: str,
  table: Table,
  facts: Mapping[str, Any],
) -> None:
  """Stores a table if possible.

  Args:
    path: from `path_of`.
    split: `train` or `test`, because an archive holds both.
    digest: SHA-256 of the file that was parsed, archive or not.
    table: its columns.
    facts: JSON data about them.
  """
  arrays = {
    f'{column}.{part}': array
    for column, factor in table.items()
    for part, array in factor._asdict().items()
  }
  described = {
    'of': [split, digest], 'columns': list(table), 'facts': dict(facts),
  }  # fmt: skip
  buffer = io.BytesIO()
  np.savez(buffer, described=np.array(json.dumps(described)), **arrays)
  payload = buffer.getbuffer()
  content = _MAGIC + hashlib.sha256(payload).digest() + payload
  # If this fails (a full disk, say), the next start parses the text again.
  with contextlib.suppress(OSError):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.is_symlink():
      files.tidy(path.parent, [path.name])
      files.write(path, content, mode=0o644)
