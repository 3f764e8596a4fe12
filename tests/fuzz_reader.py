"""Gives the reader thousands of corrupted files.

    python -m tests.fuzz_reader --count=10000 --flips=10000

Half of them are corrupted texts, half are corrupted archives of good texts. Each
must give what the slow reader gives, or one line of complaint that names the
file and, for a text, the line; within a minute, or the process is killed. Rows
come from the generated sample and, if $LPLMTL_CENSUS_DIR is set, from the real
file. Then single bits of a cache of parsed columns are flipped: no such cache may
be used, and none may cause an error.
"""

import collections
import faulthandler
import gzip
import io
import os
import pathlib
import tarfile
import tempfile
import zipfile

import numpy as np
from absl import app, flags

from experiments.datasets import cache
from experiments.datasets.census import columns, files, reader, sample
from experiments.launcher.errors import InputError
from tests import slow_reader

ODD_FIELDS = (
  '', ' ', '"', '"a', "'", '?', 'NA', 'nan', 'inf', '-inf', 'Infinity', '-1',
  '+2.5', '1e3', '1e999', '-1e999', '1_000', '0x10', '02', '2.0', '.5', '5.',
  '.', '1e', '1e+', 'e5', 'None', '#', '\\', 'a b ', '\t', '\r', '\x00',
  '\x7f', 'é', '50000+. ', '- 50000', '+-3', '1e+-3', '9' * 400, '٣',
  '"a,b"', '"a\nb"', '\ufeff', '\x1a', '1' + '0' * 5000,
)  # fmt: skip
ENCODINGS = ('utf-8-sig', 'utf-16', 'utf-32', 'cp037', 'utf-8')


def sample_lines(rows=60, seed=0):
  """Rows in the official format, as lists of fields."""
  table = sample.make(max(rows * 2, 100), seed).train
  factors = [table[c] for c in columns.COLUMNS]
  fields = [[_plain(v) for v in f.values[f.codes][:rows]] for f in factors]
  return [list(row) for row in zip(*fields, strict=True)]


def _plain(value):
  return f'{value:g}' if isinstance(value, float) else str(value)


def join(lines, end='\n'):
  """The content of a file."""
  return ''.join(', '.join(fields) + end for fields in lines).encode()


def spoil_text(lines, rng):
  """Corrupts fields, line ends, encodings and bytes; some only look wrong."""
  lines = [list(fields) for fields in lines]
  for _ in range(rng.integers(0, 4)):
    row = rng.integers(len(lines))
    column = rng.integers(0, 42)
    if column >= len(lines[row]):
      continue
    kind = rng.integers(0, 8)
    if kind <= 3:
      lines[row][column] = ODD_FIELDS[rng.integers(len(ODD_FIELDS))]
    elif kind == 4:
      del lines[row][column:]
    elif kind == 5:
      lines[row].insert(column, 'more')
    elif kind == 6:
      lines.insert(row, list(lines[rng.integers(len(lines))]))
    else:
      lines[row] = []
  end = rng.choice(['\n', '\r\n', '\r', '\n\n'], p=[0.8, 0.1, 0.05, 0.05])
  comma = rng.choice([', ', ',', ',   ', ';'], p=[0.8, 0.1, 0.08, 0.02])
  text = end.join(comma.join(fields) for fields in lines)
  text += rng.choice(['', '\n', '\n\n', '\r\n', '\x1a', ' '])
  encoding = 'utf-8' if rng.random() < 0.95 else rng.choice(ENCODINGS)
  content = text.encode(encoding, errors='replace')
  return spoil_bytes(content, rng) if rng.random() < 0.4 else content


def spoil_bytes(content, rng):
  """Flips, truncates, inserts or removes bytes; may leave none."""
  content = bytearray(content)
  for _ in range(rng.integers(1, 4)):
    if not content:
      break
    at = int(rng.integers(len(content)))
    kind = rng.integers(0, 6)
    if kind <= 1:
      content[at] ^= 1 << rng.integers(8)
    elif kind == 2:
      content[at] = rng.integers(256)
    elif kind == 3:
      content = content[:at]
    elif kind == 4:
      content[at:at] = rng.bytes(rng.integers(1, 9))
    else:
      content[at : at + int(rng.integers(1, 300))] = b''
  return bytes(content)


def compare(content):
  """Compares the reader with the slow one; returns how the case ended."""
  rows, line, complaint = slow_reader.read(content)
  try:
    table = reader.parse(content, 'FILE')
  except InputError as error:
    message = str(error)
    assert line, f'good rows refused: {message}'
    assert '\n' not in message and message.startswith('FILE'), message
    assert complaint in message, (message, complaint)
    assert complaint == 'empty' or f'line {line}:' in message, (message, line)
    return 'refused'
  assert not line, f'line {line} taken, though {complaint}'
  assert rows_of(table) == rows
  return 'read'


