"""The one way in which a command writes a file: all of it, or nothing.

Text is UTF-8. See `lplmtl.storage.files.write` for what survives a power cut.
"""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

from experiments.launcher import figures
from lplmtl.storage import files


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Writes a file atomically; on failure raises OSError and keeps the old."""
  files.write(path, content)


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text file; see `write_bytes`."""
  write_bytes(path, text.encode('utf-8'))


def write_json(
  path: pathlib.Path, data: Any, *, ensure_ascii: bool = True
) -> None:
  """Writes JSON, indented, with null for NaN; see `write_bytes`.

  Args:
    path: the file.
    data: what it holds.
    ensure_ascii: whether other characters are escaped; a file to be edited has
      them as they are.
  """
  write_text(path, _dumps(data, 2, ensure_ascii))


def write_json_lines(path: pathlib.Path, records: Iterable[Any]) -> None:
  """Writes one line of JSON per record, as `write_json` does."""
  write_text(path, ''.join(map(_dumps, records)))


def read_json(path: pathlib.Path) -> Any:
  """Reads what `write_json` wrote, with NaN for null where numbers stand.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is not JSON.
  """
  return figures.from_json(files.read_json(path))


def _dumps(
  data: Any, indent: int | None = None, ensure_ascii: bool = True
) -> str:
  text = json.dumps(
    figures.to_json(data),
    indent=indent,
    allow_nan=False,
    ensure_ascii=ensure_ascii,
  )
  return f'{text}\n'
