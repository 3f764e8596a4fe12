"""What a command says of mistakes in a table, in words of files and flags."""

from typing import Any

from experiments.launcher.errors import InputError
from lplmtl.tables import RowError

# What a column of another kind than these could be read as.
_KINDS = ('numbers', 'dates', 'yes or no')


def of_row(
  error: RowError, file: str, row: int, is_new: bool = False
) -> InputError:
  """Returns what to say about a value that cannot be encoded.

  Args:
    error: about the value.
    file: what to call the table.
    row: its number in the table, counted from 0, as in predictions.
    is_new: whether the columns are known from training already.
  """
  advice = 'correct the row or leave it out'
  if error.complaint.startswith(tuple(f'must hold {k}' for k in _KINDS)):
    advice = f'correct this field or leave it empty; {_advice(error, is_new)}'
  return InputError(
    f'{file}, row {row} (counted from 0): {error.column} {error.complaint}: '
    f'{advice}'
  )


def _advice(error: RowError, is_new: bool) -> str:
  """Returns what to do if the whole column is written so."""
  if is_new:
    return 'if the whole column is so, write it as the training table does'
  name: Any = error.column
  others = f'--categories={name} reads the column as categories'
  if error.complaint.startswith('must hold dates'):
    return f'"--dates={name}:%d/%m/%Y" gives another format, and {others}'
  return f'{others}, and --missing names texts without a value'
