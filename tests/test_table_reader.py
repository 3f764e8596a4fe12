"""Tables from files: the same text is the same value, and mistakes are lines."""

import bz2
import csv
import gzip
import hashlib
import io
import lzma
import os
import random
import sys
import tarfile
import zipfile
from concurrent import futures

import numpy as np
import pandas as pd
import pytest

from experiments.datasets import tables
from experiments.datasets.tables import blocks, parts, reader, sources, values
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import columns as raw
from lplmtl.columns import Factor
from lplmtl.data import arrow_files

TEXTS = (
  '', ' ', 'a', 'Ärger', '007', '7', '7.0', '1.50', '1.5', '-0', '0.00001',
  '1e-05', '12E4', '1e300', '1e+16', '1e+999', 'e-5', 'NA', '9007199254740993', '0.1234567890123456',
  '123456789.123456', '-12.5', '.5', '5.', '+5', '-', '.', 'inf', 'nan', '1,5',
  'x"y', '"', 'two\nlines', 'semi;colon', 'x' * 70, 'tab\t', '--1', '1-2',
  '2024-01-31', '00', '0', '-7', '1_000', '١', '12345678', '123456789012345',
)  # fmt: skip
NUMBERS = ('', '1', '2.50', '-3', '1e+05', '0.125', 'NA', ' 4', '1234567.875')


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture(autouse=True, params=['NumPy', 'PyArrow'])
def way(request, monkeypatch):
  """Both ways to split rows pass all tests."""
  if request.param == 'NumPy':
    monkeypatch.setattr(reader, '_quick', lambda: None)
  else:
    pytest.importorskip('pyarrow')


def _texts(column):
  """Returns the canonical text of each row."""
  if not isinstance(column, Factor):
    return [raw.canonical(repr(x)) for x in column.tolist()]
  codes, texts = raw.texts_of('', column)
  return [raw.canonical(texts[code]) for code in codes]


def _expected(text):
  """The canonical text of a field, by one rule for all columns."""
  stripped = text.strip()
  try:
    number = float(stripped)
  except ValueError:
    return raw.canonical(text)
  is_plain = values._PLAIN.fullmatch(stripped) and stripped.strip('-.')
  if is_plain and np.isfinite(number):
    return raw.canonical(repr(number))
  return raw.canonical(text)


def _write(path, rows, **options):
  with open(path, 'w', encoding='utf-8', newline='') as file:
    csv.writer(file, **options).writerows(rows)
  return path


def _read(path, missing=(), **options):
  return reader.read(Config(data=str(path), **options), missing)


@pytest.mark.parametrize('seed', range(12))
def test_fields_are_those_of_the_csv_module(seed, tmp_path, monkeypatch):
  """Whatever the blocks, the quotes, the line ends and the other rows."""
  rng = random.Random(seed)
  monkeypatch.setattr(blocks, 'BLOCK', rng.choice([40, 200, 5000]))
  monkeypatch.setattr(blocks, 'LOOSE_ROWS', 7)
  monkeypatch.setattr(values, '_MANY', rng.choice([2, 1000]))
  texts = TEXTS if seed % 3 else [t for t in TEXTS if '"' not in t]
  rows = [
    [rng.choice(texts), rng.choice(NUMBERS), rng.choice(texts[:9])]
    for _ in range(rng.choice([1, 30, 150]))
  ]
  options = {
    'lineterminator': rng.choice(['\n', '\r\n']),
    'quoting': rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    'delimiter': rng.choice([',', ';', '\t']),
  }
  path = _write(tmp_path / 'a.csv', [['t', 'n', 'm'], *rows], **options)
  if seed % 4 == 3:  # quotes inside fields that do not begin with one
    separator = options['delimiter']
    with open(path, 'a', newline='') as file:
      file.write(f'5" pipe{separator}1{separator}it is "so"\n')
    rows.append(['5" pipe', '1', 'it is "so"'])
  columns, facts = _read(path, separator=options['delimiter'], decimal='.')
  assert facts['rows'] == len(rows)
  for i, name in enumerate('tnm'):
    assert _texts(columns[name]) == [_expected(row[i]) for row in rows], name


