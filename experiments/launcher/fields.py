"""Kinds of fields of a Config: how each is checked, and which flag fills it.

A dataclass declares a field once, for example

    epochs: int = fields.integer(12, 1, 1_000_000, 'passes over the rows.')

and the default, the flag, its help and its bounds all follow from that line.
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags

from experiments.launcher import parsing
from experiments.launcher.errors import InputError
from experiments.launcher.parsing import Numbers, Widths

_LARGEST = 1e9  # of any number: far above what is useful, far below overflow


# A field's name, then values of it, or names of fields or arguments.
Choices = tuple[()] | tuple[str, *tuple[str | int, ...]]


class Setting(NamedTuple):
  """What is known about a field besides its name, type and default.

  Attributes:
    help: of its flag.
    define: defines its flag; takes `name`, `default` and `help`.
    check: `(name, value) -> value`; returns the value in the form in which it
      is stored, and raises InputError for one that the field may not hold.
    parse: from the flag's value to the field's.
    show: the inverse of `parse`.
    taken_by: the field whose choice decides whether this one has any effect,
      and the choices for which it does. An architecture or a balancer is not
      listed by name but by fields or arguments, at least one of which it must
      have. Empty if this field always has an effect.
  """

  help: str
  define: Callable[..., Any]
  check: Callable[[str, object], object]
  parse: Callable[[Any], Any] = lambda value: value
  show: Callable[[Any], Any] = lambda value: value
  taken_by: Choices = ()


def integer(
  default: int,
  low: int,
  high: int,
  help: str,
  *,
  taken_by: Choices = (),
) -> Any:
  """A whole number, bounded so that nothing overflows, hangs or aborts."""
  return _field(
    default,
    help=help,
    define=functools.partial(
      flags.DEFINE_integer, lower_bound=low, upper_bound=high
    ),
    check=functools.partial(_check_integer, low, high),
    taken_by=taken_by,
  )


def real(
  default: float | None,
  help: str,
  *,
  high: float = _LARGEST,
  taken_by: Choices = (),
) -> Any:
  """A finite number from 0 to `high`."""
  return _field(
    default,
    help=help,
    define=functools.partial(
      flags.DEFINE_float, lower_bound=0.0, upper_bound=high
    ),
    check=functools.partial(_check_real, high),
    taken_by=taken_by,
  )


def boolean(default: bool, help: str) -> Any:
  """True or False."""
  return _field(
    default, help=help, define=flags.DEFINE_boolean, check=_check_boolean
  )


def text(default: str, help: str, *, taken_by: Choices = ()) -> Any:
  """Any text."""
  return _field(
    default,
    help=help,
    define=flags.DEFINE_string,
    check=_check_text,
    taken_by=taken_by,
  )


def choice(
  default: str | None,
  choices: Sequence[str],
  help: str,
  *,
  taken_by: Choices = (),
) -> Any:
  """One of a few texts."""
  return _field(
    default,
    help=help,
    define=functools.partial(flags.DEFINE_enum, enum_values=[*choices]),
    check=functools.partial(_check_choice, choices),
    taken_by=taken_by,
  )


def path(default: str | None, help: str, *, taken_by: Choices = ()) -> Any:
  """The path of a file or folder, in which `~` is the home folder."""
  return _field(
    default,
    help=help,
    define=flags.DEFINE_string,
    check=parsing.expanded,
    taken_by=taken_by,
  )


def names(
  default: Sequence[str],
  help: str,
  *,
  choices: Sequence[str] | None = None,
  taken_by: Choices = (),
) -> Any:
  """Several texts, separated by commas; any texts if there are no choices."""
  return _field(
    tuple(default),
    help=help,
    define=flags.DEFINE_list,
    check=functools.partial(_check_names, choices),
    show=list,
    taken_by=taken_by,
  )


def reals(help: str, *, taken_by: Choices = ()) -> Any:
  """Finite numbers, separated by commas; none by default."""
  return _field(
    (),
    help=help,
    define=flags.DEFINE_list,
    check=_check_reals,
    parse=parsing.parse_numbers,
    show=list,
    taken_by=taken_by,
  )


def widths(
  default: Widths,
  help: str,
  *,
  taken_by: Choices = (),
) -> Any:
  """Units per layer, joined by x; empty for no layers."""
  return _field(
    default,
    help=help,
    define=flags.DEFINE_string,
    check=_check_widths,
    parse=parsing.parse_widths,
    show=parsing.widths_text,
    taken_by=taken_by,
  )


def levels(
  default: tuple[Widths, ...],
  help: str,
  *,
  taken_by: Choices = (),
) -> Any:
  """Widths per level, separated by commas."""
  return _field(
    default,
    help=help,
    define=flags.DEFINE_string,
    check=_check_levels,
    parse=parsing.parse_levels,
    show=parsing.levels_text,
    taken_by=taken_by,
  )


def _field(default: Any, **setting: Any) -> Any:
  return dataclasses.field(
    default=default, metadata={'setting': Setting(**setting)}
  )


def of(config: Any) -> dict[str, Setting]:
  """Returns the Setting of each field, for a class that declares them."""
  return {f.name: f.metadata['setting'] for f in dataclasses.fields(config)}


def _wrong(name: str, expected: str, value: object) -> InputError:
  return InputError(f'{name} must be {expected}, found {value!r:.50}')


def _check_integer(low: int, high: int, name: str, value: object) -> int:
  if type(value) is int and low <= value <= high:  # a bool is not a number
    return value
  raise _wrong(name, f'a whole number from {low} to {high:,}', value)


def _check_real(high: float, name: str, value: object) -> object:
  if isinstance(value, numbers.Real) and not isinstance(value, bool):
    if not value < 0 and value <= high:  # the latter refuses NaN
      return value
  elif hasattr(value, 'dtype'):
    return value  # traced, in a population of settings: its value is unknown
  raise _wrong(name, f'a finite number from 0 to {high:,.12g}', value)


def _check_boolean(name: str, value: object) -> bool:
  if not isinstance(value, bool):
    raise _wrong(name, 'True or False', value)
  return value


def _check_text(name: str, value: object) -> str:
  if not isinstance(value, str):
    raise _wrong(name, 'text', value)
  return value


def _check_choice(choices: Sequence[str], name: str, value: Any) -> str:
  if value not in choices:
    raise _wrong(name, f'one of {", ".join(choices)}', value)
  return value


def _check_names(
  choices: Sequence[str] | None, name: str, value: object
) -> tuple[str, ...]:
  if not isinstance(value, list | tuple) or not all(
    isinstance(part, str) for part in value
  ):
    raise _wrong(name, 'a tuple of names', value)
  if choices is not None and not set(value) <= set(choices):
    raise _wrong(name, f'any of {", ".join(choices)}', value)
  return tuple(value)


def _check_reals(name: str, value: object) -> Numbers:
  if not isinstance(value, list | tuple) or not all(
    isinstance(part, numbers.Real) and math.isfinite(part) for part in value
  ):
    raise _wrong(name, 'a tuple of finite numbers', value)
  return tuple(value)


def _check_widths(name: str, value: object) -> Widths:
  if not isinstance(value, list | tuple) or not all(
    type(units) is int and units > 0 for units in value
  ):
    raise _wrong(name, 'a tuple of layer widths such as (128, 64)', value)
  parsing.check_widths(tuple(value))
  return tuple(value)


def _check_levels(name: str, value: object) -> tuple[Widths, ...]:
  if not isinstance(value, list | tuple) or not value or not all(value):
    raise _wrong(name, 'a tuple of widths such as ((128, 64), (64,))', value)
  checked = tuple(_check_widths(name, level) for level in value)
  parsing.check_widths(*checked)
  return checked
