"""Reads Parquet, Feather and Arrow files; writes Parquet.

Columns are as of a CSV file: texts, also those of dates, and float64, so that
files of any kind can be read together, and blocks of one column are alike.
`lplmtl.data.ArrowFiles` has typed columns; tables encode both to the same.

Needs PyArrow, the extra `tables`: import this module through `sources.arrow`.
"""

import contextlib
import io
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow
from pyarrow import compute, feather, ipc, parquet, types

from experiments.launcher.errors import InputError
from lplmtl.columns import Column, Factor

_KINDS = {
  'number': (types.is_integer, types.is_floating, types.is_decimal),
  'text': (types.is_string, types.is_large_string, types.is_string_view),
  'time': (types.is_temporal,),
}
_EXACT = 2**53  # float64 holds every whole number up to here


def read(path: pathlib.Path) -> dict[str, Column]:
  """Returns the columns of a file.

  Raises:
    InputError: PyArrow is missing, the file is damaged, or a column holds
      something other than texts, numbers, times or booleans.
  """
  with _damage(path):
    return _columns(path, _table(path))


def blocks(path: pathlib.Path) -> Iterator[dict[str, Column]]:
  """Yields the columns of each row group, or record batch, of a file.

  Raises:
    InputError: as for `read`.
  """
  with _damage(path):
    head = _head(path)
    if head.startswith(b'PAR1'):
      with parquet.ParquetFile(path, page_checksum_verification=True) as stored:
        for group in range(stored.num_row_groups):
          yield _columns(path, stored.read_row_group(group, use_threads=False))
        if not stored.num_row_groups:
          yield _columns(path, stored.read())
    elif head.startswith((b'ARROW1', b'FEA1')) and _has_batches(path):
      with ipc.open_file(str(path)) as stored:
        for i in range(stored.num_record_batches):
          batch = stored.get_batch(i)
          yield _columns(path, pyarrow.Table.from_batches([batch]))
    else:
      yield _columns(path, _table(path))


def warn_of_types(paths: Sequence[pathlib.Path]) -> None:
  """Warns of columns that are numbers in one file and texts in another.

  Such as postcodes, where 02885 and 2885 would become two categories. Numbers
  of all types are alike, as are texts, categories among them, and a column
  without values fits all.

  Raises:
    InputError: a file is damaged.
  """
  first: dict[str, tuple[str, pathlib.Path, Any]] = {}
  told = set()
  for path in paths:
    with _damage(path):
      fields = _fields(path)
    for field in fields:
      kind = _kind(field.type)
      if not kind:
        continue
      known, other, written = first.setdefault(
        field.name, (kind, path, field.type)
      )
      if kind != known and field.name not in told:
        told.add(field.name)
        warnings.warn(
          f'column {field.name!r} holds {field.type} in {path}, but {written} '
          f'in {other}: all are read as texts, so that what is written as '
          '02885 here and 2885 there makes two values; write the files with '
          'one type',
          stacklevel=2,
        )


def _fields(path: pathlib.Path) -> Iterable[Any]:
  """Returns the fields of a file; none of a format that tells them late."""
  head = _head(path)
  if head.startswith(b'PAR1'):
    return list(parquet.read_schema(path))
  if head.startswith(b'ARROW1'):
    with ipc.open_file(str(path)) as stored:
      return list(stored.schema)
  return ()


def _kind(kind: Any) -> str:
  """Returns what values of a type are; '' if there are none."""
  if types.is_dictionary(kind):
    kind = kind.value_type
  if types.is_null(kind):
    return ''
  for name, is_kind in _KINDS.items():
    if any(test(kind) for test in is_kind):
      return name
  return str(kind)


def _head(path: pathlib.Path) -> bytes:
  """Returns the first bytes of a file, which tell its format."""
  with open(path, 'rb') as file:
    head = file.read(6)
  if not head:
    raise InputError(
      f'{path}: expected a table, found an empty file (0 bytes): write it '
      'again, or move it away'
    )
  return head


def _has_batches(path: pathlib.Path) -> bool:
  """Whether a Feather file is of the second version, and has rows."""
  try:
    with ipc.open_file(str(path)) as stored:
      return bool(stored.num_record_batches)
  except pyarrow.ArrowInvalid:
    return False


@contextlib.contextmanager
def _damage(path: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except (OSError, pyarrow.ArrowException) as error:
    reason = ' '.join(str(error).split())
    raise InputError(f'{path}: cannot be read ({reason:.200})') from error


def _columns(path: pathlib.Path, table: Any) -> dict[str, Column]:
  names = table.column_names
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise InputError(f'{path}: column names must differ, found {twice} twice')
  return {
    name: _column(path, name, table.column(name).combine_chunks())
    for name in names
    if not name.startswith('__index_level_')  # the index of a DataFrame
  }


def _table(path: pathlib.Path) -> Any:
  head = _head(path)
  if head.startswith(b'PAR1'):
    return parquet.read_table(
      path, partitioning=None, page_checksum_verification=True
    )
  if head.startswith((b'ARROW1', b'FEA1')):
    return feather.read_table(path)
  # Arrow's streaming format, which has no mark of its own.
  with ipc.open_stream(path.read_bytes()) as stream:
    return stream.read_all()


def _column(path: pathlib.Path, name: str, array: Any) -> Column:
  if types.is_dictionary(array.type):
    array = array.cast(array.type.value_type)
  kind = array.type
  if types.is_floating(kind) or types.is_integer(kind) or types.is_null(kind):
    has_whole = types.is_integer(kind) and len(array) > array.null_count
    ends = compute.min_max(array).as_py().values() if has_whole else ()
    if all(abs(end) < _EXACT for end in ends):
      numbers = array.cast('float64').to_numpy(zero_copy_only=False)
      return np.asarray(numbers, np.float64)
  elif types.is_decimal(kind):
    return np.asarray(
      array.cast('float64').to_numpy(zero_copy_only=False), np.float64
    )
  if types.is_nested(kind) or types.is_binary(kind):
    raise InputError(
      f'{path}: column {name!r} holds {kind}: expected texts, numbers, times '
      'or booleans; leave it out of the file'
    )
  encoded = array.dictionary_encode(null_encoding='encode')
  if isinstance(encoded, pyarrow.ChunkedArray):
    encoded = encoded.combine_chunks()
  values = [
    '' if value is None else _text(value)
    for value in encoded.dictionary.to_pylist()
  ]
  codes = encoded.indices.to_numpy(zero_copy_only=False)
  return Factor(codes, np.array(values, object))


def _text(value: Any) -> str:
  """Returns the text of a value; of a time, as in ISO 8601."""
  return value.isoformat() if hasattr(value, 'isoformat') else str(value)


def write(blocks: Iterable[Mapping[str, Any]]) -> bytes:
  """Returns the content of a Parquet file with the rows of all blocks."""
  parts = [
    pyarrow.table({k: pyarrow.array(list(v)) for k, v in columns.items()})
    for columns in blocks
  ]
  out = io.BytesIO()
  parquet.write_table(pyarrow.concat_tables(parts), out)
  return out.getvalue()
