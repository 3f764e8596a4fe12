"""Text of Census-Income (KDD) to columns.

Block by block: the first bad line ends it, however much comes after, and what
is needed beside the text are a block's strings and a code a field.
"""

import csv
import io
import re
from collections.abc import Mapping

import numpy as np

from experiments.launcher.errors import InputError
from lplmtl.tables import Factor

COLUMNS = tuple(
  """
  age class_worker det_ind_code det_occ_code education wage_per_hour hs_college
  marital_stat major_ind_code major_occ_code race hisp_origin sex union_member
  unemp_reason full_or_part_emp capital_gains capital_losses stock_dividends
  tax_filer_stat region_prev_res state_prev_res det_hh_fam_stat det_hh_summ
  instance_weight mig_chg_msa mig_chg_reg mig_move_reg mig_same
  mig_prev_sunbelt num_emp fam_under_18 country_father country_mother
  country_self citizenship own_or_self vet_question vet_benefits weeks_worked
  year income_50k
  """.split()
)
NUMERIC = (
  'age', 'wage_per_hour', 'capital_gains', 'capital_losses', 'stock_dividends',
  'num_emp', 'weeks_worked',
)  # fmt: skip
IGNORED = 'instance_weight'  # as the UCI notes ask
EDUCATION_BELOW = (
  'Children', 'Less than 1st grade', '1st 2nd 3rd or 4th grade',
  '5th or 6th grade', '7th and 8th grade', '9th grade', '10th grade',
  '11th grade', '12th grade no diploma', 'High school graduate',
  'Some college but no degree',
)  # fmt: skip
EDUCATION_DEGREE = (
  'Associates degree-occup /vocational', 'Associates degree-academic program',
  'Bachelors degree(BA AB BS)', 'Masters degree(MA MS MEng MEd MSW MBA)',
  'Prof school degree (MD DDS DVM LLB JD)', 'Doctorate degree(PhD EdD)',
)  # fmt: skip
NEVER_MARRIED = 'Never married'
MARRIED = (
  'Married-civilian spouse present', 'Divorced', 'Widowed', 'Separated',
  'Married-spouse absent', 'Married-A F spouse present',
)  # fmt: skip
INCOME_BELOW, INCOME_ABOVE = '- 50000.', '50000+.'
# The columns that labels are made of may hold these values and no others.
LABEL_VALUES = {
  'education': (*EDUCATION_BELOW, *EDUCATION_DEGREE),
  'marital_stat': (NEVER_MARRIED, *MARRIED),
  'income_50k': (INCOME_BELOW, INCOME_ABOVE),
}
# A decimal number in ASCII, as in the file; Python's own float() takes more.
NUMBER = re.compile(r'[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?', re.ASCII)

BLOCK = 2 * 2**20  # bytes that are looked at in one go
MAX_LINE = 4096  # bytes: the longest official line has 628
MAX_VALUES = 2**16  # different ones of a column: officially fewer than 2,000
MAX_TEXT = 2**28  # bytes that the different values take, all of one width

Table = Mapping[str, Factor]


def parse(content: bytes, name: str) -> Table:
  """Parses rows of 42 fields, separated by commas, without quoting.

  Args:
    content: ASCII text; lines end in LF or CRLF. Spaces before a field do not
      count, nor do empty lines at the end.
    name: what to call the file in messages.

  Returns:
    `{column: Factor}` for every column but the ignored one; the values of
    numeric columns are float64, all others strings.

  Raises:
    InputError: names file and line of the first bad row.
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
      f'{name}: expected short texts, found as long and as many different ones '
      f'as fill {width / 1e6:.0f} MB of memory'
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
  """Whole lines, or the start of one that is too long by far."""
  end = start + BLOCK
  if end < len(content):
    end = content.rfind(b'\n', start, end) + 1 or end
  return content[start:end]


def _check_structure(content: bytes) -> tuple[int, int, str]:
  """Lines from the start that are whole, their bytes, and what ends them."""
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

  # Below a space the difference wraps around, to more than that of a tilde.
  odd = np.flatnonzero((text - np.uint8(0x20) > 0x5E) & (text != 0x0A))
  if len(odd):  # a CR before an LF is a line's end
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
  """One column while it grows: a code for each row, and the different values.

  Attributes:
    code_of: `{value: code}`, in the order of appearance.
    blocks: codes of the rows, block by block.
  """

  def __init__(self) -> None:
    self.code_of: dict[str, int] = {}
    self.blocks: list[np.ndarray] = []

  def add(
    self, column: str, codes: np.ndarray, values: np.ndarray
  ) -> tuple[int, str] | None:
    """Adds rows, or gives the first bad one of them and what is wrong with it.

    Args:
      column: its name.
      codes: of each row.
      values: what the codes stand for, in the order of appearance.
    """
    for code, value in enumerate(values):
      wanted = '' if value in self.code_of else _wanted(column, value)
      known = self.code_of.setdefault(value, len(self.code_of))
      if known >= MAX_VALUES:
        wanted = wanted or f'at most {MAX_VALUES:,} different values'
      if wanted:
        shown = repr(value if len(value) <= 80 else f'{value[:80]}...')
        complaint = f'expected {wanted} in {column}, found {shown}'
        return int(np.argmax(codes == code)), complaint
    mapping = [self.code_of[value] for value in values]
    code_type = np.min_scalar_type(len(self.code_of))
    self.blocks.append(np.array(mapping, code_type)[codes])
    return None

  def width(self) -> int:
    """Bytes of an array of the values, where all are as wide as the longest."""
    return 4 * len(self.code_of) * max(map(len, self.code_of))

  def factor(self, *, is_number: bool) -> Factor:
    """The whole column, its values sorted as text."""
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
  """Adds rows that are well formed, unless a value is not.

  Args:
    columns: what they are added to.
    content: the rows.
    num_rows: how many.
    name: of the file.
    before: how many rows came before.
  """
  import pandas as pd  # 0.3 s, for nothing where the cache serves

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


def _wanted(column: str, value: str) -> str:
  """What a column should hold, where a value is not that."""
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
