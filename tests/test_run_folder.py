"""The folder of a run: its lock, what it refuses, what is never removed."""

import json
import os
import pathlib
import shutil
import types

import jax
import numpy as np
import pytest

import lplmtl
from experiments import census
from experiments.launcher import (
  build,
  earlier,
  finishing,
  lock,
  options,
  run_folder,
)
from experiments.launcher import files as launcher_files
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl.storage import files, folders, saves
from tests import launching, test_files, test_folders

FIELDS = ('architecture', 'balancer', 'dataset')
RESULTS = {'title': '', 'test': {}, 'config': dict.fromkeys(FIELDS, '')}
HISTORY = '{"epoch": 1, "losses": [[0.5]]}\n'


def run_in(folder):
  """Makes a small folder with all that a run leaves."""
  folder.mkdir(exist_ok=True)
  test_folders.write(folder / 'model')
  for step in (3, 4):
    test_folders.write(saves.path(folder / 'checkpoints', step), 0, saves.KIND)
  launcher_files.write_json(folder / 'results.json', RESULTS)
  launcher_files.write_text(folder / 'history.jsonl', HISTORY)
  picture = b'\x89PNG\r\n\x1a\n....IHDR....tEXtSoftware\x00'
  (folder / 'curves.png').write_bytes(picture + b'lplmtl')
  (folder / 'gates.png').write_bytes(picture + b'Matplotlib version 3')
  (folder / 'outcomes.png').write_bytes(picture + b'lplmtl')
  return folder


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return run_in(tmp_path_factory.mktemp('made') / 'run')


@pytest.fixture
def folder(made, tmp_path):
  return pathlib.Path(shutil.copytree(made, tmp_path / 'run'))


@pytest.mark.parametrize(
  'files, rows, expected',
  [
    ('a1 b2 c3', 90, []),
    ('a1 b2 c4', 90, ['the content of pq, 3 files (c has changed)']),
    ('a1 c3', 60, ['pq, 2 files (b is missing; 90 rows, now 60)']),
    (
      'a2 b2 c3 d4 e5', 95,
      ['pq, 5 files (a has changed, and 2 others differ; 90 rows, now 95)'],
    ),
    ('a1 b2 bb9 c3', 90, ['the content of pq, 4 files (bb is new)']),
  ],
)  # fmt: skip
def test_the_first_file_that_has_changed_is_named(files, rows, expected):
  def facts(files, rows):
    parts = [{'file': x[:-1], 'sha256': x[-1]} for x in files.split()]
    name = f'pq, {len(parts)} files'
    about = {'file': name, 'rows': rows, 'sha256': files, 'parts': parts}
    return {'files': {'data': about}}

  old, new = facts('a1 b2 c3', 90), facts(files, rows)
  runs = [{'data': {'data': x['files']['data']['sha256']}} for x in (old, new)]
  known = earlier.about(old)
  none = None, None
  assert earlier.differences(*runs, new, known, none) == expected
  # An earlier release did not note the files.
  found = earlier.differences(*runs, new, {'rows': known['rows']}, none)
  assert len(found) == len(expected) and 'differ' not in str(found)


def test_overwriting_removes_what_a_run_wrote(folder):
  (folder / 'thesis.tex').write_text('mine')
  (folder / f'.results.json.{"0f" * 8}.part').write_text('{')  # left by a kill
  run_folder.check(folder)
  run_folder.clear(folder)
  assert [p.name for p in folder.iterdir()] == ['thesis.tex']
  run_folder.clear(folder)


@pytest.mark.parametrize('name', ['model', 'model/run'])
def test_a_run_inside_a_saved_model_is_refused(name, folder):
  before = test_folders.contents(folder)
  with (
    pytest.raises(InputError, match='--out_dir: .* is a saved model'),
    lock.claim(folder / name),
  ):
    pass
  assert test_folders.contents(folder) == before


def test_folders_made_for_nothing_are_removed(tmp_path):
  with pytest.raises(InputError, match='no'), lock.claim(tmp_path / 'a/b/c'):
    raise InputError('no')
  assert not list(tmp_path.iterdir())
  (tmp_path / 'a').mkdir()
  with lock.claim(tmp_path / 'a/b/c'):
    (tmp_path / 'a/b/kept').write_text('by somebody else')
  assert [p.name for p in (tmp_path / 'a/b').iterdir()] == ['kept']


