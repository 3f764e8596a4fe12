"""Files that are read and encoded in chunks, and tables fitted in one pass."""

import datetime
import decimal
import os

import jax
import numpy as np
import pandas as pd
import pytest

import lplmtl
from lplmtl import data, tables
from lplmtl.columns import Factor
from lplmtl.data import sketch
from tests import contracts

pyarrow = pytest.importorskip('pyarrow')
feather = pytest.importorskip('pyarrow.feather')
parquet = pytest.importorskip('pyarrow.parquet')
arrow = pytest.importorskip('experiments.datasets.tables.arrow')


def _table(n=1000, first=0):
  rng = np.random.default_rng(first)
  code = rng.integers(0, 5, n)
  weight = pyarrow.array(
    [None if i % 7 == 0 else x for i, x in enumerate(rng.normal(size=n))]
  )
  return pyarrow.table(
    {
      'row': np.arange(first, first + n),
      'code': code.astype(np.int32),
      'city': np.array(['Oslo', 'Rome', 'Lima'])[rng.integers(0, 3, n)],
      'weight': weight,
      'member': code > 2,
      'since': np.datetime64('2020-01-01') + rng.integers(0, 900, n),
      'bought': (code > 1).astype(np.int8),
    }
  )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """1,700 rows in three files, of 70, 70, ... and 500 rows a group."""
  path = tmp_path_factory.mktemp('files')
  parquet.write_table(_table(), path / 'a.parquet', row_group_size=70)
  parquet.write_table(_table(500, 1000), path / 'b.parquet')
  feather.write_feather(_table(200, 1500), path / 'c.feather')
  return path


FITTED = {
  'log': ('weight',), 'num_bins': 8,
  'rules': tables.Rules(fill_missing=True, min_count=2),
}  # fmt: skip
KINDS = (['code', 'city'], ['weight', 'row'], ['member'], {'since': ''})


def _fitter():
  categories, numerics, booleans, dates = KINDS
  return data.TableFitter(
    categories, numerics, booleans=booleans, dates=dates, **FITTED
  )


@pytest.fixture(scope='module')
def encode(folder):
  fitter = _fitter()
  for rows in data.ArrowFiles(folder).pieces():
    fitter.add(rows)
  fitted = fitter.finish()
  assert fitter.num_rows == 1700

  def encode(columns):
    bought = np.asarray(tables.numbers_of('bought', columns['bought']))
    labels = {'bought': bought.astype(np.int32), 'row': columns['row']}
    return lplmtl.Batch(fitted.encode(columns), labels)

  encode.tables = fitted
  return encode


def _whole(folder):
  pieces = list(data.ArrowFiles(folder).pieces())

  def values(column):
    return column.values[column.codes] if isinstance(column, Factor) else column

  return {
    name: np.concatenate([values(piece[name]) for piece in pieces])
    for name in pieces[0]
  }


def test_tables_of_one_pass_are_those_of_all_rows(folder, encode):
  whole = _whole(folder)
  categories, numerics, booleans, dates = KINDS
  expected = tables.fit(
    {name: whole[name] for name in categories},
    {name: whole[name] for name in numerics},
    booleans={name: whole[name] for name in booleans},
    dates={name: (whole[name], form) for name, form in dates.items()},
    **FITTED,
  )
  found = encode.tables
  assert found.vocabularies == expected.vocabularies
  assert found.booleans == expected.booleans
  assert found.dates == expected.dates
  assert [*found.numerics] == [*expected.numerics]
  for name, scaler in expected.numerics.items():
    own = found.numerics[name]
    assert (own.log, own.flag) == (scaler.log, scaler.flag)
    np.testing.assert_allclose(
      [own.mean, own.std, own.fill, *own.edges],
      [scaler.mean, scaler.std, scaler.fill, *scaler.edges],
      rtol=1e-12,
    )


def test_too_many_values_are_hashed():
  fitter = data.TableFitter(
    ['id', 'few'], rules=tables.Rules(max_vocabulary=5, num_buckets=8)
  )
  for start in (0, 4, 8):
    fitter.add({'id': np.arange(start, start + 4), 'few': ['a', 'b', 'c', 'a']})
  found = fitter.finish()
  assert found.hashed == {'id': 8}
  assert found.vocabularies == {'few': ('a', 'b', 'c')}


def test_a_bad_row_is_counted_from_the_first_piece():
  fitter = data.TableFitter((), ['age'])
  fitter.add({'age': [1, 2, 3]})
  with pytest.raises(tables.RowError, match="column 'age' .* in row 4 "):
    fitter.add({'age': [1, np.nan]})
  with pytest.raises(ValueError, match='at least one row, found none'):
    data.TableFitter(['age']).finish()
  with pytest.raises(ValueError, match='named once each'):
    data.TableFitter(['age'], ['age'])


