"""Files: whole, for good, and never where a planted link points."""

import os
import pathlib

import pytest

from lplmtl.storage import files


def record(monkeypatch):
  """What reaches the disk in which order, as `('fsync', name)` and so on."""
  order = []
  fsync, replace, rename = os.fsync, os.replace, os.rename
  unlink, rmdir = os.unlink, os.rmdir

  def name(path):
    return pathlib.Path(os.fsdecode(path)).name

  def synchronised(descriptor):
    path = os.readlink(f'/proc/self/fd/{descriptor}')
    order.append(('fsync', name(path)))
    fsync(descriptor)

  def renamed(source, target, real, **options):
    order.append(('rename', name(source), name(target)))
    real(source, target, **options)

  def removed(path, real, **options):
    order.append(('remove', name(path)))
    real(path, **options)

  monkeypatch.setattr(os, 'fsync', synchronised)
  for kind, real in (('replace', replace), ('rename', rename)):
    monkeypatch.setattr(
      os, kind, lambda a, b, real=real, **o: renamed(a, b, real, **o)
    )
  for kind, real in (('unlink', unlink), ('rmdir', rmdir)):
    monkeypatch.setattr(
      os, kind, lambda a, real=real, **o: removed(a, real, **o)
    )
  return order


needs_proc = pytest.mark.skipif(
  not os.path.isdir('/proc/self/fd'), reason='names of open files: Linux'
)


@needs_proc
def test_a_power_cut_finds_the_old_file_or_the_new_one(tmp_path, monkeypatch):
  (tmp_path / 'a').write_bytes(b'old')
  order = record(monkeypatch)
  files.write(tmp_path / 'a', b'new')
  part = order[0][1]
  assert order == [
    ('fsync', part),
    ('rename', part, 'a'),
    ('fsync', tmp_path.name),
  ]
  order.clear()
  files.make_folder(tmp_path / 'b' / 'c')
  assert order == [('fsync', tmp_path.name), ('fsync', 'b')]


def test_modes_are_those_of_any_file(tmp_path):
  before = os.umask(0o027)
  try:
    files.write(tmp_path / 'a', b'new')
  finally:
    os.umask(before)
  assert (tmp_path / 'a').stat().st_mode & 0o777 == 0o640


def test_nothing_is_written_through_a_link(tmp_path, monkeypatch):
  (tmp_path / 'mine').write_bytes(b'mine')
  monkeypatch.setattr('secrets.token_hex', lambda n: '00' * n)
  part = tmp_path / f'.a.{"00" * 8}.part'  # guessed by somebody
  part.symlink_to('mine')
  with pytest.raises(FileExistsError):
    files.write(tmp_path / 'a', b'new')
  assert part.is_symlink() and not (tmp_path / 'a').exists()
  part.unlink()
  (tmp_path / 'a').symlink_to('mine')
  with pytest.raises(OSError, match='not a regular file'):
    files.write(tmp_path / 'a', b'new')
  with pytest.raises(OSError, match='symbolic links'):
    files.create(tmp_path / 'a', os.O_RDWR)
  assert (tmp_path / 'mine').read_bytes() == b'mine'
  assert files.read(tmp_path / 'a') == b'mine'  # reading through one is fine


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
  (tmp_path / 'a').write_bytes(b'old')

  def full(descriptor):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match='No space left'):
    files.write(tmp_path / 'a', b'new')
  assert [p.name for p in tmp_path.iterdir()] == ['a']
  assert (tmp_path / 'a').read_bytes() == b'old'


@pytest.mark.parametrize('kind', ['fifo', 'folder', 'device'])
def test_only_regular_files_are_read_or_replaced(kind, tmp_path):
  """A FIFO would wait for ever, a device may never end."""
  path = tmp_path / 'a'
  if kind == 'fifo':
    os.mkfifo(path)
  elif kind == 'folder':
    path.mkdir()
  else:
    path.symlink_to('/dev/zero')
  for use in (files.read, files.sha256, lambda p: files.write(p, b'')):
    with pytest.raises(OSError, match='not a regular file'):
      use(path)
  assert [p.name for p in tmp_path.iterdir()] == ['a']


def test_too_large_to_be_read_whole(tmp_path):
  with (tmp_path / 'a').open('wb') as file:
    file.truncate(2**40)  # sparse
  with pytest.raises(OSError, match='is larger than 268 MB'):
    files.read(tmp_path / 'a')


def test_tidying_takes_exact_names_alone(tmp_path):
  token = '0123456789abcdef'
  ours = [f'.a.json.{token}.part']
  kept = [f'.b.{token}.part', '.a.json.part', f'.aXjson.{token}.part',
          f'.a.json.{token}.part.bak', f'.a.json.{token[1:]}.part']  # fmt: skip
  for name in (*ours, *kept):
    (tmp_path / name).write_text('')
  files.tidy(tmp_path, ['a.json'])
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_pictures_are_known_again(tmp_path):
  drawing = pytest.importorskip('experiments.launcher.drawing')
  figure = pytest.importorskip('matplotlib.figure').Figure()
  drawing.save(figure, tmp_path / 'a.png')
  assert drawing.is_own(tmp_path / 'a.png')
  figure.savefig(tmp_path / 'mine.png')
  assert not drawing.is_own(tmp_path / 'mine.png')
  assert not drawing.is_own(tmp_path / 'none.png')