def test_numbers_are_those_of_float(tmp_path):
  """To the last bit, for numbers of any length."""
  rng = np.random.default_rng(0)
  texts = [
    *(f'{x:.{n}f}' for n in range(16) for x in rng.normal(0, 10.0 ** (n % 7), 40)),
    *map(repr, rng.normal(0, 1e-8, 100).tolist()),
    *map(str, rng.integers(-(10**15) + 1, 10**15, 100).tolist()),
  ]  # fmt: skip
  path = _write(tmp_path / 'a.csv', [['x', 'y'], *([t, 1] for t in texts)])
  columns, _ = _read(path)
  assert columns['x'].dtype == np.float64
  assert columns['x'].tolist() == [float(text) for text in texts]


@pytest.mark.parametrize('late', ['007', 'x', '+5', '12E4', '1_0'])
def test_a_text_far_down_makes_a_column_of_texts(late, tmp_path, monkeypatch):
  monkeypatch.setattr(blocks, 'BLOCK', 64)
  rows = [['1.50', '1'], ['', '2']] * 60 + [[late, '3']]
  columns, _ = _read(_write(tmp_path / 'a.csv', [['x', 'y'], *rows]))
  assert _texts(columns['x']) == ['1.5', 'nan'] * 60 + [late]
  assert isinstance(columns['x'], Factor) and columns['y'].dtype == np.float64


def test_texts_that_mean_missing_leave_a_column_of_numbers(tmp_path):
  path = _write(tmp_path / 'a.csv', [['x', 'y'], ['1', 1], ['NA', 2]])
  assert _texts(_read(path)[0]['x']) == ['1', 'NA']
  np.testing.assert_array_equal(_read(path, ['NA'])[0]['x'], [1, np.nan])


@pytest.mark.parametrize('pack', ['.csv', '.gz', '.bz2', '.xz', '.zip', '.tar', '.tar.gz'])  # fmt: skip
def test_compressed_files(pack, tmp_path):
  content = b'a,b\n1,x\n2,y\n'
  path = tmp_path / f't{pack}'
  if pack == '.zip':
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('t.csv', content)
  elif pack.startswith('.tar'):
    with tarfile.open(path, 'w:gz' if pack == '.tar.gz' else 'w') as archive:
      info = tarfile.TarInfo('t.csv')
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  else:
    packers = {'.gz': gzip.compress, '.bz2': bz2.compress, '.xz': lzma.compress}
    path.write_bytes(packers.get(pack, bytes)(content))
  columns, facts = _read(path)
  assert columns['a'].tolist() == [1, 2] and _texts(columns['b']) == ['x', 'y']
  assert facts['file'] == path.name and facts['rows'] == 2
  if pack != '.csv':
    path.write_bytes(path.read_bytes()[:25])
    with pytest.raises(InputError, match=r'damaged|not a|cannot|empty|NUL'):
      _read(path)


@pytest.mark.parametrize(
  'encoding, found', [
    ('utf-8', 'utf-8'), ('utf-8-sig', 'utf-8-sig'), ('utf-16', 'utf-16'),
    ('utf-32', 'utf-32'), ('cp1252', 'cp1252'),
  ],
)  # fmt: skip
def test_encodings_and_separators_are_found(encoding, found, tmp_path):
  path = tmp_path / 'a.csv'
  path.write_bytes('größe;preis\nklein;1,5\ngroß;2,25\n'.encode(encoding))
  columns, facts = _read(path)
  assert facts['format'] == f'semicolon-separated, {found}, decimal comma'
  assert _texts(columns['größe']) == ['klein', 'groß']
  assert columns['preis'].tolist() == [1.5, 2.25]
  # As a text, it is what stands in the file.
  assert _texts(_read(path, decimal='.')[0]['preis']) == ['1,5', '2,25']