def test_the_error_of_quantiles_is_as_stated():
  rng = np.random.default_rng(0)
  size, pieces = 64, 50
  found, every = sketch.Sketch(size), []
  for _ in range(pieces):
    values = np.sort(np.where(rng.random(400) < 0.3, 0, rng.normal(size=400)))
    every.append(values)
    found.add(*np.unique(values, return_counts=True))
  every = np.sort(np.concatenate(every))
  distinct, counts = found.summary()
  assert len(distinct) < 2 * size * 7
  assert counts.sum() == len(every)
  assert (np.diff(distinct) > 0).all()
  upto = np.cumsum(counts)
  exact = np.searchsorted(every, distinct, side='right')
  limit = np.ceil(np.log2(pieces)) / size * len(every)
  assert np.abs(upto - exact).max() <= limit
  zero = counts[distinct == 0]
  assert abs(zero - (every == 0).sum()) <= limit


def test_columns_of_every_kind(folder):
  files = data.ArrowFiles(folder / 'a.parquet')
  assert files.names == tuple(_table(1).column_names)
  first = files.read(0)
  assert isinstance(first['code'], Factor) and isinstance(first['city'], Factor)
  np.testing.assert_array_equal(first['row'], np.arange(70))
  assert np.isnan(first['weight'][::7]).all()
  assert first['since'].dtype == 'datetime64[us]'
  assert first['member'].values.dtype == bool
  nulls = pyarrow.table({'n': pyarrow.array([1, None, 3, None] * 8)})
  parquet.write_table(nulls, folder / 'nulls.pq')
  column = data.ArrowFiles(folder / 'nulls.pq').read(0)['n']
  assert tables.fit({'n': column}, {}).vocabularies == {'n': ('1', '3', 'nan')}
  (folder / 'nulls.pq').unlink()


def test_the_library_reads_the_same_from_arrow_files(tmp_path):
  """`data.ArrowFiles` has typed columns, of which tables make the same ids."""
  when = pd.date_range('2024-01-30', periods=9, freq='19h').to_numpy().copy()
  when[4] = 'NaT'
  times = pyarrow.array(when.astype('datetime64[us]'))
  hours = [datetime.time(i % 4, 30) for i in range(9)]
  columns = {
    'time': times, 'nano': times.cast('timestamp[ns]'),
    'zone': times.cast(pyarrow.timestamp('us', 'Asia/Tokyo')),
    'day': times.cast('date32', safe=False), 'hour': pyarrow.array(hours),
    'whole': pyarrow.array([*range(8), None]), 'large': [2**60 + i for i in range(9)],
    'flag': [True, None, False] * 3, 'text': ['007', None, ' 1.0'] * 3,
    'number': [0.5, None, 3.0] * 3, 'amount': [decimal.Decimal('0.25'), None, decimal.Decimal('2.50')] * 3,
    'kind': pyarrow.array(['a', None, 'b'] * 3).dictionary_encode(),
  }  # fmt: skip
  path = tmp_path / 'a.parquet'
  parquet.write_table(pyarrow.table(columns), path)
  dates = dict.fromkeys(('time', 'nano', 'zone', 'day'), '')
  found = []
  for table in arrow.read(path), data.ArrowFiles(path).read(0):
    fitter = data.TableFitter(
      ['hour', 'large', 'text', 'kind', 'whole', *(f'{n} as text' for n in dates)],
      ['number', 'amount'], booleans=['flag'], dates=dates,
      rules=tables.Rules(fill_missing=True),
    )  # fmt: skip
    table = {**table, **{f'{name} as text': table[name] for name in dates}}
    fitter.add(table)
    fitted = fitter.finish()
    found.append((fitted, fitted.encode(table)))
  (fitted, ours), (typed, theirs) = found
  assert fitted == typed and len(fitted.vocabularies['zone as text']) > 8
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.fixture(scope='module')
def source(folder, encode):
  return data.ArrowSource(
    data.ArrowFiles(folder), encode, chunk_rows=600, num_shards=8
  )


def test_no_row_of_files_is_lost_and_none_is_read_twice(folder, encode, source):
  assert (source.num_chunks, source.chunk_rows) == (3, 560)
  whole = encode(_whole(folder))
  seen = set()
  for epoch in range(4):
    chunks = [source.chunk(epoch, i, range(8)) for i in range(3)]
    found = jax.tree.map(lambda *x: np.concatenate(x), *chunks)
    rows = found.labels['row']
    assert len(np.unique(rows)) == len(rows) == 1680
    contracts.assert_trees_equal(
      found, jax.tree.map(lambda x, i=rows: x[i], whole)
    )
    seen |= set(rows.tolist())
  assert seen == set(range(1700))
  some = source.chunk(2, 1, [1, 7]).labels['row']
  chunk = source.chunk(2, 1, range(8)).labels['row']
  np.testing.assert_array_equal(
    some, np.concatenate([chunk[70:140], chunk[490:]])
  )
  rows = [piece.labels['row'] for piece in source.scan(range(8))]
  np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(1700))


