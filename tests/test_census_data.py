"""Reading, verifying, splitting and encoding Census-Income."""

import errno
import gzip
import hashlib
import io
import os
import pathlib
import tracemalloc
import urllib.error
import urllib.request

import numpy as np
import pytest

from experiments.datasets.census import (
  archives,
  columns,
  files,
  loading,
  protocol,
  reader,
  sample,
)
from experiments.launcher import options
from experiments.launcher.errors import InputError
from lplmtl.tables import Factor
from tests import fuzz_reader, slow_reader

INCOME = columns.COLUMNS.index('income_50k')


CONTENT = fuzz_reader.join(fuzz_reader.sample_lines())


def _write(folder, train=CONTENT, test=None):
  (folder / 'census-income.data').write_bytes(train)
  (folder / 'census-income.test').write_bytes(CONTENT if test is None else test)
  return folder


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.mark.parametrize('block', [5000, reader.BLOCK])
def test_reader_equals_the_slow_one(block, monkeypatch):
  monkeypatch.setattr(reader, 'BLOCK', block)
  for content in (
    CONTENT,
    fuzz_reader.join(fuzz_reader.sample_lines(), end='\r\n'),
    CONTENT.rstrip(b'\n'),
    CONTENT.replace(b', ', b','),
    CONTENT.replace(b', ', b',   '),
    CONTENT + b'\n\n\r\n\n',  # empty lines at the end are ignored
  ):
    assert fuzz_reader.compare(content) == 'read'


def test_reader_on_real_rows(census_dir):
  path = files.find(census_dir, 'test')
  source = files.unpack(path, files.read(path), 'test')
  assert source.label == 'census66k'
  content = source.content[: source.content.index(b'\n', 10**6) + 1]
  assert fuzz_reader.compare(content) == 'read'


@pytest.mark.parametrize('seed', range(4))
def test_reader_on_spoiled_files(seed, tmp_path, monkeypatch):
  """Texts and archives; `python -m tests.fuzz_reader` tries thousands."""
  if seed % 2:  # several blocks, and lines that are too long
    monkeypatch.setattr(reader, 'MAX_LINE', 900)
    monkeypatch.setattr(reader, 'BLOCK', 901)
  found = fuzz_reader.run(150, seed, fuzz_reader.sample_lines(), tmp_path)
  assert set(found) == {'read', 'refused', 'archive refused'}


@pytest.mark.parametrize(
  'content, complaint',
  [
    (b'', 'FILE: expected rows of 42 fields, found an empty file'),
    (b'\n\n\r\n', 'FILE: expected rows of 42 fields, found an empty file'),
    (
      fuzz_reader.join([*fuzz_reader.sample_lines(3)[:2], fuzz_reader.sample_lines(3)[2][:41]]),
      'FILE, line 3: expected 42 fields separated by commas, found 41',
    ),
    (
      fuzz_reader.join([fuzz_reader.sample_lines(2)[0], ['young', *fuzz_reader.sample_lines(2)[1][1:]]]),
      "FILE, line 2: expected a finite number in age, found 'young'",
    ),
    (
      fuzz_reader.join([[*fuzz_reader.sample_lines(1)[0][:INCOME], '50000']]),
      "FILE, line 1: expected '- 50000.' or '50000+.' in income_50k, found",
    ),
    (b'\xef\xbb\xbf' + CONTENT, 'line 1: expected printable ASCII, found byte 0xef'),
    (CONTENT + b'\n' + CONTENT, 'line 61: expected 42 fields'),
    # A quote is a character like any other.
    (CONTENT.replace(b'race 1', b'"race, 1"', 1), 'found 43'),
  ],
)  # fmt: skip
def test_bad_rows_name_file_and_line(content, complaint):
  with pytest.raises(InputError) as error:
    reader.parse(content, 'FILE')
  assert complaint in str(error.value)


TAR = fuzz_reader.tar(
  {
    '../../census-income.names': b'not read',
    '../../census-income.data': CONTENT,
    'a/b/census-income.test': CONTENT,
  }
)


