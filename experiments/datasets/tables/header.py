"""The first row of a CSV file: the names of its columns, or not."""

from collections.abc import Sequence

from experiments.launcher.errors import InputError
from lplmtl.tabular import hints


def names_of(header: Sequence[str], file: str) -> list[str]:
  """Returns the names of the columns; raises InputError for what is none."""
  if any('\r' in name.replace('\r\n', '') for name in header):
    raise InputError(
      f'{file}, line 1: found a carriage return inside a line: if lines end '
      'with carriage returns only (old Macintosh), convert the line ends'
    )
  names = [name or f'Unnamed: {i}' for i, name in enumerate(header)]
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise InputError(
      f'{file}, line 1: column names must differ, found {hints.listed(twice)} '
      'more than once: rename or remove the copies, or pass --column_names if '
      'the file has no header'
    )
  if all(_is_number(name) for name in header):
    raise InputError(
      f'{file}, line 1: expected names of columns, found numbers only: pass '
      '--column_names if the file has no header'
    )
  return names


def check_names(names: Sequence[str], first: Sequence[str], file: str) -> None:
  """Raises InputError for --column_names that do not fit the first row."""
  if len(names) > len(set(names)):
    raise InputError('--column_names must differ, found one twice')
  if len(names) != len(first):
    raise InputError(
      f'{file}: --column_names gives {len(names)} names, and rows have '
      f'{len(first)} fields: name each column, or pass the right --separator'
    )
  if [*names] == [*first]:
    raise InputError(
      f'{file}: its first line holds these names already: leave out '
      '--column_names'
    )


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True
