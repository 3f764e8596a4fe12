"""Parses the text of Census-Income (KDD) into columns.

Works block by block: the first bad line ends it, however much text follows, and
the memory needed besides the text is that of one block's strings and one code
per field.
"""

import csv
import io
import re
from collections.abc import Mapping

import numpy as np

from experiments.datasets.census.columns import (
  COLUMNS,
  IGNORED,
  LABEL_VALUES,
  NUMERIC,
)
from experiments.launcher.errors import InputError
from lplmtl.tables import Factor

# A decimal number in ASCII, as in the file; Python's own float() accepts more.
NUMBER = re.compile(r'[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?', re.ASCII)

# Bytes per block: large enough to hide NumPy's cost per call, small enough that
# a malformed file is refused before it fills the memory.
BLOCK = 2 * 2**20
MAX_LINE = 4096  # bytes; the longest official line has 628
MAX_VALUES = 2**16  # distinct values of a column; officially fewer than 2,000
# Bytes of the different texts of all columns; NumPy stores each column's at the
# width of its longest.
MAX_TEXT = 2**28
MAX_SHOWN = 80  # characters of a bad value in a message

Table = Mapping[str, Factor]


def parse(content: bytes, name: str) -> Table:
  """Parses rows of 42 fields, separated by commas, without quoting.

  Args:
    content: ASCII text; lines end in LF or CRLF. Spaces before a field and
      empty lines at the end are ignored.
    name: what to call the file in messages.

  Returns:
    `{column: Factor}` for every column except the ignored one; the values of
    numeric columns are float64, those of the others strings.

  Raises:
    InputError: a row is malformed; the message names the file and the line of
      the first one.
  """
  columns = {column: _Values() for column in COLUMNS if column != IGNORED}
  num_rows = start = 0
  while start < len(content):
    block = _block(content, start)
    good_lines, good_bytes, complaint = _check_structure(block)
    if good_lines:
      _add(columns, block[:good_bytes], good_lines, name, num_rows)
    num_rows += good_lines
    start += good_bytes
    if complaint and _only_empty_lines(content, start):
      break
    if complaint:
      raise InputError(f'{name}, line {num_rows + 1}: {complaint}')
  if not num_rows:
    raise InputError(f'{name}: expected rows of 42 fields, found an empty file')
  width = sum(
    values.width() for c, values in columns.items() if c not in NUMERIC
  )
  if width > MAX_TEXT:
    raise InputError(
      f'{name}: expected short texts, found so many distinct long ones that '
      f'they take {width / 1e6:.0f} MB of memory'
    )
  return {
    column: values.factor(is_number=column in NUMERIC)
    for column, values in columns.items()
  }


def _only_empty_lines(content: bytes, start: int) -> bool:
  for at in range(start, len(content), BLOCK):
    if content[at : at + BLOCK].strip(b'\r\n'):
      return False
  return content.count(b'\r', start) == content.count(b'\r\n', start)


def _block(content: bytes, start: int) -> bytes:
  """Returns whole lines from `start`, or part of one longer than BLOCK."""
  end = start + BLOCK
  if end < len(content):
    end = content.rfind(b'\n', start, end) + 1 or end
  return content[start:end]


def _check_structure(content: bytes) -> tuple[int, int, str]:
  """Counts the well-formed lines at the start.

  Returns:
    Their number, their bytes, and what is wrong with the line after them; empty
    if all are well formed.
  """
  text = np.frombuffer(content, np.uint8)
  ends = np.flatnonzero(text == 0x0A)
  if content[-1] != 0x0A:
    ends = np.append(ends, len(text))
  lengths = np.diff(ends, prepend=-1) - 1
  long = np.flatnonzero(lengths > MAX_LINE)
  first_long = int(long[0]) if len(long) else len(ends)
  commas = np.searchsorted(np.flatnonzero(text == 0x2C), ends)
  fields = np.diff(commas, prepend=0) + 1
  wrong = np.flatnonzero(fields != len(COLUMNS))
  first_wrong = int(wrong[0]) if len(wrong) else len(ends)

  # Printable ASCII runs from the space to the tilde. Below the space, the
  # unsigned difference wraps around and exceeds that of the tilde, 0x5E.
  odd = np.flatnonzero((text - np.uint8(0x20) > 0x5E) & (text != 0x0A))
  if len(odd):  # a CR before an LF ends a line
    is_crlf = (text[odd] == 0x0D) & (
      text[np.minimum(odd + 1, len(text) - 1)] == 0x0A
    )
    odd = odd[~is_crlf]
  first_odd = int(np.searchsorted(ends, odd[0])) if len(odd) else len(ends)

  good = min(first_odd, first_wrong, first_long)
  complaint = ''
  if good < len(ends):
    if first_long == good:
      complaint = f'expected at most {MAX_LINE} bytes, found {lengths[good]}'
    elif first_odd == good:
      complaint = f'expected printable ASCII, found byte 0x{text[odd[0]]:02x}'
    else:
      complaint = (
        f'expected {len(COLUMNS)} fields separated by commas, found '
        f'{fields[good]}'
      )
  good_bytes = int(ends[good - 1]) + 1 if good else 0
  return good, good_bytes, complaint


