"""Splits the text of a CSV file into blocks of whole rows and finds the fields.

Works block by block: the first bad line ends it, however much text follows, and
the memory needed is that of one block. Quoted fields may hold separators, line
ends and doubled quotes, as in RFC 4180.
"""

import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from experiments.datasets.tables.fields import MARGIN, Bytes, Fields
from experiments.launcher.errors import InputError

# Bytes per block: large enough to hide NumPy's cost per call, small enough that
# a block and its index stay in a processor's cache.
BLOCK = 2**21
MAX_CELL = 2**17  # bytes, as in Python's csv module: no category is that long
LOOSE_ROWS = 10_000  # rows per block of a file with loose quotes
_LF, _CR, _QUOTE = b'\n'[0], b'\r'[0], b'"'[0]


Block = Sequence[Fields]  # the columns
# Takes whole rows, the separator and K, which is 0 in the first block.
Split = Callable[[bytes, str, int], Block | None]


def read(
  stream: BinaryIO, separator: str, file: str, split: Split | None = None
) -> Iterator[Block]:
  """Reads blocks of rows; blank lines are left out.

  Args:
    stream: UTF-8 text.
    separator: an ASCII character.
    file: what to call it in messages.
    split: splits whole rows faster, and returns None at any doubt.

  Raises:
    InputError: a row has another number of fields, a field is too long, or the
      text is not UTF-8 or has NUL bytes. The message names the line.
  """
  rest, line, is_last = b'', 1, False
  num_fields = 0  # K; 0 until the first row
  while not is_last:
    more = stream.read(BLOCK)
    is_last = not more
    content = rest + more
    if is_last and content and not content.endswith(b'\n'):
      content += b'\n'
    place = _Place(file, line)
    place.check_nul(content)
    quotes = _quotes(content)
    if quotes is not None and _are_loose(content, quotes, ord(separator)):
      yield from _loose(content, stream, separator, place, num_fields)
      return
    cut = _end_of_rows(content, quotes)
    rows, rest = content[:cut], content[cut:]
    line += int(np.count_nonzero(np.frombuffer(rows, np.uint8) == _LF))
    if len(rest) > MAX_CELL:
      ends = _marks(rest, ord(separator))
      _Place(file, line).check_lengths(rest, ends)
    if is_last and rest:
      raise place.error(0, 'a quote is not closed')
    place.check_utf8(rows)
    block = split(rows, separator, num_fields) if split else None
    block = block or _fields(rows, ord(separator), place, num_fields)
    if block:
      num_fields = len(block)
      yield block


class _Place(NamedTuple):
  """Where a block begins.

  Attributes:
    file: what to call it.
    line: its first line, counted from 1.
  """

  file: str
  line: int

  def error(
    self, position: int, complaint: str, content: bytes = b''
  ) -> InputError:
    line = self.line + content.count(b'\n', 0, position)
    return InputError(f'{self.file}, line {line}: {complaint}')

  def check_nul(self, content: bytes) -> None:
    position = content.find(b'\0')
    if position >= 0:
      raise self.error(
        position,
        'found a NUL byte, so this is not text (or it is UTF-16: pass '
        '--encoding=utf-16)',
        content,
      )

  def check_utf8(self, content: bytes) -> None:
    if content.isascii():
      return
    try:
      content.decode()
    except UnicodeDecodeError as error:
      raise self.error(
        error.start,
        f'expected UTF-8, found byte 0x{content[error.start]:02x}: pass the '
        "file's --encoding, such as cp1252",
        content,
      ) from error

  def check_lengths(self, content: bytes, ends: np.ndarray) -> None:
    lengths = np.diff(ends, prepend=-1, append=len(content)) - 1
    if lengths.max() > MAX_CELL:
      long = int(np.argmax(lengths > MAX_CELL))
      start = int(ends[long - 1]) + 1 if long else 0
      raise self.error(
        start,
        f'expected at most {MAX_CELL:,} bytes in a field, found more (or a '
        'quote that is not closed)',
        content,
      )


def _quotes(content: bytes) -> np.ndarray | None:
  """Returns where quotes are; None if nowhere."""
  if b'"' not in content:
    return None
  return np.flatnonzero(np.frombuffer(content, np.uint8) == _QUOTE)


def _end_of_rows(content: bytes, quotes: np.ndarray | None) -> int:
  """Returns where the last row ends: behind a line end outside of quotes."""
  end = content.rfind(b'\n') + 1
  while end and quotes is not None:
    before = int(np.searchsorted(quotes, end))
    if before % 2 == 0:
      break
    end = content.rfind(b'\n', 0, int(quotes[before - 1])) + 1
  return end


def _marks(content: bytes, separator: int) -> np.ndarray:
  """Returns where fields end."""
  text = np.frombuffer(content, np.uint8)
  marks = (text == separator) | (text == _LF)
  if b'"' in content:
    marks &= ~np.logical_xor.accumulate(text == _QUOTE)
  return np.flatnonzero(marks)


