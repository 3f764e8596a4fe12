"""Raw rows as a struct in C99."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lplmtl.export import c_text
from lplmtl.export.nodes import Node
from lplmtl.export.reader import canonical, number_of

MISSING = -(2**31)  # a missing whole number
WHOLE = re.compile(r'0|-?[1-9]\d{0,8}')


class Field(NamedTuple):
  """A member of the struct.

  Attributes:
    column: name of the raw column.
    member: its identifier.
    kind: `text`, `integer` (categories that are all whole numbers), `number` or
      `date`.
    missing: texts that stand for a missing value.
    format: of a date, see `dates.Date`.
  """

  column: Any
  member: str
  kind: str
  missing: tuple[str, ...] = ()
  format: str = ''

  @property
  def declaration(self) -> str:
    """Declares the member."""
    types = {'integer': 'int32_t ', 'number': 'double '}
    return f'{types.get(self.kind, "const char *")}{self.member};'

  @property
  def note(self) -> str:
    """What the member is."""
    if self.kind != 'date':
      return repr(self.column)
    return f'{self.column!r}: a date, {self.format or "as ISO 8601 has it"}'

  def literal(self, value: Any) -> str:
    """Returns a raw value as an initialiser."""
    if self.kind in ('text', 'date'):
      return '0' if value is None else c_text.string(str(value))
    if self.kind == 'number':
      return c_text.number(number_of(value, self.missing), 'float64')
    text = canonical(str(value))
    is_missing = text == 'nan' or text in self.missing
    if not is_missing and not WHOLE.fullmatch(text):
      raise ValueError(
        f'column {self.column!r} holds whole numbers on a device, of at most '
        f'nine digits; found {text!r}'
      )
    return 'MISSING' if is_missing else text


class Array(NamedTuple):
  """A member of the struct of a model without tables: an input.

  Attributes:
    column: name of the input; empty if it is the only one.
    member: its identifier.
    shape: for one row, without an axis of rows.
    dtype: as in `c_text.TYPES`.
  """

  column: str
  member: str
  shape: tuple[int, ...]
  dtype: str

  @property
  def declaration(self) -> str:
    """Declares the member."""
    size = max(math.prod(self.shape), 1)  # C has no empty arrays
    return f'{c_text.TYPES[self.dtype]} {self.member}[{size}];'

  @property
  def note(self) -> str:
    """What the member is."""
    return f'{list(self.shape)}'

  def literal(self, value: Any) -> str:
    """Returns the array of a row as an initialiser."""
    numbers = (c_text.number(x, self.dtype) for x in np.ravel(value))
    return f'{{{", ".join(numbers) or "0"}}}'


def arrays(inputs: Mapping[str, Node]) -> list[Array]:
  """Returns the members of a row of arrays.

  Args:
    inputs: of a program.
  """
  members = c_text.identifiers(name or 'x' for name in inputs)
  return [
    Array(name, members[name or 'x'], x.shape[1:], x.dtype)
    for name, x in inputs.items()
  ]


def fields(encoding: Mapping[str, Any]) -> list[Field]:
  """Returns the members of a row: categories, numbers, dates.

  Args:
    encoding: from `rows.to_data`.
  """
  missing = tuple(encoding['missing'])
  kinds = {c['name']: _kind(c, missing) for c in encoding['categories']}
  kinds |= {c['name']: 'text' for c in encoding['hashed']}
  numbers = [c['name'] for c in encoding['numbers'] if 'part' not in c]
  dates = {date['name']: date['format'] for date in encoding['dates']}
  # A column may be several of them.
  wanted = [
    *((n, kind, 'category', n in numbers) for n, kind in kinds.items()),
    *((name, 'number', 'number', False) for name in numbers),
    *((n, 'date', 'date', n in kinds or n in numbers) for n in dates),
  ]
  labels = [
    f'{name}_{word}' if is_twice else name for name, _, word, is_twice in wanted
  ]
  members = c_text.identifiers(labels)
  return [
    Field(name, members[label], kind, missing, dates.get(name, ''))
    for (name, kind, _, _), label in zip(wanted, labels, strict=True)
  ]


def _kind(category: Mapping[str, Any], missing: tuple[str, ...]) -> str:
  texts = [t for t in category['ids'] if t != 'nan' and t not in missing]
  is_whole = texts and all(WHOLE.fullmatch(text) for text in texts)
  return 'integer' if is_whole else 'text'
