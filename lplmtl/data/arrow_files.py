"""Files of Parquet, Feather and Arrow, read one row group after another."""

import glob
import hashlib
import importlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl.columns import Column
from lplmtl.data import arrow_columns
from lplmtl.storage import files

_ENDINGS = ('.parquet', '.pq', '.feather', '.arrow', '.ipc')
_PARQUET, _ARROW = b'PAR1', b'ARRO'  # the first four bytes of a file
# The end of a file says how long its groups are, and between which values: a
# file with other rows has another end.
_TAIL = 2**20


class _File(NamedTuple):
  """A file as it was when it was opened.

  Attributes:
    path: its path.
    stamp: its size, and when it was written to.
    tail: the digest of its end.
    rows: of each group.
    meta: Parquet's metadata, None for Arrow.
  """

  path: pathlib.Path
  stamp: tuple[int, int]
  tail: str
  rows: tuple[int, ...]
  meta: Any


class ArrowFiles:
  """The raw columns of a table in one file or many, all or some of them.

  Opening them reads only how many rows each group has. Needs PyArrow, the extra
  `tables`.

  Attributes:
    num_rows: of all files.
    rows: `[G]`, of each group: a row group of Parquet, a record batch of Arrow.
    names: of the columns.
    fingerprint: a digest of the names, sizes and ends of the files.
  """

  def __init__(
    self,
    paths: str | pathlib.Path | Sequence[str | pathlib.Path],
    columns: Sequence[str] | None = None,
  ):
    """Opens files.

    Args:
      paths: a file, a folder, a pattern such as `data/*.parquet`, or several.
      columns: those to read, None for all of the first file.

    Raises:
      ValueError: PyArrow is missing, there is no file, one cannot be read or
        lacks a column, or there are no rows.
    """
    self._pyarrow = _load('pyarrow')
    self._parquet = _load('pyarrow.parquet')
    self._ipc = _load('pyarrow.ipc')
    self.names: tuple[str, ...] = tuple(columns or ())
    self._first: pathlib.Path | None = None
    self._files = [self._open(path) for path in _find(paths)]
    self._places = [
      (file, group)
      for file, one in enumerate(self._files)
      for group in range(len(one.rows))
      if one.rows[group]
    ]
    rows = [self._files[file].rows[group] for file, group in self._places]
    self.rows: np.ndarray = np.array(rows, np.int64)
    self.num_rows = int(self.rows.sum())
    if not self.num_rows:
      raise ValueError(f'{self._files[0].path} and the like have no rows')
    self.fingerprint = hashlib.sha256(
      repr(
        [(f.path.name, f.stamp[0], f.tail) for f in self._files] + [self.names]
      ).encode()
    ).hexdigest()

  def read(self, group: int) -> dict[str, Column]:
    """Returns the columns of a group.

    Raises:
      ValueError: its file is missing, damaged, or has changed since it was
        opened; the message names it.
    """
    place, number = self._places[group]
    file = self._files[place]
    try:
      if _stamp(file.path) != file.stamp:
        raise ValueError(f'{file.path} has changed since it was opened')
      batch = self._group(file, number)
    except (OSError, self._pyarrow.ArrowException) as error:
      raise _unreadable(file.path, error) from error
    try:
      return {
        name: arrow_columns.of_array(name, batch[name], self._pyarrow)
        for name in self.names
      }
    except ValueError as error:
      raise ValueError(f'{file.path}: {error}') from error

  def place(self, group: int) -> tuple[pathlib.Path, int]:
    """Returns the file of a group, and its first row there."""
    file, number = self._places[group]
    one = self._files[file]
    return one.path, sum(one.rows[:number])

  def pieces(self) -> Iterator[dict[str, Column]]:
    """Yields the columns of each group, in order."""
    for group in range(len(self.rows)):
      yield self.read(group)

  def _open(self, path: pathlib.Path) -> _File:
    try:
      stamp = _stamp(path)
      with files.open_regular(path) as file:
        head = file.read(4)
        file.seek(max(stamp[0] - _TAIL, 0))
        tail = hashlib.sha256(file.read()).hexdigest()
      if not head:
        raise ValueError(
          f'{path} is empty, 0 bytes: expected a Parquet or Arrow file; write '
          'it again, or move it away'
        )
      if head == _PARQUET:
        meta = self._parquet.read_metadata(path)
        names = meta.schema.to_arrow_schema().names
        groups = range(meta.num_row_groups)
        rows = tuple(meta.row_group(i).num_rows for i in groups)
      elif head == _ARROW:
        meta, (names, rows) = None, self._arrow_rows(path)
      else:
        raise ValueError(
          f'{path} is neither Parquet nor Arrow (Feather 2): convert it, CSV '
          'with pyarrow.csv.read_csv and pyarrow.parquet.write_table'
        )
    except (OSError, self._pyarrow.ArrowException) as error:
      raise _unreadable(path, error) from error
    self._first = self._first or path
    self.names = self.names or tuple(names)
    missing = [name for name in self.names if name not in names]
    if missing:
      like = '' if path == self._first else f' that {self._first} has'
      raise ValueError(
        f'{path} has no columns {missing}{like}; found {[*names]}'
      )
    return _File(path, stamp, tail, rows, meta)

  def _arrow_rows(
    self, path: pathlib.Path
  ) -> tuple[list[str], tuple[int, ...]]:
    # One column is enough to count rows; the others stay packed.
    options = self._ipc.IpcReadOptions(included_fields=[0])
    with self._ipc.open_file(str(path), options=options) as reader:
      counts = (
        reader.get_batch(i).num_rows for i in range(reader.num_record_batches)
      )
      rows = tuple(counts)
    with self._ipc.open_file(str(path)) as reader:
      return reader.schema.names, rows

  def _group(self, file: _File, number: int) -> Any:
    """Returns `{name: pyarrow.Array}` of a group."""
    if file.meta is None:
      with self._ipc.open_file(str(file.path)) as reader:
        batch = reader.get_batch(number)
      return {name: batch.column(name) for name in self.names}
    with self._parquet.ParquetFile(
      file.path, metadata=file.meta, page_checksum_verification=True
    ) as reader:
      # In the calling thread: the others train meanwhile.
      table = reader.read_row_group(
        number, columns=list(self.names), use_threads=False
      )
    found = {}
    for name in self.names:
      array = table.column(name).combine_chunks()
      if isinstance(array, self._pyarrow.ChunkedArray):
        array = array.chunk(0)
      found[name] = array
    return found