def _are_loose(content: bytes, quotes: np.ndarray, separator: int) -> bool:
  """Whether a quote stands elsewhere than around a field, or doubled in one."""
  text = np.frombuffer(content, np.uint8)
  opening, closing = quotes[::2], quotes[1::2]
  before = text[np.maximum(opening - 1, 0)]
  is_start = (opening == 0) | (before == separator) | (before == _LF)
  is_start[1:] |= opening[1:] == closing[: len(opening) - 1] + 1
  after = text[np.minimum(closing + 1, len(text) - 1)]
  is_end = (closing == len(text) - 1) | (after == separator)
  is_end |= (after == _LF) | (after == _CR) | (after == _QUOTE)
  return not (is_start.all() and is_end.all())


def _fields(
  content: bytes, separator: int, place: _Place, num_fields: int
) -> Block | None:
  """Returns the fields of whole rows; None if there are only blank lines."""
  ends = _marks(content, separator)
  if not len(ends):
    return None
  place.check_lengths(content, ends)
  text = np.frombuffer(
    b'%b%b%b' % (bytes(MARGIN), content, bytes(MARGIN)), np.uint8
  )
  starts = np.empty_like(ends)
  starts[:1], starts[1:] = 0, ends[:-1] + 1
  size = ends - starts
  # The last field of each row.
  rows = np.flatnonzero(text[ends + MARGIN] == _LF)
  if b'\r' in content:
    is_crlf = text[ends[rows] + MARGIN - 1] == _CR
    size[rows] -= is_crlf & (size[rows] > 0)
  counts = np.diff(rows, prepend=-1)
  is_blank = (counts == 1) & (size[rows] == 0)
  if is_blank.any():
    starts, size = (np.delete(x, rows[is_blank]) for x in (starts, size))
    counts = counts[~is_blank]
    rows = np.cumsum(counts) - 1
  if not len(rows):
    return None
  num_fields = num_fields or int(counts[0])
  if (counts != num_fields).any():
    wrong = int(np.argmax(counts != num_fields))
    start = int(starts[rows[wrong] - counts[wrong] + 1])
    raise place.error(
      start,
      f'expected {num_fields} fields, as in the lines above, found '
      f'{counts[wrong]}: correct the line, or pass the right --separator',
      content,
    )
  starts = starts.reshape(-1, num_fields).T + MARGIN
  size = size.reshape(-1, num_fields).T
  starts = np.ascontiguousarray(starts)
  ends = starts + size
  doubled = None
  if b'"' in content:
    starts, ends, doubled = _unquoted(text, starts, ends)
  return _columns(text, starts, ends, doubled)


def _columns(
  text: np.ndarray,
  starts: np.ndarray,
  ends: np.ndarray,
  doubled: np.ndarray | None = None,
) -> Block:
  """Returns the columns of fields that are `[K, N]`."""
  return [
    Bytes(text, starts[k], ends[k], None if doubled is None else doubled[k])
    for k in range(len(starts))
  ]


def _unquoted(
  text: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
  """Returns where fields begin and end inside their quotes; see `Bytes`."""
  is_quoted = (text[starts] == _QUOTE) & (ends - starts >= 2)
  starts, ends = starts + is_quoted, ends - is_quoted
  before = np.zeros(len(text) + 1, np.int32)  # how many quotes stand before
  before[1:] = np.cumsum(text == _QUOTE)
  doubled = is_quoted & (before[ends] > before[starts])
  return starts, ends, doubled if doubled.any() else None


def _loose(
  content: bytes,
  stream: BinaryIO,
  separator: str,
  place: _Place,
  num_fields: int,
) -> Iterator[Block]:
  """Reads the rest of a file as Python's csv module does, more slowly.

  A quote inside a field that does not begin with one is an ordinary character.
  """
  reader = csv.reader(_lines(content, stream, place), delimiter=separator)

  def rows() -> Iterator[list[str]]:
    nonlocal num_fields
    line = 0
    try:
      for row in reader:
        if row:
          num_fields = num_fields or len(row)
          if len(row) != num_fields:
            raise InputError(
              f'{place.file}, line {place.line + line}: expected {num_fields} '
              f'fields, as in the lines above, found {len(row)}: correct the '
              'line, or pass the right --separator'
            )
          yield row
        line = reader.line_num
    except csv.Error as error:
      raise InputError(
        f'{place.file}, line {place.line + line}: {error}'
      ) from error

  every = rows()
  while some := list(itertools.islice(every, LOOSE_ROWS)):
    cells = [cell.encode() for row in some for cell in row]
    lengths = np.fromiter(map(len, cells), np.int64, len(cells))
    ends = np.cumsum(lengths) + MARGIN
    text = np.frombuffer(
      bytes(MARGIN) + b''.join(cells) + bytes(MARGIN), np.uint8
    )
    starts, ends = (
      np.ascontiguousarray(x.reshape(-1, num_fields).T)
      for x in (ends - lengths, ends)
    )
    yield _columns(text, starts, ends)


def _lines(content: bytes, stream: BinaryIO, place: _Place) -> Iterator[str]:
  while content:
    end = content.rfind(b'\n') + 1
    place.check_nul(content)
    place.check_utf8(content[:end])
    yield from content[:end].decode().splitlines(keepends=True)
    place = place._replace(line=place.line + content.count(b'\n', 0, end))
    rest = content[end:]
    if len(rest) > 2 * MAX_CELL:
      place.check_lengths(rest, np.array([], np.int64))
    more = stream.read(BLOCK)
    content = rest + more
    if rest and not more:
      content += b'\n'