@pytest.mark.parametrize('form', ['plain', 'gz', 'tar.gz', 'zip', 'zip of gz'])
def test_every_packing_reads_the_same(form, tmp_path):
  folder = tmp_path / 'files'
  folder.mkdir()
  if form == 'plain':
    _write(folder)
  elif form == 'gz':
    for name in files.SPLITS.values():
      (folder / f'{name}.gz').write_bytes(gzip.compress(CONTENT))
  elif form == 'tar.gz':
    (folder / 'census.tar.gz').write_bytes(TAR)
  elif form == 'zip':
    (folder / files.ARCHIVE).write_bytes(
      fuzz_reader.zipped({'/x/census.tar.gz': TAR})
    )
  else:
    members = {f'{n}.gz': gzip.compress(CONTENT) for n in files.SPLITS.values()}
    (folder / files.ARCHIVE).write_bytes(fuzz_reader.zipped(members))
  names = {p.name for p in folder.iterdir()}
  raw = loading.read('census', folder)
  rows = slow_reader.read(CONTENT)[0]
  assert (
    fuzz_reader.rows_of(raw.train) == rows
    and fuzz_reader.rows_of(raw.test) == rows
  )
  assert raw.facts['dataset'] == 'other'
  assert 'neither the official ones nor census66k' in raw.facts['statement']
  assert (
    raw.facts['files']['train']['sha256'] == hashlib.sha256(CONTENT).hexdigest()
  )
  # Nothing is written beside them.
  assert sorted(p.name for p in tmp_path.iterdir()) == ['cache', 'files']
  assert not {p.name for p in folder.iterdir()} - names