def test_each_group_is_read_once_an_epoch(folder, encode):
  read = []

  class Spy(data.ArrowFiles):
    def read(self, group):
      read.append(group)
      return super().read(group)

  source = data.ArrowSource(Spy(folder), encode, chunk_rows=400)
  read.clear()
  for number in range(source.num_chunks):
    source.chunk(1, number, range(8))
  assert len(read) == len(set(read))


def test_files_that_changed_are_named(folder, encode, tmp_path):
  for name in ('a', 'b'):
    parquet.write_table(_table(100), tmp_path / f'{name}.parquet')
  files = data.ArrowFiles(tmp_path)
  source = data.ArrowSource(files, encode)
  path = tmp_path / 'b.parquet'
  content = path.read_bytes()
  old = path.stat()
  parquet.write_table(_table(100, 3), path)
  with pytest.raises(ValueError, match=f'{path} has changed since'):
    list(source.scan(range(8)))
  assert data.ArrowFiles(tmp_path).fingerprint != files.fingerprint
  path.write_bytes(content[:200] + b'\xff' * 400 + content[600:])
  os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
  with pytest.raises(ValueError, match=f'{path}'):
    list(source.scan(range(8)))
  path.unlink()
  with pytest.raises(ValueError, match=f'{path} is missing'):
    list(source.scan(range(8)))
  with pytest.raises(ValueError, match=r"has no columns \['x'\]"):
    data.ArrowFiles(tmp_path, ['x'])
  with pytest.raises(ValueError, match='names no file'):
    data.ArrowFiles(tmp_path / '*.pq')
  (tmp_path / 'a.parquet').write_bytes(b'')
  with pytest.raises(ValueError, match='a.parquet is empty, 0 bytes: expected'):
    data.ArrowFiles(tmp_path)
  (tmp_path / 'a.parquet').write_bytes(b'PAR1 but no more')
  with pytest.raises(ValueError, match='a.parquet cannot be read'):
    data.ArrowFiles(tmp_path)


def test_a_row_that_cannot_be_encoded_is_named(folder, encode):
  def strict(columns):
    weight = {'weight': columns['weight']}
    return lplmtl.Batch(tables.fit({}, weight).encode(weight), {})

  with pytest.raises(ValueError, match="a.parquet: column 'weight' .* row 0 "):
    data.ArrowSource(data.ArrowFiles(folder), strict)
  with pytest.raises(ValueError, match='found 1700 rows in 243 chunks'):
    data.ArrowSource(data.ArrowFiles(folder), encode, chunk_rows=7)


def test_what_cannot_be_a_table_is_named(tmp_path):
  path = tmp_path / 'a.csv'
  path.write_text('x,y\n1,2\n')
  with pytest.raises(ValueError, match=r'a\.csv is neither Parquet nor Arrow'):
    data.ArrowFiles(tmp_path / '*.csv')
  parquet.write_table(_table(9), tmp_path / 'a.parquet')
  parquet.write_table(_table(9).drop_columns(['code']), tmp_path / 'b.parquet')
  message = r"b\.parquet has no columns \['code'\] that .*a\.parquet has; found"
  with pytest.raises(ValueError, match=message):
    data.ArrowFiles(tmp_path)


@pytest.mark.parametrize(
  'change, message',
  [
    ('error', "encode fails: KeyError('city')"),
    ('rows', 'encode must return a row for each of 500 rows, found 499'),
    (
      'width',
      'must be like .*a.parquet, rows 0 to 69: expected float64[N, 1] at '
      '.features, found float64[N, 2]',
    ),
    ('list', 'encode fails: features must be arrays of shape [N, ...], found'),
  ],
)
def test_what_encode_does_wrong_is_named(folder, change, message):
  def encode(columns):
    weight = columns['weight'][:, None]
    if len(weight) == 500:  # b.parquet
      if change == 'error':
        raise KeyError('city')
      weight = {
        'rows': weight[1:],
        'width': np.repeat(weight, 2, axis=1),
        'list': weight[:, 0].tolist(),
      }[change]
    return lplmtl.Batch(weight, {})

  where = r'b\.parquet, rows 0 to 499'
  for a in '[]().':
    message = message.replace(a, f'\\{a}')
  message = message.replace('\\.*', '.*')
  source = data.ArrowSource(data.ArrowFiles(folder), encode)
  with pytest.raises(ValueError, match=f'{where}.*{message}'):
    list(source.scan(range(8)))