def _load(name: str) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise ValueError(
      "to read Parquet needs PyArrow: pip install 'lplmtl[tables]'"
    ) from error


def _find(paths: Any) -> list[pathlib.Path]:
  """Returns the files that paths, folders and patterns stand for."""
  several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
  found: list[pathlib.Path] = []
  for given in several:
    path = os.path.expanduser(os.fspath(given))
    if os.path.isdir(path):
      inside = sorted(pathlib.Path(path).rglob('*'))
      found += [
        p for p in inside
        if p.suffix in _ENDINGS and not p.name.startswith(('.', '_'))
      ]  # fmt: skip
    elif os.path.exists(path):
      found.append(pathlib.Path(path))
    else:
      found += sorted(map(pathlib.Path, glob.glob(path)))
  if not found:
    raise ValueError(
      f'{several[0] if several else "an empty list"} names no file: expected '
      f'some that end in {", ".join(_ENDINGS)}'
    )
  return found


def _stamp(path: pathlib.Path) -> tuple[int, int]:
  found = path.stat()
  return found.st_size, found.st_mtime_ns


def _unreadable(path: pathlib.Path, error: Exception) -> ValueError:
  if isinstance(error, FileNotFoundError):
    return ValueError(f'{path} is missing')
  reason = ' '.join(str(error).split())
  return ValueError(f'{path} cannot be read: {reason:.200}')
