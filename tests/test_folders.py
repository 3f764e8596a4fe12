"""Whose a folder is, what is removed, and what reaches the disk first."""

import json
import os
import pathlib
import resource
import shutil
import sys
import threading
import types

import numpy as np
import pytest

from lplmtl import resume
from lplmtl.storage import files, folders, pytrees, saves
from tests import test_files


def write(folder, number=0, kind='model'):
  """A small folder of our own."""
  meta = {'format': 1, {'model': 'model', 'checkpoint': 'run'}[kind]: {}}
  pytrees.write(folder, {'w': np.full(3, number)}, meta, kind)
  return folder


def contents(folder):
  """`{name: bytes}` of all files below."""
  return {name: (folder / name).read_bytes() for name in folders.names(folder)}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A model folder and a checkpoint."""
  parent = tmp_path_factory.mktemp('made')
  write(parent / 'checkpoint', kind='checkpoint')
  write(parent / 'model')
  return parent


@pytest.fixture
def own(made, tmp_path):
  return pathlib.Path(shutil.copytree(made / 'model', tmp_path / 'model'))


def earlier(folder):
  """As releases wrote it that knew no mark."""
  (folder / 'LPLMTL').unlink()
  sums = (folder / 'SHA256SUMS').read_text().splitlines(keepends=True)
  kept = [line for line in sums if not line.endswith('  LPLMTL\n')]
  (folder / 'SHA256SUMS').write_text(''.join(kept))
  return folder


def test_own_folders_are_known(own, made):
  for folder in (own, earlier(own)):
    assert folders.is_own(folder, 'model')
    assert not folders.is_own(folder, 'checkpoint')
    pytrees.verify(folder)
  assert folders.is_own(made / 'checkpoint', 'checkpoint')
  assert not folders.is_own(made / 'checkpoint', 'model')


@pytest.mark.parametrize('damage', ['SHA256SUMS', 'LPLMTL', 'meta', 'arrays'])
@pytest.mark.parametrize('how', ['removed', 'zeroed', 'flipped'])
def test_own_folders_are_known_when_damaged(damage, how, own):
  path = own / damage
  path = path if path.is_file() else next(p for p in path.iterdir())
  path = path if path.is_file() else next(p for p in path.iterdir())
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 4
  if how == 'removed':
    path.unlink()
  else:
    path.write_bytes(content if how == 'flipped' else bytes(len(content)))
  assert folders.is_own(own, 'model')
  with pytest.raises(pytrees.CheckpointError, match='is damaged: '):
    pytrees.verify(own)


@pytest.mark.parametrize('name', ['SHA256SUMS', 'LPLMTL'])
def test_own_folders_are_known_by_either_list(name, own):
  """A flipped bit in the name of a file is no other file."""
  text = (own / name).read_text()
  (own / name).write_text(text.replace('manifest', 'manifesu'))
  assert folders.is_own(own, 'model')


def _sums_alone(folder):
  shutil.rmtree(folder)
  folder.mkdir()
  (folder / 'thesis.tex').write_text('mine')
  (folder / 'SHA256SUMS').write_text('mine')


def _of_others(folder):
  """A list that is right, of files that are not ours."""
  shutil.rmtree(folder)
  (folder / 'arrays').mkdir(parents=True)
  (folder / 'meta').mkdir()
  (folder / 'arrays' / 'a').write_text('mine')
  (folder / 'meta' / 'metadata').write_text('{"format": 1}')
  sums = {n: files.sha256(folder / n) for n in ('arrays/a', 'meta/metadata')}
  (folder / 'SHA256SUMS').write_text(folders._text(sums))


def _more_in_it(folder):
  (folder / 'arrays' / 'thesis.tex').write_text('mine')


def _more_and_damaged(folder):
  (folder / 'thesis.tex').write_text('mine')
  (folder / 'SHA256SUMS').write_text('')


def _linked(folder):
  folder.rename(folder.with_name('mine'))
  folder.symlink_to('mine')


def _a_file(folder):
  shutil.rmtree(folder)
  folder.write_text('mine')


def _a_fifo_as_metadata(folder):
  earlier(folder)
  (folder / 'meta' / 'metadata').unlink()
  os.mkfifo(folder / 'meta' / 'metadata')


FOREIGN = (
  _sums_alone, _of_others, _more_in_it, _more_and_damaged, _linked, _a_file,
  _a_fifo_as_metadata,
)  # fmt: skip


@pytest.mark.parametrize('make', FOREIGN)
def test_what_is_not_ours_is_not_replaced(make, own):
  make(own)
  before = own.lstat().st_ino
  assert not folders.is_own(own, 'model')
  with pytest.raises(ValueError, match='is not a model folder'):
    pytrees.check_path(own, 'model')
  with pytest.raises(pytrees.CheckpointError, match='is not a model folder'):
    write(own)
  assert own.lstat().st_ino == before
  assert len(list(own.parent.iterdir())) == 1 + (make is _linked)


@pytest.mark.parametrize('make', FOREIGN)
def test_what_is_no_checkpoint_is_not_removed(make, made, tmp_path):
  """Nor counted, which would push out every real one."""
  shutil.copytree(made / 'checkpoint', tmp_path / 'step_0000900000')
  make(tmp_path / 'step_0000900000')
  shutil.copytree(made / 'checkpoint', tmp_path / 'step_900001')  # a name
  shutil.copytree(made / 'model', tmp_path / 'step_0000900002')  # a model
  keeper = resume.Checkpoints(tmp_path, num_kept=1)
  keeper._write(7, {'w': np.ones(2)}, {}, ())
  assert keeper.steps() == [7]
  with pytest.raises(resume.RestoreError, match='is not a checkpoint'):
    keeper.restore(None)
  keeper.clear()
  left = {'step_0000900000', 'step_900001', 'step_0000900002'}
  assert {p.name for p in tmp_path.iterdir()} - {'mine'} == left


def test_checkpoints_of_an_earlier_release_are_ours(made, tmp_path):
  for step in (5, 6):
    folder = saves.path(tmp_path / 'run', step)
    earlier(pathlib.Path(shutil.copytree(made / 'checkpoint', folder)))
  assert saves.own(tmp_path / 'run') == [5, 6]
  saves.clear(tmp_path / 'run')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('is_earlier', [False, True])
def test_a_removal_that_breaks_off_leaves_what_is_known(
  is_earlier, own, monkeypatch
):
  if is_earlier:
    earlier(own)
  num = len(folders.names(own))
  for count in range(num + 2):
    folder = pathlib.Path(shutil.copytree(own, own.with_name(str(count))))
    left = [count]

    def broken(path, *, real, left=left, **options):
      left[0] -= 1
      if left[0] < 0:
        raise KeyboardInterrupt
      real(path, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
      for name in ('unlink', 'rmdir'):
        real = getattr(os, name)
        patch.setattr(os, name, lambda p, r=real, **o: broken(p, real=r, **o))
      folders.remove(folder)
    assert folders.is_own(folder, 'model') or folders.is_empty(folder)


def test_folders_beside_are_left_alone(tmp_path):
  token = '0f' * 8
  names = ['.model.before', '.model.part', '.model.old', f'.mode.{token}.part',
           f'.model.{token}.part', f'.model.{token}.part.1']  # fmt: skip
  for name in names:
    (tmp_path / name).mkdir()
    (tmp_path / name / 'thesis.tex').write_text('mine')
  (tmp_path / f'.model.{token[1:]}0.part').symlink_to(names[0])
  for number in range(2):
    write(tmp_path / 'model', number)
  for name in names:
    assert (tmp_path / name / 'thesis.tex').read_text() == 'mine'
  assert len(list(tmp_path.iterdir())) == len(names) + 2


@test_files.needs_proc
def test_the_disk_has_a_folder_before_the_old_one_goes(tmp_path, monkeypatch):
  write(tmp_path / 'model', 0)
  order = test_files.record(monkeypatch)
  write(tmp_path / 'model', 1)
  _assert_in_order(order, tmp_path / 'model', ('rename', 'model', 'old'))


@test_files.needs_proc
def test_the_disk_has_a_checkpoint_before_older_ones_go(tmp_path, monkeypatch):
  keeper = resume.Checkpoints(tmp_path / 'run', num_kept=1)
  keeper._write(1, {'w': np.ones(2)}, {}, ())
  order = test_files.record(monkeypatch)
  keeper._write(2, {'w': np.ones(2)}, {}, ())
  new = tmp_path / 'run' / 'step_0000000002'
  _assert_in_order(order, new, ('remove', 'step_0000000001'))
  assert keeper.steps() == [2]


def _assert_in_order(order, folder, late):
  """Files and folders, then the name, then the name's folder, then the rest."""
  named = order.index(('rename', 'new', folder.name))
  kept = order.index(('fsync', folder.parent.name), named)
  before = order[:named]
  written = {p.name for p in folder.rglob('*')} | {'new'}
  assert written <= {name for what, name, *_ in before if what == 'fsync'}
  start = max(i for i, found in enumerate(before) if found[0] == 'fsync')
  assert {what for what, *_ in before[start + 1 :]} <= {'rename'}
  gone = [
    i for i, found in enumerate(order) if found[0] == 'remove' and i > start
  ]
  assert gone and min(gone) > kept
  assert late in order[start:]