def test_folders_and_patterns(tmp_path):
  for name, text in (
    ('a', 'x,y\n1,u\n'),
    ('b', 'y,x\nv,2\nu,z\n'),
    ('c', 'x,y\n'),
  ):
    (tmp_path / f'{name}.csv').write_text(text)
  (tmp_path / 'notes.md').write_text('not a table')
  for data in (tmp_path, tmp_path / '*.csv'):
    columns, facts = _read(data)
    assert _texts(columns['x']) == ['1', '2', 'z']
    assert _texts(columns['y']) == ['u', 'v', 'u']
    assert facts['rows'] == 3
  (tmp_path / 'd.csv').write_text('x,z\n1,2\n')
  with pytest.raises(InputError, match='d.csv must have the columns of a.csv: it lacks y; it has also z'):  # fmt: skip
    _read(tmp_path)


def test_standard_input(monkeypatch):
  text = io.TextIOWrapper(io.BytesIO(gzip.compress(b'a|b\n1|2\n')))
  monkeypatch.setattr(sys, 'stdin', text)
  columns, facts = _read('-')
  assert columns['b'].tolist() == [2] and facts['file'] == 'standard input'
  assert facts['sha256'] == hashlib.sha256(b'a|b\n1|2\n').hexdigest()
  text = io.TextIOWrapper(io.BytesIO(b'a,b\n'))
  monkeypatch.setattr(sys, 'stdin', text)
  with pytest.raises(InputError, match='standard input: expected rows below'):
    _read('-')


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
  path = tmp_path / 'a.csv'
  path.write_text('a,b\n1,2\n')
  parse, later = reader._parsed, 1_000_000_000

  def slow(*arguments):
    nonlocal later
    found = parse(*arguments)
    path.write_text('a,b\n1,3\n')
    later += 1  # clocks of file systems may tick every 10 ms
    os.utime(path, (later, later))
    return found

  for _ in range(2):
    monkeypatch.setattr(reader, '_parsed', slow)
    with pytest.raises(InputError, match='a.csv changed while it was read'):
      _read(path)
    monkeypatch.setattr(reader, '_parsed', parse)
    # The second time, another state of the file is in the cache.
    assert _read(path)[0]['b'].tolist() == [3]
    path.write_text('a,b\n1,4\n')


@pytest.mark.parametrize('suffix', ['.parquet', '.feather'])
def test_arrow_files_hold_what_csv_files_hold(suffix, tmp_path):
  pytest.importorskip('pyarrow')
  frame = pd.DataFrame({
    'number': [1.5, None], 'whole': [3, 4], 'text': ['007', None],
    'flag': [True, False], 'when': pd.to_datetime(['2024-01-31', None]),
    'large': [2**60, 1], 'kind': pd.Categorical(['a', 'b']),
  })  # fmt: skip
  path = tmp_path / f'a{suffix}'
  getattr(frame, f'to_{suffix[1:]}')(path)
  columns, _ = _read(path)
  assert {k: _texts(v) for k, v in columns.items()} == {
    'number': ['1.5', 'nan'], 'whole': ['3', '4'], 'text': ['007', 'nan'],
    'flag': ['True', 'False'], 'when': ['2024-01-31', 'nan'],
    'large': [str(2**60), '1'], 'kind': ['a', 'b'],
  }  # fmt: skip
  path.write_bytes(path.read_bytes()[:50])
  with pytest.raises(InputError, match='cannot be read'):
    _read(path)


def test_a_stream_of_arrow_holds_what_its_file_holds(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  table = pyarrow.table({'a': [1.5, None], 'b': ['x', 'y']})
  path = tmp_path / 'a.arrow'
  with pyarrow.ipc.new_stream(path, table.schema) as stream:
    stream.write_table(table)
  columns, _ = _read(path)
  assert {k: _texts(v) for k, v in columns.items()} == {
    'a': ['1.5', 'nan'], 'b': ['x', 'y'],
  }  # fmt: skip
  for damaged in (path.read_bytes()[:-40], b'a,b'):
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r'a.arrow: cannot be read \('):
      _read(path)
  path.write_bytes(b'')
  for read in (
    _read,
    lambda path: list(reader.blocks_of(Config(data=str(path)), ())),
  ):
    with pytest.raises(InputError, match='a.arrow: .* found an empty file'):
      read(path)