def rows_of(table):
  """A parsed table as `{column: value}` rows."""
  return [
    dict(zip(table, values, strict=True))
    for values in zip(*(f.values[f.codes] for f in table.values()), strict=True)
  ]


def tar(members):
  """A .tar.gz of `{name: content}`, without the time of day."""
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w') as archive:
    for name, content in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return gzip.compress(buffer.getvalue(), mtime=0)


def zipped(members, compression=zipfile.ZIP_DEFLATED):
  """A .zip of `{name: content}`."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', compression) as archive:
    for name, content in members.items():
      archive.writestr(zipfile.ZipInfo(name), content, compression)
  return buffer.getvalue()


def spoil_archive(content, folder, rng):
  """Writes an archive of a good text, mostly corrupted; returns its path."""
  name = files.SPLITS['train']
  inner = tar({'../names': b'', name: content})
  if rng.random() < 0.2:
    inner = spoil_bytes(inner, rng)
  packed = {
    name: content,
    f'{name}.gz': gzip.compress(content, mtime=0),
    files.INNER_ARCHIVE: inner,
    files.ARCHIVE: zipped({files.INNER_ARCHIVE: inner}),
  }
  chosen = rng.choice(sorted(packed))
  data = packed[chosen]
  if rng.random() < 0.8:
    data = spoil_bytes(data, rng)
  for path in folder.iterdir():
    path.unlink()
  (folder / chosen).write_bytes(data)
  return folder / chosen


def check_archive(content, folder, rng):
  """Checks that reading gives what the slow reader makes of the same bytes."""
  path = spoil_archive(content, folder, rng)
  try:
    source = files.unpack(path, files.read(path), 'train')
  except InputError as error:
    assert '\n' not in str(error), error
    assert str(path) in str(error), error
    return 'archive refused'
  if path.suffix in ('.gz', '.zip'):
    # These formats have checksums: what comes out is what went in, or nothing
    # at all (gzip accepts an empty file as one without content).
    assert source.content in (content, b''), path
  return compare(source.content)


def run(count, seed, lines, folder):
  """Runs `count` cases; counts how they ended."""
  found = collections.Counter()
  for number in range(count):
    rng = np.random.default_rng([seed, number])
    first = int(rng.integers(max(len(lines) - 8, 1)))
    some = lines[first : first + int(rng.integers(1, 8))]
    faulthandler.dump_traceback_later(60, exit=True)
    try:
      if number % 2:
        found[check_archive(join(some), folder, rng)] += 1
      else:
        found[compare(spoil_text(some, rng))] += 1
    except Exception as error:
      raise AssertionError(f'seed {seed}, case {number}') from error
    finally:
      faulthandler.cancel_dump_traceback_later()
  return found


def run_cache(count, seed, lines, folder):
  """Flips `count` bits of a cache, one at a time; counts how they ended."""
  table = reader.parse(join(lines), 'FILE')
  path, facts = folder / 'train-cache', {'rows': len(lines)}
  args = path, 'train', 'digest'
  cache.write(*args, table, facts)
  whole = path.read_bytes()
  assert rows_of(cache.read(*args)[0]) == rows_of(table)
  assert cache.read(path, 'test', 'digest') is None
  assert cache.read(path, 'train', 'other') is None
  rng = np.random.default_rng(seed)
  found = collections.Counter()
  # A third of them in the first headers, which are a small part of the bytes.
  at = rng.integers(8 * len(whole), size=count)
  at[::3] = rng.integers(8 * 2048, size=len(at[::3]))
  for position in at:
    spoiled = bytearray(whole)
    spoiled[position // 8] ^= 1 << position % 8
    path.write_bytes(spoiled)
    kept = cache.read(*args)
    found['read again' if kept is None else 'used'] += 1
  return found


def main(_):
  """Prints how the cases ended."""
  lines = sample_lines()
  if os.environ.get('LPLMTL_CENSUS_DIR'):
    real = pathlib.Path(os.environ['LPLMTL_CENSUS_DIR'])
    path = files.find(real, 'train')
    content = files.unpack(path, files.read(path), 'train').content
    text = content[: content.index(b'\n', 100_000)].decode()
    lines += [line.split(', ') for line in text.splitlines()]
  with tempfile.TemporaryDirectory() as folder:
    found = run(COUNT.value, SEED.value, lines, pathlib.Path(folder))
    flips = run_cache(FLIPS.value, SEED.value, lines, pathlib.Path(folder))
  print(f'{COUNT.value} cases, none of them a failure: {dict(found)}')
  print(f'{FLIPS.value} flipped bits of a cache: {dict(flips)}')
  assert not flips['used']


if __name__ == '__main__':
  COUNT = flags.DEFINE_integer('count', 10_000, 'Cases.', lower_bound=1)
  FLIPS = flags.DEFINE_integer('flips', 10_000, 'Bits.', lower_bound=0)
  SEED = flags.DEFINE_integer('seed', 0, 'Seed of the cases.')
  app.run(main)
