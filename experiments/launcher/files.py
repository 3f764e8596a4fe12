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


def write_json(path: pathlib.Path, data: Any) -> None:
  """Writes JSON, indented, with null for NaN; see `write_bytes`."""
  write_text(path, _dumps(data, indent=2))


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


def _dumps(data: Any, indent: int | None = None) -> str:
  plain = figures.to_json(data)
  return json.dumps(plain, indent=indent, allow_nan=False) + '\n'