@pytest.mark.parametrize(
  'where', ['extra', 'arrays/_METADATA', 'LPLMTL', 'SHA256SUMS']
)
def test_a_huge_file_is_not_read(where, own, monkeypatch):
  """Sizes are compared before any content is."""
  path = own / where
  path.unlink(missing_ok=True)
  with path.open('wb') as file:
    file.truncate(2**40)
  monkeypatch.setattr(files, 'sha256', lambda path: pytest.fail(str(path)))
  with pytest.raises(pytrees.CheckpointError, match='was added|has changed'):
    pytrees.read(own)


@pytest.mark.parametrize(
  'name', ['SHA256SUMS', 'LPLMTL', 'meta/metadata', 'arrays/manifest.ocdbt']
)
@pytest.mark.parametrize('kind', ['fifo', 'device', 'folder', 'dangling'])
def test_only_regular_files_are_read(name, kind, own):
  path = own / name
  path.unlink()
  if kind == 'fifo':
    os.mkfifo(path)
  elif kind == 'folder':
    path.mkdir()
  else:
    path.symlink_to('/dev/zero' if kind == 'device' else 'nowhere')
  with pytest.raises(
    pytrees.CheckpointError, match='is damaged|cannot be read|not a regular'
  ) as error:
    pytrees.read(own)
  assert '\n' not in str(error.value)