def test_what_holds_no_model_yet(tmp_path):
  (tmp_path / 'cells').mkdir()
  with pytest.raises(InputError, match='resumes a frontier'):
    run_folder.model_of(tmp_path)


def test_empty_files_and_folders_may_be_replaced(tmp_path):
  """An earlier release left empty files after a power cut."""
  for name in ('results.json', 'history.jsonl', 'curves.png'):
    (tmp_path / name).write_text('')
  (tmp_path / 'gates.png').mkdir()
  (tmp_path / 'model').mkdir()
  (tmp_path / 'checkpoints').mkdir()
  run_folder.clear(tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
  'name, content',
  [
    ('results.json', 'mine'),
    ('results.json', '{"config": {"lr": 1}, "test": 1}'),
    ('results.json', '[' * 10_000),
    ('history.jsonl', '{"step": 1}\n'),
    ('history.jsonl', '5\n'),
    ('history.jsonl', '[' * 10_000),
    ('history.jsonl', HISTORY + 'mine\n'),
    ('curves.png', '\x89PNG mine'),
    ('gates.png', 'mine'),
    ('model', 'mine'),
    ('checkpoints', 'mine'),
    ('model/thesis.tex', 'mine'),
    ('checkpoints/step_0000000003/thesis.tex', 'mine'),
    ('checkpoints/step_0000900000/state.pt', 'mine'),
  ],
)
def test_files_of_others_are_refused_and_stay(name, content, folder):
  path = folder / name
  shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
  path.parent.mkdir(exist_ok=True)
  path.write_text(content)
  before = test_folders.contents(folder)
  for use in (run_folder.check, run_folder.clear):
    with pytest.raises(InputError, match='move it away') as error:
      use(folder)
    assert '\n' not in str(error.value)
  assert test_folders.contents(folder) == before


@pytest.mark.parametrize('kind', ['fifo', 'link', 'folder', 'dangling'])
@pytest.mark.parametrize(
  'name',
  ['results.json', 'history.jsonl', 'curves.png', 'gates.png', 'outcomes.png', 'model',
   'checkpoints', 'checkpoints/step_0000000003'],
)  # fmt: skip
def test_unusual_files_are_refused(kind, name, folder):
  """Pipes are not read, which would block, and links are not followed."""
  path = folder / name
  path.rename(folder.parent / 'mine')
  if kind == 'fifo':
    os.mkfifo(path)
  elif kind == 'folder':
    path.mkdir()
    (path / 'thesis.tex').write_text('mine')
    if name == 'checkpoints':
      return run_folder.check(folder)  # other files in it are ignored
  else:
    path.symlink_to(folder.parent / ('mine' if kind == 'link' else 'nowhere'))
  with pytest.raises(InputError, match='move it away'):
    run_folder.clear(folder)
  assert os.path.lexists(path) and (folder.parent / 'mine').exists()


def test_a_run_that_finishes_leaves_other_checkpoints(folder):
  (folder / 'checkpoints' / 'best.pt').write_text('mine')
  (folder / 'checkpoints' / 'step_900000').mkdir()
  (folder / 'checkpoints' / 'step_900000' / 'state.pt').write_text('mine')
  run_folder.check(folder)
  saves.clear(folder / 'checkpoints')
  left = {p.name for p in (folder / 'checkpoints').iterdir()}
  assert left == {'best.pt', 'step_900000'}


def _plant(path, kind):
  target = path.parent.parent / 'mine'
  target.write_text('mine')
  if kind == 'link':
    path.symlink_to(target)
  elif kind == 'hard link':
    os.link(target, path)
  elif kind == 'fifo':
    os.mkfifo(path)
  elif kind == 'folder':
    path.mkdir()
  else:
    path.write_text('mine')


@pytest.mark.parametrize(
  'kind', ['link', 'hard link', 'fifo', 'folder', 'text']
)
def test_a_planted_lock(kind, tmp_path):
  folder = tmp_path / 'run'
  folder.mkdir()
  _plant(folder / '.lock', kind)
  with (
    pytest.raises(InputError, match='is not the lock of a run: move it away'),
    lock.claim(folder),
  ):
    pass
  assert (tmp_path / 'mine').read_text() == 'mine'
  assert os.path.lexists(folder / '.lock')


