"""Columns that are read with PyArrow are those that are read without it."""

import io
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from experiments.datasets.tables import blocks, reader, sources, values
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import columns as raw
from lplmtl.columns import Factor

pytest.importorskip('pyarrow')

CONFIG = Config(data='-', separator=',', decimal='.')
# Pieces of texts, among them whatever tells numbers from codes and rows from
# quoted line ends.
PIECES = (
  *'0123456789', *'+-.eE', '00', '-0', '1e5', 'e+05', '12345678', '.5', '5.',
  'inf', 'nan', 'NA', 'x', 'ä', ' ', '\t', '/', '_', ':', '1,5', 'x"y', '""',
  '\ufeff', '1' * 15, '9' * 16, '0.1234567890123456', '2024-01-31',
)  # fmt: skip
CELLS = st.one_of(
  st.sampled_from(['', 'NA', '7', '2.50', '-3', 'blue', 'two\nlines']),
  st.sampled_from(['-007', '+7', '7 ', '\ufeff7', '7\r', '7\r8', '\r\n']),
  st.integers(-(10**16), 10**16).map(str),
  st.floats(allow_infinity=False).map(repr),
  st.lists(st.sampled_from(PIECES), max_size=3).map(''.join),
)


@st.composite
def tables(draw):
  """CSV files, good ones and bad ones."""
  num_columns = draw(st.integers(1, 4))
  # Few different cells, so that there are columns of numbers.
  cells = [
    draw(st.lists(CELLS, min_size=1, max_size=4)) for _ in range(num_columns)
  ]
  end = draw(st.sampled_from(['\n', '\r\n', '\n\n']))
  quotes = draw(st.sampled_from(['never', 'always', 'where needed']))
  lines = [','.join('abcd'[:num_columns])]
  for _ in range(draw(st.integers(0, 20))):
    row = [draw(st.sampled_from(some)) for some in cells]
    lines.append(','.join(_quoted(cell, quotes) for cell in row))
  text = end.join(lines) + draw(st.sampled_from(['', end, '\r', '"', ',']))
  content = text.encode()
  if draw(st.booleans()):  # one byte is something else
    at = draw(st.integers(0, len(content) - 1))
    byte = draw(
      st.sampled_from([b'', b'"', b'\n', b'\r', b'\0', b',', b'\xff'])
    )
    content = content[:at] + byte + content[at + 1 :]
  return content


def _quoted(cell, when):
  needs = any(mark in cell for mark in ',"\n\r')
  if when == 'always' or (when == 'where needed' and needs):
    return '"' + cell.replace('"', '""') + '"'
  return cell


def _outcome(content):
  """Returns all that can be seen of a table, or the complaint."""
  try:
    table = _read(content)
  except InputError as error:
    return str(error)
  return table.facts, {
    name: _cells(column) for name, column in table.columns.items()
  }


def _cells(column):
  if not isinstance(column, Factor):
    return [column.dtype, *map(repr, column.tolist())]
  return list(map(raw.text_of, column.values[column.codes]))


def _read(content):
  stdin = io.TextIOWrapper(io.BytesIO(content))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('sys.stdin', stdin)
    return reader.read(CONFIG, ['NA'])


# PyArrow would find two rows.
@hypothesis.example(b'a\n7\r8\n', 200, 2, 4)
@hypothesis.given(
  tables(),
  st.integers(8, 200),
  st.sampled_from([2, 1000]),
  st.sampled_from([0.1, 4]),  # the former looks all columns up
)
@hypothesis.settings(deadline=None, max_examples=300)
def test_both_ways_read_the_same(content, block, many, shared):
  quick_reader = sources.with_pyarrow('quick')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(blocks, 'BLOCK', block)
    patch.setattr(quick_reader, '_SHARED', shared)
    patch.setattr(values, '_MANY', many)
    quick = _outcome(content)
    patch.setattr(reader, '_quick', lambda: None)
    assert quick == _outcome(content)


def test_numbers_beside_missing_texts_are_parsed_at_once(quick):
  (column,) = quick.Splitter()(b'4\nNA\n-1.5\n""\n', ',', 1)
  found, are_numbers = column.numbers('.', ('', 'NA'))
  np.testing.assert_array_equal(found, [4, np.nan, -1.5, np.nan])
  assert are_numbers.all()
  assert not column.numbers('.', ('',))[1][1]


def test_fields_that_repeat_are_looked_up_while_they_are_split(quick):
  splitter = quick.Splitter()
  first = splitter(b'a,b\n' + b'1,x\n,y\n' * 9 + b'2,z\n3,"w"\n', ',', 0)
  assert [column.is_coded for column in first] == [False, False]
  rows = b'7,x\n,y\n7,x\n'
  columns = splitter.after([column.skip(1) for column in first])(rows, ',', 2)
  assert [column.is_coded for column in columns] == [True, True]
  assert [len(column.distinct()[1]) for column in columns] == [2, 2]
  for coded, plain in zip(columns, splitter(rows, ',', 2), strict=True):
    assert len(coded) == 3 and coded.longest() == plain.longest()
    assert coded.texts() == plain.texts()
    assert coded.skip(2).texts() == plain.skip(2).texts()
    codes, fields = coded.distinct()
    assert [fields.texts()[code] for code in codes] == plain.texts()
    assert coded.as_bytes().texts() == plain.texts()
    for ours, theirs in zip(
      coded.numbers('.', ('',)), plain.numbers('.', ('',)), strict=True
    ):
      np.testing.assert_array_equal(ours, theirs)
  others = splitter.after(splitter(b'1,x\n1,y\n1,z\n1,w\n1,x\n', ',', 2))
  assert [c.is_coded for c in others(rows, ',', 2)] == [True, False]


def test_reading_imports_no_pandas():
  """It takes 0.4 s and 40 MB, and PyArrow imports it for next to nothing."""
  code = """
import sys
from experiments.datasets.tables import quick
for column in quick.Splitter()(b'a,b\\n,NA\\n2,c\\n', ',', 2):
  rows = column.skip(1)
  rows.numbers('.', ('', 'NA')), rows.distinct()[1].texts()
assert rows.distinct()[0].tolist() == [0, 1]
print('pyarrow' in sys.modules, 'pandas' in sys.modules)
"""
  found = subprocess.check_output([sys.executable, '-c', code], text=True)
  assert found.split() == ['True', 'False']


@pytest.fixture
def quick():
  return sources.with_pyarrow('quick')
