"""Parsed columns of a file, kept in the user's own cache for the next start.

Believed only where nothing can have changed: written by this user for the very
bytes of the file, and every bit as it was written. Else the file is read again.
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

_MAGIC = b'lplmtl columns 2\n'  # a new number for whatever the reader changes
_DIGEST = 32  # bytes


def path_of(source: pathlib.Path, split: str) -> pathlib.Path | None:
  """Where the columns of a file are kept; None for a user without a home.

  Never beside the file: that folder may be shared, or named by a stranger.
  """
  folder = options.cache_dir()
  if folder is None:
    return None
  place = hashlib.sha256(os.fsencode(source)).hexdigest()[:16]
  return folder / 'columns' / f'{split}-{place}'


def read(
  path: pathlib.Path, split: str, digest: str
) -> tuple[Table, dict[str, Any]] | None:
  """What `write` wrote for the same split and digest; None for all else."""
  try:
    with files.open_regular(path) as file:
      if not _is_own(os.fstat(file.fileno())):
        return None
      content = file.read()
    return _parse(content, split, digest)
  except Exception:  # absent, damaged in any way, or of another release
    return None


def _is_own(found: os.stat_result) -> bool:
  """Whether nobody but this user (or root) can have written a file."""
  others = stat.S_IWGRP | stat.S_IWOTH
  return found.st_uid in (os.geteuid(), 0) and not found.st_mode & others


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
  """Keeps a table, if that can be.

  Args:
    path: from `path_of`.
    split: `train` or `test`: an archive holds both.
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
  # Where it cannot be written, the next start reads the text again.
  with contextlib.suppress(OSError):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.is_symlink():
      files.tidy(path.parent, [path.name])
      files.write(path, content, mode=0o644)
