"""Finds the fields of whole rows of a CSV file, with NumPy.

Quoted fields may hold separators, line ends and doubled quotes, as in RFC 4180.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.datasets.tables.fields import MARGIN, Bytes, Fields
from experiments.launcher.errors import InputError

MAX_CELL = 2**17  # bytes, as in Python's csv module: no category is that long
LF, CR, QUOTE = b'\n'[0], b'\r'[0], b'"'[0]

Block = Sequence[Fields]  # the columns


class Place(NamedTuple):
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
    """Returns a complaint about a position in the content of the block."""
    line = self.line + content.count(b'\n', 0, position)
    return InputError(f'{self.file}, line {line}: {complaint}')

  def check_nul(self, content: bytes) -> None:
    """Raises InputError if there is a NUL byte."""
    position = content.find(b'\0')
    if position >= 0:
      raise self.error(
        position,
        'found a NUL byte, so this is not text (or it is UTF-16: pass '
        '--encoding=utf-16)',
        content,
      )

  def check_utf8(self, content: bytes) -> None:
    """Raises InputError unless the block is UTF-8."""
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
    """Raises InputError if a field is too long."""
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


def marks(content: bytes, separator: int) -> np.ndarray:
  """Returns where fields end."""
  text = np.frombuffer(content, np.uint8)
  are_marks = (text == separator) | (text == LF)
  if b'"' in content:
    are_marks &= ~np.logical_xor.accumulate(text == QUOTE)
  return np.flatnonzero(are_marks)


def find(
  content: bytes, separator: int, place: Place, num_fields: int
) -> Block | None:
  """Returns the fields of whole rows; None if there are only blank lines."""
  ends = marks(content, separator)
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
  rows = np.flatnonzero(text[ends + MARGIN] == LF)
  if b'\r' in content:
    is_crlf = text[ends[rows] + MARGIN - 1] == CR
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
    last = rows[wrong]
    start = int(starts[last - counts[wrong] + 1])
    has_cr = b'\r' in content[start : starts[last] + size[last]]
    note = ' (it holds a carriage return, which ends no line)' if has_cr else ''
    raise place.error(
      start,
      f'expected {num_fields} fields, as in the lines above, found '
      f'{counts[wrong]}: correct the line{note}, or pass the right --separator',
      content,
    )
  starts = starts.reshape(-1, num_fields).T + MARGIN
  size = size.reshape(-1, num_fields).T
  starts = np.ascontiguousarray(starts)
  ends = starts + size
  doubled = None
  if b'"' in content:
    starts, ends, doubled = _unquoted(text, starts, ends)
  return columns(text, starts, ends, doubled)


def columns(
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
  is_quoted = (text[starts] == QUOTE) & (ends - starts >= 2)
  starts, ends = starts + is_quoted, ends - is_quoted
  before = np.zeros(len(text) + 1, np.int32)  # how many quotes stand before
  before[1:] = np.cumsum(text == QUOTE)
  doubled = is_quoted & (before[ends] > before[starts])
  return starts, ends, doubled if doubled.any() else None
