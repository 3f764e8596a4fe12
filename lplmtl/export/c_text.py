"""C99 source text: identifiers, numbers and arrays."""

import re
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

# Of C99 and C++, as a header serves both; `main`; and macros, in lower case.
_RESERVED = frozenset(
  """
  alignas alignof and asm auto bitand bitor bool break case catch char class
  compl const constexpr continue decltype default delete do double else enum
  eof errno explicit export extern false float for friend goto if infinity
  inline int int32_t linux long main missing mutable namespace nan new noexcept
  not null nullptr operator or private protected public register restrict return
  short signed sizeof static stderr stdin stdout struct switch template this
  throw true try typedef typeid typename uint8_t union unix unsigned using
  virtual void volatile wchar_t while xor
  """.split()
)
TYPES = {
  'float32': 'float', 'int8': 'int8_t', 'int16': 'int16_t',
  'int32': 'int32_t', 'uint8': 'uint8_t', 'uint16': 'uint16_t',
  'bool': 'uint8_t',
}  # fmt: skip


def identifier(name: Any) -> str:
  """Returns a name that C accepts, like the one given.

  Example:
    >>> identifier('wage per hour'), identifier('2nd'), identifier('class')
    ('wage_per_hour', 'x2nd', 'class_')
  """
  text = re.sub(r'[^0-9A-Za-z_]', '_', str(name)).lstrip('_')
  if not text or text[0].isdigit():
    text = f'x{text}'
  return f'{text}_' if text.lower() in _RESERVED else text


def identifiers(names: Iterable[Any]) -> dict[Any, str]:
  """Returns a different identifier for each name.

  Example:
    >>> identifiers(['a b', 'a_b'])
    {'a b': 'a_b', 'a_b': 'a_b_2'}
  """
  found: dict[Any, str] = {}
  for name in names:
    base, count = identifier(name), 1
    text = base
    while text in found.values():
      count += 1
      text = f'{base}_{count}'
    found[name] = text
  return found


def number(value: Any, dtype: str) -> str:
  """Returns a literal of `float32`, `float64` or an integer type."""
  if dtype not in ('float32', 'float64'):
    return str(int(value))
  value = float(value)
  if not np.isfinite(value):
    return (
      'NAN' if np.isnan(value) else 'INFINITY' if value > 0 else '-INFINITY'
    )
  text = f'{value:.9g}' if dtype == 'float32' else repr(value)
  if not re.search(r'[.e]', text):
    text += '.0'
  return f'{text}f' if dtype == 'float32' else text


def unsigned(largest: int) -> str:
  """Returns the smallest type of whole numbers from 0 to the largest."""
  return next(f'uint{n}_t' for n in (8, 16, 32, 64) if largest < 2**n)


def string(text: str) -> str:
  r"""Returns a string literal of a text in UTF-8.

  Example:
    >>> string('Ø?') == r'"\303\230\?"'
    True
  """
  found = []
  for byte in text.encode('utf-8', 'surrogatepass'):
    character = chr(byte)
    if character in '"\\?':  # two question marks may begin a trigraph
      found.append(f'\\{character}')
    else:
      found.append(character if 32 <= byte < 127 else f'\\{byte:03o}')
  return f'"{"".join(found)}"'


def array(kind: str, name: str, items: Iterable[str], inner: str = '') -> str:
  """Returns the definition of a constant array.

  Args:
    kind: the type of the items.
    name: of the array.
    items: initialisers.
    inner: further sizes, such as `[2]`.
  """
  listed = list(items)
  body = textwrap.fill(
    ', '.join(listed),
    width=79,
    initial_indent='  ',
    subsequent_indent='  ',
    break_long_words=False,
    break_on_hyphens=False,
  )
  if any('"' in item for item in listed):  # blanks in strings must stay
    body = ',\n'.join(f'  {item}' for item in listed)
  return f'static const {kind} {name}[{len(listed)}]{inner} = {{\n{body}\n}};\n'


def numbers(name: str, data: np.ndarray) -> str:
  """Returns the definition of a constant array of numbers."""
  dtype = str(data.dtype)
  items = (number(value, dtype) for value in data.ravel())
  return array(TYPES[dtype], name, items)