def test_damage_within_checked_pages_is_found(tmp_path):
  """Without checksums, other numbers are read without a word."""
  parquet = pytest.importorskip('pyarrow.parquet')
  pyarrow = pytest.importorskip('pyarrow')
  path = tmp_path / 'a.parquet'
  rows = pyarrow.table({'n': np.arange(1000.0)})
  options = {'compression': 'none', 'use_dictionary': False}
  for is_checked in (False, True):
    parquet.write_table(rows, path, write_page_checksum=is_checked, **options)
    content = bytearray(path.read_bytes())
    content[content.find(np.float64(500).tobytes())] ^= 1
    path.write_bytes(content)
    if not is_checked:
      assert _read(path)[0]['n'][500] != 500
      continue
    for read in (
      _read,
      lambda path: list(reader.blocks_of(Config(data=str(path)), ())),
    ):
      with pytest.raises(InputError, match='a.parquet: cannot be read .*CRC'):
        read(path)
    with pytest.raises(ValueError, match='a.parquet cannot be read: .*CRC'):
      arrow_files.ArrowFiles(path).read(0)


def test_arrow_files_without_pyarrow(tmp_path, monkeypatch):
  name = 'experiments.datasets.tables.arrow'
  monkeypatch.delitem(sys.modules, name, raising=False)
  monkeypatch.delattr(tables, 'arrow', raising=False)
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  (tmp_path / 'a.parquet').touch()
  with pytest.raises(InputError, match=r"pip install 'lplmtl\[tables\]'"):
    _read(tmp_path / 'a.parquet')


@pytest.mark.parametrize(
  'content, complaint',
  [
    (b'', 'expected a table, found an empty file'),
    (b'\n \n', 'expected a table, found an empty file'),
    (b'a,b\n', 'a.csv: expected rows below the header, found none'),
    (b'a,b\n1,2\n3\n', 'a.csv, line 3: expected 2 fields, as in the lines above, found 1'),
    (b'a,b\n\n"x\ny",2\n3,4,5\n', 'a.csv, line 5: expected 2 fields, as in the lines above, found 3'),
    (b'a,b\n5" x,1\n\n2\n', 'a.csv, line 4: expected 2 fields, as in the lines above, found 1'),
    (b'a,b,a\n1,2,3\n', 'line 1: column names must differ, found .a. more than once: .* pass --column_names'),
    (b'PAR1\x15\x04', 'a.csv: let its name end in .parquet, as it is one'),
    (b'a,b\r1,2\r', 'line 1: found a carriage return inside a line'),
    (b'a,b\r\n1,2\r3,4\r\n', r'line 2: .* found 3: correct the line \(it holds a carriage return, .*\), or'),
    (b'1,2\n3,4\n', 'line 1: expected names of columns, found numbers only: pass --column_names'),
    (b'a,b\n1,\0\n', 'line 2: found a NUL byte'),
    (b'a,b\n1,' + b'x' * 140_000 + b'\n', 'line 2: expected at most 131,072 bytes in a field'),
    (b'a,b\n1,"x\n' + b'1,2\n' * 40_000, 'line 2: expected at most 131,072 bytes in a field'),
    (b'a,b\n1,"x\n', 'line 2: a quote is not closed'),
    (b'a,b\n1,x\n' * 40_000 + b'1,\xff\n', r'line 80001: expected UTF-8, found byte 0xff: pass the file'),
    ('a,b\nä,ö\n'.encode() + b'1,\xe9\n', 'line 3: expected UTF-8, found byte 0xe9'),
    (b'a,b\n1,\x81\n', 'line 2: expected UTF-8, found byte 0x81'),
    (b'a,b\n1,\xe9\n' + b'1,x\n' * 80_000 + b'1,\x81\n', 'line 80003: expected cp1252, found byte 0x81'),
  ],
  ids=range(19),
)  # fmt: skip
def test_bad_files_end_in_one_line(content, complaint, tmp_path):
  path = tmp_path / 'a.csv'
  path.write_bytes(content)
  with pytest.raises(InputError, match=complaint) as raised:
    _read(path)
  assert '\n' not in str(raised.value)


