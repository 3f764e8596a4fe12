"""Reads a table from files: CSV, Parquet, Feather or Arrow.

Columns are Factors of texts, or `[N]` float64 where every text is a plain
number; see `values`. What is missing, or a date, is not decided here.
"""

import functools
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

from experiments.datasets import cache
from experiments.datasets.tables import (
  blocks,
  dialect,
  header,
  memory,
  opening,
  parts,
  sources,
)
from experiments.datasets.tables.splitting import Block
from experiments.datasets.tables.values import Growing, Looked
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import _threads
from lplmtl import columns as raw
from lplmtl.columns import Column, Factor

Columns = Mapping[str, Column]
Job = Callable[[], Block | None]
_Out = TypeVar('_Out')
# Settings on which the columns of a CSV file depend.
_SETTINGS = ('separator', 'encoding', 'decimal', 'column_names')


class Table(NamedTuple):
  """A table as read.

  Attributes:
    columns: by name.
    facts: JSON data: `file`, `rows`, `sha256`, and `format`, for people; of
      several files also `parts`, see `parts.of`.
  """

  columns: dict[str, Column]
  facts: dict[str, Any]


class Piece(NamedTuple):
  """Some rows of a file.

  Attributes:
    columns: by name.
    file: its name; '' for standard input.
    first: the number of the first row in it.
  """

  columns: Columns
  file: str
  first: int


def read(
  config: Config,
  missing: Sequence[str],
  flag: str = 'data',
  later: futures.Executor | None = None,
) -> Table:
  """Reads a table.

  Args:
    config: names the files and says how they are written.
    missing: texts that mean "missing" in a column of numbers.
    flag: the setting that names the files: `data` or `test_data`.
    later: writes the cache, while the table is made use of; None has it written
      before.

  Raises:
    InputError: a file is missing, damaged or malformed, or files have other
      columns than the first.
  """
  data = getattr(config, flag)
  if data == sources.STDIN:
    table = _read_stdin(config, missing)
    _check_rows(table)
    return table
  paths = sources.find(flag, data)
  sources.warn_of_types(paths)
  kept = cache.path_of(os.path.abspath(data), 'table')
  digests: list[str] = []
  if kept and kept.exists():  # else files are hashed while they are read
    digests = sources.digests(paths)
    found = cache.read(kept, 'table', _key(digests, config, missing))
    if found is not None:
      columns, facts = found
      counts = [part.get('rows', 0) for part in facts.get('parts', ())]
      # Of an earlier release, several files have no parts.
      if len(paths) == max(len(counts), 1):
        return Table(columns, {**facts, **parts.of(paths, digests, counts)})
  tables = [_read(path, config, missing) for path in paths]
  columns = parts.joined(paths, [table.columns for table in tables])
  memory.give_back()  # what blocks took
  counts = [table.facts['rows'] for table in tables]
  was, digests = digests, [table.facts['sha256'] for table in tables]
  name = paths[0].name if len(paths) == 1 else f'{data}, {len(paths)} files'
  facts = {
    **tables[0].facts, 'file': name, 'rows': sum(counts),
    'sha256': sources.digest(digests), **parts.of(paths, digests, counts),
  }  # fmt: skip
  _check_rows(Table(columns, facts))
  for path, before, now in zip(paths, was, digests, strict=False):
    if before != now:
      raise sources.changed(path)
  if kept:
    key = _key(digests, config, missing)
    # A copy, as the caller may take columns out.
    arguments = kept, 'table', key, dict(columns), facts
    if later:
      later.submit(cache.write, *arguments)
    else:
      cache.write(*arguments)
  return Table(columns, facts)


def _key(digests: list[str], config: Config, missing: Sequence[str]) -> str:
  """Returns what the columns of a table depend on."""
  settings = [getattr(config, name) for name in _SETTINGS]
  return f'{sources.digest(digests)} {json.dumps([list(missing), *settings])}'


def _check_rows(table: Table) -> None:
  if not table.facts['rows']:
    raise InputError(
      f'{table.facts["file"]}: expected rows below the header, found none'
    )


def blocks_of(config: Config, missing: Sequence[str]) -> Iterator[Piece]:
  """Reads a table block by block; a table without rows is one empty block.

  The same text is the same value as in a table that is read as a whole.

  Raises:
    InputError: as for `read`.
  """
  if config.data == sources.STDIN:
    paths: list[pathlib.Path | None] = [None]
  else:
    paths = list(sources.find('data', config.data))
  names = parts.names([path for path in paths if path]) or ['']
  first: Columns | None = None
  for path, name in zip(paths, names, strict=True):
    before = 0
    for columns in _blocks_of(path, config, missing):
      # A file without rows may have no columns, either.
      if path and first is not None and num_rows(columns):
        parts.check_columns(path, columns, cast(pathlib.Path, paths[0]), first)
      first = first or columns
      yield Piece(columns, name, before)
      before += num_rows(columns)