class _Values:
  """One column as it grows: a code per row, and the distinct values.

  Attributes:
    code_of: `{value: code}`, in order of appearance.
    blocks: codes of the rows, block by block.
  """

  def __init__(self) -> None:
    self.code_of: dict[str, int] = {}
    self.blocks: list[np.ndarray] = []

  def add(
    self, column: str, codes: np.ndarray, values: np.ndarray
  ) -> tuple[int, str] | None:
    """Adds rows.

    Args:
      column: its name.
      codes: one per row.
      values: what the codes stand for, in order of appearance.

    Returns:
      The first bad row and what is wrong with it, if there is one.
    """
    for code, value in enumerate(values):
      expected = '' if value in self.code_of else _expected(column, value)
      known = self.code_of.setdefault(value, len(self.code_of))
      if known >= MAX_VALUES:
        expected = expected or f'at most {MAX_VALUES:,} different values'
      if expected:
        is_long = len(value) > MAX_SHOWN
        shown = f'{value[:MAX_SHOWN]}...' if is_long else value
        complaint = f'expected {expected} in {column}, found {shown!r}'
        return int(np.argmax(codes == code)), complaint
    mapping = [self.code_of[value] for value in values]
    code_type = np.min_scalar_type(len(self.code_of))
    self.blocks.append(np.array(mapping, code_type)[codes])
    return None

  def width(self) -> int:
    """Returns the bytes of an array of the values, as wide as the longest."""
    # NumPy stores 4 bytes per character.
    return 4 * len(self.code_of) * max(map(len, self.code_of))

  def factor(self, *, is_number: bool) -> Factor:
    """Returns the whole column, its values sorted as text."""
    values = sorted(self.code_of)
    ranks = np.empty(len(values), np.min_scalar_type(len(values)))
    ranks[[self.code_of[value] for value in values]] = np.arange(len(values))
    codes = ranks[np.concatenate(self.blocks)]
    if is_number:
      return Factor(codes, np.array([float(value) for value in values]))
    return Factor(codes, np.array(values, np.str_))


def _add(
  columns: Mapping[str, _Values],
  content: bytes,
  num_rows: int,
  name: str,
  before: int,
) -> None:
  """Adds rows with the right number of fields.

  Args:
    columns: to add to.
    content: the rows.
    num_rows: how many there are.
    name: of the file.
    before: how many rows came before.

  Raises:
    InputError: a value is not one that its column may hold.
  """
  import pandas as pd  # takes 0.3 s, wasted if the cache has the columns

  frame = pd.read_csv(
    io.BytesIO(content),
    header=None,
    names=list(COLUMNS),
    usecols=list(columns),
    dtype=object,  # 'category' reads 01 as the number 1 in pandas 3
    skipinitialspace=True,
    skip_blank_lines=False,
    na_filter=False,
    quoting=csv.QUOTE_NONE,
    engine='c',
  )
  assert len(frame) == num_rows  # checked line by line before
  errors = []
  for position, (column, known) in enumerate(columns.items()):
    bad = known.add(column, *pd.factorize(frame[column].to_numpy()))
    if bad:
      row, complaint = bad
      errors.append((row, position, complaint))
  if errors:
    row, _, complaint = min(errors)
    raise InputError(f'{name}, line {before + row + 1}: {complaint}')


def _expected(column: str, value: str) -> str:
  """Returns what a column may hold unless the value is that; empty if it is."""
  if column in NUMERIC:
    return '' if _is_number(value) else 'a finite number'
  known = LABEL_VALUES.get(column)
  if not known or value in known:
    return ''
  if len(known) > 2:
    return 'one of the known values'
  return ' or '.join(map(repr, known))


def _is_number(text: str) -> bool:
  return bool(NUMBER.fullmatch(text)) and abs(float(text)) < float('inf')
