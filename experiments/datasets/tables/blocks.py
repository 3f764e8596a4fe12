"""Splits the text of a CSV file into blocks of whole rows and finds the fields.

Works block by block: the first bad line ends it, however much text follows, and
the memory needed is that of one block. Quoted fields may hold separators, line
ends and doubled quotes, as in RFC 4180.
"""

import csv
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from experiments.datasets.tables import splitting
from experiments.datasets.tables.fields import MARGIN
from experiments.datasets.tables.splitting import (
  CR,
  LF,
  MAX_CELL,
  QUOTE,
  Block,
  Place,
)
from experiments.launcher.errors import InputError

# Bytes per block: large enough to hide the cost of a call, and of looking up
# the same texts again; small enough that a few of them are little memory.
BLOCK = 2**22
LOOSE_ROWS = 10_000  # rows per block of a file with loose quotes


class Split(Protocol):
  """Splits rows faster than `read` does without it."""

  def __call__(
    self, content: bytes, separator: str, num_fields: int
  ) -> Block | None:
    """Splits whole rows; returns None at any doubt.

    Args:
      content: the rows.
      separator: an ASCII character.
      num_fields: K; 0 in the first block.
    """

  def after(self, first: Block) -> 'Split':
    """Returns what splits the blocks that follow the first."""


class _Form(NamedTuple):
  """What the blocks of a file have in common.

  Attributes:
    separator: a byte.
    num_fields: K; 0 until the first row.
    split: see `read`.
  """

  separator: str
  num_fields: int
  split: Split | None

  def after(self, first: Block) -> '_Form':
    split = self.split and self.split.after(first)
    return _Form(self.separator, len(first), split)

  def block(self, rows: bytes, place: Place) -> Block | None:
    """Returns the fields of whole rows; None if there are only blank lines."""
    place.check_utf8(rows)
    split, k = self.split, self.num_fields
    block = split(rows, self.separator, k) if split else None
    return block or splitting.find(rows, ord(self.separator), place, k)


def jobs(
  stream: BinaryIO, separator: str, file: str, split: Split | None = None
) -> Iterator[Callable[[], Block | None]]:
  """Reads blocks of rows; blank lines are left out.

  Args:
    stream: UTF-8 text.
    separator: an ASCII character.
    file: what to call it in messages.
    split: splits whole rows faster.

  Returns:
    For each block a function that splits it, also in a thread, while the next
    block is read; None if it has no row.

  Raises:
    InputError: a row has another number of fields, a field is too long, or the
      text is not UTF-8 or has NUL bytes. The message names the line.
  """
  form = _Form(separator, 0, split)
  rest, line, is_last = b'', 1, False
  while not is_last:
    more = stream.read(BLOCK)
    is_last = not more
    content = rest + more
    if is_last and content and not content.endswith(b'\n'):
      content += b'\n'
    place = Place(file, line)
    place.check_nul(content)
    quotes = _quotes(content)
    if quotes is not None and _are_loose(content, quotes, ord(separator)):
      loose = _loose(content, stream, separator, place, form.num_fields)
      yield from (functools.partial(_same, block) for block in loose)
      return
    cut = _end_of_rows(content, quotes)
    rows, rest = content[:cut], content[cut:]
    line += int(np.count_nonzero(np.frombuffer(rows, np.uint8) == LF))
    if len(rest) > MAX_CELL:
      ends = splitting.marks(rest, ord(separator))
      Place(file, line).check_lengths(rest, ends)
    if is_last and rest:
      raise place.error(0, 'a quote is not closed')
    if form.num_fields:
      yield functools.partial(form.block, rows, place)
    elif first := form.block(rows, place):
      form = form.after(first)
      yield functools.partial(_same, first)


def _same(block: Block) -> Block:
  return block


def _quotes(content: bytes) -> np.ndarray | None:
  """Returns where quotes are; None if nowhere."""
  if b'"' not in content:
    return None
  return np.flatnonzero(np.frombuffer(content, np.uint8) == QUOTE)


def _end_of_rows(content: bytes, quotes: np.ndarray | None) -> int:
  """Returns where the last row ends: behind a line end outside of quotes."""
  end = content.rfind(b'\n') + 1
  while end and quotes is not None:
    before = int(np.searchsorted(quotes, end))
    if before % 2 == 0:
      break
    end = content.rfind(b'\n', 0, int(quotes[before - 1])) + 1
  return end


def _are_loose(content: bytes, quotes: np.ndarray, separator: int) -> bool:
  """Whether a quote stands elsewhere than around a field, or doubled in one."""
  text = np.frombuffer(content, np.uint8)
  opening, closing = quotes[::2], quotes[1::2]
  before = text[np.maximum(opening - 1, 0)]
  is_start = (opening == 0) | (before == separator) | (before == LF)
  is_start[1:] |= opening[1:] == closing[: len(opening) - 1] + 1
  after = text[np.minimum(closing + 1, len(text) - 1)]
  is_end = (closing == len(text) - 1) | (after == separator)
  is_end |= (after == LF) | (after == CR) | (after == QUOTE)
  return not (is_start.all() and is_end.all())


def _loose(
  content: bytes,
  stream: BinaryIO,
  separator: str,
  place: Place,
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
    yield splitting.columns(text, starts, ends)


def _lines(content: bytes, stream: BinaryIO, place: Place) -> Iterator[str]:
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
