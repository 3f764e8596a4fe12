"""Checks of the fields of a schema, as a file or a user may give them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lplmtl.tabular import hints

# What to call a type in a message.
_TYPES = {
  bool: 'true or false',
  int: 'a whole number',
  str: 'a text',
  tuple: 'a list',
}


def check_names(what: str, fields: Any, cls: Any, first: str = 'kind') -> None:
  """Raises ValueError unless `fields` are some of those of a dataclass.

  Args:
    what: what to call it in messages.
    fields: `{name: value}`, if it is as it should be.
    cls: the dataclass.
    first: the field that a message names as an example.
  """
  if not isinstance(fields, Mapping):
    raise ValueError(
      f'{what} must be an object with fields such as "{first}", found '
      f'{fields!r}'
    )
  known = [field.name for field in dataclasses.fields(cls)]
  for name in fields:
    if name not in known:
      raise ValueError(
        f'{what}: there is no field {name!r}{hints.nearest(name, known)}'
      )


def check_kind(what: str, kind: Any, kinds: tuple[str, ...]) -> None:
  """Raises ValueError for an unknown kind."""
  if kind not in kinds:
    raise ValueError(
      f'the kind of {what} must be one of {", ".join(kinds)}; found {kind!r}'
    )


def check_types(value: Any, **types: Any) -> None:
  """Raises ValueError if a field of `value` has another type, `name=type`."""
  for name, kind in types.items():
    found = getattr(value, name)
    # bool is a subclass of int, but True is no number.
    is_bool = isinstance(found, bool) and kind is not bool
    if not isinstance(found, kind) or is_bool:
      expected = _TYPES.get(kind, 'a number or null')
      raise ValueError(f'{name} must be {expected}, found {found!r}')


def check_texts(name: str, texts: Any) -> None:
  """Raises ValueError unless a field holds a list of texts."""
  is_list = isinstance(texts, list | tuple)
  if not is_list or not all(isinstance(text, str) for text in texts):
    raise ValueError(f'{name} must be a list of texts, found {texts!r}')