def _blocks_of(
  path: pathlib.Path | None, config: Config, missing: Sequence[str]
) -> Iterator[Columns]:
  if path and path.suffix.lower() in sources.ARROW:
    yield from sources.arrow(path).blocks(path)
    return
  name = str(path) if path else 'standard input'
  with opening.opened(path) as stream:
    written, decoded = _sniffed(stream, config, name)
    names, jobs = _blocks(decoded, written, config.column_names, name)

    def columns(job: Job) -> Columns | None:
      block = job()
      if not block:
        return None
      growing = [Growing(missing, written.point) for _ in names]
      for column, fields in zip(growing, block, strict=True):
        column.add(column.look(fields))
      return dict(zip(names, (c.finish() for c in growing), strict=True))

    yield from filter(None, _ahead(columns, jobs))


def _read(path: pathlib.Path, config: Config, missing: Sequence[str]) -> Table:
  """Reads a file; its `sha256` is that of the bytes that were read."""
  if path.suffix.lower() not in sources.ARROW:
    with opening.hashed(path) as (stream, source):
      columns, facts = _parsed(stream, config, missing, str(path))
      return Table(columns, {**facts, 'sha256': source.hexdigest()})
  (digest,) = sources.digests([path])
  columns = sources.arrow(path).read(path)
  if sources.digests([path]) != [digest]:
    raise sources.changed(path)
  facts = {'rows': num_rows(columns), 'format': path.suffix[1:]}
  return Table(columns, {**facts, 'sha256': digest})


def _read_stdin(config: Config, missing: Sequence[str]) -> Table:
  """Reads standard input; its `sha256` is that of the text."""
  with opening.opened(None) as text:
    stream = opening.Hashed(text)
    columns, facts = _parsed(
      cast(BinaryIO, stream), config, missing, 'standard input'
    )
    return Table(columns, {**facts, 'sha256': stream.hexdigest()})


def _parsed(
  stream: BinaryIO, config: Config, missing: Sequence[str], name: str
) -> Table:
  """Parses the text of a CSV file."""
  written, decoded = _sniffed(stream, config, name)
  names, jobs = _blocks(decoded, written, config.column_names, name)
  growing = [Growing(missing, written.point) for _ in names]

  def look(job: Job) -> list[Looked]:
    pairs = zip(growing, job() or (), strict=False)
    return [column.look(fields) for column, fields in pairs]

  rows = 0
  for block in filter(None, _ahead(look, jobs)):
    for column, looked in zip(growing, block, strict=True):
      column.add(looked)
    rows += len(block[0].fields)
  columns: dict[str, Column] = {}
  if rows:
    columns = {n: c.finish() for n, c in zip(names, growing, strict=True)}
  return Table(columns, {'file': name, 'rows': rows, 'format': str(written)})


def _sniffed(
  stream: BinaryIO, config: Config, name: str
) -> tuple[dialect.Dialect, dialect.Decoded]:
  """Returns how a stream is written, and the stream as UTF-8."""
  sample = stream.read(dialect.SAMPLE)
  while len(sample) < dialect.SAMPLE and (more := stream.read(dialect.SAMPLE)):
    sample += more
  if not sample.strip():
    raise InputError(f'{name}: expected a table, found an empty file')
  for mark, kind in ((b'PAR1', '.parquet'), (b'ARROW1', '.arrow')):
    if sample.startswith(mark):
      raise InputError(f'{name}: let its name end in {kind}, as it is one')
  is_whole = len(sample) < dialect.SAMPLE
  written = dialect.find(sample, is_whole, config, name)
  again = dialect.Decoded(sample, stream, written.encoding, name)
  return written, again


def _blocks(
  stream: dialect.Decoded,
  written: dialect.Dialect,
  names: Sequence[str],
  file: str,
) -> tuple[Sequence[str], Iterator[Job]]:
  """Returns the names of the columns, and what splits blocks of rows."""
  text = cast(BinaryIO, stream)
  jobs = blocks.jobs(text, written.separator, file, _quick())
  first = next(filter(None, (job() for job in jobs)), None)
  if first is None:
    raise InputError(f'{file}: expected a table, found an empty file')
  tops = [column.as_bytes().take(slice(1)) for column in first]
  first_row = [top.texts()[0].strip() for top in tops]
  if names:
    header.check_names(names, first_row, file)
  else:
    names, first = (
      header.names_of(first_row, file),
      [column.skip(1) for column in first],
    )
  return names, itertools.chain([lambda: first], jobs)


def _ahead(
  function: Callable[[Job], _Out], jobs: Iterator[Job]
) -> Iterator[_Out]:
  """Returns what a function makes of blocks; threads call it."""
  return _threads.ahead(functools.partial(function, job) for job in jobs)


def _quick() -> blocks.Split | None:
  """Returns what splits rows with PyArrow; None without it."""
  module = sources.with_pyarrow('quick')
  return module.Splitter() if module else None


def values(columns: Columns) -> dict[str, Any]:
  """Returns columns as lists of texts, and arrays of numbers."""
  found: dict[str, Any] = dict(columns)
  for name, column in columns.items():
    if isinstance(column, Factor):
      texts = [raw.text_of(value) for value in column.values]
      found[name] = [texts[code] for code in column.codes.tolist()]
  return found


def num_rows(columns: Columns) -> int:
  """Returns the number of rows of a table."""
  column = next(iter(columns.values()), ())
  return len(column.codes if isinstance(column, Factor) else column)
