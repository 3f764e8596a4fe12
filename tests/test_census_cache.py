"""The cache of parsed columns is used only if nothing can have changed."""

import hashlib
import os

import numpy as np
import pytest

from experiments.datasets import cache
from experiments.datasets.census import loading, reader
from lplmtl.tables import Factor
from tests import fuzz_reader, slow_reader

CONTENT = fuzz_reader.join(fuzz_reader.sample_lines())
OTHER = fuzz_reader.join(fuzz_reader.sample_lines(seed=1))


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture
def folder(tmp_path):
  """A folder with both files."""
  folder = tmp_path / 'files'
  folder.mkdir()
  for name in ('data', 'test'):
    (folder / f'census-income.{name}').write_bytes(CONTENT)
  return folder


@pytest.fixture
def parsed(monkeypatch):
  """The names of the files that are parsed, in order."""
  names = []
  parse = reader.parse
  monkeypatch.setattr(
    reader, 'parse', lambda *a: names.append(a[1][-4:]) or parse(*a)
  )
  return names


def _kept(folder):
  return cache.path_of(folder / 'census-income.data', 'train')


def _train(folder):
  return fuzz_reader.rows_of(loading.read('census', folder).train)


def test_it_serves_until_the_file_changes(folder, parsed):
  first = loading.read('census', folder)
  assert parsed == ['data', 'test']
  again = loading.read('census', folder)
  assert len(parsed) == 2
  assert again.facts == first.facts
  for column, factor in first.train.items():
    for one, other in zip(factor, again.train[column], strict=True):
      np.testing.assert_array_equal(one, other)
      assert one.dtype == other.dtype
  (folder / 'census-income.data').write_bytes(OTHER)
  assert _train(folder) == slow_reader.read(OTHER)[0]
  assert parsed[2:] == ['data']


def test_a_file_of_equal_size_and_time_is_another_file(folder):
  path = folder / 'census-income.data'
  loading.read('census', folder)
  before = path.stat()
  other = CONTENT.replace(b'Never married', b'Divorced     ').replace(
    b'Divorced     ,', b'Divorced,     '
  )
  assert len(other) == len(CONTENT) and other != CONTENT
  path.write_bytes(other)
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  rows = _train(folder)
  assert rows == slow_reader.read(other)[0]
  assert 'Never married' not in {row['marital_stat'] for row in rows}


def test_a_file_that_is_replaced_while_it_is_parsed(folder, monkeypatch):
  parse = reader.parse

  def slow(content, name):
    (folder / 'census-income.data').write_bytes(OTHER)
    return parse(content, name)

  monkeypatch.setattr(reader, 'parse', slow)
  assert _train(folder) == slow_reader.read(CONTENT)[0]
  monkeypatch.setattr(reader, 'parse', parse)
  assert _train(folder) == slow_reader.read(OTHER)[0]


def test_no_cache_with_a_flipped_bit_is_used(tmp_path):
  """`python -m tests.fuzz_reader` flips ten thousand."""
  found = fuzz_reader.run_cache(300, 0, fuzz_reader.sample_lines(), tmp_path)
  assert found == {'read again': 300}


def _reversed(folder):
  """Writes a valid cache with every label reversed."""
  path = _kept(folder)
  digest = hashlib.sha256(CONTENT).hexdigest()
  table, facts = cache.read(path, 'train', digest)
  label = table['income_50k']
  table['income_50k'] = Factor(label.codes, label.values[::-1])
  cache.write(path, 'train', digest, table, facts)
  return path


def test_what_others_may_have_written_is_not_used(folder):
  rows = _train(folder)
  path = _reversed(folder)
  assert _train(folder) != rows  # it is valid, and our own
  for mode in (0o666, 0o664, 0o646):
    path.chmod(mode)
    assert _train(folder) == rows
    assert path.stat().st_mode & 0o022 == 0  # and written again
    _reversed(folder)


@pytest.mark.parametrize(
  'uid, mode, is_own',
  [(1000, 0o644, True), (0, 0o600, True), (1001, 0o644, False),
   (1000, 0o664, False), (1000, 0o646, False)],
)  # fmt: skip
def test_whose_cache_it_is(uid, mode, is_own, monkeypatch):
  monkeypatch.setattr(os, 'geteuid', lambda: 1000)
  found = os.stat_result((0o100000 | mode, 1, 1, 1, uid, 1000, 9, 0, 0, 0))
  assert cache._is_own(found) == is_own


@pytest.mark.parametrize('kind', ['fifo', 'folder', 'link', 'zero'])
def test_nothing_but_a_file_is_opened_or_replaced(kind, folder, tmp_path):
  """A FIFO in its place used to block every start forever."""
  path, precious = _kept(folder), tmp_path / 'precious'
  path.parent.mkdir(parents=True)
  precious.write_bytes(b'mine')
  if kind == 'fifo':
    os.mkfifo(path)
  elif kind == 'folder':
    path.mkdir()
  else:
    path.symlink_to(precious if kind == 'link' else '/dev/zero')
  before = path.lstat()
  for _ in range(2):
    assert _train(folder) == slow_reader.read(CONTENT)[0]
  assert path.lstat()[:3] == before[:3]
  assert precious.read_bytes() == b'mine'


def test_a_linked_folder_is_not_written_through(folder, tmp_path):
  other = tmp_path / 'other'
  other.mkdir()
  (other / _kept(folder).name).write_bytes(b'mine')
  _kept(folder).parent.parent.mkdir(parents=True)
  _kept(folder).parent.symlink_to(other)
  assert _train(folder) == slow_reader.read(CONTENT)[0]
  assert [p.read_bytes() for p in other.iterdir()] == [b'mine']


def test_nothing_is_written_beside_the_files(folder, tmp_path):
  """Their folder may be shared, read-only, or somebody else's."""
  before = folder.stat().st_mtime_ns
  loading.read('census', folder)
  assert folder.stat().st_mtime_ns == before
  kept = tmp_path / 'cache' / 'lplmtl' / 'columns'
  assert len(list(kept.iterdir())) == 2
  # An archive has both splits in one file.
  assert cache.path_of(folder, 'train') != cache.path_of(folder, 'test')


@pytest.mark.parametrize('umask, mode', [(0o022, 0o644), (0o027, 0o640), (0, 0o644)])  # fmt: skip
def test_its_permissions_are_what_the_umask_leaves(umask, mode, folder, parsed):
  """Except that nobody else may write it, or it would not be used."""
  before = os.umask(umask)
  try:
    loading.read('census', folder)
  finally:
    os.umask(before)
  assert _kept(folder).stat().st_mode & 0o777 == mode
  loading.read('census', folder)
  assert len(parsed) == 2


def test_what_a_kill_left_is_removed(folder):
  path = _kept(folder)
  path.parent.mkdir(parents=True)
  part = path.with_name(f'.{path.name}.{"0" * 16}.part')
  foreign = path.with_name('.cache-mine')
  part.touch()
  foreign.touch()
  loading.read('census', folder)
  assert not part.exists() and foreign.exists() and path.exists()


def test_a_full_disk_costs_only_the_cache(folder, monkeypatch, parsed):
  def full(*_, **__):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr('lplmtl.storage.pytrees.files.write', full)
  for _ in range(2):
    assert _train(folder) == slow_reader.read(CONTENT)[0]
  assert len(parsed) == 4