def test_links_to_whole_files_are_read(own):
  """As caches of downloads and versioned data sets make them."""
  path = own / 'meta' / 'metadata'
  path.rename(own.parent / 'blob')
  path.symlink_to(own.parent / 'blob')
  assert pytrees.read(own)[1]['format'] == 1


@pytest.mark.parametrize('full', ['bytes', 'files'])
def test_a_full_disk_in_one_line(full, own, monkeypatch):
  before = contents(own)
  usage = shutil.disk_usage(own)
  free = 1 if full == 'bytes' else usage.free
  monkeypatch.setattr('shutil.disk_usage', lambda _: usage._replace(free=free))
  inodes = types.SimpleNamespace(f_files=10, f_favail=3)
  if full == 'files':
    monkeypatch.setattr(os, 'statvfs', lambda _: inodes)
  with pytest.raises(pytrees.CheckpointError, match='no space left: '):
    write(own, 1)
  assert contents(own) == before and len(list(own.parent.iterdir())) == 1


@pytest.mark.parametrize('when', ['fsync', 'rename', 'in a thread'])
def test_a_write_that_fails_in_one_line(when, own, monkeypatch, capfd):
  """Past the check of the space: nothing in its place, nothing left beside."""
  before = contents(own)

  def fail(*_, **__):
    raise OSError(28, 'No space left on device')

  if when == 'in a thread':
    monkeypatch.setattr(json, 'dumps', fail)  # which Orbax writes metadata by
  else:
    monkeypatch.setattr(os, when, fail)
  with pytest.raises(pytrees.CheckpointError, match='No space left') as error:
    write(own, 1)
  assert '\n' not in str(error.value)
  assert contents(own) == before
  if when != 'rename':  # which brings the old one back, too
    assert [p.name for p in own.parent.iterdir()] == ['model']
  captured = capfd.readouterr()
  assert captured.err == captured.out == ''


