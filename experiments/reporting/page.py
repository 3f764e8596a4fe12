"""A page from runs and comparisons: report.html, report.md and the pictures."""

import base64
import html
import os
import pathlib
import re
import tempfile
from collections.abc import Sequence
from typing import Any

from experiments.comparison import tables as comparison_tables
from experiments.launcher import drawing, files, provenance
from experiments.launcher.display import TextTable
from experiments.launcher.errors import InputError
from experiments.reporting import contents, pictures, tables
from experiments.reporting.contents import Contents
from experiments.reporting.pictures import Picture

HTML, MARKDOWN = 'report.html', 'report.md'
_PICTURES = re.compile(
  r'(learning|calibration|(outcomes|gates|differences|sizes)_[0-9]+)\.png'
)
_MARK = '<!-- lplmtl report -->'  # by which we recognise our own pages
_MARK_WITHIN = 1000  # bytes of a page
_STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 70em; }
table { border-collapse: collapse; margin: 1.5em 0; font-size: 13px; }
caption { text-align: left; font-weight: 600; padding-bottom: .4em; }
td, th { padding: .15em .7em; border-bottom: 1px solid #ddd; }
.left { text-align: left; } .right { text-align: right; }
img { max-width: 100%; } pre { white-space: pre-wrap; }
"""
# What reading results of an unexpected shape raises.
_WRONG_SHAPE = (KeyError, TypeError, ValueError, IndexError, AttributeError)


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
    InputError: there is nothing to report, a file is not what it should be,
      runs differ in their data, or the folder cannot be written or holds files
      with the same names that no report wrote.
  """
  if not drawing.is_available():
    raise InputError(
      "a report needs pictures: pip install 'lplmtl[plots]' for Matplotlib"
    )
  if not paths:
    raise InputError(
      'nothing to report: name the folders of runs or comparisons, or their '
      'results.json and comparison.json'
    )
  try:
    report = contents.read(paths)
    folder.mkdir(parents=True, exist_ok=True)
    # Either the whole page appears, without any file of an older one, or none.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
      written = _write(report, pathlib.Path(scratch))
      make_room(folder, written)
      for name in written:
        (pathlib.Path(scratch) / name).replace(folder / name)
    return [folder / name for name in written]
  except InputError:
    raise
  except _WRONG_SHAPE as error:
    raise InputError(
      f'one of {", ".join(map(str, paths))} is not what this release writes '
      f'({type(error).__name__}: {error}): make it again'
    ) from error
  except OSError as error:
    raise InputError(
      f'cannot write to --report_dir={folder} ({error.strerror}): choose a '
      'folder that can be written'
    ) from error


def make_room(folder: pathlib.Path, names: Sequence[str]) -> None:
  """Removes the pictures of an older page.

  Raises:
    InputError: `names`, which are to be written, include a file that no report
      has written.
  """
  foreign = [
    folder / name
    for name in names
    if os.path.lexists(folder / name) and not _is_own(folder / name)
  ]
  if foreign:
    raise InputError(
      f'{foreign[0]} exists, but no report wrote it: move it away, or choose '
      'another --report_dir'
    )
  for path in folder.glob('*.png'):
    if _PICTURES.fullmatch(path.name) and _is_own(path):
      path.unlink()


def _is_own(path: pathlib.Path) -> bool:
  if path.is_symlink() or not path.is_file():
    return False
  if path.name not in (HTML, MARKDOWN):
    return drawing.is_own(path)
  with path.open('rb') as file:
    return _MARK.encode() in file.read(_MARK_WITHIN)


def _write(report: Contents, folder: pathlib.Path) -> list[str]:
  """Writes all files into a folder; returns their names."""
  shown = tables.run_tables(report.runs) if report.runs else []
  for comparison in report.comparisons:
    shown += comparison_tables.tables(comparison)
  notes = [comparison_tables.notes(found) for found in report.comparisons]
  drawn = pictures.draw(report, folder)
  results = [*(run.results for run in report.runs), *report.comparisons]
  statement = results[0]['data']['statement']
  commands = [_command(result) for result in results]
  files.write_text(
    folder / MARKDOWN, _markdown(statement, shown, notes, drawn, commands)
  )
  images = [
    base64.b64encode((folder / picture.file).read_bytes()).decode()
    for picture in drawn
  ]
  titled = [*zip([picture.text for picture in drawn], images, strict=True)]
  files.write_text(
    folder / HTML, _html(statement, shown, notes, titled, commands)
  )
  return [HTML, MARKDOWN, *(picture.file for picture in drawn)]


def _command(result: Any) -> str:
  commit = (result['commit'] or 'unknown')[:12]
  return f'{provenance.command_line(result["command"])}  # commit {commit}'


def _markdown(
  statement: str,
  shown: Sequence[TextTable],
  notes: Sequence[str],
  drawn: Sequence[Picture],
  commands: Sequence[str],
) -> str:
  return '\n'.join(
    [
      f'# Report\n\n{_MARK}\n\n{statement}.\n',
      *(table.to_markdown() for table in shown),
      *(f'{note}\n' for note in notes),
      *(f'![{picture.text}]({picture.file})\n' for picture in drawn),
      'Made by:\n\n```sh',
      *commands,
      '```\n',
    ]
  )


def _html(
  statement: str,
  shown: Sequence[TextTable],
  notes: Sequence[str],
  images: Sequence[tuple[str, str]],
  commands: Sequence[str],
) -> str:
  """Returns the page, with its images (titles and base64 PNGs) inside."""
  return '\n'.join(
    [
      f'<!doctype html>\n{_MARK}\n<html lang="en"><meta charset="utf-8">',
      f'<title>Report</title><style>{_STYLE}</style>',
      f'<h1>Report</h1>\n<p>{html.escape(statement)}.</p>',
      *(table.to_html() for table in shown),
      *(f'<p>{html.escape(note)}</p>' for note in notes),
      *(
        f'<h2>{html.escape(title)}</h2>\n<img alt="{html.escape(title)}" '
        f'src="data:image/png;base64,{image}">'
        for title, image in images
      ),
      '<h2>Made by</h2>\n<pre>' + html.escape('\n'.join(commands)) + '</pre>',
      '</html>\n',
    ]
  )
