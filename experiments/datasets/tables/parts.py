"""The files of a table that is in several: what is known of each."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any


def names(paths: Sequence[pathlib.Path]) -> list[str]:
  """Returns what to call files: their paths below the folder of all."""
  if len(paths) < 2:
    return [path.name for path in paths]
  above = os.path.commonpath([path.absolute().parent for path in paths])
  return [os.path.relpath(path.absolute(), above) for path in paths]


def of(
  paths: Sequence[pathlib.Path],
  digests: Sequence[str],
  rows: Sequence[int] = (),
) -> dict[str, Any]:
  """Returns what the facts about a table say of each file, if there are many.

  Args:
    paths: of the files.
    digests: of their bytes.
    rows: of each; empty if they are not known.

  Returns:
    `{'parts': [{'file', 'sha256', 'rows'}]}`; nothing for a single file.
  """
  if len(paths) == 1:
    return {}
  found: list[dict[str, Any]] = [
    {'file': name, 'sha256': digest}
    for name, digest in zip(names(paths), digests, strict=True)
  ]
  for part, count in zip(found, rows, strict=False):
    part['rows'] = count
  return {'parts': found}


def place(facts: Mapping[str, Any], row: int) -> tuple[str, int]:
  """Returns the name of the file that a row is in, and its number there.

  Args:
    facts: of a table that was read as a whole; see `reader.Table`.
    row: its number in the table, counted from 0.
  """
  first = 0
  for part in facts.get('parts', ()):
    if row < first + part['rows']:
      return part['file'], row - first
    first += part['rows']
  return facts['file'], row