def test_a_cell_without_end_is_refused_before_it_fills_the_memory(monkeypatch):
  class Endless(io.RawIOBase):
    num_bytes = 0

    def readable(self):
      return True

    def readinto(self, buffer):
      self.num_bytes += len(buffer)
      assert self.num_bytes < 2**25
      buffer[:] = b'x' * len(buffer)
      return len(buffer)

  for start in (b'a,b\n1,', b'a,b\n1,"', b'a,b\n5" x,1\n1,'):
    stream = io.BufferedReader(Endless())
    monkeypatch.setattr(
      sys, 'stdin', io.TextIOWrapper(_Chain(io.BytesIO(start), stream))
    )
    with pytest.raises(InputError, match='line [23]: expected at most 131,072'):
      _read('-')


class _Chain(io.RawIOBase):
  """One stream after another."""

  def __init__(self, *streams):
    self.streams = list(streams)

  def readable(self):
    return True

  def readinto(self, buffer):
    found = self.streams[0].read(len(buffer))
    if not found and len(self.streams) > 1:
      self.streams.pop(0)
      return self.readinto(buffer)
    buffer[: len(found)] = found
    return len(found)


def test_commas_of_thousands_are_no_decimal_ones(tmp_path):
  path = tmp_path / 'a.csv'
  path.write_text('a;b\n1,234;x\n999;y\n')
  columns, facts = _read(path)
  assert facts['format'] == 'semicolon-separated, utf-8'
  assert _texts(columns['a']) == ['1,234', '999']
  assert _read(path, decimal=',')[0]['a'].tolist() == [1.234, 999]


@pytest.mark.parametrize(
  'cells, numbers',
  [
    (['1,5', '-12,25', '3', ''], [1.5, -12.25, 3, np.nan]),
    (['1,234', '999'], None),  # thousands
    (['1,2', '1,2,3'], None),  # lists
    (['1,5', '2.5'], None),
  ],
)
def test_decimal_commas_in_quotes(cells, numbers, tmp_path):
  path = tmp_path / 'a.csv'
  path.write_text('a,b\n' + ''.join(f'"{cell}",x\n' for cell in cells))
  columns, facts = _read(path)
  assert facts['format'].startswith('comma-separated, utf-8')
  if numbers:
    np.testing.assert_array_equal(columns['a'], numbers)
    assert facts['format'].endswith(', decimal comma')
  else:
    assert _texts(columns['a']) == cells


def test_decimal_commas_that_look_like_thousands(tmp_path):
  path = tmp_path / 'a.csv'
  path.write_text('a,b\n"2,904",x\n"1,250",y\n')
  columns, _ = _read(path, decimal=',', separator=',')
  np.testing.assert_array_equal(columns['a'], [2.904, 1.25])


@pytest.mark.parametrize(
  'options, complaint',
  [
    ({'separator': '::'}, 'must be one ASCII character'),
    ({'separator': '"'}, 'cannot be'),
    ({'encoding': 'klingon'}, '--encoding=klingon: no such encoding'),
    ({'encoding': 'zlib'}, 'no such encoding'),
    ({'encoding': 'ascii'}, 'expected ascii, found byte 0xc3'),
    ({'decimal': ',', 'separator': ','}, 'cannot be the separator'),
    ({'column_names': ('a', 'a')}, 'column_names must differ'),
    (
      {'column_names': ('a', 'b', 'c')},
      '--column_names gives 3 names, and rows have 2 fields',
    ),
    ({'column_names': ('ä', 'b')}, 'its first line holds these names already'),
  ],
)
def test_flags_that_do_not_fit(options, complaint, tmp_path):
  path = tmp_path / 'a.csv'
  path.write_bytes('ä,b\n1,2\n'.encode())
  with pytest.raises(InputError, match=complaint):
    _read(path, **options)


def test_files_without_a_header(tmp_path):
  path = tmp_path / 'a.data'
  path.write_text('1, x\n2, y\n')
  columns, _ = _read(path, column_names=('n', 't'))
  assert columns['n'].tolist() == [1, 2] and _texts(columns['t']) == ['x', 'y']


def test_paths_that_lead_nowhere(tmp_path):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'sales.csv').touch()
  for data, complaint in (
    ('folder', 'is a folder without tables'),
    ('slaes.csv', 'no such file or folder; its folder holds sales.csv'),
    ('*.parquet', 'no such file or folder'),
  ):
    with pytest.raises(InputError, match=complaint):
      _read(tmp_path / data)


