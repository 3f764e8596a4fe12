"""The runs and comparisons that go into a report, as read from their files."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.launcher import figures, files, run_folder
from experiments.launcher.errors import InputError
from lplmtl.training import progress

# Fields that a report reads, by the kind of file.
_EVERY = ('data', 'command', 'config', 'commit')
_FIELDS = {
  'run': (*_EVERY, 'test', 'loss_weights', 'parameters', 'gates'),
  'comparison': (*_EVERY, 'rows', 'baseline', 'tasks', 'margin'),
}
_DEEPEST = 20  # parent folders used to tell runs of the same name apart


class Run(NamedTuple):
  """A training run.

  Attributes:
    name: differs from those of the other runs.
    results: the contents of its results.json.
    history: those of its history.jsonl, with NumPy arrays; empty if there is
      no such file.
  """

  name: str
  results: Mapping[str, Any]
  history: Sequence[Mapping[str, Any]]


class Contents(NamedTuple):
  """All that a report shows.

  Attributes:
    runs: in the order in which they were given.
    comparisons: the contents of each comparison.json.
  """

  runs: list[Run]
  comparisons: list[Mapping[str, Any]]


def read(paths: Sequence[pathlib.Path]) -> Contents:
  """Reads files, or the folders that hold them.

  Raises:
    InputError: a file is missing or unreadable, is given twice, or is about
      data other than the first.
  """
  parts = [(path, *_read(path)) for path in paths]
  if len({path.absolute() for path in paths}) < len(paths):
    raise InputError('a run or comparison is named twice: once is enough')
  _check_same_data([(path, content) for path, _, content in parts])
  names = _names([path for path, kind, _ in parts if kind == 'run'])
  return Contents(
    [
      Run(names[path], content, _history(path))
      for path, kind, content in parts
      if kind == 'run'
    ],
    [content for _, kind, content in parts if kind == 'comparison'],
  )


def _read(path: pathlib.Path) -> tuple[str, dict[str, Any]]:
  """Returns the kind ('run' or 'comparison') and the contents of one path."""
  names = (run_folder.RESULTS, run_folder.COMPARISON)
  try:
    candidates = [path / name for name in names] if path.is_dir() else [path]
    there = [file for file in candidates if file.is_file()]
  except (OSError, ValueError) as error:  # such as a name that is too long
    raise InputError(
      f'{path!s:.80} cannot be read ({error.args[-1]})'
    ) from error
  if not there:
    raise InputError(
      f'{path} is not the folder of a finished run or comparison: expected '
      f'{" or ".join(names)} in it'
    )
  try:
    content = files.read_json(there[0])
    kind = 'comparison' if 'rows' in content else 'run'
    missing = [name for name in _FIELDS[kind] if name not in content]
    if missing:
      raise ValueError(f'it has no {missing[0]!r}')
  except (OSError, ValueError, TypeError) as error:
    raise InputError(
      f'{there[0]} is not what this release writes ({error}): make it again'
    ) from error
  return kind, content


def _check_same_data(parts: Sequence[tuple[pathlib.Path, Any]]) -> None:
  """Refuses metrics of different rows, which cannot be compared."""

  def rows(content: Mapping[str, Any]) -> dict[str, Any]:
    data, config = content['data'], content['config']
    return {
      'data set': data['statement'],
      'validation': config.get('validation', 'tenth'),  # as in a table
      'split_seed': config['split_seed'],
    }

  first_path, first = parts[0]
  for path, content in parts[1:]:
    both = f'{first_path} and {path} use different data and cannot be compared'
    expected, found = rows(first), rows(content)
    for name, value in expected.items():
      if found[name] != value:
        raise InputError(f'{both}: {name} is {value!r} and {found[name]!r}')
    if different := _different_files(first['data'], content['data']):
      raise InputError(f'{both}: they differ in {different}')


def _different_files(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
  """Returns which files differ, by checksum, of two that are called alike."""
  files_ = {**other['files'], **one['files']}
  different = [
    name for name in files_ if _checksum(one, name) != _checksum(other, name)
  ]
  if different == ['schema']:
    targets = [', '.join(data.get('targets', ())) for data in (one, other)]
    if targets[0] != targets[1]:
      return f'their targets, {targets[0]} and {targets[1]}'
    return 'their schema.json'
  # The means in a schema, say, follow from the other files.
  return ', '.join(
    f'the content of {files_[name].get("file", name)}'
    for name in different
    if name != 'schema'
  )


def _checksum(data: Mapping[str, Any], name: str) -> Any:
  return data['files'].get(name, {}).get('sha256')


def _names(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
  """Returns the folders' names, with enough parents to make them differ."""
  folders = {
    path: (path if path.is_dir() else path.parent).absolute() for path in paths
  }
  if len(set(folders.values())) < len(paths):
    raise InputError('a run or comparison is named twice: once is enough')
  for depth in range(1, _DEEPEST):
    names = {p: '/'.join(f.parts[-depth:]) for p, f in folders.items()}
    if len(set(names.values())) == len(paths):
      break
  return names


def _history(path: pathlib.Path) -> list[dict[str, Any]]:
  folder = path if path.is_dir() else path.parent
  try:
    text = (folder / run_folder.HISTORY).read_text(encoding='utf-8')
    lines = [figures.from_json(json.loads(line)) for line in text.splitlines()]
    return [progress.from_json(record) for record in lines]
  except FileNotFoundError:
    return []
  except (OSError, ValueError) as error:
    raise InputError(
      f'{folder / run_folder.HISTORY} cannot be read ({error})'
    ) from error
