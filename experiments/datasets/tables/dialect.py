"""How a CSV file is written: encoding, separator, decimal point."""

import codecs
import csv
import io
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import BinaryIO, NamedTuple

from experiments.launcher.errors import InputError
from experiments.launcher.options import Config

SAMPLE = 2**18  # bytes from which the rest is guessed
_LINES = 100  # of the sample, that are split to compare separators
_SEPARATORS = ',;\t|'  # a blank or a colon is too often part of a value
# Marks at the beginning of a text, and its encoding; the longer ones first.
_MARKS = (
  (codecs.BOM_UTF8, 'utf-8-sig'),
  (codecs.BOM_UTF32_LE, 'utf-32'),
  (codecs.BOM_UTF32_BE, 'utf-32'),
  (codecs.BOM_UTF16_LE, 'utf-16'),
  (codecs.BOM_UTF16_BE, 'utf-16'),
)
_COMMA, _POINT = re.compile(r'-?\d+,\d+'), re.compile(r'-?\d+\.\d+')
_WHOLE_OR_COMMA = re.compile(r'(-?\d+(,\d+)?)?')
_THOUSANDS = re.compile(r'-?[1-9]\d{0,2},\d{3}')
_NAMES = {',': 'comma', ';': 'semicolon', '\t': 'tab', '|': 'bar', ' ': 'blank'}


class Dialect(NamedTuple):
  """How a CSV file is written.

  Attributes:
    encoding: of its text.
    separator: between fields.
    point: the decimal point.
  """

  encoding: str
  separator: str
  point: str = '.'

  def __str__(self) -> str:
    separator = _NAMES.get(self.separator, repr(self.separator))
    point = ', decimal comma' if self.point == ',' else ''
    return f'{separator}-separated, {self.encoding}{point}'


def find(sample: bytes, is_whole: bool, config: Config, file: str) -> Dialect:
  """Returns what the flags say, and otherwise guesses.

  Args:
    sample: the first bytes of the file.
    is_whole: whether there are no others.
    config: its `encoding`, `separator` and `decimal`, unless they are empty.
    file: what to call the file in messages.

  Raises:
    InputError: a flag has a value that cannot be used.
  """
  encoding = config.encoding or _encoding(sample, is_whole)
  try:
    if not codecs.lookup(encoding)._is_text_encoding:
      raise LookupError  # such as base64
    text = codecs.getincrementaldecoder(encoding)('replace').decode(sample)
  except (LookupError, ValueError) as error:
    raise InputError(
      f'--encoding={encoding}: no such encoding of text is known; examples are '
      'utf-8, utf-16, cp1252 and latin-1'
    ) from error
  separator = separator_of(config)
  if separator and (len(separator) > 1 or not separator.isascii()):
    raise InputError(
      f'--separator must be one ASCII character, or tab; found {separator!r}'
    )
  if separator and separator in '"\r\n\0':
    raise InputError(f'--separator cannot be {separator!r}')
  lines = text.splitlines(keepends=True)
  if not is_whole or len(lines) > _LINES:
    lines = lines[: min(_LINES, max(len(lines) - 1, 1))]
  separator = separator or max(
    _SEPARATORS, key=lambda one: _fitness(lines, one)
  )
  rows = _split(lines, separator)
  point = config.decimal or _point(rows, separator)
  # Only in quotes can one character be both.
  if point == separator and not any(map(_COMMA.fullmatch, _cells(rows))):
    raise InputError(
      f'--decimal={point} cannot be the separator of {file} as well: pass '
      '--separator'
    )
  return Dialect(encoding, separator, point)


def separator_of(config: Config) -> str:
  """Returns the separator that the flag gives; '' if there is none."""
  return config.separator.replace('tab', '\t').replace('\\t', '\t')


def _encoding(sample: bytes, is_whole: bool) -> str:
  for mark, encoding in _MARKS:
    if sample.startswith(mark):
      return encoding
  try:
    # A character may be cut off at the end of the sample.
    codecs.getincrementaldecoder('utf-8')().decode(sample, final=is_whole)
  except UnicodeDecodeError:
    return 'utf-8' if _is_spoiled_utf8(sample) else 'cp1252'
  return 'utf-8'


def _is_spoiled_utf8(sample: bytes) -> bool:
  """Returns whether a text that is no UTF-8 was meant to be.

  Otherwise it is cp1252, which spreadsheets write in the west. That lacks five
  bytes, and its letters seldom happen to be characters of UTF-8.
  """
  try:
    sample.decode('cp1252')
  except UnicodeDecodeError:
    return True
  good = sum(not char.isascii() for char in sample.decode('utf-8', 'ignore'))
  bad = sample.decode('utf-8', 'replace').count('\ufffd')
  return good > bad


def _split(lines: list[str], separator: str) -> list[list[str]]:
  try:
    reader = csv.reader(io.StringIO(''.join(lines)), delimiter=separator)
    return [row for row in reader if row]
  except csv.Error:
    return []


def _fitness(lines: list[str], separator: str) -> tuple[float, int]:
  """Returns how many rows are as long as the first, and how long that is."""
  counts = [len(row) for row in _split(lines, separator)]
  if not counts or counts[0] < 2:
    return 0.0, 0
  return counts.count(counts[0]) / len(counts), counts[0]


def _cells(rows: Iterable[Sequence[str]]) -> list[str]:
  return list(itertools.chain.from_iterable(rows))


def _point(rows: list[list[str]], separator: str) -> str:
  """Returns a comma if there are decimal commas and no decimal points.

  Commas of thousands (1,234) must not turn into decimal ones: those count only
  if some number cannot be written with the former. Between separating commas,
  they count in columns of nothing but numbers.
  """
  cells = _cells(rows)
  if any(map(_POINT.fullmatch, cells)):
    return '.'
  if separator == ',':  # the numbers have quotes, as lists such as 3,5 do
    columns = itertools.zip_longest(*rows[1:], fillvalue='')
    cells = _cells(x for x in columns if all(map(_WHOLE_OR_COMMA.fullmatch, x)))
  commas = [cell for cell in cells if _COMMA.fullmatch(cell)]
  return '.' if all(map(_THOUSANDS.fullmatch, commas)) else ','


class Decoded:
  """A stream of UTF-8, whatever the encoding of the bytes beneath."""

  def __init__(self, head: bytes, stream: BinaryIO, encoding: str, name: str):
    self._head, self._stream, self._name = head, stream, name
    self._encoding, self._line = encoding, 1
    is_utf8 = codecs.lookup(encoding).name == 'utf-8'
    self._decoder = (
      None if is_utf8 else codecs.getincrementaldecoder(encoding)()
    )

  def read(self, size: int) -> bytes:
    """Reads about `size` bytes; none only at the end."""
    found, self._head = self._head[:size], self._head[size:]
    found = found or self._stream.read(size)
    if self._decoder is None:
      return found
    try:
      text = self._decoder.decode(found, final=not found)
    except UnicodeDecodeError as error:
      line = self._line + error.object.count(b'\n', 0, error.start)
      raise InputError(
        f'{self._name}, line {line}: expected {self._encoding}, found byte '
        f'0x{error.object[error.start]:02x}: pass the right --encoding'
      ) from error
    self._line += text.count('\n')
    if found and not text:  # part of a character, or a mark at the beginning
      return self.read(size)
    return text.encode()