def test_a_refused_run_leaves_the_lock_as_it_is(tmp_path):
  with lock.claim(tmp_path):
    (tmp_path / '.lock').write_text('123')
    with (
      pytest.raises(
        InputError, match=r'another run \(process 123\) is writing'
      ),
      lock.claim(tmp_path),
    ):
      pass
    assert (tmp_path / '.lock').read_text() == '123'


@pytest.mark.parametrize('how', ['removed', 'replaced', 'claimed anew'])
def test_a_folder_that_disappears_during_a_run(how, tmp_path):
  folder = tmp_path / 'run'
  with lock.claim(folder) as old:
    old.check()
    shutil.rmtree(folder)
    if how == 'claimed anew':
      with lock.claim(folder) as new:
        new.check()
        with pytest.raises(InputError, match='was removed or replaced'):
          old.check()
        (folder / 'results.json').write_text('the new one')
    elif how == 'replaced':
      folder.mkdir()
      (folder / '.lock').write_text('')
    with pytest.raises(InputError, match='was removed or replaced'):
      old.check()
  # The old run removes nothing from a folder that it has lost.
  left = {'removed': [], 'replaced': ['.lock'],
          'claimed anew': ['.lock', 'results.json']}  # fmt: skip
  names = sorted(os.listdir(folder)) if folder.exists() else []
  assert names == left[how]


@pytest.mark.parametrize(
  'call', ['os.pwrite', 'os.fsync', 'os.mkdir', 'os.open']
)
def test_a_disk_that_is_full_at_the_start(call, tmp_path, monkeypatch):
  """It ends in one line, and no file is left behind."""
  real = getattr(os, call.removeprefix('os.'))

  def fail(*arguments, **options):
    if str(tmp_path) not in str(arguments[0]) and call == 'os.open':
      return real(*arguments, **options)
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(call, fail)
  with (
    pytest.raises(InputError, match=r'cannot write to .*\(No space left on'),
    lock.claim(tmp_path / 'run'),
  ):
    pass
  monkeypatch.undo()
  assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_of_the_user_stays(tmp_path):
  (tmp_path / 'checkpoints').mkdir()
  with lock.claim(tmp_path):
    pass
  assert (tmp_path / 'checkpoints').is_dir()


def test_a_path_that_is_not_utf8_is_refused(tmp_path):
  path = tmp_path / os.fsdecode(b'caf\xe9')
  for attempt in (
    lambda: lock.claim(path).__enter__(),
    lambda: census.run(Config(out_dir=str(path), eval_only=True)),
  ):
    with pytest.raises(
      InputError, match=r'caf\\xe9.* UTF-8|UTF-8.*caf\\xe9'
    ) as e:
      attempt()
    str(e.value).encode('utf-8')
  assert list(tmp_path.iterdir()) == []


