"""Commands replace and remove only files that they have written themselves."""

import functools
import json
import os
import pathlib
import stat
import threading

import numpy as np
import pytest

from experiments import compare, report
from experiments.benchmark import out as throughput_out
from experiments.comparison import folder as compare_folder
from experiments.launcher import parsing, plots
from experiments.launcher.errors import InputError
from experiments.reporting import page
from tests import launching

CELL = 'a' * 20


def _files(folder):
  """Returns `{name: content}` of all files below a folder."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


def _comparison(folder):
  """Makes files with the names of those that a comparison leaves."""
  (folder / 'cells').mkdir(parents=True)
  for name in ('comparison.md', 'comparison.csv', 'sizes.png'):
    (folder / name).write_text('ours')
  table = {'rows': [], 'baseline': 'mmoe', 'tasks': []}
  (folder / 'comparison.json').write_text(json.dumps(table))
  cell = dict.fromkeys(('identity', 'facts', 'digest', 'arrays'))
  (folder / 'cells' / f'{CELL}.json').write_text(json.dumps(cell))
  (folder / 'cells' / f'{CELL}.npz').write_text('arrays')


def test_overwriting_a_comparison_keeps_files_of_others(tmp_path):
  _comparison(tmp_path)
  theirs = {
    'cells/mouse.csv': b'biology', f'cells/{"b" * 20}.json': b'{"cell": 1}',
    'cells/deep/x.npz': b'x', 'notes.md': b'mine', 'mine.png': b'mine',
  }  # fmt: skip
  for name, content in theirs.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
  compare_folder.check(tmp_path)
  compare_folder.clear(tmp_path)
  assert _files(tmp_path) == theirs
  (tmp_path / 'whole').mkdir()
  _comparison(tmp_path / 'whole')
  compare_folder.clear(tmp_path / 'whole')
  assert not list((tmp_path / 'whole').iterdir())


@pytest.mark.parametrize('name', ['comparison.csv', 'sizes.png', 'cells'])
def test_a_comparison_refuses_files_of_others(name, tmp_path, monkeypatch):
  """Before anything is fitted, with --overwrite or without."""
  monkeypatch.setattr(
    'experiments.datasets.census.protocol.load', lambda *_: pytest.fail('read')
  )
  (tmp_path / name).write_text('mine')
  flags = (
    '--dataset=sample', '--num_seeds=3', '--row=mmoe', f'--out_dir={tmp_path}'
  )  # fmt: skip
  for more in ((), ('--overwrite',)):
    assert launching.launch(compare.main, *flags, *more) == 1
    assert (tmp_path / name).read_text() == 'mine'
  with pytest.raises(InputError, match=f'{name} (exists, but|is not a)'):
    compare_folder.check(tmp_path)


def test_a_comparison_follows_no_link(tmp_path):
  _comparison(tmp_path / 'a')
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'cells').symlink_to(tmp_path / 'a' / 'cells')
  with pytest.raises(InputError, match='cells is not a folder'):
    compare_folder.clear(tmp_path / 'b')
  assert (tmp_path / 'a' / 'cells' / f'{CELL}.json').exists()


def _picture(path):
  plots.curves(
    path,
    [
      {
        'epoch': 1,
        'losses': np.zeros((1, 1)),
        'loss_weights': np.ones((1, 1)),
        'validation': {'a': {'auc': np.ones(1)}},
      }
    ],
    ['a'],
    'title',
  )


def test_a_report_removes_only_its_own_pictures(tmp_path):
  pytest.importorskip('matplotlib')
  _picture(tmp_path / 'gates_7.png')
  theirs = ('learning2024.png', 'calibration7.png', 'gates_.png', 'sizes_1.png')
  for name in theirs:
    (tmp_path / name).write_bytes(b'\x89PNG of a user')
  (tmp_path / 'gates_8.png').symlink_to(tmp_path / 'gates_7.png')
  page.make_room(tmp_path, ['report.html', 'gates_0.png'])
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {*theirs, 'gates_8.png'}
  for name in ('sizes_1.png', 'report.md', 'report.html'):
    (tmp_path / name).write_bytes(b'of a user')
    with pytest.raises(InputError, match=f'{name} .*no report'):
      page.make_room(tmp_path, [name])
    assert (tmp_path / name).read_bytes() == b'of a user'


@pytest.mark.parametrize(
  'content',
  [
    {'data': {}}, {'data': None}, {'config': None}, {'test': None},
    {'data': {'statement': 'x', 'files': None}}, [], 'text', None,
  ],
)  # fmt: skip
def test_results_of_another_kind(content, tmp_path, capsys):
  pytest.importorskip('matplotlib')
  good = {'data': {}, 'command': [], 'config': {}, 'commit': None, 'test': {}}
  good |= {'loss_weights': {}, 'parameters': 1, 'gates': []}
  if isinstance(content, dict):
    content = {**good, **content}
  paths = []
  for name in 'ab':
    (tmp_path / name).mkdir()
    paths.append(str(tmp_path / name))
    (tmp_path / name / 'results.json').write_text(json.dumps(content))
  for given in (paths[:1], paths):
    where = f'--report_dir={tmp_path / "page"}'
    assert launching.launch(report.main, *given, where) == 1
    error = capsys.readouterr().err.strip()
    assert 'is not what this release writes' in error and '\n' not in error


def test_report_on_invalid_names(tmp_path, capsys):
  pytest.importorskip('matplotlib')
  launch = functools.partial(launching.launch, report.main)
  for name in ('z' * 300, '/no/such', 'a\0b', 'caf\udce9'):
    assert launch(name, f'--report_dir={tmp_path}') == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith('error: ') and '\n' not in error
  assert launch(str(tmp_path), '--report_dir=caf\udce9') == 1
  assert 'is not UTF-8' in capsys.readouterr().err


FIGURES = {'measured': []}


def test_figures_go_to_a_file_a_link_or_a_pipe(tmp_path):
  file, link, pipe = (tmp_path / name for name in ('file', 'link', 'pipe'))
  throughput_out.check(file)
  throughput_out.write(file, FIGURES)
  throughput_out.check(file)  # figures again
  if os.path.exists('/dev/full'):
    with pytest.raises(InputError, match='--out=/dev/full cannot be written'):
      throughput_out.write(pathlib.Path('/dev/full'), FIGURES)
  link.symlink_to(tmp_path / 'target')
  throughput_out.write(link, FIGURES)
  assert link.is_symlink() and (tmp_path / 'target').is_file()
  os.mkfifo(pipe)
  throughput_out.check(pipe)
  found = []
  reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
  reader.start()
  throughput_out.write(pipe, FIGURES)
  reader.join(10)
  for text in (file.read_text(), link.read_text(), *found):
    assert json.loads(text) == FIGURES
  assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_stays_a_device():
  throughput_out.check(pathlib.Path('/dev/null'))
  throughput_out.write(pathlib.Path('/dev/null'), FIGURES)
  assert stat.S_ISCHR(os.stat('/dev/null').st_mode)


def test_figures_that_cannot_be_written(tmp_path):
  (tmp_path / 'thesis.tex').write_text('mine')
  for path, complaint in (
    (tmp_path / 'thesis.tex', 'not the output of a benchmark'),
    (tmp_path, 'is a folder'),
    (tmp_path / 'no' / 'x', 'folder that does not exist'),
    (tmp_path / ('z' * 300), 'cannot be written'),
  ):
    with pytest.raises(InputError, match=complaint):
      throughput_out.check(path)
  assert (tmp_path / 'thesis.tex').read_text() == 'mine'


@pytest.mark.parametrize('size', ['²', '', 'x', '0', '-1', '1.5', '9' * 30])
def test_batch_sizes(size):
  with pytest.raises(InputError, match='--sizes must be whole numbers from 1'):
    parsing.parse_counts('--sizes', ['256', size])
