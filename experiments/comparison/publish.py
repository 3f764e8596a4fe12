"""Published comparisons: figures and pictures to commit, tables in Markdown.

A folder of published comparisons holds for each of them NAME.json (what the
tables show), NAME.csv (the same figures, one line per row) and its pictures.
In its .md files the text is written by hand; the tables are generated, each
between two comments:

    <!-- NAME: quality -->
    <!-- end -->

with `cost` or `settings` instead of `quality` for the other tables, and
`frontier` or `roads` for a frontier.
"""

import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.comparison import tables
from experiments.comparison.folder import CSV, DIFFERENCES, JSON, SIZES
from experiments.launcher import display, files
from experiments.launcher.errors import InputError

Kinds = Mapping[str, Callable[[Mapping[str, Any]], display.TextTable]]
TABLES: Kinds = {
  'quality': tables.quality_table,
  'cost': tables.cost_table,
  'settings': tables.settings_table,
}
# The fields of a row that are published; the rest (each seed's metrics, gates,
# calibration curves) is many times as long and stays in the original folder.
ROW = (
  'name', 'setting', 'num_settings', 'fits', 'difference', 'verdict',
  'mtl_gain', 'parameters', 'flops_per_example', 'examples_per_second',
  'latency', 'interval', 'fitted', 'family', 'budget', 'num_bytes', 'parts',
  'multiply_adds', 'value', 'regret', 'teacher',
)  # fmt: skip
_BLOCK = re.compile(
  r'(<!-- ([\w.-]+): (\w+) -->\n).*?(<!-- end -->)', re.DOTALL
)


def add(
  source: pathlib.Path,
  target: pathlib.Path,
  kinds: Kinds = TABLES,
  names: Sequence[str] = (JSON, CSV, SIZES, DIFFERENCES),
) -> str:
  """Publishes a finished comparison under the name of its folder.

  Args:
    source: folder of the comparison.
    target: folder of published comparisons; created if it is missing.
    kinds: all tables that its .md files may ask for.
    names: the files to publish: the one with all figures, the CSV, pictures.

  Returns:
    A line that says what was done, and what is left to do.

  Raises:
    InputError: a file cannot be read or written.
  """
  name = source.name
  try:
    results = files.read_json(source / names[0])
    target.mkdir(parents=True, exist_ok=True)
    files.write_json(target / f'{name}.json', reduced(results))
    for part in names[1:]:
      copy = target / _published_name(name, part)
      if (source / part).exists():
        files.write_bytes(copy, (source / part).read_bytes())
  except OSError as error:
    raise InputError(
      f'--publish_to={target}: {error.filename or source} cannot be read or '
      f'written ({error.strerror})'
    ) from error
  refresh(target, kinds)
  return _report(name, target, next(iter(kinds)))


def check(target: pathlib.Path) -> None:
  """Raises InputError, before anything is fitted, for a file as the folder."""
  if target.exists() and not target.is_dir():
    raise InputError(
      f'--publish_to={target} is a file: expected a folder, which may be new'
    )


def refresh(target: pathlib.Path, kinds: Kinds = TABLES) -> None:
  """Regenerates the tables in a folder's .md files; see `add`.

  Raises:
    InputError: a table that is asked for has no figures, or a file cannot be
      read or written.
  """
  try:
    for path in sorted(target.glob('*.md')):
      text = path.read_text(encoding='utf-8')
      files.write_text(path, render(text, path, kinds))
  except OSError as error:
    raise InputError(
      f'--publish_to={target}: {error.filename or target} cannot be read or '
      f'written ({error.strerror})'
    ) from error


def render(text: str, path: pathlib.Path, kinds: Kinds = TABLES) -> str:
  """Returns a file's text, its tables made from the figures beside it."""

  def block(match: re.Match[str]) -> str:
    start, name, kind, end = match.groups()
    figures = path.parent / f'{name}.json'
    if kind not in kinds or not figures.exists():
      raise InputError(
        f'{path}: {start.strip()} asks for a table that cannot be made: it '
        f'must name one of {", ".join(kinds)}, and {figures} must exist'
      )
    results = files.read_json(figures)
    return f'{start}{kinds[kind](results).to_markdown()}{end}'

  return _BLOCK.sub(block, text)


def reduced(results: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what is published of a comparison: what its tables and CSV need."""
  rows = []
  for row in results['rows']:
    test = {
      task: {
        metric: {part: values[part] for part in ('mean', 'std')}
        for metric, values in scored.items()
      }
      for task, scored in row['test'].items()
    }
    rows.append({**{k: row[k] for k in ROW if k in row}, 'test': test})
  # Not where the program and the published files are on one machine.
  program, *given = results['command']
  command = [
    '/'.join(pathlib.PurePath(program).parts[-2:]),
    *(flag for flag in given if not flag.startswith('--publish_to')),
  ]
  return {**results, 'rows': rows, 'command': command}


def _published_name(name: str, part: str) -> str:
  return f'{name}.csv' if part.endswith('.csv') else f'{name}_{part}'


def _report(name: str, target: pathlib.Path, kind: str) -> str:
  texts = (path.read_text(encoding='utf-8') for path in target.glob('*.md'))
  if any(f'<!-- {name}: ' in text for text in texts):
    return f'published in {target}'
  return (
    f'published in {target}; to show its table, put <!-- {name}: {kind} --> '
    'and <!-- end --> on two lines of a .md file there, and run the command '
    'again'
  )