def test_home_is_expanded_in_every_path(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  config = Config(out_dir='~/runs', data_dir='~/d', compilation_cache='~/c')
  assert config.run_dir == pathlib.Path('/home/me/runs')
  assert (config.data_dir, config.compilation_cache) == (
    '/home/me/d',
    '/home/me/c',
  )
  assert Config(out_dir='./~/a').out_dir == './~/a'
  with pytest.raises(InputError, match='no home folder is known for ~nobody-'):
    Config(out_dir='~nobody-of-this-name/a')


@pytest.mark.parametrize(
  'change, complaint',
  [
    ({'of_a_newer_release': 1}, 'of_a_newer_release'),
    ({'epochs': 'many'}, 'epochs must be a whole number'),
    ({'tasks': 5}, 'tasks must be a tuple'),
    ({'data_dir': [1]}, 'data_dir must be a path'),
    (None, 'expected a configuration, found None'),
    ('missing', 'was saved without the configuration of a run'),
  ],
)
def test_a_model_of_another_release(change, complaint, monkeypatch, tmp_path):
  """`--eval_only` ends in one line."""
  data = Config().to_json() | change if isinstance(change, dict) else change
  extra = {} if change == 'missing' else {'config': data}
  monkeypatch.setattr('lplmtl.checkpoint.load', lambda _: (None, None, None))
  monkeypatch.setattr('lplmtl.checkpoint.load_extra', lambda _: extra)
  with pytest.raises(InputError, match=complaint) as error:
    census.run(Config(out_dir=str(tmp_path), eval_only=True))
  assert '\n' not in str(error.value)


@test_files.needs_proc
def test_results_reach_the_disk_before_checkpoints_are_removed(
  folder, monkeypatch
):
  """The order in which a finished run is written."""
  fitted = types.SimpleNamespace(params={}, history=())
  monkeypatch.setattr(
    'experiments.launcher.drawing.is_available', lambda: False
  )
  monkeypatch.setattr(
    'lplmtl.checkpoint.save',
    lambda path, *_, **__: test_folders.write(path, 1),
  )
  data = types.SimpleNamespace(tables=None, facts={}, extra={}, predict=None)
  config = Config(out_dir=str(folder))
  parts = build.Parts(lplmtl.MLP((3,)), None, None)
  with lock.claim(folder) as claim:
    order = test_files.record(monkeypatch)
    finishing.write(config, claim, parts, fitted, data, RESULTS)
  kinds = [found for found in order if found[0] != 'remove']
  named = [found[2] for found in kinds if found[0] == 'rename']
  assert [n for n in named if n != 'old' and 'orbax' not in n][-3:] == [
    'model', 'history.jsonl', 'results.json'
  ]  # fmt: skip
  for name in ('model', 'history.jsonl', 'results.json'):
    at = next(i for i, found in enumerate(order) if found[2:] == (name,))
    assert order[at + 1] == ('fsync', folder.name)
  gone = order.index(('remove', 'step_0000000003'))
  assert gone > at + 1
  assert not (folder / 'checkpoints').exists()


def test_writing_follows_no_link(folder):
  """Temporary files of earlier releases had predictable names."""
  mine = folder.parent / 'mine'
  mine.write_text('mine')
  for name in ('.results.json.part', '.history.jsonl.part'):
    (folder / name).symlink_to(mine)
  launcher_files.write_json(folder / 'results.json', RESULTS)
  launcher_files.write_text(folder / 'history.jsonl', HISTORY)
  assert mine.read_text() == 'mine'
  assert json.loads(files.read(folder / 'results.json')) == RESULTS
  assert folders.is_own(folder / 'model', 'model')


def test_a_folder_is_refused_before_data_are_read(
  tmp_path, monkeypatch, capsys
):
  folder = tmp_path / 'run'
  (folder / 'model').mkdir(parents=True)
  (folder / 'model' / 'SHA256SUMS').write_text('mine')
  monkeypatch.setattr(
    'experiments.datasets.census.protocol.load', lambda *_: pytest.fail('read')
  )
  for more in ([], ['--overwrite']):
    arguments = ['--dataset=sample', f'--out_dir={folder}', *more]
    assert launching.launch(census.main, *arguments) == 1
    error = capsys.readouterr().err
    assert 'move it away' in error and len(error.splitlines()) == 1
  assert (folder / 'model' / 'SHA256SUMS').read_text() == 'mine'
  assert options.Config().out_dir is None


def test_a_run_whose_folder_disappears_ends_in_one_line(
  tmp_path, monkeypatch, capsys
):
  """Checkpoints record the versions and the commit."""
  folder, found = tmp_path / 'run', {}

  def fit(*_, keeper, **__):
    found.update(keeper.environment)
    keeper._write(1, {'w': np.ones(2)}, {}, ())
    shutil.rmtree(folder)
    folder.mkdir()
    keeper._write(2, {'w': np.ones(2)}, {}, ())

  monkeypatch.setattr('lplmtl.training.fit', fit)
  arguments = ('--dataset=sample', '--num_rows=500', f'--out_dir={folder}')
  assert launching.launch(census.main, *arguments) == 1
  error = capsys.readouterr().err
  assert 'was removed or replaced' in error
  assert len(error.splitlines()) == 1
  assert list(folder.iterdir()) == []
  assert found['versions']['jax'] == jax.__version__ and 'commit' in found


def test_nothing_is_written_to_a_folder_that_is_lost(folder):
  with lock.claim(folder) as claim:
    (folder / '.lock').unlink()
    before = test_folders.contents(folder)
    with pytest.raises(InputError, match='was removed or replaced'):
      config = Config(out_dir=str(folder))
      finishing.write(config, claim, None, None, None, RESULTS)
    assert test_folders.contents(folder) == before