@pytest.mark.parametrize(
  'damage, complaint',
  [
    (lambda d: d[: len(d) // 2], 'damaged'),
    (lambda d: b'junk' + d, 'not a valid gzip'),
    (
      lambda d: d[:200] + b'\xff\xff\xff\xff' + d[204:],
      'damaged|gzip',
    ),
  ],
)
def test_damaged_gz(damage, complaint, tmp_path):
  for name in files.SPLITS.values():
    (tmp_path / f'{name}.gz').write_bytes(damage(gzip.compress(CONTENT)))
  with pytest.raises(InputError, match=complaint) as error:
    loading.read('census', tmp_path)
  assert 'census-income.data.gz' in str(error.value)


@pytest.mark.parametrize(
  'name, content, complaint',
  [
    ('census.tar.gz', b'junk', 'not a valid gzip'),
    ('census.tar.gz', TAR[:500], 'damaged'),
    (
      'census.tar.gz',
      fuzz_reader.tar({'other': b''}),
      'expected census-income.data',
    ),
    (files.ARCHIVE, b'junk', 'damaged'),
    (
      files.ARCHIVE,
      fuzz_reader.zipped({'other': b''}),
      'expected census-income.data',
    ),
  ],
  ids=['tar junk', 'tar cut', 'tar of another', 'zip junk', 'zip of another'],
)
def test_damaged_archives(name, content, complaint, tmp_path):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(InputError, match=complaint):
    loading.read('census', tmp_path)


def test_sizes_are_bounded(tmp_path, monkeypatch):
  monkeypatch.setattr(archives, 'MAX_BYTES', 10_000)
  (tmp_path / 'census-income.data.gz').write_bytes(gzip.compress(bytes(10**6)))
  with pytest.raises(InputError, match='unpacks to more than 10000 bytes'):
    loading.read('census', tmp_path)


def test_a_bomb_in_an_archive(tmp_path, monkeypatch):
  """A member that nobody asked for is skipped, up to a bound."""
  monkeypatch.setattr(archives, 'MAX_BYTES', 10_000)
  (tmp_path / 'census.tar.gz').write_bytes(
    fuzz_reader.tar({'other': bytes(10**6), 'census-income.data': b''})
  )
  with pytest.raises(InputError, match='unpacks to more than 20000 bytes'):
    loading.read('census', tmp_path)


@pytest.mark.parametrize('kind', ['tar', 'gz', 'zip'])
def test_archives_of_very_many_parts_are_refused(kind, tmp_path, monkeypatch):
  """A tar of 300,000 empty members used to take 40 s."""
  monkeypatch.setattr(archives, 'MAX_MEMBERS', 20)
  many = {f'{i}': b'' for i in range(40)}
  name = 'census-income.data.gz'
  if kind == 'tar':
    (tmp_path / 'census.tar.gz').write_bytes(fuzz_reader.tar(many))
    name = 'census.tar.gz'
  elif kind == 'zip':
    (tmp_path / files.ARCHIVE).write_bytes(fuzz_reader.zipped(many))
    name = files.ARCHIVE
  else:
    (tmp_path / name).write_bytes(gzip.compress(b'') * 40)
  with pytest.raises(InputError, match='more than 20 members') as error:
    loading.read('census', tmp_path)
  assert name in str(error.value)


@pytest.mark.parametrize(
  'content',
  [
    b'\n' * 2**23,
    CONTENT + b'\n' * 2**23 + CONTENT,
    b',' * 2**23,
    b'x' * 2**23,
    CONTENT.replace(b'race 1', b'x' * 200_000, 1) * 20,
  ],
  ids=['newlines', 'newlines inside', 'commas', 'one line', 'one field'],
)
def test_bad_files_are_refused_before_they_fill_the_memory(
  content, monkeypatch
):
  """64 MB of newlines used to take 2.3 GB, a field of 200 kB 4.5 GB."""
  monkeypatch.setattr(reader, 'BLOCK', 2**16)
  tracemalloc.start()
  try:
    with pytest.raises(
      InputError, match=r'FILE, line \d+: expected|empty file'
    ):
      reader.parse(content, 'FILE')
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  # One copy of the empty lines at the end, and what a block takes.
  assert peak < 2**24, peak


def test_values_are_bounded(monkeypatch):
  """Their number is bounded, and the memory that they take as an array."""
  rows = fuzz_reader.sample_lines()
  for i, row in enumerate(rows):
    row[columns.COLUMNS.index('race')] = f'race {i}' + 'x' * 100
  content = fuzz_reader.join(rows)
  assert fuzz_reader.compare(content) == 'read'
  monkeypatch.setattr(reader, 'MAX_TEXT', 20_000)
  with pytest.raises(InputError, match='FILE: expected short texts'):
    reader.parse(content, 'FILE')
  monkeypatch.setattr(reader, 'MAX_VALUES', 50)
  with pytest.raises(
    InputError, match='line 51: expected at most 50 different values in race, '
  ) as error:
    reader.parse(content, 'FILE')
  assert len(str(error.value)) < 200


def test_half_of_the_files(tmp_path):
  (tmp_path / 'census-income.test').write_bytes(CONTENT)
  with pytest.raises(InputError, match='holds no census-income.data'):
    loading.read('census', tmp_path)


@pytest.mark.parametrize(
  'name, complaint',
  [
    ('nothing', 'not a folder'),
    ('x' * 300, r'cannot be read \(.*too long'),
    ('census-income.data/x', 'not a folder'),
    ('a\0b', 'cannot be read'),
  ],
)
def test_no_such_folder(name, complaint, tmp_path):
  _write(tmp_path)
  with pytest.raises(InputError, match=complaint):
    loading.read('census', tmp_path / name)


def test_a_folder_that_cannot_be_looked_into(tmp_path, monkeypatch):
  look = pathlib.Path.stat

  def refuse(self, **kwargs):
    if self.name.startswith('census'):
      raise PermissionError(errno.EACCES, 'Permission denied', str(self))
    return look(self, **kwargs)

  monkeypatch.setattr(pathlib.Path, 'stat', refuse)
  with pytest.raises(
    InputError, match=r'income.data: cannot be accessed \(Permission'
  ):
    loading.read('census', tmp_path)


@pytest.mark.parametrize('kind', ['fifo', 'folder'])
def test_only_files_are_read(kind, tmp_path):
  """A FIFO would be waited for forever."""
  path = _write(tmp_path) / 'census-income.data'
  path.unlink()
  os.mkfifo(path) if kind == 'fifo' else path.mkdir()
  with pytest.raises(InputError, match='expected a file, found something else'):
    loading.read('census', tmp_path)


def test_folders_of_odd_names(tmp_path, monkeypatch):
  """A name that is not UTF-8, and `~` for the home folder."""
  odd = tmp_path / os.fsdecode(b'no \xff utf-8')
  odd.mkdir()
  rows = fuzz_reader.rows_of(loading.read('census', _write(odd)).train)
  monkeypatch.setenv('HOME', str(tmp_path))
  short = pathlib.Path('~') / odd.name
  assert fuzz_reader.rows_of(loading.read('census', short).train) == rows
  with pytest.raises(InputError, match='--data_dir=~nobody-.* cannot be read'):
    loading.read('census', pathlib.Path('~nobody-of-this-name/x'))


def test_a_user_without_a_home(tmp_path, monkeypatch):
  """HOME is unset and the user id unknown, as in some containers."""
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.delenv('HOME')

  def unknown(_):
    raise KeyError

  monkeypatch.setattr('pwd.getpwuid', unknown)
  assert options.cache_dir() is None
  loading.read('sample', num_rows=100)
  raw = loading.read('census', _write(tmp_path))
  assert fuzz_reader.rows_of(raw.train) == slow_reader.read(CONTENT)[0]
  with pytest.raises(InputError, match='no home folder .* pass --data_dir'):
    loading.read('census')


# Downloads. A stand-in replaces the one call that uses the network.


class _Response(io.BytesIO):
  def __init__(self, content, url=files.URL, length=None):
    super().__init__(content)
    self.url = url
    self.headers = {'Content-Length': str(length or len(content))}

  def geturl(self):
    return self.url


def _serve(monkeypatch, response):
  def urlopen(url, timeout):
    assert url.startswith('https://') and timeout > 0
    if isinstance(response, Exception):
      raise response
    return response

  monkeypatch.setattr(urllib.request, 'urlopen', urlopen)


def _official(monkeypatch, content):
  """Makes `content` the official one."""
  git = hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()
  for split in files.SPLITS:
    monkeypatch.setitem(files.OFFICIAL_GIT_SHA1, split, git)
    monkeypatch.setitem(files.OFFICIAL_BYTES, split, len(content))


def test_download(tmp_path, monkeypatch):
  _official(monkeypatch, CONTENT)
  archive = fuzz_reader.zipped({'census.tar.gz': TAR})
  _serve(monkeypatch, _Response(archive))
  calls = []
  raw = loading.read('census', progress=lambda *args: calls.append(args))
  assert calls[-1] == (len(archive), len(archive))
  assert raw.facts['dataset'] == 'official'
  assert 'the official files' in raw.facts['statement']
  folder = tmp_path / 'cache' / 'lplmtl' / 'census-income'
  assert [p.name for p in folder.iterdir()] == [files.ARCHIVE]
  # Nothing is fetched the second time.
  _serve(monkeypatch, AssertionError('fetched again'))
  assert fuzz_reader.rows_of(
    loading.read('census').test
  ) == fuzz_reader.rows_of(raw.test)


@pytest.mark.parametrize(
  'response, complaint',
  [
    (
      urllib.error.URLError('no route to host'),
      'cannot download .*no route to host',
    ),
    (TimeoutError('timed out'), 'cannot download .*timed out'),
    (_Response(fuzz_reader.zipped({'census.tar.gz': TAR})), 'wrong checksum'),
    (_Response(b'<html>'), 'not a complete archive'),
    (_Response(b'PK', length=99), '2 of 99 bytes'),
    (_Response(b'', url='http://elsewhere'), 'not https'),
    (_Response(fuzz_reader.zipped({'other': b''})), 'found missing'),
  ],
)
def test_download_that_fails_leaves_nothing(
  response, complaint, tmp_path, monkeypatch
):
  _serve(monkeypatch, response)
  with pytest.raises(InputError, match=complaint):
    loading.read('census')
  assert list((tmp_path / 'cache' / 'lplmtl' / 'census-income').iterdir()) == []


def test_a_download_has_the_permissions_of_any_file(tmp_path, monkeypatch):
  _official(monkeypatch, CONTENT)
  archive = fuzz_reader.zipped({'census.tar.gz': TAR})
  _serve(monkeypatch, _Response(archive))
  before = os.umask(0o027)
  try:
    path = files.download(tmp_path, lambda done, total: None)
  finally:
    os.umask(before)
  assert path.stat().st_mode & 0o777 == 0o640


def test_downloads_are_bounded(tmp_path, monkeypatch):
  monkeypatch.setattr(files, 'MAX_DOWNLOAD', 10)
  _serve(monkeypatch, _Response(bytes(100)))
  with pytest.raises(InputError, match='exceeds 10 bytes'):
    loading.read('census')


def test_census66k_is_made_of_the_official_test_rows(tmp_path, monkeypatch):
  _official(monkeypatch, CONTENT)
  (tmp_path / 'census-income.test').write_bytes(CONTENT)
  raw = loading.read('census66k', tmp_path)
  rows = slow_reader.read(CONTENT)[0]
  assert fuzz_reader.rows_of(raw.train) == [
    r for i, r in enumerate(rows) if i % 6 <= 3
  ]
  assert fuzz_reader.rows_of(raw.test) == rows[4::6]
  assert raw.facts['dataset'] == 'census66k'


def test_census66k_as_a_folder(census_dir):
  raw = loading.read('census66k', census_dir)
  assert raw.facts['dataset'] == 'census66k'
  assert raw.facts['files']['train']['rows'] == 66_508
  assert loading.read('census', census_dir).facts == raw.facts
  data = protocol.encode(raw, ('income', 'marital', 'education'))
  assert data.facts['rows'] == {
    'train': 59_858,
    'validation': 6_650,
    'test': 16_627,
  }
  labels = [data.test.labels[t] for t in ('income', 'marital', 'education')]
  np.testing.assert_allclose(labels[0].mean(), 0.062, atol=2e-3)
  # Label correlations as Ma et al. report them: .1768 and .2373.
  everything = [
    np.concatenate([d.labels[t] for d in (data.train, data.validation)])
    for t in ('income', 'marital', 'education')
  ]
  correlation = np.abs(np.corrcoef(everything))
  np.testing.assert_allclose(correlation[0, 1], 0.179, atol=2e-3)
  np.testing.assert_allclose(correlation[1, 2], 0.238, atol=2e-3)


def _sample(rows=600):
  return loading.read('sample', num_rows=rows)


def test_inputs_hold_no_label():
  forbidden = {'education', 'marital_stat', 'income_50k', 'instance_weight'}
  assert not forbidden & set(protocol.INPUTS)
  assert len(protocol.INPUTS) == 38 and len(protocol.CATEGORIES) == 31
  data = protocol.encode(_sample(2000), ('income',), num_bins=8)
  assert list(data.tables.vocabularies) == list(protocol.CATEGORIES)
  assert list(data.tables.numerics) == list(columns.NUMERIC)
  assert {c for c, n in data.tables.numerics.items() if n.log} == set(
    protocol.MONEY
  )
  assert data.train.features['numeric'].shape[1] == 7


def test_labels():
  raw = _sample(2000)
  data = protocol.encode(raw, ('education', 'income', 'marital'))
  for task, column, positive in (
    ('income', 'income_50k', ['50000+.']),
    ('marital', 'marital_stat', ['Never married']),
    (
      'education',
      'education',
      [
        'Associates degree-occup /vocational',
        'Associates degree-academic program',
        'Bachelors degree(BA AB BS)',
        'Masters degree(MA MS MEng MEd MSW MBA)',
        'Prof school degree (MD DDS DVM LLB JD)',
        'Doctorate degree(PhD EdD)',
      ],
    ),
  ):
    values = raw.test[column].values[raw.test[column].codes]
    np.testing.assert_array_equal(
      data.test.labels[task], np.isin(values, positive)
    )


def test_validation_splits():
  raw = _sample()
  assert len(raw.train['age'].codes) == 400
  tenth = protocol.encode(raw, ('marital',))
  assert tenth.facts['rows'] == {'train': 360, 'validation': 40, 'test': 200}
  half = protocol.encode(raw, ('marital',), validation='test_half')
  assert half.facts['rows'] == {'train': 400, 'validation': 100, 'test': 100}
  # Each row occurs once, either for training or for validation.
  ages = raw.train['age'].values[raw.train['age'].codes]
  back = np.concatenate(
    [
      batch.features['numeric'][:, 0] * tenth.tables.numerics['age'].std
      + tenth.tables.numerics['age'].mean
      for batch in (tenth.train, tenth.validation)
    ]
  )
  np.testing.assert_allclose(np.sort(back), np.sort(ages), atol=1e-3)
  other = protocol.encode(raw, ('marital',), split_seed=1)
  same = protocol.encode(raw, ('marital',))
  first = tenth.validation.features['numeric']
  np.testing.assert_array_equal(same.validation.features['numeric'], first)
  assert not np.array_equal(other.validation.features['numeric'], first)


def test_tables_are_fitted_on_training_rows_only():
  raw = _sample()
  data = protocol.encode(raw, ('marital',))
  spoiled = dict(raw.test)
  spoiled['race'] = Factor(
    np.zeros_like(raw.test['race'].codes),
    np.array(['new', *raw.test['race'].values[1:]]),
  )
  spoiled['age'] = Factor(raw.test['age'].codes, raw.test['age'].values + 1000)
  changed = protocol.encode(raw._replace(test=spoiled), ('marital',))
  assert changed.tables == data.tables
  # An unseen category takes the reserved id and is counted.
  assert changed.facts['unseen']['test']['race'] == 200
  column = protocol.CATEGORIES.index('race')
  assert (changed.test.features['categories'][:, column] == 0).all()


@pytest.mark.parametrize(
  'split, number',
  [
    ('train', '1e300'),
    ('train', '1e40'),
    ('validation', '1e38'),
    ('test', '-1e40'),
  ],
)
def test_a_number_out_of_bounds_names_its_line(split, number, tmp_path):
  """It used to make every metric NaN, or to end in a traceback."""
  order = np.random.default_rng(0).permutation(60)
  row = {'train': order[6], 'validation': order[0], 'test': 7}[split]
  rows = fuzz_reader.sample_lines()
  rows[row][0] = number
  texts = {split: fuzz_reader.join(rows)}
  train = texts.get('train', texts.get('validation', CONTENT))
  raw = loading.read('census', _write(tmp_path, train, texts.get('test')))
  with pytest.raises(InputError) as error:
    protocol.encode(raw, ('marital',))
  name = 'census-income.test' if split == 'test' else 'census-income.data'
  assert f'{name}, line {row + 1}: age' in str(error.value)
  assert '\n' not in str(error.value)


def test_one_class_only():
  raw = _sample()
  column = raw.train['income_50k']
  flat = {
    **raw.train,
    'income_50k': Factor(np.zeros_like(column.codes), column.values),
  }
  with pytest.raises(
    InputError, match='task income: the 360 train rows hold one class'
  ):
    protocol.encode(raw._replace(train=flat), ('marital', 'income'))


@pytest.mark.parametrize(
  'names, complaint',
  [((), 'found none'), (('income', 'age'), 'income, marital, education.* found income,age'),
   (('income', 'income'), 'found income,income')],
)  # fmt: skip
def test_bad_tasks(names, complaint):
  with pytest.raises(InputError, match=complaint):
    protocol.make_tasks(names)


def test_an_unknown_split():
  with pytest.raises(InputError, match="one of tenth, test_half; found 'none'"):
    protocol.encode(_sample(), ('income',), validation='none')


# The generated sample.


def test_sample_is_reproducible_and_bounded():
  first, again = (
    sample.make(3000, seed=3),
    sample.make(3000, seed=3),
  )
  assert first.optimum == again.optimum
  for column, factor in first.train.items():
    np.testing.assert_array_equal(factor.codes, again.train[column].codes)
  other = sample.make(3000, seed=4)
  assert not np.array_equal(first.train['age'].codes, other.train['age'].codes)
  for rows in (99, 299_286):
    with pytest.raises(InputError, match='from 100 to 299,285'):
      sample.make(rows)


def test_sample_has_the_real_schema(tmp_path):
  made = sample.make(20_000)
  assert tuple(made.train) == columns.COLUMNS
  path = tmp_path / 'rows'
  sample.write_text(made.test, path)
  content = path.read_bytes()
  assert sample.make(20_000).optimum == made.optimum
  assert 100 < len(content) / 6667 < 700
  parsed = reader.parse(content, 'rows')
  kept = {c: f for c, f in made.test.items() if c != 'instance_weight'}
  assert fuzz_reader.rows_of(parsed) == fuzz_reader.rows_of(kept)
  income = protocol.encode(_sample(20_000), ('income',)).train.labels['income']
  np.testing.assert_allclose(income.mean(), 0.062, atol=0.005)


def test_sample_looks_like_the_real_table(census_dir):
  real = loading.read('census66k', census_dir).train
  made = sample.make(20_000).train
  for column in protocol.CATEGORIES:
    shares = []
    for table in (real, made):
      counts = np.bincount(table[column].codes)
      shares.append(counts.max() / counts.sum())
      assert 0.8 < len(made[column].values) / len(real[column].values) < 1.25
    np.testing.assert_allclose(shares[1], shares[0], atol=0.1, err_msg=column)


def test_no_model_of_the_inputs_beats_the_optimum_of_the_sample():
  """The optimum is plausible, and a linear model stays below it."""
  made = sample.make(20_000)
  assert 0.90 < made.optimum['income'] < 0.97
  from sklearn import linear_model, metrics

  raw = _sample(20_000)
  data = protocol.encode(raw, ('income',), num_bins=16)
  one_hot = lambda b: np.concatenate(  # noqa: E731
    [
      np.eye(n)[c]
      for n, c in zip(
        data.tables.num_categories, b.features['categories'].T, strict=True
      )
    ],
    axis=1,
  )
  model = linear_model.LogisticRegression(C=0.03, max_iter=200)
  model.fit(one_hot(data.train), data.train.labels['income'])
  scores = model.decision_function(one_hot(data.test))
  found = metrics.roc_auc_score(data.test.labels['income'], scores)
  assert 0.80 < found < made.optimum['income'] - 0.01


def test_os_independent_cache_location(monkeypatch, tmp_path):
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setenv('HOME', str(tmp_path))
  expected = os.path.join(str(tmp_path), '.cache', 'lplmtl', 'census-income')
  assert str(loading.default_data_dir()) == expected
