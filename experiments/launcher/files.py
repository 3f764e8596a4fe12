"""The one way in which a command writes a file: all of it, or nothing.

Text is UTF-8. See `lplmtl.storage.files.write` for what survives a power cut.
"""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

from lplmtl.storage import files


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Writes a file atomically; on failure raises OSError and keeps the old."""
  files.write(path, content)


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text file; see `write_bytes`."""
  write_bytes(path, text.encode('utf-8'))


def write_json(path: pathlib.Path, data: Any) -> None:
  """Writes JSON, indented; see `write_bytes`."""
  write_text(path, json.dumps(data, indent=2) + '\n')


def write_json_lines(path: pathlib.Path, records: Iterable[Any]) -> None:
  """Writes one line of JSON per record; see `write_bytes`."""
  write_text(path, ''.join(json.dumps(record) + '\n' for record in records))