def test_the_cache_serves_equal_columns(tmp_path, monkeypatch):
  rows = [[f'id {i}', i / 8, 'xy'[i % 2]] for i in range(50)]
  path = _write(tmp_path / 'a.csv', [['id', 'n', 't'], *rows])
  monkeypatch.setattr(values, '_MANY', 5)
  monkeypatch.setattr(blocks, 'BLOCK', 100)
  with futures.ThreadPoolExecutor(1) as later:
    read = reader.read(Config(data=str(path)), (), later=later)
    first = read._replace(columns=dict(read.columns))
    read.columns.clear()  # while the cache is written
  monkeypatch.setattr(reader, '_parsed', lambda *_: pytest.fail('parsed'))
  again = _read(path)
  assert again.facts == first.facts and list(again.columns) == ['id', 'n', 't']
  for name, column in first.columns.items():
    assert _texts(column) == _texts(again.columns[name])
  with pytest.raises(pytest.fail.Exception):  # another setting
    _read(path, encoding='latin-1')
  path.write_text(path.read_text() + 'x,1,y\n')
  with pytest.raises(pytest.fail.Exception):
    _read(path)


def test_rows_of_several_files_know_their_file(tmp_path):
  (tmp_path / 'more').mkdir()
  for name, rows in (('a', 2), ('b', 0), ('more/c', 3)):
    _write(tmp_path / f'{name}.csv', [['n'], *([i] for i in range(rows))])
  data = [str(tmp_path / '*.csv'), str(tmp_path / '**/*.csv')]
  facts = _read(data[0]).facts
  assert [part['rows'] for part in facts['parts']] == [2, 0]
  assert parts.place(facts, 1) == ('a.csv', 1)
  every = [tmp_path / f'{name}.csv' for name in ('a', 'b', 'more/c')]
  named = parts.of(every, ['1', '2', '3'], [2, 0, 3])
  assert parts.place(named, 2) == ('more/c.csv', 0)
  # From the cache, with the names that they have now.
  (tmp_path / 'a.csv').rename(tmp_path / 'aa.csv')
  again = _read(data[0]).facts
  assert again['sha256'] == facts['sha256']
  assert parts.place(again, 1) == ('aa.csv', 1)
  found = reader.blocks_of(Config(data=data[0]), ())
  assert next(found)[1:] == ('aa.csv', 0)


def test_blocks_hold_what_the_whole_table_holds(tmp_path, monkeypatch):
  rows = [[i, '1.50' if i < 30 else 'x'] for i in range(60)]
  path = _write(tmp_path / 'a.csv', [['n', 't'], *rows])
  whole, _ = _read(path)
  monkeypatch.setattr(blocks, 'BLOCK', 64)
  parts = list(reader.blocks_of(Config(data=str(path)), ()))
  assert len(parts) > 5
  for name in 'nt':
    joined = [text for part in parts for text in _texts(part.columns[name])]
    assert joined == _texts(whole[name])


def test_columns_of_other_types_in_one_file_are_noted(tmp_path):
  pa = pytest.importorskip('pyarrow')
  parquet = pytest.importorskip('pyarrow.parquet')
  tables = {
    'a': {'zip': ['02885'], 'n': [1], 'empty': ['x']},
    'b': {'zip': pa.array(['1'], pa.large_string()), 'n': [0.5]},
    'c': {'zip': pa.array(['1']).dictionary_encode(), 'n': [None]},
    'd': {'zip': [2885], 'n': [1], 'empty': [None]},
  }
  for name, columns in tables.items():
    parquet.write_table(pa.table(columns), tmp_path / f'{name}.parquet')
  with pytest.warns(UserWarning) as noted:
    sources.warn_of_types(sorted(tmp_path.iterdir()))
  a, d = tmp_path / 'a.parquet', tmp_path / 'd.parquet'
  (line,) = [str(one.message) for one in noted]
  assert line.startswith(
    f"column 'zip' holds int64 in {d}, but string in {a}: all are read as texts"
  )
  d.unlink()
  sources.warn_of_types(sorted(tmp_path.iterdir()))  # a warning would fail
