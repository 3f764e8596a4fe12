"""Several runs, or comparisons, as one page to look at.

    python -m experiments.report runs/sple runs/ple --report_dir=report

Takes results.json and comparison.json files, or the folders that hold them, and
writes report.html (pictures inside), report.md and the pictures.
"""

import base64
import html
import json
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from experiments.launcher import errors, frame, interrupts, parsing
from experiments.launcher.errors import InputError

flags.DEFINE_string('report_dir', 'report', 'Report: the folder of the page.')

PICTURES = re.compile(
  r'(learning|calibration|(gates|differences|sizes)_[0-9]+)\.png'
)
PAGES = ('report.html', 'report.md')
MARK = '<!-- lplmtl report -->'  # of a page that was written here
STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 70em; }
table { border-collapse: collapse; margin: 1.5em 0; font-size: 13px; }
caption { text-align: left; font-weight: 600; padding-bottom: .4em; }
td, th { padding: .15em .7em; border-bottom: 1px solid #ddd; }
.left { text-align: left; } .right { text-align: right; }
img { max-width: 100%; } pre { white-space: pre-wrap; }
"""


class Run(NamedTuple):
  """A training run.

  Attributes:
    name: told from the other runs.
    results: of its results.json.
    history: of its history.jsonl, arrays as arrays; none where it is gone.
  """

  name: str
  results: Mapping[str, Any]
  history: Sequence[Mapping[str, Any]]


class Picture(NamedTuple):
  """A picture of the page.

  Attributes:
    file: its name in the folder.
    text: what it shows.
  """

  file: str
  text: str


def make(
  paths: Sequence[pathlib.Path], folder: pathlib.Path
) -> list[pathlib.Path]:
  """Writes the page.

  Args:
    paths: files or folders of runs and comparisons.
    folder: of the page.

  Returns:
    The files written.

  Raises:
    InputError: nothing to report, files that are not what they should be, runs
      of different data, or a folder that cannot be written, or whose files of
      the same names no report has written.
  """
  from experiments.launcher import plots

  if not plots.is_available():
    raise InputError(
      "a report needs pictures: pip install -e '.[plots]' for Matplotlib"
    )
  if not paths:
    raise InputError(
      'nothing to report: name the folders of runs or comparisons, or their '
      'results.json and comparison.json'
    )
  try:
    runs, comparisons = _contents(paths)
    folder.mkdir(parents=True, exist_ok=True)
    # All of it or nothing, and nothing of an older page.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
      written = _write(runs, comparisons, pathlib.Path(scratch))
      _make_room(folder, written)
      for name in written:
        (pathlib.Path(scratch) / name).replace(folder / name)
    return [folder / name for name in written]
  except InputError:
    raise
  except _WRONG as error:
    raise InputError(
      f'one of {", ".join(map(str, paths))} is not what this release writes '
      f'({type(error).__name__}: {error}): make it again'
    ) from error
  except OSError as error:
    raise InputError(
      f'cannot write to --report_dir={folder} ({error.strerror}): choose a '
      'folder that can be written'
    ) from error


# What the reading of other data than ours ends in.
_WRONG = (KeyError, TypeError, ValueError, IndexError, AttributeError)


def _contents(
  paths: Sequence[pathlib.Path],
) -> tuple[list[Run], list[Mapping[str, Any]]]:
  """The runs and the comparisons."""
  found = [(path, *_read(path)) for path in paths]
  places = [path.absolute() for path, _, _ in found]
  if len(set(places)) < len(places):
    raise InputError('a run or comparison is named twice: once is enough')
  _check_same_data([(path, content) for path, _, content in found])
  names = _names([path for path, kind, _ in found if kind == 'run'])
  runs = [
    Run(names[path], content, _history(path))
    for path, kind, content in found
    if kind == 'run'
  ]
  return runs, [content for _, kind, content in found if kind == 'comparison']


def _make_room(folder: pathlib.Path, names: Sequence[str]) -> None:
  """Removes the pictures of an older page.

  Raises:
    InputError: another file than a report's would be replaced.
  """
  foreign = [
    folder / name
    for name in names
    if os.path.lexists(folder / name) and not _is_own(folder / name)
  ]
  if foreign:
    raise InputError(
      f'{foreign[0]} is there and no report wrote it: move it away, or choose '
      'another --report_dir'
    )
  for path in folder.glob('*.png'):
    if PICTURES.fullmatch(path.name) and _is_own(path):
      path.unlink()


def _is_own(path: pathlib.Path) -> bool:
  from experiments.launcher import plots

  if path.is_symlink() or not path.is_file():
    return False
  if path.name not in PAGES:
    return plots.is_own(path)
  with path.open('rb') as file:
    return MARK.encode() in file.read(1000)


def _write(
  runs: Sequence[Run],
  comparisons: Sequence[Mapping[str, Any]],
  folder: pathlib.Path,
) -> list[str]:
  """Writes all files into a folder; returns their names."""
  from experiments.comparison import tables as compare_tables
  from experiments.launcher import files, provenance

  tables = [*_run_tables(runs)] if runs else []
  for comparison in comparisons:
    tables += compare_tables.tables(comparison)
  pictures = [
    *_run_pictures(runs, folder),
    *_comparison_pictures(comparisons, folder),
  ]
  results = [*(run.results for run in runs), *comparisons]
  statement = results[0]['data']['statement']
  commands = [
    f'{provenance.command_line(r["command"])}  # commit '
    f'{(r["commit"] or "unknown")[:12]}'
    for r in results
  ]
  parts = [f'# Report\n\n{MARK}\n\n{statement}.\n']
  remarks = [compare_tables.notes(comparison) for comparison in comparisons]
  parts += [table.to_markdown() for table in tables]
  parts += [f'{remark}\n' for remark in remarks]
  parts += [f'![{p.text}]({p.file})\n' for p in pictures]
  parts += ['Made by:\n\n```sh', *commands, '```\n']
  files.write_text(folder / 'report.md', '\n'.join(parts))
  images = [
    f'<h2>{html.escape(p.text)}</h2>\n'
    f'<img alt="{html.escape(p.text)}" src="data:image/png;base64,'
    f'{base64.b64encode((folder / p.file).read_bytes()).decode()}">'
    for p in pictures
  ]
  body = [
    f'<!doctype html>\n{MARK}\n<html lang="en"><meta charset="utf-8">',
    f'<title>Report</title><style>{STYLE}</style>',
    f'<h1>Report</h1>\n<p>{html.escape(statement)}.</p>',
    *(table.to_html() for table in tables),
    *(f'<p>{html.escape(remark)}</p>' for remark in remarks),
    *images,
    '<h2>Made by</h2>\n<pre>' + html.escape('\n'.join(commands)) + '</pre>',
    '</html>\n',
  ]
  files.write_text(folder / 'report.html', '\n'.join(body))
  return ['report.html', 'report.md', *(p.file for p in pictures)]


def _run_tables(runs: Sequence[Run]) -> list[Any]:
  """Quality and cost of every run."""
  from experiments.launcher import display, quality

  tables = []
  for task in _tasks(runs):
    tests = [run.results['test'] for run in runs]
    metrics = quality.names(test[task] for test in tests if task in test)
    rows = [
      [
        run.name,
        str(run.results['config']['num_seeds']),
        *(
          display.plus_minus(run.results['test'][task][name])
          if name in run.results['test'][task]
          else ''
          for name in metrics
        ),
        display.plus_minus(run.results['loss_weights'][task]),
      ]
      for run in runs
      if task in run.results['test']
    ]
    head = ['run', 'seeds', *map(quality.label, metrics), 'loss weight']
    tables.append(
      display.TextTable(
        f'{task}: test metrics, mean ± std over seeds', head, rows, ('run',)
      )
    )
  rows = [
    [
      run.name,
      f'{run.results["parameters"]:,}',
      f'{run.results["flops_per_example"]:,}',
      f'{run.results["examples_per_second"]:,.0f}',
      ' '.join(f'{g["collapsed"]["mean"]:.0%}' for g in run.results['gates']),
    ]
    for run in runs
  ]
  head = ['run', 'parameters', 'FLOPs', 'train ex/s', 'unused experts a level']
  tables.append(
    display.TextTable(
      'Cost, and experts that no gate gives 1 %', head, rows, ('run',)
    )
  )
  return tables


def _run_pictures(runs: Sequence[Run], folder: pathlib.Path) -> list[Picture]:
  from experiments.launcher import plots

  made = []
  tasks = _tasks(runs)
  with_history = {run.name: run.history for run in runs if run.history}
  if with_history:
    plots.learning(folder / 'learning.png', with_history, tasks)
    made.append(Picture('learning.png', 'Learning curves and loss weights'))
  curves = {
    run.name: run.results['calibration']
    for run in runs
    if run.results.get('calibration')
  }
  if curves:
    plots.calibration(folder / 'calibration.png', curves, tasks)
    made.append(Picture('calibration.png', 'Calibration on the test rows'))
  for i, run in enumerate(runs):
    if run.results['gates']:
      name = f'gates_{i}.png'
      plots.gates(folder / name, run.results['gates'], run.name)
      made.append(Picture(name, f'Gate use: {run.name}'))
  return made


def _comparison_pictures(
  comparisons: Sequence[Mapping[str, Any]], folder: pathlib.Path
) -> list[Picture]:
  from experiments.launcher import plots

  made = []
  for i, found in enumerate(comparisons):
    if len(found['rows']) > 1:
      name = f'differences_{i}.png'
      plots.differences(folder / name, found)
      made.append(Picture(name, f'Differences: {found["title"]}'))
    name = f'sizes_{i}.png'
    plots.sizes(folder / name, found)
    made.append(Picture(name, f'Quality against size: {found["title"]}'))
  return made


def _tasks(runs: Sequence[Run]) -> list[str]:
  """All tasks, in the order in which they are met."""
  return list(
    dict.fromkeys(task for run in runs for task in run.results['test'])
  )


def _read(path: pathlib.Path) -> tuple[str, dict[str, Any]]:
  """`('run' or 'comparison', content)` of a file or folder."""
  from lplmtl.storage import files

  names = ('results.json', 'comparison.json')
  try:
    options = [path / name for name in names] if path.is_dir() else [path]
    there = [file for file in options if file.is_file()]
  except (OSError, ValueError) as error:  # such as a name that is too long
    raise InputError(
      f'{path!s:.80} cannot be read ({error.args[-1]})'
    ) from error
  if not there:
    raise InputError(
      f'{path} is no folder of a finished run or comparison: expected '
      f'{" or ".join(names)} in it'
    )
  try:
    content = files.read_json(there[0])
    kind = 'comparison' if 'rows' in content else 'run'
    wanted = ('data', 'command', 'config', 'commit') + (
      ('rows', 'baseline', 'tasks', 'margin')
      if kind == 'comparison'
      else ('test', 'loss_weights', 'parameters', 'gates')
    )
    missing = [name for name in wanted if name not in content]
    if missing:
      raise ValueError(f'it has no {missing[0]!r}')
  except (OSError, ValueError, TypeError) as error:
    raise InputError(
      f'{there[0]} is not what this release writes ({error}): make it again'
    ) from error
  return kind, content


def _check_same_data(found: Sequence[tuple[pathlib.Path, Any]]) -> None:
  """Refuses figures that are of different rows."""

  def rows(content: Mapping[str, Any]) -> dict[str, Any]:
    data, config = content['data'], content['config']
    return {
      'data set': data['statement'],
      'files': {s: f['sha256'] for s, f in data['files'].items()},
      'validation': config['validation'],
      'split_seed': config['split_seed'],
    }

  first_path, first = found[0]
  for path, content in found[1:]:
    ours, theirs = rows(first), rows(content)
    for name, value in ours.items():
      if theirs[name] != value:
        raise InputError(
          f'{first_path} and {path} are of different data, which cannot be '
          f'compared: {name} is {value!r} and {theirs[name]!r}'
        )


def _names(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
  """The shortest names that differ: folders, with their parents if need be."""
  folders = {
    path: (path if path.is_dir() else path.parent).absolute() for path in paths
  }
  if len(set(folders.values())) < len(paths):
    raise InputError('a run or comparison is named twice: once is enough')
  for depth in range(1, 20):
    names = {p: '/'.join(f.parts[-depth:]) for p, f in folders.items()}
    if len(set(names.values())) == len(paths):
      break
  return names


def _history(path: pathlib.Path) -> list[dict[str, Any]]:
  from experiments.launcher import run_folder
  from lplmtl.training import progress

  folder = path if path.is_dir() else path.parent
  try:
    text = (folder / run_folder.HISTORY).read_text(encoding='utf-8')
    return [progress.from_json(json.loads(line)) for line in text.splitlines()]
  except FileNotFoundError:
    return []
  except (OSError, ValueError) as error:
    raise InputError(
      f'{folder / run_folder.HISTORY} cannot be read ({error})'
    ) from error


def main(argv: Sequence[str]) -> None:
  """Paths to a page; a user's mistake ends in one line and exit code 1."""
  interrupts.start()
  try:
    with errors.one_line():
      files = make(
        [parsing.path('a run to report', path) for path in argv[1:]],
        parsing.path('--report_dir', flags.FLAGS.report_dir),
      )
  except KeyboardInterrupt:
    sys.exit(130)
  print(f'written: {", ".join(map(str, files))}')


if __name__ == '__main__':
  frame.run(main)
