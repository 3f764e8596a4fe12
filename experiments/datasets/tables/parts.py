"""The files of a table that is in several: what is known of each, and all."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.datasets.tables import values
from experiments.launcher.errors import InputError
from lplmtl.columns import Column


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


def joined(
  paths: Sequence[pathlib.Path], tables: Sequence[dict[str, Column]]
) -> dict[str, Column]:
  """Returns the rows of several files with the same columns, in any order."""
  if len(tables) == 1:
    return tables[0]
  first = tables[0]
  for path, table in zip(paths, tables, strict=True):
    if table:  # else a header without rows
      check_columns(path, table, paths[0], first)
  tables = [table for table in tables if table]
  return {name: values.chained([t[name] for t in tables]) for name in first}


def check_columns(
  path: pathlib.Path,
  table: Mapping[str, Column],
  first_path: pathlib.Path,
  first: Mapping[str, Column],
) -> None:
  """Raises InputError unless a file has the columns of the first."""
  lacks, more = first.keys() - table.keys(), table.keys() - first.keys()
  if lacks or more:
    raise InputError(
      f'{path} must have the columns of {first_path.name}: '
      + '; '.join(
        f'{what} {", ".join(sorted(names)[:5])}'
        for what, names in (('it lacks', lacks), ('it has also', more))
        if names
      )
    )
