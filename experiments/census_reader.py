"""Text of Census-Income (KDD) to columns, and the cache of parsed columns."""

import csv
import io
import json
import os
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.errors import InputError
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

Table = Mapping[str, Factor]


def parse(content: bytes, name: str) -> Table:
  """Parses rows of 42 fields, separated by commas, without quoting.

  Args:
    content: ASCII text; lines end in LF or CRLF. Spaces before a field do not
      count.
    name: what to call the file in messages.

  Returns:
    `{column: Factor}` for every column but the ignored one; the values of
    numeric columns are float64, all others strings.

  Raises:
    InputError: names file and line of the first bad row.
  """
  if not content:
    raise InputError(f'{name}: expected rows of 42 fields, found an empty file')
  good_lines, good_bytes, complaint = _check_structure(content)
  table: dict[str, Factor] = {}
  if good_lines:
    table = _read_csv(content[:good_bytes], good_lines)
    _check_values(table, name)
  if complaint:
    raise InputError(f'{name}, line {good_lines + 1}: {complaint}')
  return table


def _check_structure(content: bytes) -> tuple[int, int, str]:
  """Lines from the start that are whole, their bytes, and what ends them."""
  text = np.frombuffer(content, np.uint8)
  ends = np.flatnonzero(text == 0x0A)
  if content[-1] != 0x0A:
    ends = np.append(ends, len(text))
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

  good = min(first_odd, first_wrong)
  complaint = ''
  if good < len(ends):
    complaint = (
      f'expected printable ASCII, found byte 0x{text[odd[0]]:02x}'
      if first_odd == good
      else f'expected {len(COLUMNS)} fields separated by commas, found '
      f'{fields[good]}'
    )
  good_bytes = int(ends[good - 1]) + 1 if good else 0
  return good, good_bytes, complaint


def _read_csv(content: bytes, num_rows: int) -> dict[str, Factor]:
  import pandas as pd  # 0.3 s, for nothing where the cache serves

  kept = [column for column in COLUMNS if column != IGNORED]
  frame = pd.read_csv(
    io.BytesIO(content),
    header=None,
    names=list(COLUMNS),
    usecols=kept,
    dtype=object,  # 'category' reads 01 as the number 1 in pandas 3
    skipinitialspace=True,
    skip_blank_lines=False,
    na_filter=False,
    quoting=csv.QUOTE_NONE,
    engine='c',
  )
  assert len(frame) == num_rows  # checked line by line before
  table = {}
  for column in kept:
    codes, values = pd.factorize(frame[column].to_numpy(), sort=True)
    smallest = np.min_scalar_type(len(values))
    table[column] = Factor(
      codes.astype(smallest), np.asarray(values, dtype=np.str_)
    )
  return table


def _check_values(table: dict[str, Factor], name: str) -> None:
  """Turns numeric columns into numbers; stops at the first bad row."""
  errors = []
  for position, (column, factor) in enumerate(table.items()):
    if column in NUMERIC:
      good = np.array([_is_number(value) for value in factor.values], bool)
      wanted = 'a finite number'
    elif column in LABEL_VALUES:
      good = np.isin(factor.values, LABEL_VALUES[column])
      wanted = ' or '.join(map(repr, LABEL_VALUES[column]))
      if len(LABEL_VALUES[column]) > 2:
        wanted = 'one of the known values'
    else:
      continue
    if not good.all():
      row = int(np.argmax(~good[factor.codes]))
      value = str(factor.values[factor.codes[row]])
      errors.append(
        (row, position, f'expected {wanted} in {column}, found {value!r}')
      )
    elif column in NUMERIC:
      table[column] = Factor(factor.codes, factor.values.astype(np.float64))
  if errors:
    row, _, complaint = min(errors)
    raise InputError(f'{name}, line {row + 1}: {complaint}')


def _is_number(text: str) -> bool:
  return bool(NUMBER.fullmatch(text)) and abs(float(text)) < float('inf')


# The cache: one .npz a split, beside what its source looked like when read.

CACHE_VERSION = 1


def cached(
  cache_file: pathlib.Path, source: pathlib.Path
) -> tuple[Table, dict[str, Any]] | None:
  """Parsed columns of a source file that has not changed, and their facts."""
  try:
    with (
      cache_file.open('rb') as file,  # np.load leaks it where it fails
      np.load(file, allow_pickle=False) as arrays,
    ):
      facts = json.loads(str(arrays['facts']))
      if facts.pop('stamp') != _stamp(source):
        return None
      table = {
        column: Factor(arrays[f'{column}.codes'], arrays[f'{column}.values'])
        for column in facts.pop('columns')
      }
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None  # absent or damaged: read the source again
  return table, facts


def write_cache(
  cache_file: pathlib.Path,
  source: pathlib.Path,
  table: Table,
  facts: Mapping[str, Any],
) -> None:
  """Writes what `cached` reads, atomically.

  Raises:
    OSError: the folder cannot be written.
  """
  arrays = {
    f'{column}.{part}': array
    for column, factor in table.items()
    for part, array in factor._asdict().items()
  }
  described = {**facts, 'columns': list(table), 'stamp': _stamp(source)}
  cache_file.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.NamedTemporaryFile(
    dir=cache_file.parent, prefix='.cache-', delete=False
  ) as part:
    path = pathlib.Path(part.name)
    try:
      np.savez(part, facts=np.array(json.dumps(described)), **arrays)
      part.flush()
      os.fsync(part.fileno())
      path.replace(cache_file)
    finally:
      path.unlink(missing_ok=True)


def _stamp(source: pathlib.Path) -> list[Any]:
  stat = source.stat()
  return [CACHE_VERSION, str(source), stat.st_size, stat.st_mtime_ns]
