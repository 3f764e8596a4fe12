"""How the run that a folder holds already differs from a new one, in words."""

import pathlib
from collections.abc import Mapping
from typing import Any

from lplmtl import checkpoint, resume
from lplmtl.storage import files, folders, saves
from lplmtl.tabular.schema import USED, Schema, label_columns

_SCHEMA = 'data.schema'


def unfinished(checkpoints: pathlib.Path) -> Mapping[str, Any]:
  """Returns the `run` and `environment` of a folder's newest checkpoint.

  Nothing if there is none, or if it is damaged: it may be passed over then.
  """
  try:
    folder = saves.path(checkpoints, saves.own(checkpoints)[-1])
    meta = files.read_json(folder / folders.METADATA)
    is_known = isinstance(meta['run'], dict)
    return meta if is_known and isinstance(meta['environment'], dict) else {}
  except (OSError, ValueError, LookupError, TypeError):
    return {}


def schema_of_model(folder: pathlib.Path) -> Schema | None:
  """Returns the schema that a model was saved with; None without one."""
  try:
    return parsed(checkpoint.load_extra(folder).get('schema'))
  except (OSError, ValueError):
    return None


def schema_of_file(path: pathlib.Path) -> Schema | None:
  """Returns the schema in a file; None if it cannot be read."""
  try:
    return parsed(files.read_json(path))
  except (OSError, ValueError):
    return None


def parsed(data: Any) -> Schema | None:
  """Returns the schema that JSON data hold; None if they hold none."""
  try:
    return Schema.from_json(data)
  except (ValueError, TypeError, KeyError, AttributeError):
    return None


def rows_of(facts: Mapping[str, Any]) -> dict[str, int]:
  """Returns `{split: rows of its file}`, as far as they are known."""
  named = facts['files'].items()
  return {split: file['rows'] for split, file in named if 'rows' in file}


def about(facts: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what `differences` needs to know of the rows of an earlier run.

  Args:
    facts: see `base.Source`.

  Returns:
    JSON data: `rows`, see `rows_of`, and `files`, `{split: {name: digest}}` of
    tables in many files.
  """
  parts = {split: f.get('parts', ()) for split, f in facts['files'].items()}
  return {
    'rows': rows_of(facts),
    'files': {
      split: {part['file']: part['sha256'][:16] for part in some}
      for split, some in parts.items()
      if some
    },
  }


def differences(
  old: Mapping[str, Any],
  new: Mapping[str, Any],
  facts: Mapping[str, Any],
  known: Mapping[str, Any],
  schemas: tuple[Schema | None, Schema | None],
) -> list[str]:
  """Lists how two runs differ; nothing if they are one.

  Files are told apart by checksums, which say nothing to a person: he learns
  which file has changed, by how many rows, and in which columns; of a table in
  many files, the first of those that have changed.

  Args:
    old: the `run_folder.identity` of the earlier run.
    new: that of the new one.
    facts: about the new rows, see `base.Source`.
    known: `about` the rows of the earlier run.
    schemas: of the tables of both, as far as they are known.
  """
  found = {text.split(' ')[0]: text for text in resume.differences(old, new)}
  now_known = about(facts)
  for split, file in facts['files'].items():
    name = f'data.{split}'
    if name not in found or name == _SCHEMA or split not in old['data']:
      continue
    (old_files, new_files), (was, now) = (
      [one.get(what, {}).get(split) for one in (known, now_known)]
      for what in ('files', 'rows')
    )
    notes = _changed_files(old_files, new_files)
    is_longer = was != now and was is not None and now is not None
    if is_longer:
      notes.append(f'{was:,} rows, now {now:,}')
    listed = f' ({"; ".join(notes)})' if notes else ''
    found[name] = (
      f'{"" if is_longer else "the content of "}{file["file"]}{listed}'
    )
  has_changed = 'data.data' in found
  names = _columns(*schemas, only_kinds=has_changed)
  if _SCHEMA in found and names:
    found[_SCHEMA] = f'columns ({", ".join(names)})'
  elif has_changed:  # the mean of a target, say, follows from the content
    found.pop(_SCHEMA, None)
  return [*found.values()]


def _changed_files(
  old: Mapping[str, str] | None, new: Mapping[str, str] | None
) -> list[str]:
  """Names the first file that differs, and says how many others do."""
  if not old or not new:
    return []
  changed = [
    name for name in sorted({**old, **new}) if old.get(name) != new.get(name)
  ]
  if not changed:
    return []
  first, others = changed[0], len(changed) - 1
  what = 'has changed'
  if first not in old or first not in new:
    what = 'is new' if first not in old else 'is missing'
  more = f', and {others} other{"s differ" if others > 1 else " differs"}'
  return [f'{first} {what}{more if others else ""}']


def contents(facts: Mapping[str, Any]) -> dict[str, str]:
  """Says of each file, by its split, what it holds, in a few words.

  Args:
    facts: see `base.Source`.
  """
  rows = rows_of(facts)
  return {
    split: f'{rows[split]:,} rows, SHA-256 {file["sha256"][:8]}'
    if split in rows
    else f'SHA-256 {file["sha256"][:8]}'
    for split, file in facts['files'].items()
  }


def former_targets(old: Schema, new: Schema) -> list[Any]:
  """Lists the inputs of a schema that are targets in an earlier one."""
  targets = {
    column
    for name, target in old.targets.items()
    for column in label_columns(name, target)
  }
  return [
    name
    for name, one in new.inputs.items()
    if name in targets and one.kind in USED
  ]


def _columns(
  old: Schema | None, new: Schema | None, only_kinds: bool
) -> list[str]:
  """Lists the inputs and targets that differ, or differ in their kinds."""
  if old is None or new is None:
    return []

  def look(schema: Schema, part: str, name: Any) -> Any:
    one = getattr(schema, part).get(name)
    return one and (one.kind if only_kinds else one)

  changed = {
    str(name): None  # a former target may be an input
    for part in ('inputs', 'targets')
    for name in {**getattr(old, part), **getattr(new, part)}
    if look(old, part, name) != look(new, part, name)
  }
  return list(changed)