def test_many_arrays_that_cannot_be_written_in_one_line(
  tmp_path, monkeypatch, capfd
):
  """TensorStore tells of each one, and Orbax of each thread."""
  hook = sys.unraisablehook
  monkeypatch.setattr(pytrees, '_check_space', lambda *_: None)
  draw = np.random.default_rng(0).normal  # which does not compress
  arrays = {f'w{i}': draw(size=(50, 50)) for i in range(60)}
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, before[1]))
  try:
    with pytest.raises(pytrees.CheckpointError, match='cannot write') as error:
      pytrees.write(tmp_path / 'model', arrays, {}, 'model')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert '\n' not in str(error.value)
  captured = capfd.readouterr()
  assert captured.err == captured.out == ''
  assert list(tmp_path.iterdir()) == []
  assert sys.unraisablehook is hook


def test_a_full_quota_in_one_line(own, monkeypatch):
  """The file system has room, and gives none."""

  def fail(descriptor, start, length):
    assert length > 2**18
    raise OSError(122, 'Disk quota exceeded')

  monkeypatch.setattr(os, 'posix_fallocate', fail)
  with pytest.raises(pytrees.CheckpointError, match='Disk quota exceeded'):
    write(own, 1)
  monkeypatch.setattr(
    os, 'posix_fallocate', lambda *_: fail_softly(95, 'not supported')
  )
  write(own, 1)


def fail_softly(number, text):
  raise OSError(number, text)


def test_what_is_written_after_an_error_goes_too(tmp_path):
  """TensorStore's threads write on when Orbax has given up."""
  with pytest.raises(KeyError), folders.replacing(tmp_path / 'a') as new:
    shutil.rmtree(new.parent)
    timer = threading.Timer(0.02, lambda: (new / 'd').mkdir(parents=True))
    timer.start()
    raise KeyError
  timer.join()
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('damage', ['none', 'a file more', 'an earlier one'])
@pytest.mark.parametrize('name', ['', 'more', 'deep/more', 'link/more'])
def test_nothing_is_added_to_a_saved_folder(name, damage, own):
  if damage == 'a file more':
    (own / 'keep').write_text('mine')
  elif damage == 'an earlier one':
    earlier(own)
  folder = own / name
  if name == 'link/more':
    (own.parent / 'link').symlink_to(own)
    folder = own.parent / name
  before = contents(own)
  with pytest.raises(ValueError, match='is a saved model') as error:
    resume.Checkpoints(folder)
  assert '\n' not in str(error.value)
  if name:
    with pytest.raises(ValueError, match='is a saved model'):
      pytrees.check_path(folder, 'model')
  assert contents(own) == before


@pytest.mark.parametrize('path', ['caf\udce9/model', 'a\0b', 'a[1]'])
def test_paths_that_cannot_be_saved_at(path, tmp_path):
  for use in (
    lambda: pytrees.absolute(tmp_path / path),
    lambda: resume.Checkpoints(tmp_path / path),
  ):
    with pytest.raises(ValueError, match='UTF-8|brackets') as error:
      use()
    str(error.value).encode('utf-8')


def test_home_is_expanded(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert pytrees.absolute('~/model') == tmp_path / 'model'
  keeper = resume.Checkpoints('~/run')
  assert keeper.directory == tmp_path / 'run'
  with pytest.raises(ValueError, match='cannot expand ~nobody-of-this-name'):
    pytrees.absolute('~nobody-of-this-name/model')


def test_another_environment_is_said(tmp_path):
  notes = []

  def keeper(**environment):
    return resume.Checkpoints(
      tmp_path, environment=environment, on_note=notes.append
    )

  keeper(jax='0.10', commit=None)._write(3, {'w': np.ones(2)}, {}, ())
  meta = pytrees.read(saves.path(tmp_path, 3))[1]
  keeper(jax='0.10', commit=None)._compare_environment(meta)
  keeper()._compare_environment({})  # of an earlier release
  keeper(jax='0.10', commit=None, files={})._compare_environment(meta)
  assert notes == []
  keeper(jax='0.11', commit='abc')._compare_environment(meta)
  assert len(notes) == 1 and '\n' not in notes[0]
  assert 'jax (0.10, now 0.11), commit (None, now abc)' in notes[0]


def test_a_lost_folder_is_not_written_to(tmp_path):
  def check():
    raise RuntimeError('lost')

  keeper = resume.Checkpoints(tmp_path / 'run', check=check)
  for use in (
    lambda: keeper._write(3, {'w': np.ones(2)}, {}, ()),
    keeper.clear,
    lambda: keeper.restore(None),
  ):
    with pytest.raises(RuntimeError, match='lost'):
      use()
  assert not (tmp_path / 'run').exists()
